// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Our command line and environment as we were given them, byte by byte, for a program that we execute.
 *
 * @module
 */
import { readOwn } from "../sys/own_start.ts";
import type { Script } from "../sys/script.ts";

const NUL = 0;
/**
 * Says which descriptors a runtime has been given by another (`../control/child.ts`). What we execute gets none
 * of them.
 */
const OWN_VARIABLE = "DENO_EXTRA_STDIO_FDS=";

/** Where each string begins. One without an end, which a process may have left, is none. */
function* starts(bytes: Uint8Array): Generator<number, void> {
  for (let start = 0, end; (end = bytes.indexOf(NUL, start)) >= 0; start = end + 1) yield start;
}

/** Whether a string begins with `prefix`. */
function startsWith(bytes: Uint8Array, start: number, prefix: Uint8Array): boolean {
  return prefix.every((byte, i) => bytes[start + i] === byte);
}

/**
 * Copies the strings of {@linkcode readOwn}, but for a variable that is for our runtime only.
 *
 * @returns their addresses in the script's memory
 */
export function addStartStrings(script: Script, file: "cmdline" | "environ"): number[] {
  const bytes = readOwn(file), own = new TextEncoder().encode(OWN_VARIABLE);
  const base = script.data(bytes);
  const ours = (start: number) => file === "environ" && startsWith(bytes, start, own);
  return [...starts(bytes)].filter((start) => !ours(start)).map((start) => base + start);
}

/**
 * A variable as our caller has set it: the runtime sets some itself where there is none, such as `PATH`.
 *
 * @returns undefined when there is none
 * @example
 * ```ts
 * import { startVariable } from "./start_strings.ts";
 * import { assertEquals } from "@std/assert";
 *
 * Deno.env.set("GREETING", "hello");
 * assertEquals(startVariable("GREETING"), undefined);
 * ```
 */
export function startVariable(name: string): string | undefined {
  const bytes = readOwn("environ"), prefix = new TextEncoder().encode(`${name}=`);
  for (const start of starts(bytes)) {
    if (!startsWith(bytes, start, prefix)) continue;
    return new TextDecoder().decode(
      bytes.subarray(start + prefix.length, bytes.indexOf(NUL, start)),
    );
  }
  return undefined;
}
