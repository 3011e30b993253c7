// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Rows of the network benchmark: one figure measured several times on each target, and the tables
 * made of their medians.
 *
 * @module
 */
import { iperf, type IperfOptions, type Runner, type Serve } from "../helpers/iperf.ts";
import { Background } from "../helpers/run.ts";
import { figure, formatTable, median, ratio } from "./table.ts";

/** One measured figure. */
export interface Sample {
  readonly value: number;
  /** What stands beside it: processor seconds per GB carried, or the 99th percentile. */
  readonly beside: number;
}

/** Something that is measured: a program, or what it is compared with. */
export interface Named {
  readonly name: string;
}

/** One row of a table: how to measure it once. */
export interface Row<T extends Named> {
  readonly label: string;
  measure(target: T): Promise<Sample>;
}

/** Samples by row label, then by target name. */
export type Samples = Map<string, Map<string, Sample[]>>;

/** The columns of a table: the program compared with, ours, and what neither can surpass. */
export interface Columns {
  readonly peer: string | undefined;
  readonly own: string | undefined;
  readonly base: string;
  /** Runs behind each median. */
  readonly runs: number;
}

/** Where a client runs, and how it reaches a server. */
export interface Path extends Runner {
  /** Address of the server as the client knows it. */
  readonly server: string;
  readonly serve: Serve;
}

/** What the modes of `peer` measure. */
export const LATENCY_NAMES: Record<string, string> = {
  rr: "TCP request/response",
  crr: "TCP connect/request/response",
  udprr: "UDP request/response",
};

/** Keeps all processors awake while latencies are measured, with work of the lowest priority. */
export class Spinners {
  readonly #running: Background[] = [];

  /** @param program path of `peer`; nothing is started unless `wanted` */
  constructor(program: string, wanted: boolean) {
    if (!wanted) return;
    for (let k = 0; k < navigator.hardwareConcurrency; k++) {
      this.#running.push(new Background([program, "spin"]));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const spinner of this.#running) await spinner.stop();
  }
}

/** Measures all rows on all targets, taking turns, so that what else the machine does meets all. */
export async function takeTurns<T extends Named>(
  rows: readonly Row<T>[],
  targets: readonly T[],
  runs: number,
): Promise<Samples> {
  const samples: Samples = new Map();
  for (let round = 0; round < runs; round++) {
    for (const row of rows) {
      const byTarget = samples.get(row.label) ?? new Map<string, Sample[]>();
      samples.set(row.label, byTarget);
      for (const target of targets) {
        const list = byTarget.get(target.name) ?? [];
        byTarget.set(target.name, list);
        list.push(await row.measure(target));
      }
    }
  }
  return samples;
}

const BYTES_PER_GB = 1e9;

/** One run of iperf3; `cpuSeconds` tells what the program under test has used so far. */
export async function measureThroughput(
  title: string,
  path: Path,
  cpuSeconds: () => number,
  how: Omit<IperfOptions, "server">,
): Promise<Sample> {
  const before = cpuSeconds();
  const report = await iperf(path, path.serve, { server: path.server, ...how });
  if (report.error) console.log(`  ${title}: ${report.error}`);
  const beside = (cpuSeconds() - before) / (report.bytes / BYTES_PER_GB);
  return { value: report.gbps, beside };
}

/** One run of `peer MODE`, whose server must be there; the figures are µs per transaction. */
export async function measureLatency(
  title: string,
  path: Runner,
  command: readonly string[],
): Promise<Sample> {
  const { code, stdout, stderr } = await path.run(command);
  if (code !== 0) console.log(`  ${title}: ${stderr.trim()}`);
  const [, mean, , p99] = stdout.trim().split(" ").map(Number);
  return { value: mean ?? NaN, beside: p99 ?? NaN };
}

/** Median of a row's figure on a target; NaN where it was not measured. */
function medianOf(
  samples: Samples,
  label: string,
  name: string | undefined,
  what: keyof Sample,
): number {
  const list = (name !== undefined && samples.get(label)?.get(name)) || [];
  return median(list.map((sample) => sample[what]));
}

/** The table of throughput: rates, ratios, processor time per GB. */
export function throughputTable(samples: Samples, columns: Columns): string {
  const { peer, own, base, runs } = columns;
  const header = [`Gb/s, median of ${runs}`, peer ?? "peer", own ?? "own", base, "own/peer"];
  header.push(`own/${base}`, "CPU s/GB peer", "own", "ratio", "own min–max");
  const rows = [...samples.keys()].map((label) => {
    const of = (name: string | undefined, what: keyof Sample) =>
      medianOf(samples, label, name, what);
    const [a, b, c] = [of(peer, "value"), of(own, "value"), of(base, "value")];
    const [cpuA, cpuB] = [of(peer, "beside"), of(own, "beside")];
    const all = (samples.get(label)?.get(own ?? peer ?? base) ?? []).map(({ value }) => value);
    return [label, figure(a), figure(b), figure(c), ratio(b, a), ratio(b, c)].concat(
      [figure(cpuA), figure(cpuB), ratio(cpuB, cpuA)],
      [`${figure(Math.min(...all))}–${figure(Math.max(...all))}`],
    );
  });
  return formatTable(header, rows);
}

/** The table of latencies: means, 99th percentiles in brackets, ratios of the means. */
export function latencyTable(samples: Samples, columns: Columns): string {
  const { peer, own, base, runs } = columns;
  const names = [peer, own, base];
  const header = [`µs per transaction, mean (p99), median of ${runs}`, peer ?? "peer"];
  header.push(own ?? "own", base, "own/peer", `own/${base}`);
  const rows = [...samples.keys()].map((label) => {
    const of = (name: string | undefined, what: keyof Sample) =>
      medianOf(samples, label, name, what);
    const cells = names.map((name) =>
      `${figure(of(name, "value"))} (${figure(of(name, "beside"))})`
    );
    const value = of(own, "value");
    return [label, ...cells, ratio(value, of(peer, "value")), ratio(value, of(base, "value"))];
  });
  return formatTable(header, rows);
}
