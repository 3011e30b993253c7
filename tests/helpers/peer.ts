// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Compiles `peer.c` and `storm.c` once per process; see those files for what they do.
 *
 * @module
 */
import { must } from "./run.ts";

const MODE_ALL_READ = 0o755;

const made = new Map<string, Promise<string>>();

/** Path of the compiled `peer.c`, which every user can run; removed when the process ends. */
export function peer(): Promise<string> {
  return compiled("peer");
}

/** Path of the compiled `storm.c`; as {@linkcode peer}. */
export function storm(): Promise<string> {
  return compiled("storm");
}

function compiled(name: string): Promise<string> {
  const known = made.get(name);
  if (known) return known;
  const path = compile(name);
  made.set(name, path);
  return path;
}

async function compile(name: string): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-peer-` });
  globalThis.addEventListener("unload", () => Deno.removeSync(folder, { recursive: true }));
  await Deno.chmod(folder, MODE_ALL_READ);
  const source = new URL(`${name}.c`, import.meta.url).pathname;
  await must(["gcc", "-O2", "-Wall", "-o", `${folder}/${name}`, source]);
  return `${folder}/${name}`;
}
