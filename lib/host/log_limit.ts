// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How many messages a process writes, whatever provokes them.
 *
 * Theory of operation: a bucket of tokens, one per message. It is full at start, so that everything
 * said then is shown, and refills slowly. When it is empty, messages are dropped and counted until
 * there are tokens for some again: so a guest that provokes messages for hours sees to a few lines at a
 * time, and one that says how many are missing.
 *
 * @module
 */

/** Tokens of a full bucket: a start with a warning for many ports fits in. */
export const LOG_BURST = 200;
/** Time in which one token comes back. */
export const LOG_REFILL_MS = 1000;
/** Tokens that there must be before messages pass again after it was empty. */
export const LOG_REOPEN = 10;

/**
 * The bucket. Nothing is allocated.
 *
 * @example
 * ```ts
 * import { LOG_BURST, LOG_REFILL_MS, LOG_REOPEN, LogLimit } from "./log_limit.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const limit = new LogLimit();
 * for (let i = 0; i < LOG_BURST; i++) limit.allow(0);
 * assertEquals([limit.allow(0), limit.allow(LOG_REFILL_MS)], [false, false]);
 * assertEquals(limit.allow(LOG_REOPEN * LOG_REFILL_MS), true);
 * assertEquals(limit.takeSuppressed(), 2);
 * ```
 */
export class LogLimit {
  #tokens = LOG_BURST;
  #closed = false;
  #suppressed = 0;
  #last = -Infinity;

  /**
   * Whether a message may be written now; counts it either way.
   *
   * @param nowMs a clock in milliseconds that does not go back
   */
  allow(nowMs: number): boolean {
    this.#tokens = Math.min(LOG_BURST, this.#tokens + (nowMs - this.#last) / LOG_REFILL_MS);
    this.#last = nowMs;
    if (this.#tokens >= (this.#closed ? LOG_REOPEN : 1)) {
      this.#tokens--;
      this.#closed = false;
      return true;
    }
    this.#closed = true;
    this.#suppressed++;
    return false;
  }

  /** How many were refused since this was last asked. */
  takeSuppressed(): number {
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    return suppressed;
  }
}
