// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A byte that memory is filled with, so that it shows when something is read that was not written.
 *
 * @module
 */

/** The byte. */
export const CANARY = 0xc3;
/** So many of them in a row are no accident. */
const RUN = 4;

/** Whether the canary is in `bytes[from…to]`. */
export function leaks(bytes: Uint8Array, from: number, to: number): boolean {
  for (let at = bytes.indexOf(CANARY, from), run = 0; at >= 0 && at < to;) {
    run = 1;
    while (run < RUN && at + run < to && bytes[at + run] === CANARY) run++;
    if (run === RUN) return true;
    at = bytes.indexOf(CANARY, at + run);
  }
  return false;
}
