// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Buffers in the guest's memory, as lists of numbers, and copying from and to them.
 *
 * Theory of operation: an address of the guest is looked up once and becomes a *window* (a stretch of
 * memory with a view of its own) and an offset in it, both small integers: an address held as a number
 * would be an object on the heap. Bytes are copied four at a time through two `DataView`s: a `subarray`
 * per copy would be garbage, and copies longer than a packet's headers are left to the kernel where
 * possible.
 *
 * @module
 */
import type { Arena } from "../../sys/arena.ts";
import type { Message } from "../../sys/message.ts";

/** The guest's memory. */
export interface Windows {
  /** Per window: its bytes. */
  readonly views: readonly DataView<ArrayBuffer>[];
  /** Per window: address of its first byte in this process. */
  readonly addresses: Float64Array;
  /** Found by {@linkcode locate}: offset in the window. */
  readonly at: number;
  /** Found by {@linkcode locate}: bytes from there to the window's end, more than 0. */
  readonly room: number;
  /**
   * Looks up an address of the guest, given as two words, signed or not.
   *
   * @returns the window, or -1 when there is no memory
   */
  locate(low: number, high: number): number;
}

/**
 * A table of buffers.
 *
 * @example
 * ```ts
 * import { Pieces } from "./pieces.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const pieces = new Pieces(8);
 * pieces.add(0, 4096, 12);
 * pieces.add(0, 9000, 100);
 * assertEquals(pieces.span(0, 10, 50), 2); // two bytes of the first, 48 of the second
 * assertEquals(pieces.span(0, 12, 50), 1);
 * ```
 */
export class Pieces {
  /** Pieces there are. Setting it lower drops the newest. */
  count = 0;
  readonly window: Int32Array<ArrayBuffer>;
  readonly at: Int32Array<ArrayBuffer>;
  readonly length: Int32Array<ArrayBuffer>;

  constructor(capacity: number) {
    this.window = new Int32Array(capacity);
    this.at = new Int32Array(capacity);
    this.length = new Int32Array(capacity);
  }

  /** Adds a piece. The owner sees to it that there is room. */
  add(window: number, at: number, length: number): void {
    const k = this.count++;
    this.window[k] = window;
    this.at[k] = at;
    this.length[k] = length;
  }

  /** Number of pieces, from `first` on, that `length` bytes take that start after `skip` ones. */
  span(first: number, skip: number, length: number): number {
    let k = first;
    while (skip >= this.length[k]) skip -= this.length[k++];
    const start = k;
    for (let left = skip + length; left > 0; left -= this.length[k++]);
    return k - start;
  }

  /**
   * Points iovecs to `length` bytes that start `skip` bytes after the start of piece `first`.
   *
   * @returns the number of iovecs
   */
  point(
    memory: Windows,
    first: number,
    skip: number,
    length: number,
    message: Message,
    piece: number,
  ): number {
    let k = first, n = piece;
    while (skip >= this.length[k]) skip -= this.length[k++];
    while (length > 0) {
      const bytes = Math.min(this.length[k] - skip, length);
      message.setAddress(n++, memory.addresses[this.window[k]] + this.at[k] + skip, bytes);
      length -= bytes;
      skip = 0;
      k++;
    }
    return n - piece;
  }

  /** Copies `length` bytes that start `skip` bytes after the start of piece `first` to `to`. */
  load(
    memory: Windows,
    first: number,
    skip: number,
    length: number,
    arena: Arena,
    to: number,
  ): void {
    let k = first;
    while (skip >= this.length[k]) skip -= this.length[k++];
    while (length > 0) {
      const bytes = Math.min(this.length[k] - skip, length);
      copyBytes(memory.views[this.window[k]], this.at[k] + skip, arena.dv, to, bytes);
      to += bytes;
      length -= bytes;
      skip = 0;
      k++;
    }
  }

  /** Copies `length` bytes at `from` to where piece `first` begins. */
  store(memory: Windows, first: number, arena: Arena, from: number, length: number): void {
    for (let k = first; length > 0; k++) {
      const bytes = Math.min(this.length[k], length);
      copyBytes(arena.dv, from, memory.views[this.window[k]], this.at[k], bytes);
      from += bytes;
      length -= bytes;
    }
  }
}

const WORD = 4;
/** Bytes that one turn of the long loop copies. */
const STRIDE = 8 * WORD;

/** Copies `length` bytes between two memories. */
export function copyBytes(
  source: DataView,
  from: number,
  target: DataView,
  to: number,
  length: number,
): void {
  const end = from + length;
  for (; from + STRIDE <= end; from += STRIDE, to += STRIDE) {
    target.setInt32(to, source.getInt32(from, true), true);
    target.setInt32(to + 4, source.getInt32(from + 4, true), true);
    target.setInt32(to + 8, source.getInt32(from + 8, true), true);
    target.setInt32(to + 12, source.getInt32(from + 12, true), true);
    target.setInt32(to + 16, source.getInt32(from + 16, true), true);
    target.setInt32(to + 20, source.getInt32(from + 20, true), true);
    target.setInt32(to + 24, source.getInt32(from + 24, true), true);
    target.setInt32(to + 28, source.getInt32(from + 28, true), true);
  }
  for (; from + WORD <= end; from += WORD, to += WORD) {
    target.setInt32(to, source.getInt32(from, true), true);
  }
  for (; from < end; from++, to++) target.setUint8(to, source.getUint8(from));
}
