// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A small network to test in: a "host" namespace in which the program under test runs, joined by
 * an uplink to a "remote" namespace, and, if wanted, a "far" one behind it.
 *
 * ```text
 *  guest ── tap ── program under test │ host ── uplink ── remote ──(far: true)── far
 *                                       192.0.2.2   192.0.2.1                203.0.113.2
 *                                2001:db8:1::2   2001:db8:1::1             2001:db8:3::2
 *                                                lo: 198.51.100.1, 2001:db8:2::1
 * ```
 *
 * The remote's servers listen on the addresses of its loopback interface, because the gateway's
 * address means the host's loopback to a guest. Addresses are those of RFC 5737 and RFC 3849. All
 * that a testbed starts or makes is gone after `await using` (or `[Symbol.asyncDispose]()`).
 *
 * The program under test is `main.ts pasta` of this project, or what the environment variable
 * `TUBETTI_UNDER_TEST` names, such as `TUBETTI_UNDER_TEST=pasta`.
 *
 * @module
 */
import { Background, killHard, MARK, markedProcesses, run, until } from "./run.ts";
import type { FoundProcess, Result, RunOptions } from "./run.ts";
import { addFar, addNamespace, addUplink, hasPort, Net, networkOf, sweep } from "./netns.ts";
import { userCopy } from "./user_copy.ts";

/** The ordinary user that programs run as: any id that is not root's. */
export const USER_ID = 1000;

const TUN_DEVICE = "/dev/net/tun";
const TUN_MODE_ALL = 0o666;
const MODE_BITS = 0o777;

/** Root of the project. */
export const PROJECT = new URL("../..", import.meta.url).pathname.replace(/\/$/, "");

/** What a testbed is made of. */
export interface TestbedOptions {
  /** MTU of the uplink; 65,520 when not given, so that it limits nothing. */
  uplinkMtu?: number;
  /** Programs under test run as an ordinary user, not as root. */
  user?: boolean;
  /** Leave one family out. */
  only?: 4 | 6;
  /** No uplink at all: the host namespace has its loopback interface only. */
  isolated?: boolean;
  /** One more namespace behind the remote, so that packets are forwarded there. */
  far?: boolean;
  /** Whether the host allows ping sockets (`net.ipv4.ping_group_range`); true when not given. */
  pingSockets?: boolean;
  /** Content of the host's resolv.conf. */
  resolvConf?: string;
}

/** How to run a program under test. */
export interface GuestOptions extends RunOptions {
  /** Options of the program under test, before `--`. */
  options?: readonly string[];
  /** Leave `--config-net` out. */
  unconfigured?: boolean;
  /** Overrides the testbed's. */
  user?: boolean;
  /** Program under test in place of the default one. */
  program?: readonly string[];
}

const DEFAULT_RESOLV_CONF = `nameserver ${Net.REMOTE4}\nnameserver ${Net.REMOTE6}\n` +
  "search example.com\n";

/** The command that starts the program under test as root, up to its own options. */
export function programUnderTest(deno: string = Deno.execPath(), project = PROJECT): string[] {
  const named = Deno.env.get("TUBETTI_UNDER_TEST");
  if (named) return named.split(/\s+/).filter((word) => word !== "");
  const flags = ["--quiet", "--no-prompt", "--allow-all", "--v8-flags=--max-semi-space-size=1"];
  return [deno, "run", ...flags, `${project}/main.ts`, "pasta"];
}

/** Whether the program under test is this project's. */
export function isTubetti(): boolean {
  return !Deno.env.get("TUBETTI_UNDER_TEST");
}

/** Options with which the program does not give up root: tests are to find root's rights used well. */
export const STAY_ROOT: readonly string[] = ["--runas", "0"];

/** Whether namespaces can be made here. */
export const CAN_MAKE_NAMESPACES: boolean = Deno.uid() === 0;

let created = 0;

/** Done once per process. */
let swept: Promise<void> | null = null;

/** MTU that limits nothing: the largest a tap has. */
const MOST_MTU = 65520;

/** A network of namespaces; see the module's description. */
export class Testbed {
  readonly name: string;
  readonly host: string;
  readonly remote: string;
  readonly far: string;
  readonly #options: TestbedOptions;
  readonly #servers: Background[] = [];
  #tunMode: number | null = null;
  #made: string[] = [];

  private constructor(options: TestbedOptions) {
    this.name = `tbt-${Deno.pid}-${++created}`;
    this.host = `${this.name}-h`;
    this.remote = `${this.name}-r`;
    this.far = `${this.name}-f`;
    this.#options = options;
  }

  /** Builds the namespaces; removes what it made when that fails. */
  static async create(options: TestbedOptions = {}): Promise<Testbed> {
    await (swept ??= sweep());
    const bed = new Testbed(options);
    try {
      await bed.#build();
    } catch (error) {
      await bed[Symbol.asyncDispose]();
      throw error;
    }
    return bed;
  }

  /** Addresses of one family: host, gateway, remote, far. */
  static addresses(family: 4 | 6): { host: string; gateway: string; remote: string; far: string } {
    return family === 4
      ? { host: Net.HOST4, gateway: Net.GATEWAY4, remote: Net.REMOTE4, far: Net.FAR4 }
      : { host: Net.HOST6, gateway: Net.GATEWAY6, remote: Net.REMOTE6, far: Net.FAR6 };
  }

  async #build(): Promise<void> {
    await Deno.mkdir(`/etc/netns/${this.host}`, { recursive: true });
    await Deno.writeTextFile(
      `/etc/netns/${this.host}/resolv.conf`,
      this.#options.resolvConf ?? DEFAULT_RESOLV_CONF,
    );
    const namespaces = [this.host];
    if (!this.#options.isolated) namespaces.push(this.remote);
    if (this.#options.far) namespaces.push(this.far);
    for (const namespace of namespaces) {
      await addNamespace(namespace, this.#options.pingSockets ?? true);
      this.#made.push(namespace);
    }
    const { uplinkMtu = MOST_MTU, only } = this.#options;
    if (!this.#options.isolated) await addUplink(this.host, this.remote, uplinkMtu, only);
    if (this.#options.far) await addFar(this.remote, this.far);
  }

  /** Mark of the processes that serve: everything but the programs under test. */
  get #mark(): string {
    return this.name;
  }

  /** Mark of programs under test and of what runs in the guest. */
  get guestMark(): string {
    return `${this.name}-guest`;
  }

  /** Runs a command in the host namespace, as root. */
  runHost(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(this.#within(this.host, command), { mark: this.#mark, ...options });
  }

  /** Runs a command in the remote namespace, as root. */
  runRemote(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(this.#within(this.remote, command), { mark: this.#mark, ...options });
  }

  #within(namespace: string, command: readonly string[]): string[] {
    return ["ip", "netns", "exec", namespace, ...command];
  }

  /** Runs the program under test with a command, to its end. */
  async guest(command: readonly string[], options: GuestOptions = {}): Promise<Result> {
    const line = await this.#guestCommand(command, options);
    const result = await run(line.command, { ...options, ...line.options });
    if (result.code === 124) this.killGuests();
    return result;
  }

  /** Starts the program under test with a command that is left running. */
  async startGuest(command: readonly string[], options: GuestOptions = {}): Promise<Background> {
    const line = await this.#guestCommand(command, options);
    return this.#keep(new Background(line.command, { ...options, ...line.options }));
  }

  async #guestCommand(
    command: readonly string[],
    options: GuestOptions,
  ): Promise<{ command: string[]; options: RunOptions }> {
    const user = options.user ?? this.#options.user ?? false;
    let program = options.program ?? programUnderTest();
    const env: Record<string, string> = { ...options.env };
    if (user) {
      this.#openTun();
      const copy = await userCopy();
      if (!options.program) program = programUnderTest(copy.deno, copy.project);
      env["DENO_DIR"] = copy.denoDir;
      env["HOME"] = copy.denoDir;
    }
    const id = `${USER_ID}`;
    const become = user ? ["setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--"] : [];
    const own = [
      ...(user || !isTubetti() ? [] : STAY_ROOT),
      ...(options.unconfigured ? [] : ["--config-net"]),
      ...(options.options ?? []),
    ];
    const cmd = command.length > 0 ? ["--", ...command] : [];
    return {
      command: this.#within(this.host, [...become, ...program, ...own, ...cmd]),
      options: { env, mark: this.guestMark, ...(user ? { cwd: "/" } : {}) },
    };
  }

  /** Lets everybody open the tun device until the testbed goes. */
  #openTun(): void {
    if (this.#tunMode !== null) return;
    const mode = (Deno.statSync(TUN_DEVICE).mode ?? 0) & MODE_BITS;
    this.#tunMode = mode;
    if (mode !== TUN_MODE_ALL) Deno.chmodSync(TUN_DEVICE, TUN_MODE_ALL);
  }

  /** Processes of programs under test: those in the host's network namespace. */
  engineProcesses(): FoundProcess[] {
    const host = this.#namespaceInode();
    return markedProcesses(this.guestMark).filter(({ pid }) => networkOf(pid) === host);
  }

  /** Processes in a guest: neither in the host's nor in our own network namespace. */
  guestProcesses(): FoundProcess[] {
    const others = [this.#namespaceInode(), networkOf(Deno.pid)];
    return markedProcesses(this.guestMark).filter(({ pid }) => {
      const network = networkOf(pid);
      return network !== null && !others.includes(network);
    });
  }

  #namespaceInode(): string {
    const inode = Deno.statSync(`/run/netns/${this.host}`).ino;
    return `net:[${inode}]`;
  }

  /** Starts a guest that only waits, and gives the means to run commands in its network. */
  async idleGuest(options: GuestOptions = {}): Promise<IdleGuest> {
    const marker = "guest is ready";
    const before = new Set(this.guestProcesses().map(({ pid }) => pid));
    const idle = () =>
      this.guestProcesses().find(({ pid, command }) =>
        command === "sleep 3600" && !before.has(pid)
      );
    const background = await this.startGuest(
      ["/bin/sh", "-c", `echo ${marker}; exec sleep 3600`],
      options,
    );
    await background.waitFor(marker);
    await until(() => idle() !== undefined);
    const found = idle();
    if (!found) throw new Error(`No guest process found: ${background.stderr}`);
    return new IdleGuest(this, background, found.pid);
  }

  /** Ends all programs under test and everything in their guests. */
  killGuests(): void {
    for (const { pid } of markedProcesses(this.guestMark)) killHard(pid);
  }

  /** Starts a server in the host namespace; see {@linkcode serveRemote}. */
  serveHost(command: readonly string[], ready: ServerReady): Promise<Background> {
    return this.#serve(this.host, command, ready);
  }

  /** Starts a server in the remote namespace and waits until it listens or has said so. */
  serveRemote(command: readonly string[], ready: ServerReady): Promise<Background> {
    return this.#serve(this.remote, command, ready);
  }

  /** Starts a server in the far namespace. */
  serveFar(command: readonly string[], ready: ServerReady): Promise<Background> {
    return this.#serve(this.far, command, ready);
  }

  async #serve(
    namespace: string,
    command: readonly string[],
    ready: ServerReady,
  ): Promise<Background> {
    const server = new Background(this.#within(namespace, command), { mark: this.#mark });
    this.#keep(server);
    await untilReady(server, ready);
    return server;
  }

  #keep(background: Background): Background {
    this.#servers.push(background);
    return background;
  }

  /** Ends everything that was started and removes everything that was made. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.killGuests();
    for (const server of this.#servers) await server.stop();
    for (const mark of [this.guestMark, this.#mark]) {
      for (const { pid } of markedProcesses(mark)) killHard(pid);
    }
    for (const namespace of this.#made) await run(["ip", "netns", "del", namespace]);
    if (this.#tunMode !== null && this.#tunMode !== TUN_MODE_ALL) {
      Deno.chmodSync(TUN_DEVICE, this.#tunMode);
    }
    await Deno.remove(`/etc/netns/${this.host}`, { recursive: true }).catch(() => {});
    await Deno.remove("/etc/netns").catch(() => {}); // only goes when it is empty
  }
}

/** When a server counts as ready: all that is given must hold. */
export interface ServerReady {
  /** It listens on this TCP port. */
  tcp?: number;
  /** It is bound to this UDP port. */
  udp?: number;
  /** It has printed this. */
  text?: string;
}

/** Waits until a server is ready; throws when it ends or takes too long. */
async function untilReady(server: Background, { tcp, udp, text }: ServerReady): Promise<void> {
  if (text !== undefined) await server.waitFor(text);
  const listens = () =>
    (tcp === undefined || hasPort(server.pid, "tcp", tcp)) &&
    (udp === undefined || hasPort(server.pid, "udp", udp));
  if (!await until(() => server.code !== null || listens()) || server.code !== null) {
    const said = `${server.stdout}${server.stderr}`;
    throw new Error(`${server.command.join(" ")} does not listen: ${said}`);
  }
}

/** A guest that waits while commands are run in its network namespace by `nsenter`. */
export class IdleGuest {
  constructor(
    readonly bed: Testbed,
    readonly background: Background,
    /** A process in the guest, as seen from outside. */
    readonly pid: number,
  ) {}

  /** Runs a command in the guest's network namespace, as root of the whole machine. */
  run(command: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run(this.enter(command), { mark: this.bed.guestMark, ...options });
  }

  /** Starts a command in the guest's network namespace. */
  start(command: readonly string[], options: RunOptions = {}): Background {
    return new Background(this.enter(command), { mark: this.bed.guestMark, ...options });
  }

  /** Starts a server in the guest's network namespace and waits until it listens. */
  async serve(command: readonly string[], ready: ServerReady): Promise<Background> {
    const server = this.start(command);
    await untilReady(server, ready);
    return server;
  }

  /** The command line that runs `command` in the guest's network namespace. */
  enter(command: readonly string[]): string[] {
    return ["nsenter", "-t", `${this.pid}`, "-n", "--", ...command];
  }

  /** Ends the guest and its program under test. */
  async stop(): Promise<void> {
    await this.background.stop("SIGTERM");
    this.bed.killGuests();
  }
}

export { MARK, Net };
export { UPLINK } from "./netns.ts";
