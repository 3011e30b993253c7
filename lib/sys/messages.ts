// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Arrays of messages for sendmmsg(2), recvmmsg(2) and their single forms, prepared once.
 *
 * Theory of operation: headers, I/O vectors, socket addresses and control messages of one
 * {@linkcode Messages} lie in an arena, and every pointer is written when it is made. What changes per
 * call are the data's address and length, which cost two stores each. `views[k]` is the argument for
 * a call that starts at message `k`.
 *
 * @module
 */
import type { Arena } from "./arena.ts";

/** Offsets in `struct msghdr` (recvmsg(2)), 64-bit. */
export const MSGHDR = {
  NAME: 0,
  NAMELEN: 8,
  IOV: 16,
  IOVLEN: 24,
  CONTROL: 32,
  CONTROLLEN: 40,
  FLAGS: 48,
  SIZE: 56,
} as const;
/** `struct mmsghdr` (recvmmsg(2)): a msghdr, then the bytes transferred. */
export const MMSGHDR = { LEN: 56, SIZE: 64 } as const;
/** Offsets in `struct cmsghdr` (cmsg(3)). */
export const CMSGHDR = { LEN: 0, LEVEL: 8, TYPE: 12, SIZE: 16 } as const;
/** Offsets in `struct sock_extended_err` (linux/errqueue.h); the offender's address follows. */
export const EXTENDED_ERROR = {
  ERRNO: 0,
  ORIGIN: 4,
  TYPE: 5,
  CODE: 6,
  INFO: 8,
  DATA: 12,
  SIZE: 16,
} as const;
/** Bytes of `struct iovec`. */
const IOVEC_SIZE = 16;
const CMSG_ALIGN = 8;
const ADDRESS_ALIGN = 8;

/** Bytes a control message with `bytes` of data takes (CMSG_SPACE, cmsg(3)). */
export function cmsgSpace(bytes: number): number {
  return CMSGHDR.SIZE + Math.ceil(bytes / CMSG_ALIGN) * CMSG_ALIGN;
}

/** Writes the header of a control message at `at`. @returns offset of its data */
export function writeCmsg(
  arena: Arena,
  at: number,
  level: number,
  type: number,
  bytes: number,
): number {
  arena.set64(at + CMSGHDR.LEN, CMSGHDR.SIZE + bytes);
  arena.u32[(at + CMSGHDR.LEVEL) >> 2] = level;
  arena.u32[(at + CMSGHDR.TYPE) >> 2] = type;
  return at + CMSGHDR.SIZE;
}

/** Room that each message of a {@linkcode Messages} has beside its data. */
export interface MessageRoom {
  /** bytes of socket address */
  name?: number;
  /** bytes of control messages */
  control?: number;
}

/**
 * `count` messages of one I/O vector each.
 *
 * @example
 * ```ts
 * import { Arena } from "./arena.ts";
 * import { libc } from "./libc.ts";
 * import { Messages } from "./messages.ts";
 * import { AF_UNIX, SOCK_DGRAM } from "./socket.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const arena = new Arena(4096);
 * const [data, messages] = [arena.alloc(64), new Messages(arena, 2)];
 * arena.u8.set([1, 2, 3], data);
 * messages.setData(0, arena.address(data), 1);
 * messages.setData(1, arena.address(data + 1), 2);
 * const fds = new Int32Array(2);
 * libc.socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
 * assertEquals(libc.sendmmsg(fds[0], messages.views[0], 2, 0), 2);
 * assertEquals([messages.transferred(0), messages.transferred(1)], [1, 2]);
 * for (const fd of fds) libc.close(fd);
 * ```
 */
export class Messages {
  readonly arena: Arena;
  /** Number of messages. */
  readonly count: number;
  /** Memory from message `k`'s header on. */
  readonly views: readonly Uint8Array<ArrayBuffer>[];
  readonly #headers: number;
  readonly #vectors: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #nameSize: number;
  readonly #nameStep: number;
  readonly #controlSize: number;

  constructor(arena: Arena, count: number, room: MessageRoom = {}) {
    this.arena = arena;
    this.count = count;
    this.#nameSize = room.name ?? 0;
    this.#nameStep = Math.ceil(this.#nameSize / ADDRESS_ALIGN) * ADDRESS_ALIGN;
    this.#controlSize = room.control ?? 0;
    this.#headers = arena.alloc(count * MMSGHDR.SIZE);
    this.#vectors = arena.alloc(count * IOVEC_SIZE);
    this.#names = arena.alloc(count * this.#nameStep);
    this.#controls = arena.alloc(count * this.#controlSize);
    const views: Uint8Array<ArrayBuffer>[] = [];
    for (let k = 0; k < count; k++) {
      const at = this.#headers + k * MMSGHDR.SIZE;
      arena.set64(at + MSGHDR.IOV, arena.address(this.#vectors + k * IOVEC_SIZE));
      arena.set64(at + MSGHDR.IOVLEN, 1);
      if (this.#nameSize > 0) arena.set64(at + MSGHDR.NAME, arena.address(this.name(k)));
      if (this.#controlSize > 0) arena.set64(at + MSGHDR.CONTROL, arena.address(this.control(k)));
      this.reset(k);
      views.push(arena.view(at, (count - k) * MMSGHDR.SIZE));
    }
    this.views = views;
  }

  /** Offset of the socket address of message `k`. */
  name(k: number): number {
    return this.#names + k * this.#nameStep;
  }

  /** Offset of the control messages of message `k`. */
  control(k: number): number {
    return this.#controls + k * this.#controlSize;
  }

  /** Sets where the data of message `k` lies, as an address of any arena, and its length. */
  setData(k: number, address: number, bytes: number): void {
    const at = this.#vectors + k * IOVEC_SIZE;
    this.arena.set64(at, address);
    this.arena.u32[(at + 8) >> 2] = bytes;
  }

  /** Points message `k` to a socket address elsewhere; 0 bytes: none. */
  setName(k: number, address: number, bytes: number): void {
    const at = this.#headers + k * MMSGHDR.SIZE;
    this.arena.set64(at + MSGHDR.NAME, address);
    this.arena.u32[(at + MSGHDR.NAMELEN) >> 2] = bytes;
  }

  /** Points message `k` to control messages elsewhere; 0 bytes: none. */
  setControl(k: number, address: number, bytes: number): void {
    const at = this.#headers + k * MMSGHDR.SIZE;
    this.arena.set64(at + MSGHDR.CONTROL, address);
    this.arena.u32[(at + MSGHDR.CONTROLLEN) >> 2] = bytes;
  }

  /** Gives message `k` its whole room back: before receiving, as a receipt shortens both. */
  reset(k: number): void {
    const at = (this.#headers + k * MMSGHDR.SIZE) >> 2, u32 = this.arena.u32;
    u32[at + (MSGHDR.NAMELEN >> 2)] = this.#nameSize;
    u32[at + (MSGHDR.CONTROLLEN >> 2)] = this.#controlSize;
    u32[at + (MSGHDR.FLAGS >> 2)] = 0;
  }

  /** Bytes that sendmmsg or recvmmsg transferred for message `k`. */
  transferred(k: number): number {
    return this.arena.u32[(this.#headers + k * MMSGHDR.SIZE + MMSGHDR.LEN) >> 2];
  }

  /** Flags of received message `k`: MSG_TRUNC and others (recvmsg(2)). */
  flags(k: number): number {
    return this.arena.u32[(this.#headers + k * MMSGHDR.SIZE + MSGHDR.FLAGS) >> 2];
  }

  /**
   * Looks for a control message in received message `k`.
   *
   * @param bytes how much data it must have at least
   * @returns offset of its data, or -1
   */
  findControl(k: number, level: number, type: number, bytes: number): number {
    const u32 = this.arena.u32;
    let at = this.control(k);
    const end = at + u32[(this.#headers + k * MMSGHDR.SIZE + MSGHDR.CONTROLLEN) >> 2];
    while (at + CMSGHDR.SIZE <= end) {
      const length = u32[(at + CMSGHDR.LEN) >> 2];
      if (length < CMSGHDR.SIZE || at + length > end) return -1;
      if (u32[(at + CMSGHDR.LEVEL) >> 2] === level && u32[(at + CMSGHDR.TYPE) >> 2] === type) {
        return length - CMSGHDR.SIZE >= bytes ? at + CMSGHDR.SIZE : -1;
      }
      at += (length + CMSG_ALIGN - 1) & -CMSG_ALIGN;
    }
    return -1;
  }
}
