// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The rules of port forwarding that the options amount to, with the defaults of pasta(1).
 *
 * @module
 */
import type { Options } from "../config/options.ts";
import { parsePortSpec, type PortRule } from "../forward/ports.ts";
import type { ForwarderOptions } from "./forwarder.ts";

/** Ports of UDP that follow those of TCP: the same numbers, best effort, not translated. */
function followersOf(rules: readonly PortRule[]): PortRule[] {
  return rules.filter(({ auto }) => !auto).map((rule) => ({
    ...rule,
    to: rule.first,
    target: null,
    weak: true,
  }));
}

/**
 * The rules that hold: what was given; without, `auto` for a namespace and nothing for a virtual
 * machine; none for a protocol that is off. UDP without rules of its own follows TCP.
 */
export function forwardRules(options: Options): Pick<ForwarderOptions, "rules" | "followers"> {
  const { tcpRules, udpRules, tcpNsRules, udpNsRules } = options;
  const usual = options.mode === "pasta"
    ? parsePortSpec("auto", { ephemeral: options.ephemeralPorts })
    : [];
  const tcp = options.tcp ? tcpRules ?? usual : [];
  const tcpNs = options.tcp ? tcpNsRules ?? usual : [];
  return {
    rules: {
      tcp,
      udp: options.udp ? udpRules ?? usual : [],
      tcpNs,
      udpNs: options.udp ? udpNsRules ?? usual : [],
    },
    followers: {
      udp: options.udp && udpRules === null ? followersOf(tcp) : [],
      udpNs: options.udp && udpNsRules === null ? followersOf(tcpNs) : [],
    },
  };
}
