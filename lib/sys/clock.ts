// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The monotonic clock.
 *
 * clock_gettime(2) through FFI takes a third of the time `performance.now()` does, and no allocation.
 *
 * @module
 */
import { monotonicClock } from "./clock_rare.ts";
import { libc } from "./libc.ts";

/**
 * CLOCK_MONOTONIC.
 *
 * @returns milliseconds with a fraction, from an arbitrary start
 * @example
 * ```ts
 * import { monotonicMs } from "./clock.ts";
 * import { assert } from "@std/assert";
 *
 * const before = monotonicMs();
 * assert(monotonicMs() >= before);
 * ```
 */
export const monotonicMs: () => number = monotonicClock(libc.clock_gettime);
