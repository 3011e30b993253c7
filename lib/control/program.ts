// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The program that a script starts: the one that it is the library of, unless it names another.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";
import { libc } from "../sys/libc_rare.ts";

/** As in `deno task start` (deno.json). */
const FLAGS = ["--quiet", "--no-prompt", "--allow-all", "--v8-flags=--max-semi-space-size=1"];

/** Where programs are when there is no PATH (confstr(3), _CS_PATH). */
const DEFAULT_PATH = "/bin:/usr/bin";
const X_OK = 1; // unistd.h

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

function isExecutable(path: string): boolean {
  try {
    return Deno.statSync(path).isFile &&
      libc.access(new TextEncoder().encode(`${path}\0`), X_OK) === 0;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return false;
  }
}

function isFolder(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    return false;
  }
}

/**
 * Finds a program before it is started: node:child_process leaves a descriptor behind for each that it
 * cannot start.
 *
 * @param name a path, as seen from the folder, or what is looked for in the folders of `path`
 * @param folder to start in; undefined: ours
 * @param path value of the program's variable PATH
 * @returns an absolute path
 * @throws ConfigError when there is no such program or folder
 * @example
 * ```ts
 * import { findProgram } from "./program.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(findProgram("sh", "/", "/nonexistent:/bin"), "/bin/sh");
 * assertEquals(findProgram("./sh", "/bin", ""), "/bin/./sh");
 * assertThrows(() => findProgram("sh", "/nonexistent"), Error, "cwd: /nonexistent is no folder");
 * ```
 */
export function findProgram(name: string, folder?: string, path: string = DEFAULT_PATH): string {
  if (folder !== undefined && !isFolder(folder)) {
    throw new ConfigError(`cwd: ${shown(folder)} is no folder`);
  }
  const from = folder ?? Deno.cwd();
  const places = name.includes("/") ? [""] : path.split(":");
  const paths = places.map((place) => place === "" ? name : `${place}/${name}`)
    .map((file) => file.startsWith("/") ? file : `${from}/${file}`);
  const found = paths.find(isExecutable);
  if (found !== undefined && name !== "") return found;
  throw new ConfigError(`program: ${shown(name)} cannot be started: no such program`);
}
