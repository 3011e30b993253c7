// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Other people's text in messages of ours: cut, in one line, without what a terminal would obey.
 *
 * @module
 */

/** Longest piece of a user's text repeated in a message. */
const MAX_SHOWN = 80;

/** Text of a user, fit for a message: cut, without control characters, never empty. */
export function shown(text: string): string {
  const cut = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
  // deno-lint-ignore no-control-regex
  return cut.replace(/[\x00-\x1f\x7f-\x9f]/g, "?") || '""';
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
  const line = errorText(error).split("\n", 1)[0].slice(0, MAX_LINE);
  // deno-lint-ignore no-control-regex
  return line.replace(/[\x00-\x1f\x7f-\x9f]/g, "?");
}
