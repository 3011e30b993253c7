// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The monotonic clock for those who look at it now and then, without `libc.ts`.
 *
 * @module
 */
import { timespec } from "./layout.ts";
import { libc } from "./libc_rare.ts";

/** linux/time.h */
export const CLOCK_MONOTONIC = 1;
const SECONDS = timespec.at.tv_sec / 4;
const NANOSECONDS = timespec.at.tv_nsec / 4;

/** Memory for a `struct timespec`. */
export function newTimespec(): Uint32Array<ArrayBuffer> {
  return new Uint32Array(timespec.size / 4);
}

/** A `struct timespec` in milliseconds with a fraction. */
export function timespecMs(words: Uint32Array<ArrayBuffer>): number {
  return words[SECONDS] * 1e3 + words[NANOSECONDS] / 1e6; // the upper half of the seconds is 0 for 136 years
}

const words = newTimespec();

/**
 * CLOCK_MONOTONIC, as that of `clock.ts`, in a microsecond more.
 *
 * @returns milliseconds with a fraction, from an arbitrary start, the same in all processes
 * @example
 * ```ts
 * import { monotonicMs } from "./clock_rare.ts";
 * import { monotonicMs as often } from "./clock.ts";
 * import { assert } from "@std/assert";
 *
 * const before = often();
 * assert(monotonicMs() >= before);
 * assert(often() - before < 1000);
 * ```
 */
export function monotonicMs(): number {
  libc.clock_gettime(CLOCK_MONOTONIC, words);
  return timespecMs(words);
}
