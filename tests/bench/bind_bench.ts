// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What forwarding many ports costs: the time until they are bound, and memory and processor time
 * while nobody uses them.
 *
 * The namespace's ephemeral ports are chosen so that `all` is about as many ports as the usual limit
 * of descriptors, 20,000, has room for, and that an ordinary user may bind every one.
 *
 * @module
 */
import { boundPorts } from "../helpers/netns.ts";
import { sleep } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { cpuSeconds, loopWakeUpsOf, memoryOf } from "../helpers/usage.ts";
import { figure, formatTable, median } from "./table.ts";
import type { NetBenchOptions, Program } from "./targets.ts";

const SETTINGS = [
  "net.ipv4.ip_local_port_range=19001 65535",
  "net.ipv4.ip_unprivileged_port_start=0",
];

/** What `-t` is given, all other ways being closed. */
const SPECS = ["none", "1-19000", "all"];
const CLOSED = ["-u", "none", "-T", "none", "-U", "none"];

const MS_PER_S = 1000;
const SETTLE_MS = 1500;
const IDLE_SECONDS = 5;

/** Milliseconds from the start of a program until its command runs; NaN when it refuses. */
async function startOnce(bed: Testbed, program: Program, spec: string): Promise<number> {
  const began = performance.timeOrigin + performance.now();
  const { code, stdout } = await bed.guest(["date", "+%s.%N"], {
    options: ["-t", spec, ...CLOSED],
    ...(program.command ? { program: program.command } : {}),
  });
  return code === 0 ? Number(stdout) * MS_PER_S - began : NaN;
}

/** What a program costs while its ports are open and nothing happens. */
interface IdleCost {
  readonly listeners: number;
  readonly memory: number;
  /** Processor time in milliseconds, and the loop's wake-ups, both in {@linkcode IDLE_SECONDS}. */
  readonly cpuMs: number;
  readonly wakeUps: number;
}

async function idleCost(bed: Testbed, program: Program, spec: string): Promise<IdleCost> {
  const guest = await bed.idleGuest({
    options: ["-t", spec, ...CLOSED],
    ...(program.command ? { program: program.command } : {}),
  });
  await sleep(SETTLE_MS);
  const pids = bed.engineProcesses().map(({ pid }) => pid);
  const wakeUps = () => pids.reduce((sum, pid) => sum + loopWakeUpsOf(pid), 0);
  const [cpu, woken] = [cpuSeconds(bed), wakeUps()];
  await sleep(IDLE_SECONDS * MS_PER_S);
  const cost = {
    listeners: pids.reduce((sum, pid) => sum + boundPorts(pid, "tcp").length, 0),
    memory: pids.reduce((sum, pid) => sum + memoryOf(pid, "VmRSS"), 0),
    cpuMs: (cpuSeconds(bed) - cpu) * MS_PER_S,
    wakeUps: wakeUps() - woken,
  };
  await guest.stop();
  return cost;
}

/** Key of a row. */
function rowName(program: Program, spec: string): string {
  return `${program.name} -t ${spec}`;
}

/** Start-up with no port, with a range and with all; then the cost of having them. */
export async function benchBind(options: NetBenchOptions): Promise<void> {
  await using bed = await Testbed.create({ user: true });
  await bed.runHost(["sysctl", "-q", "-w", ...SETTINGS]);
  const programs = [options.peer, options.own].filter((program) => program !== null);
  const cases = programs.flatMap((program) => SPECS.map((spec) => ({ program, spec })));
  const samples = new Map<string, number[]>();
  for (let round = -1; round < options.runs; round++) {
    for (const { program, spec } of cases) {
      const ms = await startOnce(bed, program, spec);
      if (round < 0) continue; // fills caches
      const name = rowName(program, spec);
      samples.set(name, [...samples.get(name) ?? [], ms]);
    }
  }
  const rows: string[][] = [];
  for (const { program, spec } of cases) {
    const start = median(samples.get(rowName(program, spec))!);
    const bare = median(samples.get(rowName(program, "none"))!);
    const row = [rowName(program, spec), figure(start), figure(start - bare)];
    if (Number.isFinite(start)) {
      const { listeners, memory, cpuMs, wakeUps } = await idleCost(bed, program, spec);
      row.push(`${listeners}`, figure(memory), figure(cpuMs), `${wakeUps}`);
    } else {
      row.push("refused");
    }
    rows.push(row);
  }
  const header = [`Binding, median of ${options.runs}`, "ms until CMD runs", "more than none"];
  header.push("listeners", "MB", `CPU ms in ${IDLE_SECONDS} s`, "wake-ups");
  console.log(formatTable(header, rows) + "\n");
}
