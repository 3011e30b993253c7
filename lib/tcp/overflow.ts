// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Where payload from the guest waits that a socket took only partly.
 *
 * Theory of operation: a window that only followed the room in the socket's buffer would starve, for
 * the kernel tells of new room only after a send that failed, and too few frames would be in flight to
 * notice a loss. So more is announced, as much as this pool can share out, and a socket may take a
 * batch only partly. What does not fit is copied here in blocks chained per flow, and the
 * announced window shrinks by it. All flows share one pool of fixed size: when it is used up, the rest
 * of the segment is not acknowledged, the window closes, and when the socket has room again the guest is
 * made to send it again. Memory is untouched until used and blocks are reused last in, first out.
 *
 * @module
 */
import { DATA_WORDS } from "../flow/table.ts";
import { Arena } from "../sys/arena.ts";
import { E } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL } from "../sys/socket.ts";
import { W } from "./words.ts";

const BLOCK_SIZE = 65536;
/** Blocks in the pool: 64 MiB. */
export const OVERFLOW_BLOCKS = 1024;
/** What one flow may have of the free blocks: 1 / this. */
const SHARE = 16;

/** Blocks of memory chained per flow; chain heads lie in the flow's table words. */
export class OverflowPool {
  readonly #arena = new Arena(BLOCK_SIZE * OVERFLOW_BLOCKS);
  readonly #next: Int32Array<ArrayBuffer> = new Int32Array(OVERFLOW_BLOCKS);
  readonly #filled: Int32Array<ArrayBuffer> = new Int32Array(OVERFLOW_BLOCKS);
  #free = 0;
  #freeCount: number = OVERFLOW_BLOCKS;

  constructor() {
    for (let i = 0; i < OVERFLOW_BLOCKS; i++) this.#next[i] = i + 1 < OVERFLOW_BLOCKS ? i + 1 : -1;
  }

  /** Blocks not in use. */
  get freeCount(): number {
    return this.#freeCount;
  }

  /** Bytes that one flow may fill now: the fewer, the more others have filled. */
  get share(): number {
    return this.#freeCount * BLOCK_SIZE / SHARE;
  }

  #take(): number {
    const block = this.#free;
    if (block < 0) return -1;
    this.#free = this.#next[block];
    this.#freeCount--;
    this.#next[block] = -1;
    this.#filled[block] = 0;
    return block;
  }

  #give(block: number): void {
    this.#next[block] = this.#free;
    this.#free = block;
    this.#freeCount++;
  }

  /**
   * Copies bytes to the end of flow `i`'s chain.
   *
   * @returns bytes taken; fewer than `length` when the pool is used up
   */
  append(data: Int32Array, i: number, from: Uint8Array, off: number, length: number): number {
    const d = i * DATA_WORDS;
    let taken = 0;
    while (taken < length) {
      let block = data[d + W.OVERFLOW_TAIL];
      if (block < 0 || this.#filled[block] === BLOCK_SIZE) {
        const fresh = this.#take();
        if (fresh < 0) break;
        if (block < 0) data[d + W.OVERFLOW_HEAD] = fresh;
        else this.#next[block] = fresh;
        data[d + W.OVERFLOW_TAIL] = block = fresh;
      }
      const at = this.#filled[block];
      const n = Math.min(BLOCK_SIZE - at, length - taken);
      // a subarray here is garbage, but this is the slow path of a socket that is full already
      this.#arena.u8.set(from.subarray(off + taken, off + taken + n), block * BLOCK_SIZE + at);
      this.#filled[block] = at + n;
      taken += n;
    }
    data[d + W.OVERFLOW_BYTES] += taken;
    return taken;
  }

  /**
   * Sends as much of flow `i`'s chain as its socket takes.
   *
   * @returns 0, also when data is left, or a negative errno of send(2) other than EAGAIN
   */
  drain(data: Int32Array, i: number, fd: number): number {
    const d = i * DATA_WORDS;
    let block = data[d + W.OVERFLOW_HEAD];
    while (block >= 0) {
      const done = data[d + W.OVERFLOW_OFFSET];
      const start = block * BLOCK_SIZE;
      const n = this.#filled[block] - done;
      const part = this.#arena.u8.subarray(start + done, start + done + n);
      const sent = libc.send(fd, part, n, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0) return errno() === E.EAGAIN ? 0 : -errno();
      data[d + W.OVERFLOW_BYTES] -= sent;
      if (sent < n) {
        data[d + W.OVERFLOW_OFFSET] = done + sent;
        return 0;
      }
      const following = this.#next[block];
      this.#give(block);
      block = data[d + W.OVERFLOW_HEAD] = following;
      data[d + W.OVERFLOW_OFFSET] = 0;
    }
    data[d + W.OVERFLOW_TAIL] = -1;
    return 0;
  }

  /** Gives back all of flow `i`'s blocks. */
  release(data: Int32Array, i: number): void {
    const d = i * DATA_WORDS;
    let block = data[d + W.OVERFLOW_HEAD];
    while (block >= 0) {
      const following = this.#next[block];
      this.#give(block);
      block = following;
    }
    data[d + W.OVERFLOW_HEAD] = data[d + W.OVERFLOW_TAIL] = -1;
    data[d + W.OVERFLOW_BYTES] = data[d + W.OVERFLOW_OFFSET] = 0;
  }
}
