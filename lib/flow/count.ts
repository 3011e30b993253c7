// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How the types count what they carry.
 *
 * Theory of operation: only payload is counted, and only once it has arrived as far as we can know:
 *
 * - TCP from the guest: when the host's socket, or our own memory, has taken it; what the guest sends
 *   again is not counted again;
 * - TCP to the guest: when the guest has acknowledged it;
 * - TCP from socket to socket: when the other socket has taken it;
 * - UDP and ping: when a socket, or the link to the guest, has taken the datagram. What it has refused,
 *   or had no room for, is not counted.
 *
 * A number up to 2⁵³ is exact in a double, and one add of a double is all that this costs per batch.
 *
 * @module
 */
import { BYTES_INI, COUNTERS } from "./layout.ts";

/**
 * Adds payload bytes to what has come from one side of a flow.
 *
 * @param counters as in `FlowTable.counters`
 * @param i index of the flow
 * @param side the side that they came from, `INI` or `TGT`
 * @example
 * ```ts
 * import { countBytes } from "./count.ts";
 * import { BYTES_TGT, COUNTERS, FlowTable } from "./table.ts";
 * import { TGT } from "./side.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const table = new FlowTable({ capacity: 10 }), flow = table.alloc();
 * countBytes(table.counters, flow, TGT, 1460);
 * assertEquals(table.counters[flow * COUNTERS + BYTES_TGT], 1460);
 * ```
 */
export function countBytes(counters: Float64Array, i: number, side: number, bytes: number): void {
  counters[i * COUNTERS + BYTES_INI + side] += bytes; // BYTES_TGT follows BYTES_INI as TGT does INI
}
