// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The path to a virtual machine: TCP throughput and latency of a Linux guest under QEMU, over both
 * transports of this project and over the other program's stream socket, in the same run.
 *
 * ```text
 *  client :guest ── QEMU ── socket or shared memory ── program │ host ── server
 * ```
 *
 * Each program has a testbed and a guest of its own; all run at the same time, and only one is
 * measured. Without KVM the guest is emulated: its processor is then the limit, and differences
 * between programs shrink.
 *
 * @module
 */
import { peer } from "../helpers/peer.ts";
import { Net, Testbed } from "../helpers/testbed.ts";
import { cpuOf } from "../helpers/usage.ts";
import { Guest, hasKvm, type Transport } from "../vm/guest.ts";
import { configure } from "../vm/network.ts";
import { Passt, passtUnderTest } from "../vm/world.ts";
import {
  LATENCY_NAMES,
  measureLatency,
  measureThroughput,
  type Path,
  type Row,
  type Sample,
  type Samples,
  Spinners,
  takeTurns,
} from "./rows.ts";
import { figure, formatTable, median, ratio } from "./table.ts";

/** What to measure. */
export interface VmBenchOptions {
  /** Command line of the program to compare with, up to its options; null: none. */
  peer: readonly string[] | null;
  /** Command line measured in place of this project; not given: this project. */
  own?: readonly string[];
  runs: number;
  seconds: number;
  mtus: readonly number[];
  spin: boolean;
}

const IPERF_PORT = 25701;
const ECHO_PORT = 25702;
const LATENCY_SECONDS = 1;

const PEER = "peer stream";
const STREAM = "own stream";
const VHOST = "own vhost-user";

/** A guest of a program, and a way to a server in its testbed's host. */
class VmTarget implements Path {
  readonly server = Net.GATEWAY4;

  constructor(
    readonly name: string,
    readonly bed: Testbed,
    readonly passt: Passt,
    readonly guest: Guest,
  ) {}

  static async open(
    name: string,
    transport: Transport,
    program: readonly string[],
    mtu: number,
  ): Promise<VmTarget> {
    const stack = new AsyncDisposableStack();
    try {
      const bed = stack.use(await Testbed.create());
      const options = ["-m", `${mtu}`];
      const passt = stack.use(await Passt.start(bed, { transport, program, options }));
      const guest = stack.use(await passt.guest());
      await configure(guest);
      await bed.serveHost([await peer(), "serve", `${ECHO_PORT}`], { tcp: ECHO_PORT });
      stack.move();
      return new VmTarget(name, bed, passt, guest);
    } catch (error) {
      await stack.disposeAsync();
      throw error;
    }
  }

  readonly run: Path["run"] = (command, options) => this.guest.runWords(command, options);
  readonly serve: Path["serve"] = (command, ready) => this.bed.serveHost(command, ready);

  cpuSeconds(): number {
    return cpuOf(this.passt.process.pid);
  }

  async close(): Promise<void> {
    await this.guest[Symbol.asyncDispose]();
    await this.passt[Symbol.asyncDispose]();
    await this.bed[Symbol.asyncDispose]();
  }
}

function throughputRow(mtu: number, reverse: boolean, seconds: number): Row<VmTarget> {
  const label = `TCP ${mtu} ${reverse ? "host→guest" : "guest→host"}`;
  return {
    label,
    measure(target) {
      const how = { port: IPERF_PORT, seconds, reverse };
      const cpuSeconds = () => target.cpuSeconds();
      return measureThroughput(`${target.name}, ${label}`, target, cpuSeconds, how);
    },
  };
}

function latencyRow(mtu: number, mode: string): Row<VmTarget> {
  const label = `${LATENCY_NAMES[mode]}, MTU ${mtu}`;
  return {
    label,
    measure(target) {
      const command = ["peer", mode, target.server, `${ECHO_PORT}`, `${LATENCY_SECONDS}`];
      return measureLatency(`${target.name}, ${label}`, target, command);
    },
  };
}

/** A table of medians, and ratios of both own ones to the peer and to each other. */
function table(what: string, beside: string, samples: Samples): string {
  const header = [what, "peer stream", "own stream", "own vhost", "stream/peer", "vhost/peer"];
  header.push("vhost/stream", `${beside} peer`, "stream", "vhost");
  const rows = [...samples].map(([label, byTarget]) => {
    const of = (name: string, what: keyof Sample) =>
      median((byTarget.get(name) ?? []).map((sample) => sample[what]));
    const [a, b, c] = [of(PEER, "value"), of(STREAM, "value"), of(VHOST, "value")];
    const cost = [PEER, STREAM, VHOST].map((name) => figure(of(name, "beside")));
    const ratios = [ratio(b, a), ratio(c, a), ratio(c, b)];
    return [label, figure(a), figure(b), figure(c), ...ratios, ...cost];
  });
  return formatTable(header, rows);
}

/** Opens all targets at one MTU. */
async function openTargets(options: VmBenchOptions, mtu: number): Promise<VmTarget[]> {
  const own = options.own ?? passtUnderTest();
  const wanted: [string, Transport, readonly string[]][] = [
    ...(options.peer ? [[PEER, "stream", options.peer] as [string, Transport, string[]]] : []),
    [STREAM, "stream", own],
    [VHOST, "vhost-user", own],
  ];
  const targets: VmTarget[] = [];
  for (const [name, transport, program] of wanted) {
    try {
      targets.push(await VmTarget.open(name, transport, program, mtu));
    } catch (error) {
      console.log(`  ${name}: ${error}`);
    }
  }
  return targets;
}

/** Measures and prints everything about virtual machines. */
export async function benchVm(options: VmBenchOptions): Promise<void> {
  console.log(`Virtual machines, ${await hasKvm() ? "KVM" : "emulated processor"}`);
  const [throughput, latency]: [Samples, Samples] = [new Map(), new Map()];
  for (const mtu of options.mtus) {
    const targets = await openTargets(options, mtu);
    try {
      const rows = [false, true].map((reverse) => throughputRow(mtu, reverse, options.seconds));
      for (const entry of await takeTurns(rows, targets, options.runs)) throughput.set(...entry);
      await using _spinners = new Spinners(await peer(), options.spin);
      const slow = ["rr", "crr"].map((mode) => latencyRow(mtu, mode));
      for (const entry of await takeTurns(slow, targets, options.runs)) latency.set(...entry);
    } finally {
      for (const target of targets) await target.close();
    }
  }
  console.log(table(`Gb/s, median of ${options.runs}`, "CPU s/GB", throughput) + "\n");
  console.log(table(`µs, mean, median of ${options.runs}`, "p99", latency) + "\n");
}
