// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { FlowTable } from "../../lib/flow/table.ts";
import { FlowError, FlowState, FlowType } from "../../lib/flow/types.ts";
import { addActive, closeAll, closingTable } from "./helpers.ts";

const { FREE, ACTIVE } = FlowState;
const TCP = FlowType.TCP;

Deno.test("FlowTable.deferHandler() merges freed entries with the clusters beside them", () => {
  const table = closingTable(10);
  for (let k = 0; k < 8; k++) addActive(table);
  closeAll(table, [1, 4]);
  table.deferHandler(0);
  assertEquals(table.firstFree, 1);
  assertEquals([1, 4, 8].map((i) => table.freeCluster(i)), [
    { n: 1, next: 4 },
    { n: 1, next: 8 },
    { n: 2, next: 10 },
  ]);
  closeAll(table, [0, 2, 3, 7]);
  table.deferHandler(0);
  assertEquals([0, 7].map((i) => table.freeCluster(i)), [{ n: 5, next: 7 }, { n: 3, next: 10 }]);
  table.verify();
});

Deno.test("FlowTable.deferHandler() visits only active entries and heads of clusters", () => {
  const table = closingTable(131071);
  table.deferHandler(0);
  assertEquals(table.scanVisits, 1);
  for (let k = 0; k < 1000; k++) addActive(table);
  table.deferHandler(0);
  assertEquals(table.scanVisits, 1001);
  closeAll(table, Array.from({ length: 900 }, (_, k) => 50 + k));
  table.deferHandler(0);
  assertEquals(table.scanVisits, 1001);
  table.deferHandler(0);
  assertEquals(table.scanVisits, 102);
});

Deno.test("FlowTable.deferHandler() runs timers at most once in 1000 ms", () => {
  const table = new FlowTable({ capacity: 4 }), calls: string[] = [];
  table.on(TCP, {
    deferred: (i) => calls.push(`deferred ${i}`) < 0,
    timer: (i, nowMs) => calls.push(`timer ${i} at ${nowMs}`) < 0,
  });
  addActive(table);
  const runAt = (nowMs: number) => {
    calls.length = 0;
    table.deferHandler(nowMs);
    return calls.join(", ");
  };
  assertEquals(runAt(999), "deferred 0");
  assertEquals(runAt(1000), "deferred 0, timer 0 at 1000");
  assertEquals(runAt(1999.9), "deferred 0");
  assertEquals(runAt(2500), "deferred 0, timer 0 at 2500");
  assertEquals(runAt(3499), "deferred 0");
  assertEquals(runAt(3500), "deferred 0, timer 0 at 3500");
});

Deno.test("FlowTable.deferHandler() skips the timer of a flow its deferred work closed", () => {
  const table = new FlowTable({ capacity: 4 }), timed: number[] = [];
  table.on(TCP, { deferred: (i) => i === 0, timer: (i) => timed.push(i) > 0 && i === 1 });
  for (let k = 0; k < 3; k++) addActive(table);
  addActive(table, FlowType.UDP);
  table.deferHandler(5000);
  assertEquals(timed, [1, 2]);
  assertEquals([0, 1, 2, 3].map((i) => table.stateOf(i)), [FREE, FREE, ACTIVE, ACTIVE]);
  assertEquals(table.freeCluster(0), { n: 2, next: 4 });
});

Deno.test("FlowTable.on() replaces the work of a type", () => {
  const table = new FlowTable({ capacity: 2 });
  addActive(table);
  table.on(TCP, { deferred: () => true });
  table.on(TCP, {});
  table.deferHandler(5000);
  assertEquals(table.stateOf(0), ACTIVE);
});

Deno.test("FlowTable stays whole when a handler throws", () => {
  for (let bad = 0; bad < 5; bad++) {
    const table = closingTable(10);
    for (let k = 0; k < 6; k++) addActive(table);
    closeAll(table, [0, 2, 3, 5]);
    table.deferHandler(0);
    for (let k = 0; k < 3; k++) addActive(table);
    let failing = true;
    table.on(TCP, {
      deferred: (i) => {
        if (failing && i === bad) throw new TypeError(`handler of ${i}`);
        return i !== 4;
      },
    });
    assertThrows(() => table.deferHandler(0), TypeError, `handler of ${bad}`);
    assertEquals(table.stateOf(bad), ACTIVE);
    table.verify();
    failing = false;
    table.deferHandler(0);
    table.verify();
    assertEquals([table.firstFree, table.activeCount], [0, 1]);
    assertEquals(table.freeCluster(0), { n: 4, next: 5 });
  }
});

Deno.test("FlowTable refuses to allocate, cancel and scan in a handler", () => {
  const table = new FlowTable({ capacity: 4 });
  let tried = 0;
  table.on(TCP, {
    deferred: (i) => {
      assertThrows(() => table.alloc(), FlowError, "not during a scan");
      assertThrows(() => table.allocCancel(i), FlowError, "newest");
      assertThrows(() => table.deferHandler(9999), FlowError, "not during a scan");
      return ++tried === 2;
    },
  });
  for (let k = 0; k < 3; k++) addActive(table);
  table.deferHandler(0);
  assertEquals([tried, table.activeCount, table.firstFree], [3, 2, 1]);
  table.verify();
});
