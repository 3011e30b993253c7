// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A prepared `struct msghdr` with its iovecs, for sendmsg(2) and recvmsg(2) without allocation.
 *
 * @module
 */
import { Arena } from "./arena.ts";
import { iovec, msghdr } from "./layout.ts";

const IOVEC_SIZE = iovec.size;
const IOVEC_LEN = iovec.at.iov_len;
const MSGHDR_SIZE = msghdr.size;
const { msg_iov: MSGHDR_IOV, msg_iovlen: MSGHDR_IOVLEN } = msghdr.at;

/**
 * One message of up to a fixed number of pieces, which lie in any arena.
 *
 * @example
 * ```ts
 * import { Arena } from "./arena.ts";
 * import { Message } from "./message.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const fds = new Int32Array(2);
 * libc.socketpair(1, 1, 0, fds);
 * const memory = new Arena(4096);
 * memory.u8.set([1, 2, 3, 4]);
 * const message = new Message(2);
 * message.set(0, memory, 2, 2);
 * message.set(1, memory, 0, 2);
 * message.setCount(2);
 * assertEquals(libc.sendmsg(fds[0], message.header, 0), 4);
 * const received = new Uint8Array(4);
 * libc.recv(fds[1], received, 4, 0);
 * assertEquals([...received], [3, 4, 1, 2]);
 * libc.close(fds[0]);
 * libc.close(fds[1]);
 * ```
 */
export class Message {
  /** The `struct msghdr`, to pass to the system call. */
  readonly header: Uint8Array<ArrayBuffer>;
  readonly #arena: Arena;
  readonly #iov: number;

  /** @param pieces the largest number of iovecs */
  constructor(pieces: number) {
    this.#arena = new Arena(MSGHDR_SIZE + 8 + pieces * IOVEC_SIZE);
    const header = this.#arena.alloc(MSGHDR_SIZE);
    this.#iov = this.#arena.alloc(pieces * IOVEC_SIZE, IOVEC_SIZE);
    this.#arena.set64(header + MSGHDR_IOV, this.#arena.address(this.#iov));
    this.header = this.#arena.view(header, MSGHDR_SIZE);
  }

  /** Sets piece `k`: `bytes` at `off` of `arena`. */
  set(k: number, arena: Arena, off: number, bytes: number): void {
    const iov = this.#iov + k * IOVEC_SIZE;
    this.#arena.set64(iov, arena.address(off));
    this.#arena.set64(iov + IOVEC_LEN, bytes);
  }

  /** Sets piece `k`: `bytes` at an address of memory that is not an arena's, below 2^53. */
  setAddress(k: number, address: number, bytes: number): void {
    const iov = this.#iov + k * IOVEC_SIZE;
    this.#arena.set64(iov, address);
    this.#arena.set64(iov + IOVEC_LEN, bytes);
  }

  /** Bytes of piece `k`. */
  length(k: number): number {
    return this.#arena.u32[(this.#iov + k * IOVEC_SIZE + IOVEC_LEN) >> 2];
  }

  /** Sets how many pieces the message has. */
  setCount(count: number): void {
    this.#arena.u32[MSGHDR_IOVLEN >> 2] = count;
  }
}
