// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Completion for shells, made from the option table: option names of the mode, words where a value is
 * one of few, files, interfaces, namespaces and users where it is one of those, then a command.
 *
 * The scripts serve the program under its own name, where the mode comes first, and under `pasta` and
 * `passt`.
 *
 * @module
 */
import { bashScript } from "./completion_bash.ts";
import { fishScript } from "./completion_fish.ts";
import { zshScript } from "./completion_zsh.ts";
import type { Shell } from "./model.ts";

/**
 * The completion script of a shell, to be sourced or put where the shell looks for it.
 *
 * @example
 * ```ts
 * import { completionScript } from "./completion.ts";
 * import { assertStringIncludes } from "@std/assert";
 *
 * assertStringIncludes(completionScript("bash"), "complete -F _tubetti tubetti pasta passt");
 * ```
 */
export function completionScript(shell: Shell): string {
  if (shell === "bash") return bashScript();
  return shell === "zsh" ? zshScript() : fishScript();
}
