// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { FlowReader } from "../../lib/flow/reader.ts";
import { FlowSide, Pif } from "../../lib/flow/side.ts";
import { DATA_WORDS, FlowTable } from "../../lib/flow/table.ts";
import { type FlowObserver, FlowState, FlowType } from "../../lib/flow/types.ts";
import { addActive, closeAll, closingTable } from "./helpers.ts";

/** Writes down what it is told. */
function recorder(): FlowObserver & { seen: string[] } {
  const seen: string[] = [];
  return { seen, opened: (i) => seen.push(`+${i}`), closed: (i) => seen.push(`-${i}`) };
}

Deno.test("FlowTable.observer is told of active flows that begin and end", () => {
  const table = closingTable(4), observer = recorder();
  addActive(table); // before
  table.observer = observer;
  addActive(table);
  addActive(table);
  table.allocCancel(table.alloc());
  closeAll(table, [0, 2]);
  table.deferHandler(0);
  addActive(table);
  table.observer = null;
  closeAll(table, [1]);
  table.deferHandler(0);
  assertEquals(observer.seen, ["+1", "+2", "-0", "-2", "+0"]);
});

Deno.test("FlowTable.observer can look at a flow that begins, and at one that ends", () => {
  const buffer = new SharedArrayBuffer(FlowTable.byteLength(4));
  const table = new FlowTable({ capacity: 4, buffer }), reader = new FlowReader(buffer);
  table.on(FlowType.UDP, { deferred: () => true });
  const seen: unknown[] = [], side = new FlowSide();
  const look = (i: number) => {
    const flow = reader.snapshot(i, 0)!;
    seen.push([flow.initiator.pif, flow.target.port, flow.type, flow.label, flow.generation]);
    seen.push([table.typeOf(i), table.stateOf(i), table.data[i * DATA_WORDS]]);
  };
  table.observer = { opened: look, closed: look };
  const i = table.alloc();
  side.pif = Pif.TAP;
  side.eport = 53;
  table.initiate(i, side);
  table.target(i, side);
  table.setType(i, FlowType.UDP);
  table.setLabel(i, table.labelId("dns"));
  table.activate(i);
  table.data[i * DATA_WORDS] = 9;
  table.deferHandler(0);
  const shown = ["TAP", 53, "UDP flow", "dns", 1], { UDP } = FlowType, { ACTIVE } = FlowState;
  assertEquals(seen, [shown, [UDP, ACTIVE, 0], shown, [UDP, ACTIVE, 9]]);
  assertEquals(reader.snapshot(i, 0), null);
});

Deno.test("FlowTable keeps a flow whose end its observer throws at", () => {
  const table = closingTable(4), observer = recorder();
  for (let k = 0; k < 3; k++) addActive(table);
  closeAll(table, [0, 1, 2]);
  table.observer = {
    opened: () => {},
    closed: (i) => {
      if (i === 1) throw new Error("not this one");
    },
  };
  assertThrows(() => table.deferHandler(0), Error, "not this one");
  assertEquals([0, 1, 2].map((i) => table.stateOf(i) === FlowState.ACTIVE), [false, true, true]);
  table.verify();
  table.observer = observer;
  table.deferHandler(0);
  assertEquals([observer.seen, table.activeCount], [["-1", "-2"], 0]);
  table.verify();
});

Deno.test("FlowTable refuses to allocate, cancel or scan while its observer hears of an end", () => {
  const table = closingTable(4), messages: string[] = [];
  addActive(table);
  closeAll(table, [0]);
  table.observer = {
    opened: () => {},
    closed: () => {
      for (const step of [() => table.alloc(), () => table.deferHandler(0)]) {
        messages.push(assertThrows(step, Error).message);
      }
      assertThrows(() => table.allocCancel(0), Error, "newest");
    },
  };
  table.deferHandler(0);
  assertEquals(messages.map((message) => message.includes("not during a scan")), [true, true]);
  table.verify();
});
