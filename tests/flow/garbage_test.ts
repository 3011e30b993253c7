// SPDX-License-Identifier: GPL-2.0-or-later
import { assert } from "@std/assert";
import { FlowSide, INI, Pif, SIDE_PORTS, TGT } from "../../lib/flow/side.ts";
import { Phase } from "../../lib/flow/snapshot.ts";
import { BYTES_INI, COUNTERS, DATA_WORDS, FlowTable } from "../../lib/flow/table.ts";
import { FlowType } from "../../lib/flow/types.ts";

const STEPS = 1_000_000;
const CAPACITY = 1000;
const SAMPLE_STEPS = 10_000;
const MOST_GROWTH = 1 << 20; // one byte for each step: less than the smallest object

/** A flow's whole life in steps of the table: 1000 flows, then a scan that closes most of them. */
function makeWork(): (step: number) => void {
  const at = { nowMs: 0.25 }, told = { opened: 0, closed: 0 };
  const buffer = new SharedArrayBuffer(FlowTable.byteLength(CAPACITY));
  const table = new FlowTable({ capacity: CAPACITY, buffer, clock: () => at.nowMs });
  const side = new FlowSide(), loaded = new FlowSide();
  table.on(FlowType.TCP, {
    deferred: (i) => (table.data[i * DATA_WORDS] & 7) !== 0,
    timer: (i, nowMs) => table.data[i * DATA_WORDS] === nowMs,
  });
  table.observer = { opened: () => told.opened++, closed: () => told.closed++ };
  return (step) => {
    at.nowMs += 0.25;
    const i = table.alloc();
    if (i < 0) return table.deferHandler(step);
    side.pif = Pif.TAP;
    side.words[SIDE_PORTS] = step;
    table.initiate(i, side);
    table.target(i, side);
    if ((step & 3) === 0) return table.allocCancel(i);
    table.setType(i, FlowType.TCP, INI);
    table.data[i * DATA_WORDS] = step;
    const sidx = table.hashInsert(i, INI);
    table.hashInsert(i, TGT);
    if (table.lookup(6, side) !== sidx) throw new Error("not found");
    side.pif = Pif.HOST;
    if (table.lookup(6, side) !== -1) throw new Error("found");
    if (!table.hashRemove(i, TGT)) throw new Error("not removed");
    table.loadSide(i, TGT, loaded);
    table.setLabel(i, table.labelId((step & 4) === 0 ? "a" : "b"));
    table.activate(i);
    table.phases[i] = Phase.OPEN;
    table.counters[i * COUNTERS + BYTES_INI] += step * 1e6;
    if (told.opened - told.closed > CAPACITY) throw new Error("not told");
  };
}

Deno.test(`FlowTable allocates no memory in ${STEPS} steps`, () => {
  const work = makeWork();
  let step = 0;
  for (; step < STEPS / 2; step++) work(step); // to compile
  // What a sample adds to the heap counts; what a collection takes off it does not.
  let grown = 0, last = Deno.memoryUsage().heapUsed;
  for (const end = step + STEPS; step < end;) {
    for (const pause = step + SAMPLE_STEPS; step < pause; step++) work(step);
    const used = Deno.memoryUsage().heapUsed;
    grown += Math.max(0, used - last);
    last = used;
  }
  assert(grown < MOST_GROWTH, `${grown} bytes in ${STEPS} steps`);
});
