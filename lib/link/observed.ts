// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A link that shows every frame that crosses another link to somebody: a capture file, a trace.
 *
 * @module
 */
import type { Arena } from "../sys/arena.ts";
import type { Link } from "./link.ts";

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
  readonly fd: number;
  readonly arena: Arena;
  readonly tso: boolean;
  readonly uso: boolean;
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
    this.fd = inner.fd;
    this.arena = inner.arena;
    this.tso = inner.tso;
    this.uso = inner.uso;
    this.rxOffset = inner.rxOffset;
    this.rxLength = inner.rxLength;
    this.rxGsoSize = inner.rxGsoSize;
    this.rxCsumStart = inner.rxCsumStart;
    this.rxCsumOffset = inner.rxCsumOffset;
    this.txOffset = inner.txOffset;
  }

  receive(max: number): number {
    const n = this.#inner.receive(max);
    const { arena, rxOffset, rxLength, rxCsumStart, rxCsumOffset } = this;
    for (let k = 0; k < n; k++) {
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

  close(): void {
    this.#inner.close();
    this.#observer.close();
  }
}
