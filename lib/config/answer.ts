// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the program prints when it is only asked something: `--help`, `--version`, `completion SHELL`.
 *
 * @module
 */
import { completionScript } from "./completion.ts";
import { helpText, terminalWidth } from "./help.ts";
import type { Options } from "./model.ts";
import type { Mode } from "./spec.ts";
import { VERSION_TEXT } from "./version.ts";

/**
 * The answer, without its last newline; null: nothing was asked.
 *
 * @param named the mode that the program's name stands for
 * @example
 * ```ts
 * import { answer } from "./answer.ts";
 * import { parseOptions } from "./options.ts";
 * import { assertEquals, assertMatch } from "@std/assert";
 *
 * assertMatch(answer(parseOptions(["--version"]))!, /^tubetti \d/);
 * assertEquals(answer(parseOptions(["pasta", "true"])), null);
 * ```
 */
export function answer(options: Options, named: Mode | null = null): string | null {
  if (options.help) {
    const program = named ?? `tubetti ${options.mode}`;
    return helpText(options.mode, terminalWidth(), program).trimEnd();
  }
  if (options.version) return VERSION_TEXT;
  return options.completion && completionScript(options.completion).trimEnd();
}
