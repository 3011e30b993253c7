// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A link that shows every frame that crosses another link to somebody: a capture file, a trace.
 *
 * @module
 */
import type { Arena } from "../sys/arena.ts";
import type { Message } from "../sys/message.ts";
import type { Link, LinkWatcher } from "./link.ts";

/** Somebody who wants to see frames. */
export interface Observer {
  /**
   * A frame was received or is about to be sent.
   *
   * @param off offset of the Ethernet header in `arena`
   * @param csumStart as in {@linkcode Link.send}; 0: its checksum is complete
   */
  frame(
    fromGuest: boolean,
    arena: Arena,
    off: number,
    length: number,
    csumStart: number,
    csumOffset: number,
  ): void;
  /** No more frames will come. */
  close(): void;
}

/** Shows what crosses `inner` to an observer. */
export class ObservedLink implements Link {
  readonly arena: Arena;
  readonly rxOffset: Int32Array;
  readonly rxLength: Int32Array;
  readonly rxGsoSize: Int32Array;
  readonly rxCsumStart: Int32Array;
  readonly rxCsumOffset: Int32Array;
  readonly txOffset: Int32Array;
  readonly #inner: Link;
  readonly #observer: Observer;

  constructor(inner: Link, observer: Observer) {
    this.#inner = inner;
    this.#observer = observer;
    this.arena = inner.arena;
    this.rxOffset = inner.rxOffset;
    this.rxLength = inner.rxLength;
    this.rxGsoSize = inner.rxGsoSize;
    this.rxCsumStart = inner.rxCsumStart;
    this.rxCsumOffset = inner.rxCsumOffset;
    this.txOffset = inner.txOffset;
  }

  get tso(): boolean {
    return this.#inner.tso;
  }

  get uso(): boolean {
    return this.#inner.uso;
  }

  get guests(): number {
    return this.#inner.guests;
  }

  get pending(): boolean {
    return this.#inner.pending;
  }

  get writable(): boolean {
    return this.#inner.writable;
  }

  watch(watcher: LinkWatcher): void {
    this.#inner.watch(watcher);
  }

  event(kind: number, events: number): boolean {
    return this.#inner.event(kind, events);
  }

  receive(max: number): number {
    const n = this.#inner.receive(max);
    const { arena, rxOffset, rxLength, rxCsumStart, rxCsumOffset } = this;
    for (let k = 0; k < n; k++) {
      this.#inner.fetch(rxOffset[k], rxLength[k]); // whoever looks on looks at all of it
      this.#observer.frame(
        true,
        arena,
        rxOffset[k],
        rxLength[k],
        rxCsumStart[k],
        rxCsumOffset[k],
      );
    }
    return n;
  }

  release(): void {
    this.#inner.release();
  }

  gather(message: Message, piece: number, off: number, length: number): number {
    return this.#inner.gather(message, piece, off, length);
  }

  fetch(off: number, length: number): void {
    this.#inner.fetch(off, length);
  }

  /** Frames to send are shown from where they are built: all of them is put there. */
  place(message: Message, piece: number, slot: number, headers: number, length: number): number {
    message.set(piece, this.arena, this.txOffset[slot] + headers, length);
    return 1;
  }

  send(
    slot: number,
    length: number,
    headerLength: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number {
    this.#observer.frame(false, this.arena, this.txOffset[slot], length, csumStart, csumOffset);
    return this.#inner.send(
      slot,
      length,
      headerLength,
      csumStart,
      csumOffset,
      gsoType,
      gsoSize,
    );
  }

  flush(): void {
    this.#inner.flush();
  }

  close(): void {
    this.#inner.close();
    this.#observer.close();
  }
}
