// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Other people's text in messages of ours: cut, in one line, without what a terminal would obey.
 *
 * @module
 */

/** What a terminal would obey, or show as an end of a line. */
// deno-lint-ignore no-control-regex
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028\u2029]/g;

/** The first `most` characters of a text, without control characters. */
export function excerpt(text: string, most: number): string {
  const cut = text.length > most ? `${text.slice(0, most)}…` : text;
  return cut.replace(CONTROL, "?");
}

/** Longest piece of a user's text repeated in a message. */
const MAX_SHOWN = 80;

/** Text of a user, fit for a message: cut, without control characters, never empty. */
export function shown(text: string): string {
  return excerpt(text, MAX_SHOWN) || '""';
}

/** Longest message of somebody else's error that is repeated. */
const MAX_LINE = 200;

function errorText(error: unknown): string {
  try {
    if (!(error instanceof Error)) return String(error);
    return error.message === "" ? error.name : `${error.name}: ${error.message}`;
  } catch {
    return "an error that cannot be shown";
  }
}

/**
 * What somebody else's error says, in one line, whatever it is.
 *
 * @example
 * ```ts
 * import { errorLine } from "./text.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(errorLine(new TypeError("no\x1b[1m\nat home")), "TypeError: no?[1m");
 * assertEquals(errorLine(7), "7");
 * ```
 */
export function errorLine(error: unknown): string {
  return errorText(error).split("\n", 1)[0].slice(0, MAX_LINE).replace(CONTROL, "?");
}
