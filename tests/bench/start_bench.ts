// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How long a start takes: until the command runs, until it and all else has ended, and, attached to the
 * namespaces of a process, until the caller can go on.
 *
 * @module
 */
import { until } from "../helpers/run.ts";
import { Targets } from "../helpers/targets.ts";
import { Testbed } from "../helpers/testbed.ts";
import { figure, formatTable, median, ratio } from "./table.ts";
import type { NetBenchOptions, Program } from "./targets.ts";

const MS_PER_S = 1000;
/** What a start is compared with that takes no program at all. */
const ALONE = "command alone";
const FOLDER_MODE = 0o777;
/** Longest time for an instance to go. */
const END_MS = 5000;

const WHAT = ["until CMD runs", "until all ended", "attached, until the caller goes on"] as const;

/** Milliseconds, by what is measured. */
type Sample = Readonly<Record<typeof WHAT[number], number>>;

/** What a program that is not ours is started with. */
function named(program: Program) {
  return program.command ? { program: program.command } : {};
}

/** One start with a command. */
async function withCommand(bed: Testbed, program: Program | null): Promise<[number, number]> {
  const command = ["date", "+%s.%N"];
  const began = performance.timeOrigin + performance.now();
  const result = program ? await bed.guest(command, named(program)) : await bed.runHost(command);
  return [Number(result.stdout) * MS_PER_S - began, result.ms];
}

function isGone(pid: number): boolean {
  try {
    return /^State:\s*Z/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
  } catch {
    return true;
  }
}

/** One start in the background. NaN when it fails. */
async function attached(bed: Testbed, program: Program, file: string): Promise<number> {
  await using targets = new Targets(bed, true);
  const target = await targets.process("-Urn");
  const options = ["-q", "-P", file, `${target.pid}`];
  const { code, ms } = await bed.guest([], { options, ...named(program) });
  if (code !== 0) return NaN;
  const pid = Number(Deno.readTextFileSync(file));
  Deno.kill(pid, "SIGTERM");
  await until(() => isGone(pid), END_MS);
  return ms;
}

/** Measures and prints. */
export async function benchStart(options: NetBenchOptions): Promise<void> {
  const { peer, own, runs } = options;
  await using bed = await Testbed.create({ user: true });
  const folder = await Deno.makeTempDir({ prefix: "tubetti-bench-" });
  await Deno.chmod(folder, FOLDER_MODE);
  const samples = new Map<string, Sample[]>();
  for (let round = -1; round < runs; round++) {
    const programs: (Program | null)[] = [peer, own].filter((program) => program !== null);
    for (const program of [...programs, null]) {
      const [running, ended] = await withCommand(bed, program);
      const ready = program ? await attached(bed, program, `${folder}/${program.name}`) : NaN;
      if (round < 0) continue; // fills caches
      const name = program?.name ?? ALONE;
      const sample: Sample = { [WHAT[0]]: running, [WHAT[1]]: ended, [WHAT[2]]: ready };
      samples.set(name, [...samples.get(name) ?? [], sample]);
    }
  }
  await Deno.remove(folder, { recursive: true });
  const of = (name: string | undefined, what: typeof WHAT[number]) =>
    median((name === undefined ? [] : samples.get(name) ?? []).map((sample) => sample[what]));
  const rows = WHAT.map((what) => {
    const [a, b] = [of(peer?.name, what), of(own?.name, what)];
    return [what, figure(a), figure(b), figure(of(ALONE, what)), ratio(b, a)];
  });
  const header = [`Start, ms, median of ${runs}`, peer?.name ?? "peer", own?.name ?? "own"];
  console.log(formatTable([...header, ALONE, "own/peer"], rows) + "\n");
}
