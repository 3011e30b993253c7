// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The runtime and the project in a place that every user can read: checkouts and npm's cache are
 * often below root's home directory.
 *
 * @module
 */
import { must } from "./run.ts";

/** Where an ordinary user finds things. */
export interface UserCopy {
  /** The deno executable. */
  readonly deno: string;
  /** Root of the project's copy. */
  readonly project: string;
  /** A cache directory for deno, which that user can write. */
  readonly denoDir: string;
}

const PROJECT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

/** What of the project is needed to run it. */
const NEEDED = ["main.ts", "mod.ts", "lib", "deno.json"];

const USER_ID = 1000;
const MODE_ALL_READ = 0o755;

let made: Promise<UserCopy> | null = null;

/** The copy of this process; made at the first call and removed when the process ends. */
export function userCopy(): Promise<UserCopy> {
  return made ??= makeCopy();
}

async function makeCopy(): Promise<UserCopy> {
  const root = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-test-` });
  globalThis.addEventListener("unload", () => Deno.removeSync(root, { recursive: true }));
  await Deno.chmod(root, MODE_ALL_READ);
  const copy = { deno: `${root}/deno`, project: `${root}/project`, denoDir: `${root}/cache` };
  await linkOrCopy(await Deno.realPath(Deno.execPath()), copy.deno);
  await Deno.mkdir(copy.project, { mode: MODE_ALL_READ });
  for (const name of NEEDED) {
    const source = `${PROJECT}/${name}`;
    if (await exists(source)) await must(["cp", "-r", source, copy.project]);
  }
  await must(["chmod", "-R", "a+rX", copy.project]);
  await Deno.mkdir(copy.denoDir);
  await Deno.chown(copy.denoDir, USER_ID, USER_ID);
  return copy;
}

async function linkOrCopy(from: string, to: string): Promise<void> {
  const readable = ((await Deno.stat(from)).mode ?? 0) & 0o5;
  if (readable === 0o5) {
    try {
      return await Deno.link(from, to);
    } catch {
      // another file system
    }
  }
  await Deno.copyFile(from, to);
  await Deno.chmod(to, MODE_ALL_READ);
}

async function exists(path: string): Promise<boolean> {
  return await Deno.stat(path).then(() => true, () => false);
}
