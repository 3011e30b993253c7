// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A seeded generator (mulberry32), so that a failing random test can be repeated.
 *
 * @module
 */

/** Returns a function that gives an integer in 0…n-1. */
export function seeded(seed: number): (n: number) => number {
  return (n) => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ seed >>> 15, seed | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return Math.floor(((t ^ t >>> 14) >>> 0) / 0x100000000 * n);
  };
}
