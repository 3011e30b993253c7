// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The name that the program was called by: `pasta` and `passt`, links to it, behave as those do.
 *
 * @module
 */
import { readOwn } from "../sys/own_start.ts";
import type { Mode } from "./spec.ts";

/**
 * The mode that a program's name stands for; null: none, the mode is the first argument.
 *
 * @example
 * ```ts
 * import { modeOf } from "./name.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(modeOf("/usr/bin/pasta"), "pasta");
 * assertEquals(modeOf("passt.avx2"), "passt");
 * assertEquals(modeOf("/opt/pasta/bin/tubetti"), null);
 * ```
 */
export function modeOf(argv0: string): Mode | null {
  const name = argv0.slice(argv0.lastIndexOf("/") + 1);
  if (name.includes("pasta")) return "pasta";
  return name.includes("passt") ? "passt" : null;
}

/**
 * The mode by the name that this process was called by, the first string of its command line.
 *
 * @throws SysError as {@linkcode readOwn}: no name, no mode
 */
export function invokedMode(): Mode | null {
  const text = new TextDecoder().decode(readOwn("cmdline"));
  return modeOf(text.slice(0, Math.max(0, text.indexOf("\0"))));
}
