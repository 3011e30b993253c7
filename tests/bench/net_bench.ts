// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Speed and cost of the network path beside another program and a bare veth pair.
 *
 * Every figure is the median of several runs, and the runs of all programs take turns, so that
 * whatever else the machine does meets all alike. Everything runs as an ordinary user.
 *
 * @module
 */
import { iperf } from "../helpers/iperf.ts";
import { peer } from "../helpers/peer.ts";
import { sleep } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { benchBind } from "./bind_bench.ts";
import {
  LATENCY_NAMES,
  latencyTable,
  measureLatency,
  measureThroughput,
  type Row,
  Spinners,
  takeTurns,
  throughputTable,
} from "./rows.ts";
import { benchSplice } from "./splice_bench.ts";
import { benchStart } from "./start_bench.ts";
import { figure, formatTable, median, ratio } from "./table.ts";
import { type NetBenchOptions, openProgram, openVeth, type Target } from "./targets.ts";

/** Sections in the order in which they run; the first ones, up to `growth`, are the tap's. */
export const SECTIONS = [
  "tcp",
  "udp",
  "latency",
  "stalls",
  "start",
  "many",
  "growth",
  "splice",
  "bind",
] as const;

/** Sections about the tap. */
export const TAP_SECTIONS: readonly string[] = SECTIONS.slice(0, -2);

const PORT = 25301;
const LATENCY_SECONDS = 1;
const STALL_SECONDS = 10;
const HELD_CONNECTIONS = 19_000;

function throughputRow(
  label: string,
  seconds: number,
  how: { reverse: boolean; streams?: number; udp?: { rate: string; length: number } },
): Row<Target> {
  return {
    label,
    measure(target) {
      const options = { port: PORT, seconds, ...how };
      const cpuSeconds = target.cpuSeconds.bind(target);
      return measureThroughput(`${target.name}, ${label}`, target, cpuSeconds, options);
    },
  };
}

/** The table's columns. */
function columnsOf(options: NetBenchOptions) {
  const { peer, own, runs } = options;
  return { peer: peer?.name, own: own?.name, base: "veth", runs };
}

/** Name of a direction as tables show it. */
function direction(reverse: boolean): string {
  return reverse ? "host→guest" : "guest→host";
}

function tcpRows(mtu: number, seconds: number): Row<Target>[] {
  const rows: Row<Target>[] = [];
  for (const streams of [1, 4]) {
    for (const reverse of [false, true]) {
      const label = `TCP ${mtu} ${direction(reverse)} ×${streams}`;
      rows.push(throughputRow(label, seconds, { reverse, streams }));
    }
  }
  return rows;
}

/** Datagram sizes: what fits into the usual MTU, and what a large one makes worthwhile. */
const SMALL_DATAGRAM = 1400;
const LARGE_DATAGRAM = 16_384;
const LARGE_MTU = 16_500;

function udpRows(mtu: number, seconds: number): Row<Target>[] {
  const length = mtu > LARGE_MTU ? LARGE_DATAGRAM : SMALL_DATAGRAM;
  return [false, true].map((reverse) => {
    const label = `UDP ${mtu} ${direction(reverse)} ${length} B`;
    return throughputRow(label, seconds, { reverse, udp: { rate: "0", length } });
  });
}

/** Opens all targets at one MTU, lets `use` work with them, and closes them. */
async function withTargets<T>(
  options: NetBenchOptions,
  mtu: number,
  use: (targets: Target[]) => Promise<T>,
): Promise<T> {
  await using bed = await Testbed.create({ user: true });
  const targets: Target[] = [];
  try {
    for (const program of [options.peer, options.own]) {
      if (program) targets.push(await openProgram(bed, program, mtu));
    }
    targets.push(await openVeth(mtu));
    return await use(targets);
  } finally {
    for (const target of targets) await target.close();
  }
}

async function benchThroughput(
  options: NetBenchOptions,
  rowsOf: (mtu: number, seconds: number) => Row<Target>[],
  mtus: readonly number[],
): Promise<void> {
  const memory: string[][] = [];
  for (const mtu of mtus) {
    await withTargets(options, mtu, async (targets) => {
      const samples = await takeTurns(rowsOf(mtu, options.seconds), targets, options.runs);
      console.log(throughputTable(samples, columnsOf(options)) + "\n");
      for (const target of targets) {
        if (target.name === "veth") continue;
        memory.push([`${target.name} at MTU ${mtu}`, figure(target.peakMemory())]);
      }
    });
  }
  console.log(formatTable(["Peak memory", "MB"], memory) + "\n");
}

function latencyRow(mode: string, label: string, program: string): Row<Target> {
  return {
    label,
    measure(target) {
      const command = [program, mode, target.server, `${PORT}`, `${LATENCY_SECONDS}`];
      return measureLatency(`${target.name}, ${label}`, target, command);
    },
  };
}

/** Starts one echo server for the programs (host) and one for the veth pair (remote). */
async function serveEcho(targets: Target[], program: string): Promise<void> {
  const started = new Set<unknown>();
  for (const target of targets) {
    const place = target.name === "veth" ? "remote" : "host";
    if (started.has(place)) continue;
    started.add(place);
    await target.serve([program, "serve", `${PORT}`], { tcp: PORT });
  }
}

async function benchLatency(options: NetBenchOptions): Promise<void> {
  const program = await peer();
  await using _spinners = new Spinners(program, options.spin);
  await withTargets(options, options.mtus[0]!, async (targets) => {
    await serveEcho(targets, program);
    const rows = Object.entries(LATENCY_NAMES).map(([mode, name]) =>
      latencyRow(mode, name, program)
    );
    const samples = await takeTurns(rows, targets, options.runs);
    console.log(latencyTable(samples, columnsOf(options)) + "\n");
  });
}

/** Slowest and fastest second of a long run, the first second left out of neither. */
async function benchStalls(options: NetBenchOptions): Promise<void> {
  const rows: string[][] = [];
  for (const mtu of options.mtus) {
    await withTargets(options, mtu, async (targets) => {
      for (const reverse of [false, true]) {
        for (const target of targets) {
          const how = { server: target.server, port: PORT, seconds: STALL_SECONDS, reverse };
          const { samples, retransmits } = await iperf(target, target.serve, how);
          const [low, high] = [Math.min(...samples), Math.max(...samples)];
          const label = `${target.name} ${mtu} ${direction(reverse)}`;
          rows.push([label, figure(low), figure(high), ratio(high, low), `${retransmits}`]);
        }
      }
    });
  }
  const header = [`1-s samples of ${STALL_SECONDS}, Gb/s`, "slowest", "fastest"];
  console.log(formatTable([...header, "fastest/slowest", "retransmits"], rows) + "\n");
}

const MS_PER_S = 1000;

/** Memory with many connections open, and the speed of one among them. */
async function benchMany(options: NetBenchOptions): Promise<void> {
  const program = await peer();
  const rows: string[][] = [];
  for (const tested of [options.peer, options.own]) {
    if (!tested) continue;
    await using bed = await Testbed.create({ user: true });
    const target = await openProgram(bed, tested, options.mtus[0]!);
    await target.serve([program, "serve", `${PORT}`], { tcp: PORT });
    const idle = target.peakMemory();
    const result = await target.run(
      [program, "hold", target.server, `${PORT}`, `${HELD_CONNECTIONS}`],
      { timeoutMs: 90_000 },
    );
    const open = /open (\d+)/.exec(result.stdout)?.[1] ?? "–";
    const active = /([\d.]+) us each/.exec(result.stdout)?.[1] ?? "–";
    rows.push([tested.name, figure(idle), open, figure(target.peakMemory()), active]);
    await target.close();
  }
  const header = [`Memory, ${HELD_CONNECTIONS} connections wanted`, "idle MB", "opened", "peak MB"];
  console.log(formatTable([...header, "µs per round trip on one"], rows) + "\n");
}

/** Seconds of load, and when what has been allocated by then counts as the beginning. */
const GROWTH_SECONDS = 60;
const SETTLED_SECONDS = 10;

/** Memory in the course of a minute of load with many short connections and one bulk stream. */
async function benchGrowth(options: NetBenchOptions): Promise<void> {
  const program = await peer();
  const rows: string[][] = [];
  for (const tested of [options.peer, options.own]) {
    if (!tested) continue;
    await using bed = await Testbed.create({ user: true });
    const target = await openProgram(bed, tested, options.mtus[0]!);
    await target.serve([program, "serve", `${PORT + 1}`], { tcp: PORT + 1 });
    const load = [program, "crr", target.server, `${PORT + 1}`, `${GROWTH_SECONDS}`];
    const how = { server: target.server, port: PORT, seconds: GROWTH_SECONDS };
    const running = Promise.all([
      iperf(target, target.serve, how),
      target.run(load, { timeoutMs: (GROWTH_SECONDS + 10) * MS_PER_S }),
    ]);
    const samples: number[] = [];
    for (let second = 0; second < GROWTH_SECONDS; second++) {
      await sleep(MS_PER_S);
      samples.push(target.memory());
    }
    await running;
    const late = samples.slice(-SETTLED_SECONDS);
    const cells = [samples[0]!, samples[SETTLED_SECONDS]!, median(late), Math.max(...samples)];
    rows.push([tested.name, ...cells.map(figure)]);
    await target.close();
  }
  const header = ["Memory under load, MB", "after 1 s", `${SETTLED_SECONDS} s`];
  console.log(formatTable([...header, `${GROWTH_SECONDS} s`, "most"], rows) + "\n");
}

/** Runs the sections asked for and prints their tables. */
export async function benchNet(options: NetBenchOptions): Promise<void> {
  const udpMtus = options.mtus.filter((mtu) => mtu !== 9000);
  const sections: Record<typeof SECTIONS[number], () => Promise<void>> = {
    tcp: () => benchThroughput(options, tcpRows, options.mtus),
    udp: () => benchThroughput(options, udpRows, udpMtus),
    latency: () => benchLatency(options),
    stalls: () => benchStalls(options),
    start: () => benchStart(options),
    many: () => benchMany(options),
    growth: () => benchGrowth(options),
    splice: () => benchSplice(options),
    bind: () => benchBind(options),
  };
  for (const name of SECTIONS) {
    if (options.sections.length > 0 && !options.sections.includes(name)) continue;
    await sections[name]();
  }
}
