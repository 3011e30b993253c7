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
 * Copies the strings of {@linkcode readOwn}.
 *
 * A process may have left its last string without an end: that one is not passed on.
 *
 * @returns their addresses in the script's memory
 */
export function addStartStrings(script: Script, file: "cmdline" | "environ"): number[] {
  const bytes = readOwn(file);
  const base = script.data(bytes);
  const addresses: number[] = [];
  for (let start = 0, end; (end = bytes.indexOf(NUL, start)) >= 0; start = end + 1) {
    addresses.push(base + start);
  }
  return addresses;
}
