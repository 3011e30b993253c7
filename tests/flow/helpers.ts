// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Tables whose flows close on demand.
 *
 * @module
 */
import { DATA_WORDS, FlowTable } from "../../lib/flow/table.ts";
import { FlowType } from "../../lib/flow/types.ts";

/** Adds an active flow without sides. */
export function addActive(table: FlowTable, type: number = FlowType.TCP): number {
  const i = table.alloc();
  table.setType(i, type);
  table.activate(i);
  return i;
}

/** A table whose flows close when the first word of their data is set. */
export function closingTable(capacity: number): FlowTable {
  const table = new FlowTable({ capacity });
  table.on(FlowType.TCP, { deferred: (i) => table.data[i * DATA_WORDS] !== 0 });
  return table;
}

/** Lets the next scan close flows of a {@linkcode closingTable}. */
export function closeAll(table: FlowTable, flows: number[]): void {
  for (const i of flows) table.data[i * DATA_WORDS] = 1;
}
