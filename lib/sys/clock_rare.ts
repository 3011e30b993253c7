// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The monotonic clock for those who look at it now and then, without `libc.ts`.
 *
 * @module
 */
import { timespec } from "./layout.ts";
import { libc } from "./libc_rare.ts";

const CLOCK_MONOTONIC = 1; // linux/time.h
const SECONDS = timespec.at.tv_sec / 4;
const NANOSECONDS = timespec.at.tv_nsec / 4;

/** CLOCK_MONOTONIC by a function for clock_gettime(2): milliseconds with a fraction, nothing allocated. */
export function monotonicClock(clock_gettime: typeof libc.clock_gettime): () => number {
  const words = new Uint32Array(timespec.size / 4);
  return () => {
    clock_gettime(CLOCK_MONOTONIC, words);
    return words[SECONDS] * 1e3 + words[NANOSECONDS] / 1e6; // the upper half of the seconds is 0 for 136 years
  };
}

/**
 * CLOCK_MONOTONIC, as that of `clock.ts`; a call takes a microsecond more.
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
 * assert(often() >= before);
 * ```
 */
export const monotonicMs: () => number = monotonicClock(libc.clock_gettime);
