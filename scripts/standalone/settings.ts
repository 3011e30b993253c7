// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the executable is fixed to, whichever way it is made.
 *
 * @module
 */

/**
 * Foreign functions can do whatever the process may, so no narrower set of permissions would keep
 * anything out: they only would cost a check each.
 */
export const PERMISSIONS: readonly string[] = ["--allow-all", "--no-prompt"];

/** As `deno task start` has it: a young generation of 1 MiB keeps the heap near 43 MB under load. */
export const V8_FLAGS = "--v8-flags=--max-semi-space-size=1";

/**
 * Nothing but the executable is read, and nothing is written. A cache of compiled code would have to
 * be written to somebody's disk, and a start takes as long with it (88 ms and 88 ms, medians of 21).
 */
export const ISOLATION: readonly string[] = [
  "--no-config",
  "--no-lock",
  "--no-remote",
  "--no-npm",
  "--no-code-cache",
  "--node-modules-dir=none",
];
