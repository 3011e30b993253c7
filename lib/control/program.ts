// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How a script starts the program that it is the library of.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";

/** As in `deno task start` (deno.json). */
const FLAGS = ["--quiet", "--no-prompt", "--allow-all", "--v8-flags=--max-semi-space-size=1"];

/** A file of the project as a path. @throws ConfigError when it is not on this machine */
function projectFile(name: string): string {
  const url = new URL(`../../${name}`, import.meta.url);
  if (url.protocol === "file:") return decodeURIComponent(url.pathname);
  throw new ConfigError(
    `program: needed, as ${import.meta.url} is not a file: ["tubetti"], for example`,
  );
}

/**
 * The command that runs `main.ts` with the deno that runs this script, whatever folder it is in.
 *
 * @param standalone whether we are an executable of `deno compile`
 * @throws ConfigError in an executable of `deno compile`, which runs no other script
 * @example
 * ```ts
 * import { ownProgram } from "./program.ts";
 * import { assertEquals, assertMatch } from "@std/assert";
 *
 * const program = ownProgram();
 * assertEquals(program[0], Deno.execPath());
 * assertMatch(program.at(-1)!, /\/main\.ts$/);
 * ```
 */
export function ownProgram(standalone: boolean = Deno.build.standalone): string[] {
  if (standalone) {
    throw new ConfigError(
      `program: needed, as ${Deno.execPath()} is not deno: ["tubetti"], for example`,
    );
  }
  const config = `--config=${projectFile("deno.json")}`;
  return [Deno.execPath(), "run", ...FLAGS, config, projectFile("main.ts")];
}
