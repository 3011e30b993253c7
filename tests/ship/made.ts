// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What is to be shipped, made once for the tests of a process.
 *
 * @module
 */
import { type Bundle, bundle } from "../../scripts/standalone/bundle.ts";
import { withProgram } from "../../scripts/standalone/segment.ts";
import { missing, type Requirements, requirements } from "../helpers/require.ts";

const READ_ONLY = 0o555;

let bundled: Promise<Bundle> | null = null;
let folder: Promise<string> | null = null;

/** The program's pieces. */
export function madeBundle(): Promise<Bundle> {
  return bundled ??= bundle();
}

/** Reason why nothing can be made here; empty when it can. */
async function lacking(): Promise<string> {
  try {
    await madeBundle();
    return "";
  } catch (error) {
    const message = (error as Error).message;
    if (message.includes("[ERROR]")) return ""; // the bundler is there, and found something wrong
    if (!/registry|download|network|resolve host|dns|connect/i.test(message)) return "";
    return "needs esbuild from the npm registry";
  }
}

const LACKS = await lacking();

/** As `requirements`, of a test that needs the program's pieces. */
export function shipRequirements(needs: Requirements = {}): ReturnType<typeof requirements> {
  return requirements({ tubetti: true, ...needs, lacks: missing(needs) || LACKS });
}

/**
 * The executable made of the stock runtime, in a folder with nothing else but links to it, `pasta` and
 * `passt`; neither can be written, everybody can run it. Gone when the process ends.
 *
 * @returns the folder
 */
export function madeFolder(): Promise<string> {
  return folder ??= makeFolder();
}

async function makeFolder(): Promise<string> {
  const path = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-ship-` });
  globalThis.addEventListener("unload", () => Deno.removeSync(path, { recursive: true }));
  const executable = `${path}/tubetti`;
  const runtime = await Deno.readFile(Deno.execPath());
  await Deno.writeFile(executable, withProgram(runtime, await madeBundle()));
  await Deno.chmod(executable, READ_ONLY);
  for (const name of ["pasta", "passt"]) await Deno.symlink("tubetti", `${path}/${name}`);
  await Deno.chmod(path, READ_ONLY);
  return path;
}
