// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A small Debian 13 machine with podman, in a testbed's host namespace: see `machine.sh`.
 *
 * Podman runs there as an ordinary user. Its containers have Debian itself as their file system,
 * read-only with an overlay. What podman finds as `pasta` is the program under test, or Debian's own.
 *
 * @module
 */
import { Background, must, processState, run, until } from "../helpers/run.ts";
import type { Result, RunOptions } from "../helpers/run.ts";
import { PROJECT, type Testbed } from "../helpers/testbed.ts";

const SCRIPT = new URL("machine.sh", import.meta.url).pathname;
const USER = "1000";
const PODMAN_TIMEOUT_MS = 120_000;
const MODE_ALL_READ = 0o755;

/** Whose pasta podman starts; `compiled` is there after {@linkcode Machine.addCompiled}. */
export type Pasta = "tubetti" | "debian" | "compiled";

/** Arguments of `podman run` that end with the container's file system; a command follows. */
export const ROOTFS = ["--rootfs", "/opt/images/debian:O"] as const;

/** A process of the machine. */
export interface MachineProcess {
  readonly pid: number;
  readonly command: string;
}

/** The machine; gone after `await using`. */
export class Machine {
  readonly #init: number;
  readonly #folder: string;
  readonly #background: Background;
  readonly #running: Background[] = [];
  readonly mark: string;

  private constructor(bed: Testbed, background: Background, init: number, folder: string) {
    this.mark = bed.guestMark;
    this.#background = background;
    this.#init = init;
    this.#folder = folder;
  }

  /** Starts a machine from a Debian root in the host namespace of a testbed. */
  static async start(bed: Testbed, root: string): Promise<Machine> {
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-machine-` });
    await Deno.chmod(folder, MODE_ALL_READ);
    const namespaces = ["--mount", "--pid", "--ipc", "--uts", "--cgroup"];
    const unshare = ["unshare", ...namespaces, "--fork", "--kill-child", "--"];
    const deno = await Deno.realPath(Deno.execPath());
    const background = await bed.serveHost(
      [...unshare, "sh", SCRIPT, root, folder, PROJECT, deno],
      { text: "machine is ready" },
    );
    const children = await Deno.readTextFile(
      `/proc/${background.pid}/task/${background.pid}/children`,
    );
    return new Machine(bed, background, Number(children), folder);
  }

  /** The command line that runs `command` in the machine. */
  #within(command: readonly string[], user: boolean, env: readonly string[]): string[] {
    const namespaces = ["--mount", "--pid", "--ipc", "--uts", "--cgroup", "--net"];
    const id = user ? USER : "0";
    return [
      ...["nsenter", "-t", `${this.#init}`, ...namespaces, "--root", "--wdns=/"],
      ...["setpriv", "--reuid", id, "--regid", id, "--clear-groups"],
      ...["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
      ...(user ? ["HOME=/home/podman", `XDG_RUNTIME_DIR=/run/user/${USER}`] : ["HOME=/root"]),
      ...env,
      ...command,
    ];
  }

  /** Runs a command as root of the machine. */
  root(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(this.#within(command, false, []), options);
  }

  /** Starts a server as root of the machine, in its own network. */
  serve(command: readonly string[]): Background {
    const server = new Background(this.#within(command, false, []));
    this.#running.push(server);
    return server;
  }

  /** Runs podman. */
  podman(
    args: readonly string[],
    options: RunOptions & { pasta?: Pasta } = {},
  ): Promise<Result> {
    const conf = `CONTAINERS_CONF=/etc/podman-${options.pasta ?? "tubetti"}.conf`;
    const command = this.#within(["podman", ...args], true, [conf]);
    return run(command, { timeoutMs: PODMAN_TIMEOUT_MS, ...options });
  }

  /** Runs a command of the shell in a container of its own; throws when it fails. */
  async container(
    args: readonly string[],
    line: string,
    pasta: Pasta = "tubetti",
  ): Promise<string> {
    const all = ["run", "--rm", ...args, ...ROOTFS, "/bin/sh", "-c", line];
    const result = await this.podman(all, { pasta });
    if (result.code !== 0) throw new Error(explain(["podman", ...all], result));
    return result.stdout;
  }

  /** Starts a container that stays, with a command of the shell. */
  async detached(
    name: string,
    args: readonly string[],
    line: string,
    pasta: Pasta = "tubetti",
  ): Promise<void> {
    const all = ["run", "-d", "--name", name, ...args, ...ROOTFS, "/bin/sh", "-c", line];
    const result = await this.podman(all, { pasta });
    if (result.code !== 0) throw new Error(explain(["podman", ...all], result));
  }

  /** Has podman find, as its pasta of that name, a link to an executable of the project's folder. */
  async addCompiled(path: string): Promise<void> {
    const folder = "/opt/helpers/compiled";
    const script = `mkdir -p ${folder} && ln -sf /opt/tubetti/${path} ${folder}/pasta && ` +
      "sed s,helpers/tubetti,helpers/compiled, /etc/podman-tubetti.conf >/etc/podman-compiled.conf";
    const result = await this.root(["sh", "-c", script]);
    if (result.code !== 0) throw new Error(explain([script], result));
  }

  /** Arguments that pasta was started with since this was last asked. */
  async pastaCalls(): Promise<string[]> {
    const { stdout } = await this.root(["sh", "-c", "cat /tmp/pasta.log; : >/tmp/pasta.log"]);
    return stdout.split("\n").filter(Boolean);
  }

  /** All processes but those that are always there. */
  async processes(): Promise<MachineProcess[]> {
    const { stdout } = await this.root(["ps", "-eo", "pid=,stat=,args="]);
    const found: MachineProcess[] = [];
    for (const line of stdout.split("\n")) {
      const [, pid, state, command] = /^\s*(\d+) (\S+)\s+(.*)$/.exec(line) ?? [];
      if (!command || state!.startsWith("Z") || /^(\S*catatonit -P|ps -eo )/.test(command)) {
        continue;
      }
      found.push({ pid: Number(pid), command });
    }
    return found;
  }

  /** Those of them that are the program under test. */
  async engines(): Promise<MachineProcess[]> {
    return (await this.processes()).filter(({ command }) =>
      /main\.ts pasta --config-net/.test(command)
    );
  }

  /** Ends the servers in the machine's own network. */
  async stopServers(): Promise<void> {
    for (const server of this.#running.splice(0)) await server.stop();
    await this.root(["pkill", "-KILL", "-u", "0", "socat"]); // nsenter(1) leaves them behind
  }

  /** Ends what a step that failed has left. */
  async reset(): Promise<void> {
    await this.stopServers();
    await this.podman(["rm", "-f", "-a", "-t", "0"]);
  }

  /** Waits until no process is left. @returns those that stay all the same */
  async leftovers(): Promise<MachineProcess[]> {
    let left: MachineProcess[] = [];
    await until(async () => (left = await this.processes()).length === 0);
    return left;
  }

  /** Ends the machine and everything in it. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (processState(this.#init) !== null) await must(["kill", "-KILL", `${this.#init}`]);
    for (const server of this.#running) await server.stop();
    await this.#background.stop();
    await Deno.remove(this.#folder);
  }
}

/** As `describe()` of the helpers, without the parts of a command that are always the same. */
export function explain(command: readonly string[], result: Result): string {
  return `${command.join(" ")}: exit ${result.code} after ${Math.round(result.ms)} ms\n` +
    `${result.stdout}${result.stderr}`.slice(-2000);
}
