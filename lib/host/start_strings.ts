// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Our command line and environment as we were given them, byte by byte, for a program that we execute.
 *
 * @module
 */
import type { Script } from "../sys/script.ts";

const NUL = 0;

/**
 * Copies strings that the kernel keeps of our start (proc_pid_cmdline(5), proc_pid_environ(5)).
 *
 * A process may have left its last string without an end: that one is not passed on.
 *
 * @returns their addresses in the script's memory
 */
export function addStartStrings(script: Script, file: "cmdline" | "environ"): number[] {
  const bytes = Deno.readFileSync(`/proc/self/${file}`);
  const base = script.data(bytes);
  const addresses: number[] = [];
  for (let start = 0, end; (end = bytes.indexOf(NUL, start)) >= 0; start = end + 1) {
    addresses.push(base + start);
  }
  return addresses;
}
