// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the kernel keeps of our own start.
 *
 * @module
 */
import { E, SysError } from "./errno.ts";

/**
 * Reads the strings that we were started with, each with a zero behind it (proc_pid_cmdline(5),
 * proc_pid_environ(5)).
 *
 * @throws SysError ENOENT when there is no /proc, or that of other processes
 * @example
 * ```ts
 * import { readOwn } from "./own_start.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(readOwn("cmdline").at(-1), 0);
 * ```
 */
export function readOwn(file: "cmdline" | "environ"): Uint8Array<ArrayBuffer> {
  const path = `/proc/self/${file}`;
  try {
    return Deno.readFileSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new SysError("open", path, E.ENOENT, "is /proc mounted?");
  }
}
