// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * From options and host to the configuration that everything else works with.
 *
 * Theory of operation: the guest gets the host's own addresses, gateway and resolvers unless options say
 * otherwise; a family the host has no interface for gets local mode (`local_mode.ts`). The gateway's
 * address stands for the host's loopback unless that is switched off. A resolver that the guest could
 * not reach under its own address, because it is on the host's loopback or shadowed by that mapping, is
 * offered as the mapped address, and port 53 of that address is sent on to it.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { ConfigError } from "../config/error.ts";
import type { FamilyOptions, Options } from "../config/options.ts";
import { MAX_MTU, MIN_MTU6 } from "../config/values.ts";
import type { Family } from "../context.ts";
import {
  type Address,
  ANY6,
  formatAddress,
  isLinkLocal,
  isLoopback,
  isV4,
  sameAddress,
} from "../wire/address.ts";
import type { HostFamily, HostNetwork } from "./host_network.ts";
import {
  LOCAL_GATEWAY4,
  LOCAL_GATEWAY6,
  LOCAL_GUEST4,
  LOCAL_GUEST6,
  LOCAL_INTERFACE,
  LOCAL_PREFIX4,
  LOCAL_PREFIX6,
} from "./local_mode.ts";

/** Our MAC address on the tap unless -M is given: locally administered, the same on every host. */
export const OUR_MAC: Uint8Array<ArrayBuffer> = Uint8Array.of(0x9a, 0x55, 0x9a, 0x55, 0x9a, 0x55);
/** MTU of an Ethernet interface that nobody set (RFC 894). */
const ETHERNET_MTU = 1500;
/** Prefix length of an IPv6 subnet whose hosts configure themselves (RFC 4291 §2.5.4). */
const SUBNET6_PREFIX = 64;
const LOOPBACK_NAME = "lo";

/** The configuration of one instance; the part of `Context` that does not change. */
export interface Network {
  readonly ip4: Family | null;
  readonly ip6: Family | null;
  /** MTU of the guest's interface. */
  readonly mtu: number;
  /** Whether the MTU is announced by DHCP and router advertisements. */
  readonly announceMtu: boolean;
  /** Search domains handed to the guest. */
  readonly search: readonly string[];
  readonly ourMac: Uint8Array<ArrayBuffer>;
  /** Name of the guest's interface. */
  readonly ifname: string;
  /** Name of the interface that each family was taken from; null: local mode or disabled. */
  readonly hostName4: string | null;
  readonly hostName6: string | null;
  /** Remarks for the user, one line each. */
  readonly notes: readonly string[];
}

/** Prefix length by the address's class, for an address that the host does not have (RFC 4632 §3.1). */
function classfulPrefix(address: Address): number {
  const first = address[3] >>> 24;
  return first < 128 ? 8 : first < 192 ? 16 : first < 224 ? 24 : 32;
}

function prefixFor(address: Address, given: number | null, host: HostFamily | null): number {
  if (given !== null) return given;
  const own = host?.addresses.find((info) => sameAddress(info.address, 0, address, 0));
  if (own) return own.prefixLength;
  return isV4(address) ? classfulPrefix(address) : SUBNET6_PREFIX;
}

/** An interface name as SO_BINDTODEVICE wants it. */
function interfaceBytes(name: string | null): Uint8Array<ArrayBuffer> | null {
  return name === null ? null : new TextEncoder().encode(`${name}\0`);
}

/** Resolver settings of one family: what the guest is told, what is sent on, and where. */
type Resolvers = Pick<Family, "dns" | "dnsForward" | "dnsHost">;

function resolvers(
  options: Options,
  family: FamilyOptions,
  found: readonly Address[],
  mapHostLoopback: Address | null,
): Resolvers {
  if (options.dnsGiven) {
    const dnsHost = family.dnsHost ?? family.dns[0] ?? null;
    return { dns: family.dns, dnsForward: family.dnsForward, dnsHost };
  }
  let { dnsForward } = family;
  const dns: Address[] = [];
  for (const address of found) {
    const shadowed = mapHostLoopback !== null && sameAddress(address, 0, mapHostLoopback, 0);
    if (!isLoopback(address) && !shadowed) {
      dns.push(address);
      continue;
    }
    dnsForward ??= mapHostLoopback;
    const offered = dnsForward;
    if (offered && !dns.some((other) => sameAddress(other, 0, offered, 0))) dns.push(offered);
  }
  return { dns, dnsForward, dnsHost: family.dnsHost ?? found[0] ?? null };
}

/** Addresses of the guest's subnet: its own, its gateway, ours. */
type Base = Pick<Family, "addr" | "prefixLength" | "gateway" | "ourAddr" | "ourLinkLocal">;

function base4(family: FamilyOptions, host: HostFamily | null): Base {
  const addr = family.address ?? host?.addresses[0]?.address ?? LOCAL_GUEST4;
  const local = !host && !family.address;
  const prefixLength = local && family.prefixLength === null
    ? LOCAL_PREFIX4
    : prefixFor(addr, family.prefixLength, host);
  const gateway = family.gateway ?? (host ? host.gateway : LOCAL_GATEWAY4);
  const ourAddr = gateway && !sameAddress(gateway, 0, addr, 0) ? gateway : LOCAL_GATEWAY4;
  return { addr, prefixLength, gateway, ourAddr, ourLinkLocal: ourAddr };
}

function base6(family: FamilyOptions, host: HostFamily | null): Base {
  const addr = family.address ?? host?.addresses[0]?.address ?? LOCAL_GUEST6;
  const prefixLength = !host && !family.address
    ? LOCAL_PREFIX6
    : prefixFor(addr, family.prefixLength, host);
  const gateway = family.gateway ?? (host ? host.gateway : LOCAL_GATEWAY6);
  const ourLinkLocal = gateway && isLinkLocal(gateway) ? gateway : LOCAL_GATEWAY6;
  return { addr, prefixLength, gateway, ourAddr: gateway ?? ourLinkLocal, ourLinkLocal };
}

function buildFamily(
  options: Options,
  family: FamilyOptions,
  host: HostFamily | null,
  found: readonly Address[],
  v4: boolean,
): Family {
  const base = v4 ? base4(family, host) : base6(family, host);
  const mapHostLoopback = family.mapHostLoopback ?? (options.mapGateway ? base.gateway : null);
  const resolved = resolvers(options, family, found, mapHostLoopback);
  const addrSeen = base.addr.slice();
  return {
    ...base,
    ifindex: host?.ifindex ?? 0,
    addrSeen,
    linkLocalSeen: v4 ? addrSeen : ANY6.slice(),
    mapHostLoopback,
    mapGuestAddr: family.mapGuestAddr,
    ...resolved,
    dns: options.announceDns ? resolved.dns : [],
    outboundAddr: family.outboundAddress,
    outboundInterface: interfaceBytes(family.outboundInterface),
  };
}

function localNote(label: string, family: Family): string {
  const { addr, gateway } = family;
  const guest = addr.some((word) => word !== 0) ? ` ${formatAddress(addr)}` : "";
  const via = gateway ? `, gateway ${formatAddress(gateway)}` : "";
  return `${label}: the host has no interface to share, local mode: guest${
    guest || " link-local"
  }${via}`;
}

/** Name of the guest's interface: as given, as on the host, or a name of its own. */
function guestInterface(options: Options, host: HostNetwork): string {
  if (options.nsInterface !== null) return options.nsInterface;
  const name = host.v4?.name ?? host.v6?.name ?? LOCAL_INTERFACE;
  return name === LOOPBACK_NAME ? LOCAL_INTERFACE : name;
}

function checkMac(options: Options, ourMac: Uint8Array): void {
  if (options.nsMac?.every((byte, i) => byte === ourMac[i])) {
    throw new ConfigError("--ns-mac-addr: must differ from our own MAC address (-M)");
  }
}

/** Whether the guest's MTU is too small for IPv6. */
function isNarrow({ mtu }: Options): boolean {
  return mtu !== null && mtu !== 0 && mtu < MIN_MTU6;
}

/** Says what becomes of IPv6 with a small MTU. */
function checkMtu(options: Options): void {
  if (!isNarrow(options) || !options.v6.enabled) return;
  const why = `-m ${options.mtu}: IPv6 needs an MTU of at least ${MIN_MTU6}`;
  if (!options.v4.enabled) throw new ConfigError(`${why}, and -6 is given`);
  getLogger().warn(`${why}: IPv4 only`);
}

/**
 * Decides on all addresses.
 *
 * @param options as parsed
 * @param host as read at start
 * @throws ConfigError when no family is left, or options contradict what was read
 * @example
 * ```ts
 * import { parseOptions } from "../config/options.ts";
 * import { formatAddress } from "../wire/address.ts";
 * import { buildNetwork } from "./network.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const resolver = { v4: [], v6: [], search: [] };
 * const nothing = { v4: null, v6: null, ipv6Available: true, resolver, names: [], notes: [] };
 * const { ip4, ifname } = buildNetwork(parseOptions(["pasta"]), nothing);
 * assertEquals(formatAddress(ip4!.addr), "169.254.2.1");
 * assertEquals(ifname, "tap0");
 * ```
 */
export function buildNetwork(options: Options, host: HostNetwork): Network {
  const ourMac = options.ourMac ?? OUR_MAC;
  checkMac(options, ourMac);
  const { resolver } = host;
  checkMtu(options);
  const with6 = options.v6.enabled && host.ipv6Available && !isNarrow(options);
  if (!options.v4.enabled && !with6) throw new ConfigError("-6: IPv6 is disabled on this host");
  const ip4 = options.v4.enabled
    ? buildFamily(options, options.v4, host.v4, resolver.v4, true)
    : null;
  const ip6 = with6 ? buildFamily(options, options.v6, host.v6, resolver.v6, false) : null;
  const notes: string[] = [];
  if (ip4 && !host.v4) notes.push(localNote("IPv4", ip4));
  if (ip6 && !host.v6) notes.push(localNote("IPv6", ip6));
  if (options.v6.enabled && !host.ipv6Available) {
    notes.push("IPv6: disabled on this host, IPv4 only");
  }
  return {
    ip4,
    ip6,
    mtu: options.mtu === 0 ? ETHERNET_MTU : options.mtu ?? MAX_MTU,
    announceMtu: options.mtu !== 0,
    search: options.announceSearch ? options.search ?? resolver.search : [],
    ourMac,
    ifname: guestInterface(options, host),
    hostName4: host.v4?.name ?? null,
    hostName6: ip6 && host.v6 ? host.v6.name : null,
    notes,
  };
}
