// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A limit on how often something is done, for log messages that a guest can provoke at will.
 *
 * @module
 */

const INTERVAL_MS = 1000;

/**
 * At most so many per second: a window of one second with a counter, nothing allocated.
 *
 * @example
 * ```ts
 * import { RateLimit } from "./rate_limit.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const limit = new RateLimit(2);
 * assertEquals([limit.allow(0), limit.allow(1), limit.allow(999)], [true, true, false]);
 * assertEquals(limit.suppressed, 1);
 * assertEquals(limit.allow(1000), true);
 * ```
 */
export class RateLimit {
  readonly #perSecond: number;
  #start = -Infinity;
  #used = 0;
  #suppressed = 0;

  /** @param perSecond times allowed within one second */
  constructor(perSecond: number) {
    this.#perSecond = perSecond;
  }

  /** How many were refused since the current window began. */
  get suppressed(): number {
    return this.#suppressed;
  }

  /**
   * Whether one more is allowed now; counts it if so.
   *
   * @param nowMs a clock in milliseconds that does not go back
   */
  allow(nowMs: number): boolean {
    if (nowMs - this.#start >= INTERVAL_MS) {
      this.#start = nowMs;
      this.#used = 0;
      this.#suppressed = 0;
    }
    if (this.#used < this.#perSecond) {
      this.#used++;
      return true;
    }
    this.#suppressed++;
    return false;
  }
}
