// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `deno task compile [--method=denort|segment] [--runtime=FILE] [--output=FILE]`: makes `dist/tubetti`,
 * one executable that needs nothing but the C library.
 *
 * Two methods make the same program. `denort` is `deno compile`, whose base, `denort`, deno takes from
 * DENORT_BIN, from its cache, or from its own host on the network. Unless told otherwise, that is done
 * where the base is on this machine already; else the stock deno executable becomes the base, with one
 * more segment (`standalone/segment.ts`). With `segment`, `--runtime` names that of another machine.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { bundle } from "./standalone/bundle.ts";
import { compile, findDenort } from "./standalone/denort.ts";
import { withProgram } from "./standalone/segment.ts";

const OUTPUT = new URL("../dist/tubetti", import.meta.url).pathname;
const EXECUTABLE = 0o755;
const METHODS = ["denort", "segment"] as const;

type Method = typeof METHODS[number];

/** What to make. */
export interface CompileOptions {
  /** By what is on this machine unless given. */
  readonly method?: Method | undefined;
  /** The runtime of the method `segment`: the one that runs this unless given. */
  readonly runtime?: string | undefined;
  /** `dist/tubetti` unless given. */
  readonly output?: string | undefined;
}

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

/** The method that can be used here. Says so when it is not the first choice. */
function methodHere(): Method {
  if (findDenort(Deno.env.toObject(), exists) !== null) return "denort";
  console.error("No denort here (DENORT_BIN, deno's cache): using the stock executable");
  return "segment";
}

/** Replaces a file, which may be running. */
async function place(output: string, write: (path: string) => Promise<void>): Promise<void> {
  await Deno.mkdir(output.replace(/\/?[^/]*$/, "") || ".", { recursive: true });
  const fresh = `${output}.new`;
  try {
    await write(fresh);
    await Deno.chmod(fresh, EXECUTABLE);
    await Deno.rename(fresh, output);
  } finally {
    await Deno.remove(fresh).catch(() => {}); // there only when something failed
  }
}

/**
 * Makes the executable. Takes some seconds, and needs esbuild from the npm registry, or deno's cache.
 *
 * @returns its path
 * @throws Error when a part cannot be had
 */
export async function makeExecutable(options: CompileOptions = {}): Promise<string> {
  const output = options.output ?? OUTPUT;
  const method = options.method ?? (options.runtime ? "segment" : methodHere());
  const program = await bundle();
  await place(output, async (path) => {
    if (method === "denort") return await compile(program, path);
    const runtime = await Deno.readFile(options.runtime ?? Deno.execPath());
    await Deno.writeFile(path, withProgram(runtime, program));
  });
  return output;
}

function fail(message: string): never {
  console.error(message);
  Deno.exit(1);
}

if (import.meta.main) {
  const names = ["method", "runtime", "output"];
  const { _, ...given } = parseArgs(Deno.args, { string: names });
  const unknown = [..._, ...Object.keys(given).filter((name) => !names.includes(name))][0];
  if (unknown !== undefined) fail(`Unknown argument ${unknown}`);
  const options = given as CompileOptions;
  if (options.method !== undefined && !METHODS.includes(options.method)) {
    fail(`--method=${options.method}: denort or segment`);
  }
  try {
    console.log(await makeExecutable(options));
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error));
  }
}
