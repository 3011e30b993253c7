// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  flowViews,
  HEADER_CAPACITY,
  HEADER_MAGIC,
  HEADER_USED,
  HEADER_VERSION,
} from "../../lib/flow/layout.ts";
import { FlowReader } from "../../lib/flow/reader.ts";
import { FlowSide, INI, Pif } from "../../lib/flow/side.ts";
import { Phase } from "../../lib/flow/snapshot.ts";
import { BYTES_INI, BYTES_TGT, COUNTERS, DATA_WORDS, FlowTable } from "../../lib/flow/table.ts";
import { FlowState, FlowType } from "../../lib/flow/types.ts";
import { parseAddress } from "../../lib/wire/address.ts";
import { addActive } from "./helpers.ts";
import { randomFrom } from "./random.ts";

const CAPACITY = 8;
let now = 1000;

/** A table whose flows close when the first word of their data is set, and a reader of it. */
function makePair(capacity: number = CAPACITY): {
  table: FlowTable;
  reader: FlowReader;
  buffer: SharedArrayBuffer;
} {
  const buffer = new SharedArrayBuffer(FlowTable.byteLength(capacity));
  const table = new FlowTable({ capacity, buffer, clock: () => now });
  table.on(FlowType.TCP, { deferred: (i) => table.data[i * DATA_WORDS] !== 0 });
  return { table, reader: new FlowReader(buffer), buffer };
}

function makeSide(pif: number, endpoint: string, port: number, our: string, ourPort: number) {
  const side = new FlowSide();
  side.pif = pif;
  side.setEndpoint(parseAddress(endpoint)!, 0, port);
  side.setOur(parseAddress(our)!, 0, ourPort);
  return side;
}

Deno.test("FlowReader shows all of a flow", () => {
  const { table, reader } = makePair();
  now = 1000.25;
  const i = table.alloc();
  table.initiate(i, makeSide(Pif.TAP, "10.0.0.2", 65535, "192.0.2.1", 80));
  table.target(i, makeSide(Pif.HOST, "2001:db8::1", 80, "::", 40000));
  table.setType(i, FlowType.TCP, INI);
  table.setLabel(i, table.labelId("web"));
  table.activate(i);
  table.phases[i] = Phase.CLOSING;
  table.counters[i * COUNTERS + BYTES_INI] += 100;
  table.counters[i * COUNTERS + BYTES_TGT] += 2 ** 40 + 1;
  assertEquals(reader.capacity, CAPACITY);
  assertEquals([...reader.flows(3000.75)], [{
    index: 0,
    generation: 1,
    type: "TCP connection",
    protocol: 6,
    state: "closing",
    initiator: {
      pif: "TAP",
      address: "10.0.0.2",
      port: 65535,
      ourAddress: "192.0.2.1",
      ourPort: 80,
    },
    target: { pif: "HOST", address: "2001:db8::1", port: 80, ourAddress: "::", ourPort: 40000 },
    bytesFromInitiator: 100,
    bytesFromTarget: 2 ** 40 + 1,
    ageMs: 2000.5,
    label: "web",
  }]);
});

Deno.test("FlowReader shows ACTIVE flows only", () => {
  const { table, reader } = makePair();
  assertEquals([...reader.flows(0)], []);
  addActive(table);
  addActive(table);
  const i = table.alloc();
  table.setType(i, FlowType.TCP);
  assertEquals([...reader.flows(0)].map(({ index }) => index), [0, 1]);
  assertEquals(reader.snapshot(i, 0), null);
  table.activate(i);
  table.data[1 * DATA_WORDS] = 1;
  table.deferHandler(0);
  assertEquals([...reader.flows(0)].map(({ index }) => index), [0, 2]);
  assertEquals(reader.snapshot(1, 0), null);
  table.allocCancel(table.alloc());
  assertEquals([...reader.flows(0)].map(({ index }) => index), [0, 2]);
  table.verify();
});

Deno.test("FlowReader.snapshot() is null for places that do not exist", () => {
  const { table, reader } = makePair(1);
  addActive(table);
  assertEquals(reader.snapshot(0, 0)?.index, 0);
  for (const i of [-1, 1, 0.5, NaN, Infinity]) assertEquals(reader.snapshot(i, 0), null);
});

Deno.test("FlowReader counts the uses of a place, from one", () => {
  const { table, reader } = makePair();
  for (let use = 1; use <= 5; use++) {
    table.allocCancel(table.alloc()); // was never in use
    const i = addActive(table);
    assertEquals(reader.snapshot(i, 0)?.generation, use);
    table.data[i * DATA_WORDS] = 1;
    table.deferHandler(0);
  }
});

Deno.test("FlowReader counts uses past 2³¹", () => {
  const { table, reader, buffer } = makePair();
  const { generations } = flowViews(buffer, CAPACITY);
  for (const [before, use] of [[0x7ffffffe, 2 ** 30], [-2, 2 ** 31], [0, 1]]) {
    generations[0] = before;
    const i = addActive(table);
    assertEquals(reader.snapshot(i, 0)?.generation, use);
    table.data[i * DATA_WORDS] = 1;
    table.deferHandler(0);
    assertEquals(reader.snapshot(i, 0), null);
  }
});

Deno.test("FlowTable hands out entries without counters, phase and label", () => {
  const { table, reader } = makePair();
  const i = addActive(table);
  table.setLabel(i, table.labelId("old"));
  table.phases[i] = Phase.OPEN;
  table.counters.fill(7);
  table.data[i * DATA_WORDS] = 1;
  table.deferHandler(0);
  now = 5000;
  const { generation, state, bytesFromInitiator, bytesFromTarget, ageMs, label } = reader.snapshot(
    addActive(table),
    5001,
  )!;
  assertEquals([generation, state, label], [2, "opening", null]);
  assertEquals([bytesFromInitiator, bytesFromTarget, ageMs], [0, 0, 1]);
});

Deno.test("FlowReader shows no negative age", () => {
  const { table, reader } = makePair();
  now = 5000;
  assertEquals(reader.snapshot(addActive(table), 4000)?.ageMs, 0);
});

Deno.test("FlowReader knows names of defined types", () => {
  const { table, reader } = makePair();
  const long = "é".repeat(40),
    types = ["SCTP association", "", long].map((name) => {
      return table.defineType(name, 132);
    });
  for (const type of types) addActive(table, type);
  const shown = [...reader.flows(0)].map(({ type, protocol }) => [type, protocol]);
  assertEquals(shown, [["SCTP association", 0], [`type ${types[1]}`, 0], ["é".repeat(31), 0]]);
});

Deno.test("FlowReader shows the table to its owner, too", () => {
  const buffer = new ArrayBuffer(FlowTable.byteLength(2));
  const table = new FlowTable({ capacity: 2, buffer });
  addActive(table);
  assertEquals([...new FlowReader(buffer).flows(0)].length, 1);
});

Deno.test("FlowReader() says what is wrong with a buffer", () => {
  assertThrows(() => new FlowReader(new ArrayBuffer(0)), Error, "0 bytes: no flow table");
  assertThrows(() => new FlowReader(new ArrayBuffer(100)), Error, "no flow table");
  const zeroes = new ArrayBuffer(FlowTable.byteLength(4));
  assertThrows(() => new FlowReader(zeroes), Error, "no flow table");
  for (
    const [word, value, message] of [
      [HEADER_MAGIC, 1, "no flow table"],
      [HEADER_VERSION, 77, "layout version 77"],
      [HEADER_CAPACITY, CAPACITY + 1, "of 9 entries"],
      [HEADER_CAPACITY, 0, "of 0 entries"],
      [HEADER_CAPACITY, -1, "of -1 entries"],
    ] as const
  ) {
    const { buffer } = makePair();
    new Int32Array(buffer)[word] = value;
    assertThrows(() => new FlowReader(buffer), Error, message);
  }
});

Deno.test("FlowReader takes a buffer that is larger than its table", () => {
  const buffer = new SharedArrayBuffer(FlowTable.byteLength(100));
  const table = new FlowTable({ capacity: 3, buffer });
  addActive(table);
  const reader = new FlowReader(buffer);
  assertEquals([reader.capacity, [...reader.flows(0)].length], [3, 1]);
});

Deno.test("FlowReader throws for no bytes that a table could be", () => {
  const { reader, buffer } = makePair(20);
  const words = new Int32Array(buffer), { header } = flowViews(buffer, 20);
  const random = randomFrom(3);
  const kept = header.slice(0, HEADER_USED);
  let shown = 0;
  for (let round = 0; round < 200; round++) {
    for (let k = 0; k < words.length; k++) words[k] = random(65536) << 16 ^ random(65536);
    header.set(kept);
    for (const flow of reader.flows(round)) {
      JSON.stringify(flow);
      shown++;
    }
    new FlowReader(buffer);
  }
  assert(shown > 500, `${shown} flows`);
});

Deno.test("FlowTable.capacityOf() is the most that fits", () => {
  for (const capacity of [1, 2, 1000, 131071, 1 << 22]) {
    const bytes = FlowTable.byteLength(capacity);
    assertEquals(FlowTable.capacityOf(bytes), capacity);
    assertEquals(FlowTable.capacityOf(bytes - 1), capacity - 1);
  }
  for (const bytes of [0, 1, 4096, 65536]) assertEquals(FlowTable.capacityOf(bytes), 0);
  assertEquals(FlowTable.capacityOf(2 ** 40), 1 << 22);
});

Deno.test("FlowTable() refuses a buffer that holds a table", () => {
  const { buffer } = makePair();
  assertThrows(() => new FlowTable({ capacity: 1, buffer }), RangeError, "not zero-filled");
});

Deno.test("FlowTable() makes every view aligned, whatever the capacity", () => {
  for (let capacity = 1; capacity < 20; capacity++) {
    const { table, reader } = makePair(capacity);
    for (let i = 0; i < capacity; i++) addActive(table);
    assertEquals([...reader.flows(0)].length, capacity);
    assertEquals(table.stateOf(capacity - 1), FlowState.ACTIVE);
    table.verify();
  }
});
