// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What tests of forwarded ports share: `ports.py`, and looking at sockets, descriptors and the tap's
 * counters from outside.
 *
 * @module
 */
import { PYTHON } from "./edge.ts";
import type { Runner } from "./iperf.ts";
import { type Background, describe } from "./run.ts";
import { type IdleGuest, programUnderTest, type Testbed } from "./testbed.ts";
import { userCopy } from "./user_copy.ts";

const SCRIPT = new URL("ports.py", import.meta.url).pathname;

/** State of a listening socket in /proc/net/tcp: TCP_LISTEN of include/net/tcp_states.h. */
const LISTEN_STATE = "0A";

const HEX = 16;

/** Options that forward nothing in any direction. */
export const NOTHING: readonly string[] = optionsFor({});

/** Specifications by option; those not given are `none`. */
export interface PortOptions {
  t?: string | readonly string[];
  u?: string | readonly string[];
  T?: string | readonly string[];
  U?: string | readonly string[];
}

/** `-t`, `-u`, `-T` and `-U` as given, and `none` for the others. */
export function optionsFor(given: PortOptions): string[] {
  return (["t", "u", "T", "U"] as const).flatMap((letter) =>
    [given[letter] ?? "none"].flat().flatMap((spec) => [`-${letter}`, spec])
  );
}

/** The command line of `ports.py` with these arguments. */
export function portsCommand(...args: (string | number)[]): string[] {
  return [PYTHON, SCRIPT, ...args.map(String)];
}

/** What `ports.py` prints at its end; each mode fills its own properties. */
export interface PortsResult {
  wrong?: number;
  rounds?: number;
  error?: string;
  replies?: Record<string, string>;
}

/** Runs `ports.py` in `place` and returns what it prints last; throws when it fails. */
export async function ports(place: Runner, ...args: (string | number)[]): Promise<PortsResult> {
  const command = portsCommand(...args);
  const result = await place.run(command, { timeoutMs: 60_000 });
  if (result.code !== 0) throw new Error(describe(command, result));
  return resultOf(result.stdout);
}

/** The last line of output, parsed. */
export function resultOf(stdout: string): PortsResult {
  return JSON.parse(stdout.trim().split("\n").at(-1) || "{}");
}

/** Asks servers of `ports.py who`. @returns the replies by `PROTOCOL ADDRESS PORT` */
export async function ask(
  place: Runner,
  protocols: string,
  list: string | number,
  ...addresses: string[]
): Promise<Record<string, string>> {
  return (await ports(place, "ask", protocols, list, ...addresses)).replies!;
}

/** Starts `ports.py` in the guest and waits until it is ready. */
export async function startPorts(
  guest: IdleGuest,
  ...args: (string | number)[]
): Promise<Background> {
  const started = guest.start(portsCommand(...args));
  await started.waitFor("ready\n"); // the end of line tells it from "already in use"
  return started;
}

/** The host's namespace as a place to run commands in. */
export function hostOf(bed: Testbed): Runner {
  return { run: bed.runHost.bind(bed) };
}

/** The remote's namespace as a place to run commands in. */
export function remoteOf(bed: Testbed): Runner {
  return { run: bed.runRemote.bind(bed) };
}

/** The only program under test of a testbed. */
export function engineOf(bed: Testbed): number {
  const [engine] = bed.engineProcesses();
  if (!engine) throw new Error("No program under test is running");
  return engine.pid;
}

/** Ports that are listened on (TCP) or bound (UDP) in the namespace of a process, in order. */
export function openPorts(pid: number, protocol: "tcp" | "udp"): number[] {
  const found = new Set<number>();
  for (const file of [protocol, `${protocol}6`]) {
    for (const line of Deno.readTextFileSync(`/proc/${pid}/net/${file}`).split("\n").slice(1)) {
      const [, local, remote, state] = line.trim().split(/\s+/);
      if (!local || (protocol === "tcp" ? state !== LISTEN_STATE : !remote!.endsWith(":0000"))) {
        continue;
      }
      found.add(parseInt(local.split(":")[1]!, HEX));
    }
  }
  return [...found].sort((a, b) => a - b);
}

/** Number of open descriptors of a process. */
export function descriptorsOf(pid: number): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

/** Bytes that went through the guest's interfaces other than its loopback, both ways. */
export async function tapBytes(guest: IdleGuest): Promise<number> {
  const { stdout } = await guest.run(["cat", "/proc/net/dev"]);
  let sum = 0;
  for (const line of stdout.split("\n").slice(2)) {
    const [device, counters] = line.split(":");
    if (!counters || device!.trim() === "lo") continue;
    const fields = counters.trim().split(/\s+/).map(Number);
    sum += fields[0]! + fields[8]!; // bytes received, bytes sent: proc(5)
  }
  return sum;
}

/** The program under test with at most so many descriptors. */
export async function limited(count: number, user: boolean): Promise<string[]> {
  const copy = user ? await userCopy() : null;
  const program = copy ? programUnderTest(copy.deno, copy.project) : programUnderTest();
  return ["prlimit", `--nofile=${count}:${count}`, ...program];
}
