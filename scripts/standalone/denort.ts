// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The executable made by `deno compile`, from the program as one module.
 *
 * Theory of operation: `denort` takes V8's flags, permissions, telemetry and unstable features from what was
 * compiled in, and no variable of the caller changes them (cli/rt/run.rs of Deno 2.9). The maker's do: NODE_OPTIONS
 * names modules that would be put in, OTEL_DENO turns telemetry on. So deno is given none of those here.
 *
 * There is no code of ours in front of `denort`, as there is in front of the stock executable (`stub.ts`), so it
 * still sees DENO_LOG (its own messages on standard error) and NODE_CHANNEL_FD (set by Node.js for a child that
 * it has a channel to; the runtime ends where that descriptor is none). The program cannot take that back once
 * it runs, and to execute itself again without them would hide them from the command, too.
 *
 * It does not translate TypeScript either: modules that are not inside (`--policy`) are taken as JavaScript. And a
 * first argument that is the path of the executable itself is left out (cli/rt/binary.rs).
 *
 * @module
 */
import type { Bundle } from "./bundle.ts";
import { runnerOf } from "./runner.ts";
import { ISOLATION, PERMISSIONS, runDeno, V8_FLAGS } from "./settings.ts";

/** The program as one module, which has the pieces as strings. */
export function moduleOf(bundle: Bundle): string {
  return runnerOf((piece) => JSON.stringify(bundle[piece]));
}

/** The environment as far as it is asked here. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * Where the base of `deno compile` is on this machine; null: nowhere. Looks at files only.
 *
 * @param exists whether there is a file
 * @example
 * ```ts
 * import { findDenort } from "./denort.ts";
 * import { assertEquals, assertMatch } from "@std/assert";
 *
 * assertEquals(findDenort({ HOME: "/home/me" }, () => false), null);
 * assertMatch(findDenort({ HOME: "/home/me" }, () => true)!, /^\/home\/me\/\.cache\/deno\/dl\/release\//);
 * ```
 */
export function findDenort(
  env: Environment,
  exists: (path: string) => boolean,
): string | null {
  const named = env["DENORT_BIN"];
  if (named) return exists(named) ? named : null;
  const cache = env["XDG_CACHE_HOME"] ?? (env["HOME"] ? `${env["HOME"]}/.cache` : null);
  const folder = env["DENO_DIR"] ?? (cache ? `${cache}/deno` : null);
  if (folder === null) return null;
  const { version: { deno }, build: { target } } = Deno;
  const path = `${folder}/dl/release/v${deno}/denort-${target}.zip`;
  return exists(path) ? path : null;
}

/** Arguments of deno that make the executable. */
export function compileArguments(module: string, output: string): string[] {
  return [
    ...["compile", "--quiet", "--no-check", ...PERMISSIONS, V8_FLAGS, ...ISOLATION],
    ...["--app-name", "tubetti", "--output", output, module],
  ];
}

/**
 * Makes the executable.
 *
 * @throws Error with what deno says when it refuses
 */
export async function compile(bundle: Bundle, output: string): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tubetti-compile-" });
  try {
    const module = `${folder}/tubetti.js`, made = `${folder}/tubetti`;
    await Deno.writeTextFile(module, moduleOf(bundle));
    await Deno.utime(module, 0, 0); // it is put into the executable
    const failure = await runDeno(compileArguments(module, made), folder);
    if (failure !== null) throw new Error(`deno compile: ${failure}`);
    await Deno.copyFile(made, output);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
