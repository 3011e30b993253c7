// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Reading the host's network: per address family, the interface that leads out, its addresses and
 * routes.
 *
 * Theory of operation: an interface given with `-i`, or with `--outbound-if4/6` for its family, is
 * taken. Otherwise it is that of the default route with the lowest metric (the first of several), and
 * where there is none, the only interface with a global route, if it is the only one. A family for
 * which nothing is found is null: `network.ts` then falls back to local mode. Link-local IPv6
 * addresses are never handed on: the guest makes its own.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import type { Options } from "../config/options.ts";
import { Netlink } from "../sys/netlink.ts";
import {
  type AddressInfo,
  ARPHRD_ETHER,
  IFA_F_DEPRECATED,
  IFF_LOOPBACK,
  IFF_UP,
  type LinkInfo,
  listAddresses,
  listLinks,
  listRoutes,
  type NextHop,
  type RouteInfo,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
} from "../sys/rtnetlink.ts";
import { AF_INET, AF_INET6 } from "../sys/socket.ts";
import { type Address, isLinkLocal, isLoopback, isV4 } from "../wire/address.ts";
import { readResolvConf, type ResolvConf } from "./resolv_conf.ts";

/** One family of the host, as far as it concerns the guest. */
export interface HostFamily {
  readonly ifindex: number;
  readonly name: string;
  readonly mtu: number;
  /** 6 bytes, or null for an interface without such an address. */
  readonly mac: Uint8Array<ArrayBuffer> | null;
  /** Addresses of the interface, best first; may be empty. */
  readonly addresses: readonly AddressInfo[];
  /** Gateway of the default route; null: none, or one of the other family. */
  readonly gateway: Address | null;
  /** Unicast routes of the main table over the interface, in the kernel's order. */
  readonly routes: readonly RouteInfo[];
}

/** The host as seen at start. */
export interface HostNetwork {
  readonly v4: HostFamily | null;
  readonly v6: HostFamily | null;
  /** False when the kernel has no IPv6 or it is disabled. */
  readonly ipv6Available: boolean;
  readonly resolver: ResolvConf;
  /** Names of all interfaces, for those given in options. */
  readonly names: readonly string[];
  /** Remarks for the user, one line each. */
  readonly notes: readonly string[];
}

function isDefault(route: RouteInfo): boolean {
  return route.prefixLength === 0 && route.sourceLength === 0;
}

/** Whether a route leads somewhere that is not the link itself. */
function isGlobal(route: RouteInfo): boolean {
  const { destination } = route;
  return isDefault(route) ||
    destination !== null && !isLinkLocal(destination) && !isLoopback(destination) &&
      destination[0] >>> 24 !== 0xff; // ff00::/8
}

interface Tables {
  readonly links: readonly LinkInfo[];
  readonly addresses: readonly AddressInfo[];
  readonly routes: readonly RouteInfo[];
}

function usable(links: readonly LinkInfo[], ifindex: number): boolean {
  const link = links.find((link) => link.index === ifindex);
  return link !== undefined && !(link.flags & IFF_LOOPBACK) && (link.flags & IFF_UP) !== 0;
}

/** First hop of a route that leaves by a usable interface. */
function outward(tables: Tables, route: RouteInfo): NextHop | undefined {
  return route.hops.find((hop) => usable(tables.links, hop.ifindex));
}

/** Interface of the best default route, or of all global routes. @returns 0: none */
function chooseInterface(tables: Tables, label: string, notes: string[]): number {
  const candidates = tables.routes.filter((route) => outward(tables, route));
  const found = candidates.filter(isDefault).sort((a, b) => a.priority - b.priority);
  const interfaces = (
    routes: readonly RouteInfo[],
  ) => [...new Set(routes.map((route) => outward(tables, route)!.ifindex))];
  if (found.length > 0) {
    const [first, ...others] = interfaces(found);
    if (others.length > 0) {
      notes.push(`${label}: several default routes, taking the first (choose with -i)`);
    }
    return first;
  }
  const any = interfaces(candidates.filter(isGlobal));
  if (any.length > 1) {
    notes.push(`${label}: no default route and several interfaces (choose with -i)`);
  }
  return any.length === 1 ? any[0] : 0;
}

/** Order of preference: global before site, before others; current before deprecated. */
function rank(info: AddressInfo): number {
  return info.scope + (info.flags & IFA_F_DEPRECATED ? 1000 : 0);
}

function chooseAddresses(all: readonly AddressInfo[], ifindex: number): AddressInfo[] {
  return all.filter((info) =>
    info.ifindex === ifindex && info.scope !== RT_SCOPE_HOST && !isLoopback(info.address) &&
    (isV4(info.address) || info.scope !== RT_SCOPE_LINK)
  ).map((info, i) => ({ info, i }))
    .sort((a, b) => rank(a.info) - rank(b.info) || a.i - b.i)
    .map(({ info }) => info);
}

/** Routes reduced to the hops over one interface. */
function routesOver(routes: readonly RouteInfo[], ifindex: number): RouteInfo[] {
  return routes.map((route) => ({
    ...route,
    hops: route.hops.filter((hop) => hop.ifindex === ifindex),
  })).filter((route) => route.hops.length > 0);
}

function defaultGateway(routes: readonly RouteInfo[], v4: boolean): Address | null {
  const best = routes.filter(isDefault).sort((a, b) => a.priority - b.priority);
  for (const route of best) {
    const hop = route.hops.find(({ gateway }) => gateway && isV4(gateway) === v4);
    if (hop) return hop.gateway;
  }
  return null;
}

function familyOver(tables: Tables, link: LinkInfo, v4: boolean): HostFamily {
  const routes = routesOver(tables.routes, link.index);
  return {
    ifindex: link.index,
    name: link.name,
    mtu: link.mtu,
    mac: link.type === ARPHRD_ETHER ? link.mac : null,
    addresses: chooseAddresses(tables.addresses, link.index),
    gateway: defaultGateway(routes, v4),
    routes,
  };
}

function findLink(links: readonly LinkInfo[], name: string, option: string): LinkInfo {
  const link = links.find((link) => link.name === name);
  if (link) return link;
  const names = links.map((link) => link.name).slice(0, 8).join(", ");
  throw new ConfigError(`${option} ${name}: no such interface (there are: ${names})`);
}

function readFamily(
  netlink: Netlink,
  links: readonly LinkInfo[],
  options: Options,
  v4: boolean,
  notes: string[],
): HostFamily | null {
  const family = v4 ? AF_INET : AF_INET6, label = v4 ? "IPv4" : "IPv6";
  const { outboundInterface } = v4 ? options.v4 : options.v6;
  const tables: Tables = {
    links,
    addresses: listAddresses(netlink, family),
    routes: listRoutes(netlink, family).filter((route) => !route.tunnel),
  };
  const outbound = outboundInterface
    ? findLink(links, outboundInterface, v4 ? "--outbound-if4" : "--outbound-if6")
    : undefined;
  const named = options.interface ? findLink(links, options.interface, "-i") : outbound;
  const chosen = named?.index ?? chooseInterface(tables, label, notes);
  const link = links.find(({ index }) => index === chosen);
  if (!link) return null;
  const host = familyOver(tables, link, v4);
  const given = v4 ? options.v4.address : options.v6.address;
  if (host.addresses.length === 0 && !given) {
    notes.push(`${label}: ${link.name} has no address to share`);
    return null;
  }
  return host;
}

/** Whether IPv6 can be used: compiled in, loaded, and not disabled for all interfaces. */
function ipv6Available(): boolean {
  try {
    return Deno.readTextFileSync("/proc/sys/net/ipv6/conf/all/disable_ipv6").trim() !== "1";
  } catch {
    return false;
  }
}

/**
 * Reads links, addresses, routes and resolvers of the namespace we run in.
 *
 * @param options which interfaces and families to look at
 * @param resolver contents of resolv.conf(5), for tests
 * @throws ConfigError when an interface that was named does not exist
 * @throws SysError when netlink fails
 * @example
 * ```ts
 * import { parseOptions } from "../config/options.ts";
 * import { readHostNetwork } from "./host_network.ts";
 * import { assert } from "@std/assert";
 *
 * const host = readHostNetwork(parseOptions(["pasta", "-4"]));
 * assert(host.names.includes("lo"));
 * ```
 */
export function readHostNetwork(
  options: Options,
  resolver: ResolvConf = readResolvConf(),
): HostNetwork {
  using netlink = Netlink.open();
  const links = listLinks(netlink);
  const notes: string[] = [];
  const available = ipv6Available();
  const v4 = options.v4.enabled ? readFamily(netlink, links, options, true, notes) : null;
  const v6 = options.v6.enabled && available
    ? readFamily(netlink, links, options, false, notes)
    : null;
  if (options.interface && !v4 && !v6) {
    throw new ConfigError(`-i ${options.interface}: has no address to share (give one with -a)`);
  }
  return {
    v4,
    v6,
    ipv6Available: available,
    resolver,
    names: links.map((link) => link.name),
    notes,
  };
}
