// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Frames that wait until the guest has buffers again: a queue as network cards have one.
 *
 * @module
 */
import { Arena } from "../../sys/arena.ts";
import { copyBytes } from "./pieces.ts";

/** Bytes that wait at most: 80 ms at 100 Mb/s. */
const BACKLOG_BYTES = 1 << 20;
const BACKLOG_FRAMES = 2048;
/** Of both, this share is for short frames: acknowledgements and answers, not what floods. */
const RESERVE_SHARE = 8;
const SHORT_FRAME = 256;

/**
 * A queue of frames in memory of its own, each in one piece.
 *
 * @example
 * ```ts
 * import { Arena } from "../../sys/arena.ts";
 * import { Backlog } from "./backlog.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const [arena, backlog] = [new Arena(4096), new Backlog()];
 * arena.u8[100] = 7;
 * assert(backlog.push(arena, 100, 60));
 * assertEquals([backlog.count, backlog.length], [1, 60]);
 * assertEquals(backlog.arena.u8[backlog.offset], 7);
 * backlog.shift();
 * assertEquals(backlog.count, 0);
 * ```
 */
export class Backlog {
  readonly arena: Arena = new Arena(BACKLOG_BYTES);
  /** Frames that wait. */
  count = 0;
  readonly #offsets = new Int32Array(BACKLOG_FRAMES);
  readonly #lengths = new Int32Array(BACKLOG_FRAMES);
  #first = 0;
  #end = 0;
  #bytes = 0;

  /** Offset of the oldest frame. */
  get offset(): number {
    return this.#offsets[this.#first];
  }

  /** Bytes of the oldest frame. */
  get length(): number {
    return this.#lengths[this.#first];
  }

  /** Adds a copy of `length` bytes at `from`. @returns whether there was room */
  push(source: Arena, from: number, length: number): boolean {
    if (length > SHORT_FRAME && this.#isReserved(length)) return false;
    const at = this.#room(length);
    if (at < 0) return false;
    this.#bytes += length;
    const k = (this.#first + this.count++) % BACKLOG_FRAMES;
    this.#offsets[k] = at;
    this.#lengths[k] = length;
    this.#end = at + length;
    copyBytes(source.dv, from, this.arena.dv, at, length);
    return true;
  }

  /** Whether `length` more bytes would take what is left for short frames. */
  #isReserved(length: number): boolean {
    return this.#bytes + length > BACKLOG_BYTES - BACKLOG_BYTES / RESERVE_SHARE ||
      this.count >= BACKLOG_FRAMES - BACKLOG_FRAMES / RESERVE_SHARE;
  }

  /** @returns where `length` bytes are free in one piece, or -1 */
  #room(length: number): number {
    if (this.count === BACKLOG_FRAMES) return -1;
    if (this.count === 0) return length <= BACKLOG_BYTES ? 0 : -1;
    const start = this.offset, end = this.#end;
    if (end <= start) return end + length <= start ? end : -1;
    if (end + length <= BACKLOG_BYTES) return end;
    return length <= start ? 0 : -1;
  }

  /** Drops the oldest frame. */
  shift(): void {
    this.#bytes -= this.length;
    this.#first = (this.#first + 1) % BACKLOG_FRAMES;
    this.count--;
  }

  /** Drops all. */
  clear(): void {
    this.count = this.#bytes = 0;
  }
}
