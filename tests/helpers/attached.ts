// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A namespace that others made, and the program under test attached to it: in the background, or in the
 * foreground with `-f`.
 *
 * @module
 */
import { Background, killHard, markedProcesses, must, run } from "./run.ts";
import type { FoundProcess, Result, RunOptions } from "./run.ts";
import { programUnderTest, STAY_ROOT, type Testbed } from "./testbed.ts";

let made = 0;

/** One namespace in a testbed, with a folder for files. */
export class AttachedCase implements AsyncDisposable {
  readonly bed: Testbed;
  readonly name: string;
  readonly folder: string;
  readonly pidFile: string;

  private constructor(bed: Testbed) {
    this.bed = bed;
    this.name = `${bed.name}-a${++made}`;
    this.folder = Deno.makeTempDirSync({ prefix: "tubetti-life-" });
    this.pidFile = `${this.folder}/pid`;
  }

  static async create(bed: Testbed): Promise<AttachedCase> {
    const created = new AttachedCase(bed);
    await must(["ip", "netns", "add", created.name]);
    return created;
  }

  /** The command that attaches, as root. */
  command(options: readonly string[] = []): string[] {
    const own = ["--config-net", "-P", this.pidFile, "--netns", `/run/netns/${this.name}`];
    const enter = ["ip", "netns", "exec", this.bed.host];
    return [...enter, ...programUnderTest(), ...STAY_ROOT, ...own, ...options];
  }

  /** Attaches in the background, and returns when the first process has. */
  attach(options: readonly string[] = [], run_: RunOptions = {}): Promise<Result> {
    return run(this.command(options), { mark: this.name, ...run_ });
  }

  /** Attaches in the foreground. */
  attachForeground(options: readonly string[] = []): Background {
    return new Background(this.command(["-f", ...options]), { mark: this.name });
  }

  /** Number that the program wrote down. */
  get pid(): number {
    return Number(Deno.readTextFileSync(this.pidFile));
  }

  /** Runs a command in the namespace. */
  inside(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    const enter = ["ip", "netns", "exec", this.name];
    return run([...enter, ...command], { mark: this.name, ...options });
  }

  /** Everything that was started here and runs. */
  processes(): FoundProcess[] {
    return markedProcesses(this.name);
  }

  /** Names of the namespace's interfaces. */
  async interfaces(): Promise<string[]> {
    const { stdout } = await this.inside(["ls", "/sys/class/net"]);
    return stdout.trim().split("\n");
  }

  /** Files, processes and interfaces that are there though nothing runs any more. */
  async left(): Promise<string[]> {
    const files = [...Deno.readDirSync(this.folder)].map(({ name }) => name);
    const processes = this.processes().map(({ command }) => command);
    const interfaces = (await this.interfaces()).filter((name) => name !== "lo");
    return [...files, ...processes, ...interfaces];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { pid } of this.processes()) killHard(pid);
    await run(["ip", "netns", "del", this.name]);
    Deno.removeSync(this.folder, { recursive: true });
  }
}
