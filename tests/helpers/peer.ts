// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Compiles `peer.c` once per process; see that file for what it does.
 *
 * @module
 */
import { must } from "./run.ts";

const MODE_ALL_READ = 0o755;

let made: Promise<string> | null = null;

/** Path of the compiled program, which every user can run; removed when the process ends. */
export function peer(): Promise<string> {
  return made ??= compile();
}

async function compile(): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-peer-` });
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  await Deno.chmod(folder, MODE_ALL_READ);
  const source = new URL("peer.c", import.meta.url).pathname;
  await must(["gcc", "-O2", "-Wall", "-o", `${folder}/peer`, source]);
  return `${folder}/peer`;
}
