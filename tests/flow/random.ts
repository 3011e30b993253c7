// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Random numbers that are the same in every run.
 *
 * @module
 */

/** Returns a function that gives a whole number from 0 to `below - 1` (xorshift32, Marsaglia 2003). */
export function randomFrom(seed: number): (below: number) => number {
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
