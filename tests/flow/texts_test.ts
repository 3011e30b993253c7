// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { flowViews, MAX_LABELS } from "../../lib/flow/layout.ts";
import { FlowReader } from "../../lib/flow/reader.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { labelSlot, readText } from "../../lib/flow/texts.ts";
import { addActive } from "./helpers.ts";

function makeTable(): { table: FlowTable; textOf: (id: number) => string | null } {
  const buffer = new SharedArrayBuffer(FlowTable.byteLength(2));
  const table = new FlowTable({ capacity: 2, buffer }), { texts } = flowViews(buffer, 2);
  return { table, textOf: (id) => readText(texts, labelSlot(id)) };
}

Deno.test("FlowTable.labelId() gives each text a number, and the same text the same", () => {
  const { table, textOf } = makeTable();
  assertEquals(["a", "b", "a", "B"].map((text) => table.labelId(text)), [1, 2, 1, 3]);
  assertEquals([1, 2, 3, 4].map(textOf), ["a", "b", "B", null]);
});

Deno.test("FlowTable.labelId() is 0 for an empty text", () => {
  assertEquals(makeTable().table.labelId(""), 0);
});

Deno.test("FlowTable.labelId() cuts long texts between characters", () => {
  const { table, textOf } = makeTable();
  for (
    const [text, kept] of [
      ["x".repeat(63), 63],
      ["x".repeat(64), 63],
      ["é".repeat(32), 31], // 2 bytes each
      ["x€".repeat(16), 31], // 1 and 3 bytes: 15 pairs are 60, "x" is 61, "€" would be 64
      ["😀".repeat(16), 30], // 4 bytes, 2 UTF-16 units each
    ] as const
  ) {
    assertEquals(textOf(table.labelId(text)), text.slice(0, kept));
    assertEquals(table.labelId(text), table.labelId(text.slice(0, kept)));
  }
});

Deno.test("FlowTable.labelId() is 0 when there is no room for another", () => {
  const { table, textOf } = makeTable();
  for (let id = 1; id <= MAX_LABELS; id++) assertEquals(table.labelId(`label ${id}`), id);
  assertEquals([table.labelId("one more"), table.labelId("label 1")], [0, 1]);
  assertEquals([textOf(1), textOf(MAX_LABELS)], ["label 1", `label ${MAX_LABELS}`]);
  table.defineType("its name is elsewhere", 0);
  assertEquals(textOf(MAX_LABELS), `label ${MAX_LABELS}`);
});

Deno.test("FlowTable.setLabel() labels and unlabels, before and after activate()", () => {
  const buffer = new SharedArrayBuffer(FlowTable.byteLength(2));
  const table = new FlowTable({ capacity: 2, buffer }), reader = new FlowReader(buffer);
  const i = addActive(table), labelOf = () => reader.snapshot(i, 0)?.label;
  assertEquals(labelOf(), null);
  table.setLabel(i, table.labelId("agent"));
  assertEquals([labelOf(), table.labels[i]], ["agent", 1]);
  table.setLabel(i, 0);
  assertEquals(labelOf(), null);
  table.setLabel(i, 7); // not defined
  assertEquals(labelOf(), null);
  table.setLabel(i, 65535);
  assertEquals(labelOf(), null);
  assertThrows(() => table.setLabel(2, 1), RangeError);
});
