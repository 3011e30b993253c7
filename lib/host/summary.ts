// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What was configured, in a few lines for the user: those that pasta prints, under the same headings,
 * and some of our own.
 *
 * @module
 */
import type { Family } from "../context.ts";
import { type Address, formatAddress, fromV4, isUnspecified, maskV4 } from "../wire/address.ts";
import { formatMac } from "../wire/ethernet.ts";
import type { Network } from "./network.ts";

/** Which services the guest is offered; {@linkcode Options} has them. */
export interface Services {
  readonly dhcp: boolean;
  readonly dhcpv6: boolean;
  readonly ndp: boolean;
  /** Whom they are offered to: a virtual machine has no interface in a namespace. */
  readonly mode?: "pasta" | "passt";
}

const ALL_SERVICES: Services = { dhcp: true, dhcpv6: true, ndp: true };

/** `label: what`, indented, when there is something. */
function item(label: string, what: Address | string | null): string[] {
  if (what === null) return [];
  return [`    ${label}: ${typeof what === "string" ? what : formatAddress(what)}`];
}

/** A heading and what stands below it, nothing when that is nothing. */
function block(heading: string, lines: readonly string[]): string[] {
  return lines.length > 0 ? [`${heading}:`, ...lines] : [];
}

/** `LABEL: a (IPv4), b (IPv6)`, with what there is. */
function perFamily(label: string, v4: string | null, v6: string | null, none?: string): string[] {
  const found = [...(v4 ? [`${v4} (IPv4)`] : []), ...(v6 ? [`${v6} (IPv6)`] : [])];
  if (found.length === 0) return none ? [`${label}: ${none}`] : [];
  return [`${label}: ${found.join(", ")}`];
}

/** Text of a NUL-terminated name. */
function nameOf(bytes: Uint8Array | null | undefined): string | null {
  return bytes ? new TextDecoder().decode(bytes.subarray(0, -1)) : null;
}

function addressText(address: Address | null | undefined): string | null {
  return address ? formatAddress(address) : null;
}

/** Other addresses that reach the host. */
function mappings(family: Family): string[] {
  return [
    ...item("host loopback as", family.mapHostLoopback),
    ...item("host address as", family.mapGuestAddr),
  ];
}

function dnsLines({ dns, dnsForward, dnsHost }: Family): string[] {
  const lines = dns.map((address) => `    ${formatAddress(address)}`);
  if (!dnsForward || !dnsHost) return lines;
  return [...lines, ...item(`at ${formatAddress(dnsForward)} to`, dnsHost)];
}

function lines4(family: Family, services: Services): string[] {
  const { addr, prefixLength, gateway } = family;
  const assigned = isUnspecified(addr) ? [] : [
    ...item("assign", addr),
    ...item("mask", fromV4(maskV4(prefixLength))),
  ];
  const lines = [...assigned, ...item("router", gateway), ...mappings(family)];
  return [...block(services.dhcp ? "DHCP" : "IPv4", lines), ...block("DNS", dnsLines(family))];
}

function lines6(family: Family, { ndp, dhcpv6 }: Services): string[] {
  const { addr, prefixLength, gateway, ourLinkLocal } = family;
  const lines = [
    ...(isUnspecified(addr) ? [] : item("assign", `${formatAddress(addr)}/${prefixLength}`)),
    ...item("router", gateway),
    ...item("our link-local", ourLinkLocal),
    ...mappings(family),
  ];
  const heading = [...(ndp ? ["NDP"] : []), ...(dhcpv6 ? ["DHCPv6"] : [])].join("/");
  return [...block(heading || "IPv6", lines), ...block("DNS", dnsLines(family))];
}

/**
 * The configuration as lines for the user, not yet sanitized for a terminal.
 *
 * @param services what the guest is offered; the headings say it
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
 * assertEquals(lines.slice(1, 3), ["Template interface: none", "Namespace interface: tap0"]);
 * assertEquals(lines.slice(5, 7), ["DHCP:", "    assign: 169.254.2.1"]);
 * ```
 */
export function summary(network: Network, services: Services = ALL_SERVICES): string[] {
  const { ip4, ip6, ifname, ourMac, mtu, announceMtu, search } = network;
  const interfaces = [nameOf(ip4?.outboundInterface), nameOf(ip6?.outboundInterface)] as const;
  const addresses = [addressText(ip4?.outboundAddr), addressText(ip6?.outboundAddr)] as const;
  return [
    ...network.notes,
    ...perFamily("Template interface", network.hostName4, network.hostName6, "none"),
    ...perFamily("Outbound interface", ...interfaces),
    ...perFamily("Outbound address", ...addresses),
    ...(services.mode === "passt" ? [] : [`Namespace interface: ${ifname}`]),
    "MAC:",
    ...item("host", formatMac(ourMac)),
    ...(ip4 ? lines4(ip4, services) : []),
    ...(ip6 ? lines6(ip6, services) : []),
    ...block("DNS search list", search.map((domain) => `    ${domain}`)),
    ...(announceMtu ? [`MTU: ${mtu}`] : []),
  ];
}
