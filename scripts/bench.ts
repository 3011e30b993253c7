// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `deno task bench [OPTIONS] [SECTION…]`: the flow table beside C, and the network path beside
 * another program and a bare veth pair.
 *
 * Sections: flow, net (= tcp udp latency stalls start many growth), splice, bind, or any of those by
 * name, vm; all when none is named.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { benchFlow } from "../tests/bench/flow_bench.ts";
import { benchNet, SECTIONS, TAP_SECTIONS } from "../tests/bench/net_bench.ts";
import { figure, formatTable } from "../tests/bench/table.ts";
import { benchVm } from "../tests/bench/vm_bench.ts";
import { BENCH_PACKAGES, bringPackages, TEST_PACKAGES } from "../tests/helpers/packages.ts";
import { VM_PACKAGES } from "../tests/vm/image.ts";

const HELP = `Usage: deno task bench [OPTIONS] [SECTION...]
  SECTION       flow, net, ${SECTIONS.join(", ")}, vm; all when none is given
  --vs COMMAND  compare with COMMAND [pasta; vm: passt]; "none": with the veth pair only
  --own COMMAND measure COMMAND in place of this project; "none": nothing
  --runs N      runs per figure [5]
  --seconds N   seconds per throughput run [3]
  --mtu LIST    MTUs, separated by commas [1500,9000,65520]
  --spin        keep processors awake while latency is measured
  --quick       short for --runs 3 --seconds 2`;

const args = parseArgs(Deno.args, {
  string: ["vs", "own", "runs", "seconds", "mtu"],
  boolean: ["quick", "spin", "help"],
});

/** A text option's value; parseArgs types them loosely. */
function option(name: "vs" | "own" | "runs" | "seconds" | "mtu"): string | undefined {
  const value: unknown = args[name];
  return typeof value === "string" ? value : undefined;
}

function positive(text: string | undefined, otherwise: number, name: string): number {
  const value = text === undefined ? otherwise : Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  console.error(`--${name}: ${text} is no positive number`);
  Deno.exit(1);
}

function exists(path: URL): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

async function main(): Promise<void> {
  const words = args._.map(String);
  const unknown = words.find((word) => !["flow", "net", "vm", ...SECTIONS].includes(word));
  if (args.help || unknown !== undefined) {
    if (unknown !== undefined) console.error(`Unknown section: ${unknown}`);
    console.log(HELP);
    Deno.exit(args.help ? 0 : 1);
  }
  const all = words.length === 0;
  if (all || words.includes("flow")) flowTable();
  const sections = words.flatMap((word) =>
    word === "net" ? TAP_SECTIONS : word === "flow" || word === "vm" ? [] : [word]
  );
  if (all || sections.length > 0) await network(sections);
  if (all || words.includes("vm")) await machines();
}

/** MTU that the benchmark of virtual machines leaves out. */
const NOT_FOR_MACHINES = 9000;

async function machines(): Promise<void> {
  if (Deno.uid() !== 0) return console.log("Not root: virtual machines are left out");
  const left = await bringPackages(TEST_PACKAGES);
  const needed = [...VM_PACKAGES].filter((name) => left.includes(name));
  if (needed.length > 0) return console.log(`Virtual machines need ${needed.join(", ")}`);
  const vs = option("vs") ?? "passt";
  const own = option("own");
  await benchVm({
    peer: vs === "none" || left.includes("passt") ? null : [...split(vs), "--runas", "0"],
    ...(own ? { own: split(own) } : {}),
    runs: positive(option("runs"), args.quick ? 3 : 5, "runs"),
    seconds: positive(option("seconds"), args.quick ? 2 : 3, "seconds"),
    mtus: mtus().filter((mtu) => mtu !== NOT_FOR_MACHINES),
    spin: args.spin === true,
  });
}

function split(text: string): string[] {
  return text.split(/\s+/).filter((word) => word !== "");
}

function mtus(): number[] {
  return (option("mtu") ?? "1500,9000,65520").split(",").map((mtu) => positive(mtu, 0, "mtu"));
}

function flowTable(): void {
  const rows = benchFlow().map((
    { name, ours, c, ratio },
  ) => [name, ...[ours, c, ratio].map(figure)]);
  console.log(formatTable(["Flow table, ns", "ours", "C", "ratio"], rows) + "\n");
}

async function network(sections: string[]): Promise<void> {
  if (Deno.uid() !== 0) return console.log("Not root: the network benchmark is left out");
  const vs = option("vs") ?? "pasta";
  const packages = vs === "pasta" ? [...TEST_PACKAGES, ...BENCH_PACKAGES] : TEST_PACKAGES;
  const left = await bringPackages(packages);
  const built = exists(new URL("../main.ts", import.meta.url));
  const own = option("own") ?? (built ? "" : "none");
  await benchNet({
    peer: vs === "none" || left.includes("passt")
      ? null
      : { name: split(vs)[0]!.replace(/.*\//, ""), command: split(vs) },
    own: own === "none"
      ? null
      : own === ""
      ? { name: "tubetti" }
      : { name: "own", command: split(own) },
    runs: positive(option("runs"), args.quick ? 3 : 5, "runs"),
    seconds: positive(option("seconds"), args.quick ? 2 : 3, "seconds"),
    mtus: mtus(),
    sections,
    spin: args.spin === true,
  });
}

await main();
