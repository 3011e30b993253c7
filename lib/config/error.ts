// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The error for everything a user can set right: options, and a host that does not have what they
 * name.
 *
 * @module
 */

/** A configuration that cannot be used; the message is one line, without the program's name. */
export class ConfigError extends Error {
  /** Name of the class. */
  override readonly name = "ConfigError";
  /** Name of the kernel's reason, such as `EADDRINUSE`, where it was the kernel that refused. */
  readonly code?: string;

  /**
   * Makes an error.
   *
   * @param message one line
   * @param code see {@linkcode ConfigError.code}
   */
  constructor(message: string, code?: string) {
    super(message);
    if (code !== undefined) this.code = code;
  }
}

/** Longest piece of the command line repeated in a message. */
const MAX_SHOWN = 80;

/** A part of the command line, fit for a message: cut, without control characters, never empty. */
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
 * import { errorLine } from "./error.ts";
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
