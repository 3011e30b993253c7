// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Speed of the flow table beside the same algorithm in C (`flow_peer.c`, compiled with `-O2`).
 *
 * Both do the same work in the same order on tables that were used before, so that page faults and
 * compilation are left out. Runs alternate; figures are medians.
 *
 * @module
 */
import { FlowSide, Pif, SIDE_PORTS, SIDE_WORDS } from "../../lib/flow/side.ts";
import { DATA_WORDS, DEFAULT_CAPACITY, FlowTable } from "../../lib/flow/table.ts";
import { FLOW_PROTO, FlowType } from "../../lib/flow/types.ts";
import { V4_MAPPED } from "../../lib/wire/address.ts";
import { figure, formatTable, median, ratio } from "./table.ts";

/** One line of the result. */
export interface FlowBenchRow {
  /** What was measured. */
  name: string;
  /** Nanoseconds in TypeScript. */
  ours: number;
  /** Nanoseconds in C. */
  c: number;
  /** `ours / c`. */
  ratio: number;
}

const RUNS = 7;
const SMALL = 1000;
const SIDES = 2 * DEFAULT_CAPACITY;
const STRIDE = 79999; // no common divisor with SIDES
const BATCH = 4096;
const ROUNDS = { small: 300, large: 3, sparse: 1000, dense: 20, hash: 32 };
const PROTO = FLOW_PROTO[FlowType.TCP];
const KEY = Int32Array.of(0x03020100, 0x07060504, 0x0b0a0908, 0x0f0e0d0c);
const NAMES = [
  "alloc + setType + activate, 1,000 flows",
  "alloc + setType + activate, 131,071 flows",
  "scan of 131,071 entries, 1 % active",
  "scan of 131,071 entries, 50 % active",
  "scan of 131,071 entries, 100 % active",
  "hashInsert at 70 % load",
  "lookup at 70 % load",
  "hashRemove at 70 % load",
];

function newTable(capacity: number): FlowTable {
  const table = new FlowTable({ capacity, hashKey: KEY });
  table.on(FlowType.TCP, { deferred: (i) => table.data[i * DATA_WORDS] !== 0 });
  fill(table);
  empty(table);
  return table;
}

function fill(table: FlowTable): void {
  for (let k = table.capacity; k > 0; k--) {
    const i = table.alloc();
    table.setType(i, FlowType.TCP);
    table.activate(i);
  }
}

function empty(table: FlowTable): void {
  for (let i = 0; i < table.capacity; i++) table.data[i * DATA_WORDS] = 1;
  table.deferHandler(0);
}

function benchAlloc(table: FlowTable, rounds: number): number {
  let spent = 0;
  for (let k = 0; k < rounds; k++) {
    const start = performance.now();
    fill(table);
    spent += performance.now() - start;
    empty(table);
  }
  return spent * 1e6 / rounds / table.capacity;
}

function benchScan(table: FlowTable, percent: number, rounds: number): number {
  let random = 12345;
  fill(table);
  for (let i = 0; i < table.capacity; i++) {
    random = Math.imul(random, 1664525) + 1013904223 | 0;
    table.data[i * DATA_WORDS] = (random >>> 16) % 100 >= percent ? 1 : 0;
  }
  table.deferHandler(0);
  const start = performance.now();
  for (let k = 0; k < rounds; k++) table.deferHandler(0);
  const spent = (performance.now() - start) * 1e6 / rounds;
  empty(table);
  return spent;
}

function setKey(side: FlowSide, sidx: number): void {
  side.words[3] = Math.imul(sidx, 2654435761);
  side.words[SIDE_PORTS] = sidx;
  side.pif = (sidx & 1) === 0 ? Pif.TAP : Pif.HOST;
}

function benchLookup(table: FlowTable, wanted: FlowSide): number {
  const start = performance.now();
  for (let k = 0, at = 0; k < SIDES; k++) {
    at = (at + STRIDE) % SIDES;
    setKey(wanted, at);
    if (table.lookup(PROTO, wanted) !== at) throw new Error(`Side ${at} not found`);
  }
  return (performance.now() - start) * 1e6 / SIDES;
}

/** Returns ns of insert, lookup and remove. */
function benchHash(table: FlowTable): number[] {
  const wanted = new FlowSide();
  wanted.setEndpoint(Int32Array.of(0, 0, V4_MAPPED, 0), 0, 0);
  wanted.setOur(Int32Array.of(0, 0, V4_MAPPED, 0x0a000001), 0, 0);
  fill(table);
  for (let sidx = 0; sidx < SIDES; sidx++) {
    setKey(wanted, sidx);
    table.sides.set(wanted.words, sidx * SIDE_WORDS);
    table.hashInsert(sidx >> 1, sidx & 1);
  }
  const finding = benchLookup(table, wanted);
  let at = 0, inserting = 0, removing = 0;
  for (let k = 0; k < ROUNDS.hash; k++) {
    const from = at;
    let start = performance.now();
    for (let j = 0; j < BATCH; j++) {
      at = (at + STRIDE) % SIDES;
      table.hashRemove(at >> 1, at & 1);
    }
    removing += performance.now() - start;
    at = from;
    start = performance.now();
    for (let j = 0; j < BATCH; j++) {
      at = (at + STRIDE) % SIDES;
      table.hashInsert(at >> 1, at & 1);
    }
    inserting += performance.now() - start;
  }
  for (let i = 0; i < table.capacity; i++) {
    table.hashRemove(i, 0);
    table.hashRemove(i, 1);
  }
  empty(table);
  const perOperation = 1e6 / ROUNDS.hash / BATCH;
  return [inserting * perOperation, finding, removing * perOperation];
}

function runOurs(small: FlowTable, large: FlowTable): number[] {
  return [
    benchAlloc(small, ROUNDS.small),
    benchAlloc(large, ROUNDS.large),
    benchScan(large, 1, ROUNDS.sparse),
    benchScan(large, 50, ROUNDS.dense),
    benchScan(large, 100, ROUNDS.dense),
    ...benchHash(large),
  ];
}

function compilePeer(directory: string): string {
  const source = new URL("flow_peer.c", import.meta.url).pathname;
  const output = `${directory}/flow_peer`;
  const args = ["-O2", "-Wall", "-Wextra", "-o", output, source];
  const { success, stderr } = new Deno.Command("cc", { args }).outputSync();
  if (!success) throw new Error(`cc: ${new TextDecoder().decode(stderr)}`);
  return output;
}

function runPeer(program: string): number[] {
  const { success, stdout, stderr } = new Deno.Command(program).outputSync();
  if (!success) throw new Error(`flow_peer: ${new TextDecoder().decode(stderr)}`);
  return new TextDecoder().decode(stdout).trim().split("\n").map(Number);
}

/** Measures everything; takes about ten seconds. Needs a C compiler, `cc`. */
export function benchFlow(): FlowBenchRow[] {
  const directory = Deno.makeTempDirSync();
  try {
    const program = compilePeer(directory);
    const small = newTable(SMALL), large = newTable(DEFAULT_CAPACITY);
    runOurs(small, large); // to compile
    const ours: number[][] = [], peer: number[][] = [];
    for (let run = 0; run < RUNS; run++) {
      peer.push(runPeer(program));
      ours.push(runOurs(small, large));
    }
    return NAMES.map((name, k) => {
      const a = median(ours.map((run) => run[k])), b = median(peer.map((run) => run[k]));
      return { name, ours: a, c: b, ratio: a / b };
    });
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

/** The result as lines of text. */
export function formatFlowBench(rows: readonly FlowBenchRow[]): string {
  const cells = rows.map(({ name, ours, c }) => [name, figure(ours), figure(c), ratio(ours, c)]);
  return formatTable(["flow table, ns", "Tubetti", "C -O2", "ratio"], cells);
}

if (import.meta.main) console.log(formatFlowBench(benchFlow()));
