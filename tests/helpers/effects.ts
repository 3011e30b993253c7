// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What it takes to show the effect of every option on a real namespace: the form of an entry, the
 * spellings of an option, and the network that entries look at.
 *
 * An entry runs the program under test twice or more: without the option, and with it in each of its
 * spellings. What is looked at is text, and two patterns say what only one of the two shows.
 *
 * @module
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { OptionSpec } from "../../lib/config/table.ts";
import { PYTHON } from "./edge.ts";
import { ip } from "./netns.ts";
import { describe, type Result } from "./run.ts";
import { type GuestOptions, Net, Testbed, UPLINK, USER_ID } from "./testbed.ts";

const SCRIPT = new URL("effects.py", import.meta.url).pathname;

/** The command line of `effects.py` with these arguments. */
export function effectsCommand(
  mode: "serve" | "ask" | "services" | "share",
  ...args: string[]
): string[] {
  return [PYTHON, SCRIPT, mode, ...args];
}

/** Runs the program under test with options, and says what can be seen. */
export type Look = (world: World, options: readonly string[]) => Promise<string>;

/** How one option shows. */
export interface Effect {
  /** Its value, or what makes it; absent: a flag. */
  readonly value?: string | ((world: World) => string);
  /** What else is given, with the option and without. */
  readonly beside?: readonly string[];
  readonly look: Look;
  /** Seen with the option only. */
  readonly adds?: RegExp;
  /** Seen without the option only. */
  readonly hides?: RegExp;
  /** Seen with the option and without: it is the default, and accepted for compatibility. */
  readonly keeps?: RegExp;
}

/** Every way to write an option: long name, other long names, letter. */
export function spellings({ name, aliases = [], short }: OptionSpec): string[] {
  return [name, ...aliases].map((long) => `--${long}`).concat(short ? [`-${short}`] : []);
}

/** An option as arguments: `--name=VALUE` or `-x VALUE`. */
function written(spelling: string, value: string | undefined): string[] {
  if (value === undefined) return [spelling];
  return spelling.startsWith("--") ? [`${spelling}=${value}`] : [spelling, value];
}

/** Ports that servers of the world have. */
export const Port = {
  /** On the remote only. */
  REMOTE: 25901,
  /** On the host's loopback and on all addresses of the remote. */
  LOOPBACK: 25902,
  /** On the host's own address. */
  HOST: 25903,
  /** Where guests serve: no ephemeral port, so that `auto` finds it. */
  GUEST: 8904,
  /** What is forwarded there. */
  FORWARDED: 25904,
  DNS: 53,
} as const;

/** A second address and a second route of the host, which `--config-net` copies. */
export const SECOND4 = "192.0.2.99";
export const MORE_ROUTE4 = "10.50.0.0/16";
/** A second interface of the host, which also leads to the remote. */
export const OTHER = { name: "other0", host4: "10.77.0.2", host6: "2001:db8:77::2" } as const;

/** Addresses that options give a meaning; the remote has them, without servers. */
export const UNUSED = ["192.0.2.53", "192.0.2.77", "192.0.2.78"] as const;

const OTHER_LINES = {
  host: [
    `addr add ${SECOND4}/24 dev ${UPLINK}`,
    `route add ${MORE_ROUTE4} via ${Net.GATEWAY4} dev ${UPLINK}`,
    `addr add ${OTHER.host4}/24 dev other0`,
    `addr add ${OTHER.host6}/64 dev other0 nodad`,
    "link set other0 up",
    "route add default via 10.77.0.1 dev other0 metric 500",
    "route add ::/0 via 2001:db8:77::1 dev other0 metric 5000",
  ],
  remote: [
    // nobody serves there: what is not sent elsewhere is refused at once
    ...UNUSED.map((address) => `addr add ${address}/32 dev lo`),
    "addr add 10.77.0.1/24 dev other1",
    "addr add 2001:db8:77::1/64 dev other1 nodad",
    "link set other1 up",
  ],
};

/** A testbed with servers and a second way to the remote. */
export class World implements AsyncDisposable {
  readonly #seen = new Map<string, Promise<string>>();
  #target = 0;

  private constructor(
    readonly bed: Testbed,
    /** Everybody may write here. */
    readonly folder: string,
  ) {}

  static async create(): Promise<World> {
    const bed = await Testbed.create();
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-effects-` });
    await Deno.chmod(folder, 0o777);
    const world = new World(bed, folder);
    try {
      await world.#build();
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
    return world;
  }

  async #build(): Promise<void> {
    const { bed } = this;
    const pair = `link add other0 type veth peer other1 netns ${bed.remote}`;
    await ip(bed.host, [pair, ...OTHER_LINES.host]);
    await ip(bed.remote, OTHER_LINES.remote);
    const served = (list: readonly [string, number][]) =>
      effectsCommand("serve", ...list.map((place) => place.join(" ")));
    const text = "ready\n";
    await bed.serveRemote(
      served([
        ...[Port.REMOTE, Port.DNS].flatMap((port): [string, number][] => [
          [Net.REMOTE4, port],
          [Net.REMOTE6, port],
          [Net.GATEWAY4, port],
        ]),
        [Net.GATEWAY4, Port.LOOPBACK],
      ]),
      { text },
    );
    await bed.serveHost(
      served([["127.0.0.1", Port.LOOPBACK], ["::1", Port.LOOPBACK], [Net.HOST4, Port.HOST]]),
      { text },
    );
    const user = ["setpriv", "--reuid", `${USER_ID}`, "--regid", `${USER_ID}`, "--clear-groups"];
    const target = ["unshare", "-Urn", "sh", "-c", "echo ready; exec sleep 3600"];
    this.#target = (await bed.serveHost([...user, "--", ...target], { text })).pid;
    await bed.guest(["true"], { user: true }); // opens the tun device to all, as it is on most machines
  }

  /** A process in a user and a network namespace of its own, made by an ordinary user. */
  get target(): number {
    return this.#target;
  }

  /** Runs a command in a guest to its end, which must be good. */
  async guest(command: readonly string[], options: readonly string[], more: GuestOptions = {}) {
    const result = await this.bed.guest(command, { unconfigured: true, options, ...more });
    assertEquals(result.code, 0, describe([...options, "--", ...command], result));
    return result;
  }

  /** Starts the program under test to its end, whatever that is. */
  start(command: readonly string[], options: readonly string[], more: GuestOptions = {}) {
    return this.bed.guest(command, { unconfigured: true, options, ...more });
  }

  /** Looks without an option; entries that look the same way share what is seen. */
  without(look: Look, options: readonly string[]): Promise<string> {
    const key = [look.name, ...options].join("\0");
    const known = look.name === "" ? undefined : this.#seen.get(key);
    const seen = known ?? look(this, options);
    this.#seen.set(key, seen);
    return seen;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.bed[Symbol.asyncDispose]();
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Fails unless the patterns tell `text`, which was seen with the option or without, from the other. */
function assertShows(text: string, effect: Effect, given: boolean): void {
  const { adds, hides, keeps } = effect;
  assert(adds || hides || keeps, "an effect that nothing tells");
  if (keeps) assertMatch(text, keeps);
  const [there, away] = given ? [adds, hides] : [hides, adds];
  if (there) assertMatch(text, there);
  if (away) assert(!away.test(text), `${away} in: ${text}`);
}

/** Shows one effect: without the option, then with it in each spelling. */
export async function assertEffect(world: World, spec: OptionSpec, effect: Effect): Promise<void> {
  const { beside = [], look } = effect;
  const value = typeof effect.value === "function" ? effect.value(world) : effect.value;
  assertEquals(value !== undefined, spec.value !== undefined, `--${spec.name}: value or flag`);
  assertShows(await world.without(look, beside), effect, false);
  for (const spelling of spellings(spec)) {
    const options = [...beside, ...written(spelling, value)];
    assertShows(await look(world, options), effect, true);
  }
}

/** One line, and nothing else, with exit code 1. */
export function assertRefused(result: Result, line: string): void {
  assertEquals([result.code, result.stdout, result.stderr], [1, "", `tubetti: ${line}\n`]);
}
