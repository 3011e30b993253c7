// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Arrays of messages for sendmmsg(2), recvmmsg(2) and their single forms, prepared once.
 *
 * Theory of operation: headers, I/O vectors, socket addresses and control messages of one
 * {@linkcode MessageVector} lie in an arena, and every pointer is written when it is made. What changes per
 * call are the data's address and length, which cost two stores each. `views[k]` is the argument for
 * a call that starts at message `k`.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { cmsghdr, iovec, mmsghdr, msghdr } from "./layout.ts";

const { msg_name: NAME, msg_namelen: NAMELEN, msg_iov: IOV, msg_iovlen: IOVLEN } = msghdr.at;
const { msg_control: CONTROL, msg_controllen: CONTROLLEN, msg_flags: FLAGS } = msghdr.at;
const { msg_len: TRANSFERRED } = mmsghdr.at;
const { cmsg_len: CMSG_LEN, cmsg_level: CMSG_LEVEL, cmsg_type: CMSG_TYPE } = cmsghdr.at;
const { iov_len: IOV_LEN } = iovec.at;
const HEADER_SIZE = mmsghdr.size;
const CMSG_HEADER = cmsghdr.size;
const CMSG_ALIGN = 8;
const ADDRESS_ALIGN = 8;

/** Bytes a control message with `bytes` of data takes (CMSG_SPACE, cmsg(3)). */
export function cmsgSpace(bytes: number): number {
  return CMSG_HEADER + Math.ceil(bytes / CMSG_ALIGN) * CMSG_ALIGN;
}

/** Writes the header of a control message at `at`. @returns offset of its data */
export function writeCmsg(
  arena: Arena,
  at: number,
  level: number,
  type: number,
  bytes: number,
): number {
  arena.set64(at + CMSG_LEN, CMSG_HEADER + bytes);
  arena.u32[(at + CMSG_LEVEL) >> 2] = level;
  arena.u32[(at + CMSG_TYPE) >> 2] = type;
  return at + CMSG_HEADER;
}

/** Room that each message of a {@linkcode MessageVector} has beside its data. */
export interface MessageRoom {
  /** bytes of socket address */
  name?: number;
  /** bytes of control messages */
  control?: number;
}

/**
 * `count` messages of one I/O vector each, unless {@linkcode MessageVector.setPieces} says otherwise.
 *
 * @example
 * ```ts
 * import { Arena } from "./arena.ts";
 * import { libc } from "./libc.ts";
 * import { MessageVector } from "./message_vector.ts";
 * import { AF_UNIX, SOCK_DGRAM } from "./socket.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const arena = new Arena(4096);
 * const [data, messages] = [arena.alloc(64), new MessageVector(arena, 2)];
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
export class MessageVector {
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
    this.#headers = arena.alloc(count * HEADER_SIZE);
    this.#vectors = arena.alloc(count * iovec.size);
    this.#names = arena.alloc(count * this.#nameStep);
    this.#controls = arena.alloc(count * this.#controlSize);
    const views: Uint8Array<ArrayBuffer>[] = [];
    for (let k = 0; k < count; k++) {
      const at = this.#headers + k * HEADER_SIZE;
      arena.set64(at + IOV, arena.address(this.#vectors + k * iovec.size));
      arena.set64(at + IOVLEN, 1);
      if (this.#nameSize > 0) arena.set64(at + NAME, arena.address(this.name(k)));
      if (this.#controlSize > 0) arena.set64(at + CONTROL, arena.address(this.control(k)));
      this.reset(k);
      views.push(arena.view(at, (count - k) * HEADER_SIZE));
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
    const at = this.#vectors + k * iovec.size;
    this.arena.set64(at, address);
    this.arena.u32[(at + IOV_LEN) >> 2] = bytes;
  }

  /** Has message `k` consist of the data of `count` messages from `first` on. */
  setPieces(k: number, first: number, count: number): void {
    const at = this.#headers + k * HEADER_SIZE;
    this.arena.set64(at + IOV, this.arena.address(this.#vectors + first * iovec.size));
    this.arena.u32[(at + IOVLEN) >> 2] = count;
  }

  /** Points message `k` to a socket address elsewhere; 0 bytes: none. */
  setName(k: number, address: number, bytes: number): void {
    const at = this.#headers + k * HEADER_SIZE;
    this.arena.set64(at + NAME, address);
    this.arena.u32[(at + NAMELEN) >> 2] = bytes;
  }

  /** Points message `k` to control messages elsewhere; 0 bytes: none. */
  setControl(k: number, address: number, bytes: number): void {
    const at = this.#headers + k * HEADER_SIZE;
    this.arena.set64(at + CONTROL, address);
    this.arena.u32[(at + CONTROLLEN) >> 2] = bytes;
  }

  /** Gives message `k` its whole room back: before receiving, as a receipt shortens both. */
  reset(k: number): void {
    const at = (this.#headers + k * HEADER_SIZE) >> 2, u32 = this.arena.u32;
    u32[at + (NAMELEN >> 2)] = this.#nameSize;
    u32[at + (CONTROLLEN >> 2)] = this.#controlSize;
    u32[at + (FLAGS >> 2)] = 0;
  }

  /** Bytes that sendmmsg or recvmmsg transferred for message `k`. */
  transferred(k: number): number {
    return this.arena.u32[(this.#headers + k * HEADER_SIZE + TRANSFERRED) >> 2];
  }

  /** Flags of received message `k`: MSG_TRUNC and others (recvmsg(2)). */
  flags(k: number): number {
    return this.arena.u32[(this.#headers + k * HEADER_SIZE + FLAGS) >> 2];
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
    const end = at + u32[(this.#headers + k * HEADER_SIZE + CONTROLLEN) >> 2];
    while (at + CMSG_HEADER <= end) {
      const length = u32[(at + CMSG_LEN) >> 2];
      if (length < CMSG_HEADER || at + length > end) return -1;
      if (u32[(at + CMSG_LEVEL) >> 2] === level && u32[(at + CMSG_TYPE) >> 2] === type) {
        return length - CMSG_HEADER >= bytes ? at + CMSG_HEADER : -1;
      }
      at += (length + CMSG_ALIGN - 1) & -CMSG_ALIGN;
    }
    return -1;
  }
}
