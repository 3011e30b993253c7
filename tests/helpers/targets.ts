// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Namespaces that others made, for the program under test to join, and the instance that does.
 *
 * @module
 */
import { assert } from "@std/assert";
import { Background, markedProcesses, must, run, until } from "./run.ts";
import { type Testbed, USER_ID } from "./testbed.ts";

/** Printed when everything is ready: the last line of the configuration's summary. */
const READY = "MTU: ";
/** Longest time in which everything must be gone, in milliseconds: far more than it takes. */
export const END_MS = 15_000;
const AS_USER = ["setpriv", "--reuid", `${USER_ID}`, "--regid", `${USER_ID}`, "--clear-groups"];

let made = 0;

/** Processes and named namespaces of a test, which are gone with it. */
export class Targets {
  readonly #processes: Background[] = [];
  readonly #names: string[] = [];

  constructor(readonly bed: Testbed, readonly user: boolean = false) {}

  /** A process that waits, in namespaces as unshare(1) makes them. */
  async process(...flags: string[]): Promise<Background> {
    const command = ["unshare", ...flags, "sh", "-c", "echo up; exec sleep 3600"];
    const mark = `${this.bed.name}-target`;
    const target = new Background(this.user ? [...AS_USER, ...command] : command, { mark });
    this.#processes.push(target);
    await target.waitFor("up");
    return target;
  }

  /** A namespace of ip-netns(8). @returns its name */
  async named(): Promise<string> {
    const name = `${this.bed.name}-n${++made}`;
    await must(["ip", "netns", "add", name]);
    this.#names.push(name);
    return name;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const target of this.#processes) await target.stop();
    for (const name of this.#names) await run(["ip", "netns", "del", name]);
  }
}

/** Starts an instance that joins namespaces, and waits until it is ready. */
export async function attach(
  bed: Testbed,
  args: readonly string[],
): Promise<Background> {
  const instance = await bed.startGuest([], { options: ["-f", ...args] });
  await instance.waitFor(READY);
  return instance;
}

/** Fails unless everything that was started in the testbed ends. */
export async function assertNothingLeft(bed: Testbed): Promise<void> {
  assert(await until(() => markedProcesses(bed.guestMark).length === 0, END_MS));
}
