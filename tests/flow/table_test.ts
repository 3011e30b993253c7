// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { flowViews } from "../../lib/flow/layout.ts";
import { FlowSide, INI, Pif, TGT } from "../../lib/flow/side.ts";
import { DATA_WORDS, FlowTable } from "../../lib/flow/table.ts";
import {
  FLOW_PROTO,
  FLOW_STATE_NAMES,
  FLOW_TYPE_NAMES,
  FlowError,
  FlowState,
  FlowType,
} from "../../lib/flow/types.ts";
import { fromV4 } from "../../lib/wire/address.ts";
import { addActive, closeAll, closingTable } from "./helpers.ts";

const { FREE, NEW, TYPED, ACTIVE } = FlowState;
const TCP = FlowType.TCP;

function makeSide(pif: number, value: number): FlowSide {
  const side = new FlowSide();
  side.pif = pif;
  side.setEndpoint(fromV4(value), 0, 4000);
  side.setOur(fromV4(value + 1), 0, 80);
  return side;
}
const INI_SIDE = makeSide(Pif.TAP, 0x0a000002), TGT_SIDE = makeSide(Pif.HOST, 0xc0000201);

/** Brings the newest entry of a table from NEW to `state`, with sides on the way. */
function bringTo(table: FlowTable, i: number, state: number): void {
  if (state >= FlowState.INI) table.initiate(i, INI_SIDE);
  if (state >= FlowState.TGT) table.target(i, TGT_SIDE);
  if (state >= TYPED) table.setType(i, TCP, INI);
  if (state >= ACTIVE) table.activate(i);
}

Deno.test("flow constants carry the names and protocols of their numbers", () => {
  assertEquals(Object.keys(FlowState), [...FLOW_STATE_NAMES]);
  assertEquals(Object.values(FlowState), [0, 1, 2, 3, 4, 5]);
  assertEquals(FLOW_TYPE_NAMES[FlowType.TCP_SPLICE], "TCP connection (spliced)");
  assertEquals(FLOW_TYPE_NAMES[FlowType.PING6], "ICMPv6 ping sequence");
  assertEquals(FLOW_TYPE_NAMES.length, Object.keys(FlowType).length);
  assertEquals([...FLOW_PROTO], [0, 6, 6, 1, 58, 17]);
});

Deno.test("FlowTable() is one free cluster of 131071 entries by default", () => {
  const table = new FlowTable();
  assertEquals(table.capacity, 131071);
  assertEquals([table.firstFree, table.activeCount, table.stateOf(0)], [0, 0, FREE]);
  assertEquals(table.freeCluster(0), { n: 131071, next: 131071 });
  assertEquals(table.freeCluster(131070), { n: 0, next: 0 });
});

Deno.test("FlowTable() refuses impossible capacities and small buffers", () => {
  for (const capacity of [0, -1, 1.5, NaN, (1 << 22) + 1]) {
    assertThrows(() => new FlowTable({ capacity }), RangeError, `${capacity}`);
  }
  const bytes = FlowTable.byteLength(10);
  assertThrows(
    () => new FlowTable({ capacity: 10, buffer: new ArrayBuffer(bytes - 1) }),
    RangeError,
    `${bytes}`,
  );
});

Deno.test("FlowTable() takes shared memory, in which an observer sees each flow", () => {
  const buffer = new SharedArrayBuffer(FlowTable.byteLength(5));
  const table = new FlowTable({ capacity: 5, buffer }), observer = flowViews(buffer, 5);
  bringTo(table, table.alloc(), ACTIVE);
  bringTo(table, table.alloc(), FlowState.TGT);
  assertEquals([...observer.states], [ACTIVE, FlowState.TGT, FREE, FREE, FREE]);
  assertEquals([...observer.types], [TCP, 0, 0, 0, 0]);
  assertEquals([...observer.sides.subarray(0, 10)], [...INI_SIDE.words]);
  assertEquals([...observer.free.subarray(4, 6)], [3, 5]);
  table.verify();
});

/** Every operation on an entry, and the states in which it is allowed on the newest entry. */
const OPERATIONS: Record<string, [(table: FlowTable, i: number) => void, allowed: string[]]> = {
  initiate: [(table, i) => table.initiate(i, INI_SIDE), ["NEW"]],
  target: [(table, i) => table.target(i, TGT_SIDE), ["INI"]],
  setType: [(table, i) => table.setType(i, FlowType.UDP, INI), ["NEW", "TGT"]],
  activate: [(table, i) => table.activate(i), ["TYPED"]],
  allocCancel: [(table, i) => table.allocCancel(i), ["NEW", "INI", "TGT", "TYPED"]],
  alloc: [(table) => table.alloc(), ["FREE", "ACTIVE"]],
  deferHandler: [(table) => table.deferHandler(0), ["FREE", "ACTIVE"]],
  hashInsert: [(table, i) => table.hashInsert(i, INI), ["TYPED", "ACTIVE"]],
};

/** A table with an active flow 0 and entry 1 in the given state. */
function tableWith(state: number): FlowTable {
  const table = new FlowTable({ capacity: 4 });
  bringTo(table, table.alloc(), ACTIVE);
  if (state !== FREE) bringTo(table, table.alloc(), state);
  return table;
}

for (const [name, [operation, allowed]] of Object.entries(OPERATIONS)) {
  Deno.test(`FlowTable.${name}() works in ${allowed.join(", ")} and throws in others`, () => {
    for (const state of Object.values(FlowState)) {
      const table = tableWith(state), stateName = FLOW_STATE_NAMES[state];
      const before = [table.stateOf(1), table.typeOf(1), table.firstFree, table.activeCount];
      if (allowed.includes(stateName)) {
        operation(table, 1);
      } else {
        const error = assertThrows(() => operation(table, 1), FlowError);
        assertEquals([error.index, error.state], [1, stateName]);
        assertEquals(error.message, `Flow 1 (${stateName}): ${error.tried}`);
        const after = [table.stateOf(1), table.typeOf(1), table.firstFree, table.activeCount];
        assertEquals(after, before);
      }
      table.verify();
    }
  });
}

Deno.test("FlowTable refuses every step of an entry that is not the newest", () => {
  for (const state of [NEW, FlowState.INI, FlowState.TGT, TYPED]) {
    const table = tableWith(state);
    for (const name of ["initiate", "target", "setType", "activate", "allocCancel"]) {
      for (const i of [0, 2, 3, 4, -1, 0.5, NaN]) {
        assertThrows(() => OPERATIONS[name][0](table, i), FlowError, `Flow`);
      }
    }
    assertEquals([table.stateOf(1), table.stateOf(0)], [state, ACTIVE]);
    table.verify();
  }
});

Deno.test("FlowTable refuses indices and sides that do not exist", () => {
  const table = tableWith(FREE);
  for (const i of [-1, 4, 0.5, NaN]) {
    assertThrows(() => table.stateOf(i), FlowError, "no such entry");
    assertThrows(() => table.typeOf(i), FlowError, "no such entry");
    assertThrows(() => table.freeCluster(i), FlowError, "no such entry");
    assertThrows(() => table.side(i, INI), FlowError, "no such entry");
    assertThrows(() => table.hashRemove(i, INI), FlowError, "no such entry");
    assertThrows(() => table.allocCancel(i), FlowError, "newest");
  }
  for (const s of [-1, 2]) assertThrows(() => table.hashInsert(0, s), FlowError, "no such side");
});

Deno.test("FlowTable.setType() refuses types that do not exist", () => {
  const table = tableWith(NEW);
  for (const type of [FlowType.NONE, FLOW_TYPE_NAMES.length, -1, 300]) {
    assertThrows(() => table.setType(1, type), FlowError, `unknown type ${type}`);
    assertThrows(() => table.on(type, {}), FlowError, `unknown type ${type}`);
  }
  assertEquals(table.stateOf(1), NEW);
});

Deno.test("FlowTable.alloc() returns -1 when full, until a flow is freed", () => {
  const table = closingTable(3);
  assertEquals([0, 1, 2].map(() => addActive(table)), [0, 1, 2]);
  assertEquals([table.alloc(), table.alloc(), table.firstFree], [-1, -1, 3]);
  table.deferHandler(0);
  assertEquals([table.alloc(), table.scanVisits], [-1, 3]);
  closeAll(table, [1]);
  table.deferHandler(0);
  assertEquals([table.alloc(), table.firstFree], [1, 3]);
});

Deno.test("FlowTable.alloc() hands out zeroed sides and data", () => {
  const table = closingTable(2);
  bringTo(table, table.alloc(), ACTIVE);
  table.data.fill(-1);
  table.deferHandler(0);
  table.sides.fill(-1); // late writes to a freed entry
  table.data.fill(-1);
  table.alloc();
  assertEquals(table.data.subarray(0, DATA_WORDS).every((word) => word === 0), true);
  assertEquals(table.side(0, INI).toString(), new FlowSide().toString());
  assertEquals(table.side(0, TGT).words, new FlowSide().words);
  assertEquals(table.data.subarray(DATA_WORDS).every((word) => word === -1), true);
});

Deno.test("FlowTable.allocCancel() leaves a cluster of one for the next scan to merge", () => {
  const table = closingTable(10);
  addActive(table);
  table.allocCancel(table.alloc());
  assertEquals(table.freeCluster(1), { n: 1, next: 2 });
  assertEquals(table.freeCluster(2), { n: 8, next: 10 });
  table.verify();
  table.deferHandler(0);
  assertEquals(table.freeCluster(1), { n: 9, next: 10 });
  assertEquals(table.freeCluster(2), { n: 0, next: 0 });
});

Deno.test("FlowTable.initiate() and target() record copies of the sides", () => {
  const table = new FlowTable({ capacity: 3 }), ini = makeSide(Pif.TAP, 1);
  addActive(table);
  const i = table.alloc();
  table.initiate(i, ini);
  ini.words.fill(-1);
  table.target(i, TGT_SIDE);
  assertEquals(table.side(i, INI).words, makeSide(Pif.TAP, 1).words);
  const loaded = new FlowSide();
  table.loadSide(i, TGT, loaded);
  assertEquals(loaded.words, TGT_SIDE.words);
  table.allocCancel(i);
  assertEquals(table.side(i, INI).words, new FlowSide().words);
});

Deno.test("FlowTable.lookup() finds a side under the protocol of its flow's type", () => {
  const table = tableWith(TYPED);
  assertEquals(table.lookup(6, INI_SIDE), -1);
  assertEquals(table.hashInsert(1, INI), 2);
  assertEquals(table.hashInsert(1, TGT), 3);
  assertEquals([table.lookup(6, INI_SIDE), table.lookup(6, TGT_SIDE)], [2, 3]);
  assertEquals(table.lookup(17, INI_SIDE), -1);
  assertThrows(() => table.hashInsert(1, TGT), FlowError, "side 1 is there already");
  assertEquals([table.hashRemove(1, INI), table.hashRemove(1, INI)], [true, false]);
  assertEquals([table.lookup(6, INI_SIDE), table.lookup(6, TGT_SIDE)], [-1, 3]);
  assertEquals(table.hashCount, 1);
  table.verify();
});

Deno.test("FlowTable takes the sides of a freed or cancelled flow out of the index", () => {
  const table = closingTable(4), i = table.alloc();
  bringTo(table, i, ACTIVE);
  table.hashInsert(i, INI);
  table.hashInsert(i, TGT);
  closeAll(table, [i]);
  table.deferHandler(0);
  assertEquals([table.lookup(6, INI_SIDE), table.lookup(6, TGT_SIDE), table.hashCount], [
    -1,
    -1,
    0,
  ]);
  bringTo(table, table.alloc(), TYPED);
  table.hashInsert(0, TGT);
  table.allocCancel(0);
  assertEquals([table.lookup(6, TGT_SIDE), table.hashCount], [-1, 0]);
  table.verify();
});

Deno.test("FlowTable.hashRemove() throws when the side was changed in the index", () => {
  // with most other keys, and few slots, the changed side would be found where it was
  const hashKey = new Int32Array(4);
  const table = new FlowTable({ capacity: 1000, hashKey });
  for (const state of [ACTIVE, TYPED]) bringTo(table, table.alloc(), state);
  table.hashInsert(1, INI);
  table.sides[2 * 10] ^= 1;
  assertThrows(() => table.hashRemove(1, INI), FlowError, "side 0 has changed");
});

Deno.test("FlowTable.defineType() adds types to one table only", () => {
  const table = new FlowTable({ capacity: 2 }), seen: number[] = [];
  const type = table.defineType("SCTP association", 132);
  assertEquals(type, FLOW_TYPE_NAMES.length);
  table.on(type, { deferred: (i) => seen.push(i) > 0 });
  const i = table.alloc();
  table.initiate(i, INI_SIDE);
  table.target(i, TGT_SIDE);
  table.setType(i, type, TGT);
  assertEquals(table.logLine(i, "hello"), "Flow 0 (SCTP association): hello");
  table.activate(i);
  table.hashInsert(i, TGT);
  assertEquals(table.lookup(132, TGT_SIDE), 1);
  table.deferHandler(0);
  assertEquals([seen, table.stateOf(i)], [[0], FREE]);
  assertThrows(() => new FlowTable({ capacity: 1 }).on(type, {}), FlowError, "unknown type");
});

Deno.test("FlowTable.defineType() refuses impossible protocols and a 257th type", () => {
  const table = new FlowTable({ capacity: 1 });
  for (const proto of [-1, 256, 1.5]) {
    assertThrows(() => table.defineType("odd", proto), FlowError, `protocol ${proto}`);
  }
  for (let k = FLOW_TYPE_NAMES.length; k < 256; k++) {
    assertEquals(table.defineType(`type ${k}`, 0), k);
  }
  assertThrows(() => table.defineType("last", 0), FlowError, "256");
});

Deno.test("FlowTable logs every change of state, with the type once there is one", () => {
  const lines: string[] = [];
  const table: FlowTable = new FlowTable({
    capacity: 2,
    log: (i, message) => lines.push(table.logLine(i, message)),
  });
  table.on(TCP, { deferred: () => true });
  bringTo(table, table.alloc(), ACTIVE);
  table.deferHandler(0);
  table.allocCancel(table.alloc());
  assertEquals(lines, [
    "Flow 0 (NEW): FREE -> NEW",
    "Flow 0 (INI): NEW -> INI",
    "Flow 0 (TGT): INI -> TGT",
    "Flow 0 (TCP connection): TGT -> TYPED",
    "Flow 0 (TCP connection): TYPED -> ACTIVE",
    "Flow 0 (FREE): ACTIVE -> FREE",
    "Flow 0 (NEW): FREE -> NEW",
    "Flow 0 (FREE): NEW -> FREE",
  ]);
});

Deno.test("FlowTable touches its memory only where it is used", () => {
  const resident = () => Deno.memoryUsage().rss;
  const before = resident(), bytes = FlowTable.byteLength(1 << 20);
  const table = new FlowTable({ capacity: 1 << 20 });
  for (let k = 0; k < 100; k++) addActive(table);
  table.deferHandler(0);
  assert(resident() - before < bytes / 10, `${resident() - before} of ${bytes} bytes are resident`);
});
