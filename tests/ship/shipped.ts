// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The executable that is shipped, in a testbed, run by an ordinary user.
 *
 * @module
 */
import type { Result } from "../helpers/run.ts";
import { type GuestOptions, Testbed } from "../helpers/testbed.ts";
import { madeFolder } from "./made.ts";

/** What a login would have set, and a service manager has not. */
export const WITHOUT = ["env", "-u", "HOME", "-u", "XDG_CACHE_HOME", "-u", "DENO_DIR"];

const MODE_ALL = 0o777;

/** A folder that the ordinary user can write to. */
export function writableFolder(): string {
  const path = Deno.makeTempDirSync({ prefix: "tubetti-test-" });
  Deno.chmodSync(path, MODE_ALL);
  return path;
}

/** A testbed whose programs are the executable, under one of its names. */
export class Shipped implements AsyncDisposable {
  private constructor(readonly bed: Testbed, readonly folder: string) {}

  static async create(): Promise<Shipped> {
    return new Shipped(await Testbed.create({ user: true }), await madeFolder());
  }

  /** Command line up to the options. */
  program(name: "tubetti" | "pasta" | "passt" = "pasta"): string[] {
    return [...WITHOUT, `${this.folder}/${name}`, ...(name === "tubetti" ? ["pasta"] : [])];
  }

  /** Runs a command as pasta. */
  guest(
    command: readonly string[],
    options: GuestOptions & { name?: "tubetti" | "pasta" } = {},
  ): Promise<Result> {
    const { name, ...rest } = options;
    const settings = { options: ["-q"], program: this.program(name), ...rest };
    return this.bed.guest(command, settings);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.bed[Symbol.asyncDispose]();
  }
}
