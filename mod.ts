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
 * - **Wire formats**: {@linkcode wire}, which has them all: Ethernet, ARP, IPv4, IPv6, TCP, UDP, ICMP, NDP, DHCP, DNS,
 *   pcap. Addresses, checksums, {@linkcode Packet} and {@linkcode parseIp} are also here.
 * - **Port rules**: {@linkcode parsePortSpec}, {@linkcode addPortSpec}, {@linkcode formatPortRules}.
 * - **Policy rules**: {@linkcode parsePolicyRule}: which flows may begin.
 * - **Instances**: {@linkcode spawn} and {@linkcode attach} start one and give an {@linkcode Instance}: its flows, events,
 *   forwarded ports, and a policy that is a function of the script.
 *
 * ```ts
 * import { spawn } from "./mod.ts";
 *
 * await using guest = spawn({ command: ["sh", "-c", "echo hello"], stdout: "piped" });
 * console.log(await new Response(guest.stdout).text(), (await guest.status).code);
 * ```
 *
 * @module
 */
export * from "./lib/flow/table.ts";
export * from "./lib/flow/types.ts";
export * from "./lib/flow/side.ts";
export * from "./lib/wire/address.ts";
export * from "./lib/wire/checksum.ts";
export * from "./lib/wire/packet.ts";
export * as wire from "./lib/wire/mod.ts";
export * from "./lib/forward/ports.ts";
export {
  type NamePattern,
  parsePolicyRule,
  type PolicyRule,
  PolicyRuleError,
  Verdict,
} from "./lib/forward/policy_rules.ts";
export * from "./lib/control/spawn.ts";
export type * from "./lib/flow/snapshot.ts";
export type * from "./lib/forward/question.ts";
export { ConfigError } from "./lib/config/error.ts";
export { CommandError } from "./lib/host/command_error.ts";
export { SysError } from "./lib/sys/errno.ts";
