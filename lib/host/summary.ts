// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What was configured, in a few lines for the user.
 *
 * @module
 */
import type { Family } from "../context.ts";
import { formatAddress, fromV4, isUnspecified, maskV4 } from "../wire/address.ts";
import { formatMac } from "../wire/ethernet.ts";
import type { Network } from "./network.ts";

function familyLines(family: Family, v4: boolean): string[] {
  const { addr, prefixLength: bits, gateway, mapHostLoopback, dns, dnsForward, dnsHost } = family;
  const length = v4 ? ` mask ${formatAddress(fromV4(maskV4(bits)))}` : `/${bits}`;
  const lines = isUnspecified(addr) ? [] : [`    assign: ${formatAddress(addr)}${length}`];
  if (gateway) lines.push(`    router: ${formatAddress(gateway)}`);
  if (mapHostLoopback) lines.push(`    host loopback as: ${formatAddress(mapHostLoopback)}`);
  if (dns.length > 0) lines.push(`    DNS: ${dns.map((a) => formatAddress(a)).join(" ")}`);
  if (dnsForward && dnsHost) {
    lines.push(`    DNS at ${formatAddress(dnsForward)} to: ${formatAddress(dnsHost)}`);
  }
  return lines;
}

function templateLine(network: Network): string {
  const { hostName4, hostName6, ifname } = network;
  const names = [
    ...(hostName4 ? [`${hostName4} (IPv4)`] : []),
    ...(hostName6 ? [`${hostName6} (IPv6)`] : []),
  ];
  return `Template interface: ${names.join(", ") || "none"}, namespace interface: ${ifname}`;
}

/**
 * The configuration as lines for the user, not yet sanitized for a terminal.
 *
 * @example
 * ```ts
 * import { parseOptions } from "../config/options.ts";
 * import { buildNetwork } from "./network.ts";
 * import { summary } from "./summary.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const resolver = { v4: [], v6: [], search: [] };
 * const nothing = { v4: null, v6: null, ipv6Available: true, resolver, names: [], notes: [] };
 * const lines = summary(buildNetwork(parseOptions(["pasta", "-4"]), nothing));
 * assertEquals(lines[1], "Template interface: none, namespace interface: tap0");
 * assertEquals(lines[5], "    assign: 169.254.2.1 mask 255.255.0.0");
 * ```
 */
export function summary(network: Network): string[] {
  const { ip4, ip6, ourMac, mtu, announceMtu, search } = network;
  return [
    ...network.notes,
    templateLine(network),
    "MAC:",
    `    host: ${formatMac(ourMac)}`,
    ...(ip4 ? ["IPv4:", ...familyLines(ip4, true)] : []),
    ...(ip6 ? ["IPv6:", ...familyLines(ip6, false)] : []),
    ...(search.length > 0 ? [`Search: ${search.join(" ")}`] : []),
    ...(announceMtu ? [`MTU: ${mtu}`] : []),
  ];
}
