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

/** Variables that change what deno makes or how it works, but not where it finds or keeps things. */
const MEDDLING =
  /^(DENO_(?!DIR$|CERT$|TLS_CA_STORE$|AUTH_TOKENS$)|NODE_(?!EXTRA_CA_CERTS$)|OTEL_|COMPLETE$)/;

/**
 * The variables that deno gets when it makes something: the caller's, without those that would change it.
 *
 * @example
 * ```ts
 * import { buildEnvironment } from "./settings.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const variables = buildEnvironment({ HOME: "/home/me", DENO_DIR: "/cache", OTEL_DENO: "true" });
 * assertEquals(Object.keys(variables), ["HOME", "DENO_DIR", "DENO_NO_UPDATE_CHECK", "NO_COLOR"]);
 * ```
 */
export function buildEnvironment(
  callers: Readonly<Record<string, string>>,
): Record<string, string> {
  const kept = Object.entries(callers).filter(([name]) => !MEDDLING.test(name));
  return { ...Object.fromEntries(kept), DENO_NO_UPDATE_CHECK: "1", NO_COLOR: "1" };
}

/**
 * Has deno make something.
 *
 * @param folder where it works
 * @returns what it says when it fails; null: it has not
 */
export async function runDeno(args: readonly string[], folder: string): Promise<string | null> {
  const { success, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: folder,
    clearEnv: true,
    env: buildEnvironment(Deno.env.toObject()),
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  return success ? null : new TextDecoder().decode(stderr).trim();
}
