// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A hypervisor's end of a stream socket, which can do what a real one never would, and the smallest loop
 * that runs a link over it.
 *
 * @module
 */
import type { Link } from "../../lib/link/link.ts";
import { Epoll } from "../../lib/sys/epoll.ts";
import { libc } from "../../lib/sys/libc.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_WR } from "../../lib/sys/socket.ts";
import { connectUnix } from "../../lib/sys/unix_socket.ts";

/** Bytes of the length before each frame. */
export const LENGTH_SIZE = 4;
const READ_SIZE = 1 << 16;

/** The length and the frame. */
export function framed(frame: Uint8Array, length = frame.length): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(LENGTH_SIZE + frame.length);
  new DataView(bytes.buffer).setUint32(0, length);
  bytes.set(frame, LENGTH_SIZE);
  return bytes;
}

/** Several pieces as one. */
export function joined(...pieces: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(pieces.reduce((n, piece) => n + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** The hypervisor. */
export class FakeHypervisor {
  readonly fd: number;
  readonly #buffer = new Uint8Array(READ_SIZE);
  #received = new Uint8Array(0);
  /** Whether our end has been told that there is no more. */
  ended = false;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** Connects to a path. */
  static connect(path: string): FakeHypervisor {
    const fd = connectUnix(path);
    if (fd < 0) throw new Error(`connect ${path}: ${fd}`);
    return new FakeHypervisor(fd);
  }

  /** Sends bytes. @returns how many went out, or -1 */
  send(bytes: Uint8Array<ArrayBuffer>): number {
    return libc.send(this.fd, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  /** Reads at most so many bytes of what is there. @returns how many */
  read(most = Infinity): number {
    let total = 0;
    while (total < most) {
      const got = libc.recv(
        this.fd,
        this.#buffer,
        Math.min(READ_SIZE, most - total),
        MSG_DONTWAIT,
      );
      if (got === 0) this.ended = true;
      if (got <= 0) break;
      this.#received = joined(this.#received, this.#buffer.subarray(0, got));
      total += got;
    }
    return total;
  }

  /** Bytes read that are no whole frame yet. */
  get rest(): number {
    return this.#received.length;
  }

  /** The whole frames among what was read. */
  take(): Uint8Array<ArrayBuffer>[] {
    const frames: Uint8Array<ArrayBuffer>[] = [], view = new DataView(this.#received.buffer);
    let at = 0;
    while (at + LENGTH_SIZE <= this.#received.length) {
      const end = at + LENGTH_SIZE + view.getUint32(at);
      if (end > this.#received.length) break;
      frames.push(this.#received.slice(at + LENGTH_SIZE, end));
      at = end;
    }
    this.#received = this.#received.slice(at);
    return frames;
  }

  /** Sends no more, but reads on. */
  shutdown(): void {
    libc.shutdown(this.fd, SHUT_WR);
  }

  close(): void {
    libc.close(this.fd);
  }
}

/** Runs a link as the event loop does, and keeps what it receives. */
export class LinkRig {
  readonly link: Link;
  /** Frames received. */
  received: Uint8Array<ArrayBuffer>[] = [];
  /** Whether the link has said that it is gone. */
  gone = false;
  /** Events of the turns so far. */
  events = 0;
  readonly #epoll = new Epoll();

  constructor(link: Link) {
    this.link = link;
    link.watch({
      add: (fd, events, kind) => this.#epoll.add(fd, events, 1, kind),
      modify: (fd, events, kind) => this.#epoll.modify(fd, events, 1, kind),
      remove: (fd) => this.#epoll.remove(fd),
    });
  }

  /** One turn. @returns whether there was anything to do */
  turn(max = 64): boolean {
    const { link } = this, n = this.#epoll.wait(0);
    this.events += n;
    let frames = false;
    for (let k = 0; k < n; k++) {
      if (link.event(this.#epoll.data(k), this.#epoll.events(k))) frames = true;
    }
    const read = frames || link.pending;
    if (read) this.#read(link.receive(max));
    link.flush();
    return n > 0 || read;
  }

  #read(n: number): void {
    if (n < 0) this.gone = true;
    const { rxOffset, rxLength, arena } = this.link;
    for (let k = 0; k < n; k++) {
      this.received.push(arena.u8.slice(rxOffset[k]!, rxOffset[k]! + rxLength[k]!));
    }
    this.link.release();
  }

  /** Turns until there is nothing to do. @throws when that does not come */
  settle(): void {
    for (let left = 10_000; this.turn(); left--) if (left === 0) throw new Error("a busy loop");
  }

  /** The frames received since the last call. */
  take(): Uint8Array<ArrayBuffer>[] {
    const { received } = this;
    this.received = [];
    return received;
  }

  /** Writes a frame to a slot and sends it, complete unless told otherwise. */
  send(
    frame: Uint8Array,
    { slot = 0, csumStart = 0, csumOffset = 0, gsoType = 0, gsoSize = 0 } = {},
  ): number {
    this.link.arena.u8.set(frame, this.link.txOffset[slot]);
    return this.link.send(slot, frame.length, 0, csumStart, csumOffset, gsoType, gsoSize);
  }

  close(): void {
    this.link.close();
    this.#epoll.close();
  }
}
