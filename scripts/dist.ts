// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `deno task dist [--output=FOLDER]`: fills `dist/` with what is shipped: the executable (`compile.ts`),
 * `pasta` and `passt` as links to it, the manual page, completions for three shells, the licence, and
 * SHA256SUMS for `sha256sum -c`.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { completionScript } from "../lib/config/completion.ts";
import { manualPage } from "../lib/config/manual.ts";
import { makeExecutable } from "./compile.ts";

const PROJECT = new URL("../", import.meta.url);
const OUTPUT = new URL("dist", PROJECT).pathname;
const LINKS = ["pasta", "passt"] as const;
const SUMS = "SHA256SUMS";

/** Files that are text, by the names that shells and man(1) look for. */
function texts(): Record<string, string> {
  return {
    "LICENSE": Deno.readTextFileSync(new URL("LICENSE", PROJECT)),
    "completions/_tubetti": completionScript("zsh"),
    "completions/tubetti.bash": completionScript("bash"),
    "completions/tubetti.fish": completionScript("fish"),
    "tubetti.1": manualPage(),
  };
}

async function sumOf(path: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(path));
  return new Uint8Array(digest).toHex();
}

/** Makes a link, in place of one that is there. */
async function link(target: string, path: string): Promise<void> {
  await Deno.remove(path).catch(() => {});
  await Deno.symlink(target, path);
}

/**
 * Fills a folder with what is shipped. What else is there is left alone.
 *
 * @throws Error as {@linkcode makeExecutable}, or when the folder cannot be written
 */
export async function makeDist(folder: string = OUTPUT): Promise<void> {
  await makeExecutable({ output: `${folder}/tubetti` });
  await Deno.mkdir(`${folder}/completions`, { recursive: true });
  const files = texts();
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(`${folder}/${name}`, text);
  }
  for (const name of LINKS) await link("tubetti", `${folder}/${name}`);
  const lines = [];
  for (const name of [...Object.keys(files), "tubetti"].sort()) {
    lines.push(`${await sumOf(`${folder}/${name}`)}  ${name}\n`);
  }
  await Deno.writeTextFile(`${folder}/${SUMS}`, lines.join(""));
}

if (import.meta.main) {
  const { output } = parseArgs(Deno.args, { string: ["output"] });
  const folder = typeof output === "string" ? output : OUTPUT;
  try {
    await makeDist(folder);
    console.log(folder);
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error));
    Deno.exit(1);
  }
}
