// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What somebody probably meant to write.
 *
 * @module
 */

/** Longest word worth comparing, and shortest. */
const MAX_COMPARED = 40;
const MIN_COMPARED = 2;
/** One edit is allowed for so many characters, and one in any case. */
const CHARACTERS_PER_EDIT = 4;

/** Edits between two words: insert, delete or replace a character, or swap two neighbours. */
function distance(a: string, b: string): number {
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = row[j] + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replaced, row[j + 1] + 1, next[j] + 1));
      const swapped = j > 0 && a[i] === b[j - 1] && a[i - 1] === b[j];
      if (swapped) next[j + 1] = Math.min(next[j + 1], before[j - 1] + 1);
    }
    [before, row] = [row, next];
  }
  return row[b.length];
}

/**
 * The candidate that is nearly the word, the first of the nearest ones; null: none is near.
 *
 * @example
 * ```ts
 * import { suggest } from "./suggest.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(suggest("confg-net", ["config-net", "mtu"]), "config-net");
 * assertEquals(suggest("frobnicate", ["config-net", "mtu"]), null);
 * ```
 */
export function suggest(word: string, candidates: readonly string[]): string | null {
  if (word.length < MIN_COMPARED || word.length > MAX_COMPARED) return null;
  let nearest: string | null = null;
  let least = Math.max(1, Math.floor(word.length / CHARACTERS_PER_EDIT)) + 1;
  for (const candidate of candidates) {
    const edits = distance(word, candidate);
    if (edits < least) [nearest, least] = [candidate, edits];
  }
  return nearest;
}
