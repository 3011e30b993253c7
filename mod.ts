// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Tubetti as a library: the flow table first, then the pieces it is built with.
 *
 * ```ts
 * import { FlowTable } from "./mod.ts";
 *
 * const table = new FlowTable({ capacity: 1024 });
 * const Probe = table.defineType("probe", 17);
 * table.on(Probe, { timer: (i, nowMs) => (console.log(table.logLine(i, `at ${nowMs}`)), true) });
 * const i = table.alloc();
 * table.setType(i, Probe, 0);
 * table.activate(i);
 * table.deferHandler(1000); // runs the timer, which ends the flow
 * ```
 *
 * - **Flow table**: {@linkcode FlowTable}, {@linkcode FlowSide}, states and types.
 * - **Addresses**: {@linkcode parseAddress}, {@linkcode formatAddress}.
 * - **Wire formats**: {@linkcode Packet} and {@linkcode parseIp} for received frames, checksums.
 * - **Port rules**: {@linkcode parsePortSpec}, {@linkcode addPortSpec}, {@linkcode formatPortRules}.
 * - **Policy**: {@linkcode parsePolicyRule}, {@linkcode Policy}: which flows may begin.
 *
 * @module
 */
export * from "./lib/flow/table.ts";
export * from "./lib/flow/types.ts";
export * from "./lib/flow/side.ts";
export * from "./lib/wire/address.ts";
export * from "./lib/wire/checksum.ts";
export * from "./lib/wire/packet.ts";
export * from "./lib/forward/ports.ts";
export * from "./lib/forward/policy.ts";
