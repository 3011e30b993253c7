// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Scripts that use the library, run in a testbed's host namespace: from a folder of their own, as their
 * authors would.
 *
 * @module
 */
import { Background, type Result, run, type RunOptions } from "./run.ts";
import { PROJECT, type Testbed, USER_ID } from "./testbed.ts";
import { userCopy } from "./user_copy.ts";

/** How a script is run. */
export interface ScriptOptions extends RunOptions {
  readonly args?: readonly string[];
  /** As an ordinary user. The testbed must have been made with `user`, so that everybody can open the tun device. */
  readonly user?: boolean;
}

/** A folder of scripts. */
export class Scripts implements Disposable {
  readonly bed: Testbed;
  readonly folder: string;
  #made = 0;

  constructor(bed: Testbed) {
    this.bed = bed;
    this.folder = Deno.makeTempDirSync({ prefix: `tubetti-${Deno.pid}-scripts-` });
    Deno.chmodSync(this.folder, 0o755);
  }

  /** Writes a file. @returns its path */
  write(name: string, text: string): string {
    Deno.writeTextFileSync(`${this.folder}/${name}`, text);
    return `${this.folder}/${name}`;
  }

  /** The command that runs a script; `./mod.ts` in it is that of the project. */
  async #command(source: string, options: ScriptOptions): Promise<[string[], RunOptions]> {
    const copy = options.user ? await userCopy() : null;
    const text = source.replaceAll(`"./mod.ts"`, `"${copy?.project ?? PROJECT}/mod.ts"`);
    const file = this.write(`script${++this.#made}.ts`, text);
    const id = `${USER_ID}`;
    const become = copy ? ["setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--"] : [];
    const enter = ["ip", "netns", "exec", this.bed.host, ...become];
    const env = {
      NO_COLOR: "1",
      ...options.env,
      ...(copy ? { DENO_DIR: copy.denoDir, HOME: copy.denoDir } : {}),
    };
    const deno = [copy?.deno ?? Deno.execPath(), "run", "--quiet", "--allow-all"];
    return [
      [...enter, ...deno, file, ...options.args ?? []],
      { cwd: this.folder, ...options, env, mark: this.bed.guestMark },
    ];
  }

  /** Runs a script to its end. */
  async run(source: string, options: ScriptOptions = {}): Promise<Result> {
    return run(...await this.#command(source, options));
  }

  /** Starts a script that is left running; the testbed ends it. */
  async start(source: string, options: ScriptOptions = {}): Promise<Background> {
    return new Background(...await this.#command(source, options));
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.folder, { recursive: true });
  }
}
