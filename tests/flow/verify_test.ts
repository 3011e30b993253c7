// SPDX-License-Identifier: GPL-2.0-or-later
import { assertThrows } from "@std/assert";
import { type FlowViews, flowViews, HEADER_USED } from "../../lib/flow/layout.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { FlowError, FlowState, FlowType } from "../../lib/flow/types.ts";

const CAPACITY = 8;

/** A table with active flows 0, 1 and 4 and free clusters 2–3 and 5–7, and the views to break it. */
function makeTable(): [FlowTable, FlowViews] {
  const buffer = new ArrayBuffer(FlowTable.byteLength(CAPACITY));
  const table = new FlowTable({ capacity: CAPACITY, buffer });
  for (let k = 0; k < 5; k++) {
    const i = table.alloc();
    table.setType(i, k === 2 || k === 3 ? FlowType.PING4 : FlowType.TCP);
    table.activate(i);
  }
  table.on(FlowType.PING4, { deferred: () => true });
  table.deferHandler(0);
  table.verify();
  return [table, flowViews(buffer, CAPACITY)];
}

/** Each way to break the table: what to do, and what the check says. */
const BREAKS: Record<string, [(views: FlowViews) => void, message: string]> = {
  "a head that the chain misses": [(v) => v.free[2 * 2 + 1] = 6, "expects 6"],
  "a cluster of none": [(v) => v.free[2 * 2] = 0, "cluster of 0"],
  "a cluster beyond the end": [(v) => v.free[2 * 5] = 4, "cluster of 4"],
  "a cluster over an active flow": [(v) => v.free[2 * 2] = 3, "lies in a free cluster"],
  "a chain that descends": [(v) => v.free[2 * 2 + 1] = 2, "next cluster is 2"],
  "a second head inside a cluster": [(v) => v.free[2 * 3] = 1, "n is 1"],
  "a used entry with a cluster": [(v) => v.free[2 * 4] = 1, "n is 1"],
  "a flow in a cluster": [(v) => v.states[6] = FlowState.ACTIVE, "lies in a free cluster"],
  "a forgotten entry": [(v) => v.states[1] = FlowState.NEW, "is forgotten"],
  "an active flow without a type": [(v) => v.types[1] = FlowType.NONE, "type is 0"],
  "a free entry with a type": [(v) => v.types[6] = FlowType.TCP, "type is 1"],
  "a free entry in the index": [(v) => v.hashed[6] = 1, "is in the index"],
  "a lost side": [(v) => v.hashed[1] = 2, "1 in the index, counted 0"],
  "an active flow that nobody is shown": [(v) => v.generations[1]++, "generation is 2"],
  "a free entry that is shown": [(v) => v.generations[2]++, "generation is 3"],
  "an active flow beyond those in use": [(v) => v.header[HEADER_USED] = 4, "generation is 1"],
  "a lost flow": [(v) => {
    v.states[1] = FlowState.FREE;
    v.types[1] = FlowType.NONE;
  }, "expects 2"],
};

for (const [name, [spoil, message]] of Object.entries(BREAKS)) {
  Deno.test(`FlowTable.verify() finds ${name}`, () => {
    const [table, views] = makeTable();
    spoil(views);
    assertThrows(() => table.verify(), FlowError, message);
  });
}

Deno.test("FlowTable.deferHandler() throws when it comes upon a broken entry", () => {
  for (
    const [spoil, message] of [
      [(v: FlowViews) => v.free[2 * 2] = 0, "no head"],
      [(v: FlowViews) => v.states[1] = FlowState.TYPED, "incomplete"],
      [(v: FlowViews) => v.states[1] = 200, "incomplete"],
    ] as const
  ) {
    const [table, views] = makeTable();
    spoil(views);
    assertThrows(() => table.deferHandler(0), FlowError, message);
  }
});

Deno.test("FlowTable.alloc() throws when the first free cluster is broken", () => {
  for (
    const spoil of [
      (v: FlowViews) => v.free[2 * 2] = 0,
      (v: FlowViews) => v.free[2 * 2] = 7,
      (v: FlowViews) => v.states[2] = FlowState.ACTIVE,
    ]
  ) {
    const [table, views] = makeTable();
    spoil(views);
    assertThrows(() => table.alloc(), FlowError, "head of a free cluster");
  }
});
