// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Configuring the guest's namespace over a netlink socket of it.
 *
 * Theory of operation: loopback is brought up, and the tap gets its MAC address, MTU and a transmit
 * queue long enough for a TCP window (with the default of 1000 packets it overflows and connections
 * stall). Without `--config-net` that is all: the tap stays down, and a client in the guest configures
 * it. With it, addresses and routes are copied from the host's interface, or set from options where
 * they were given.
 *
 * IPv6 must be usable at once, so duplicate address detection (RFC 4862 §5.4) is avoided: nobody else
 * is on this link. Addresses we add carry IFA_F_NODAD; so that this holds for the link-local address
 * too, the kernel is told not to make one, and we add the one it would have made.
 *
 * Routes depend on each other, a gateway must be reachable before a route can use it, so they are
 * added in passes until a pass adds none.
 *
 * @module
 */
import { getLogger } from "@std/log";
import type { FamilyOptions, Options } from "../config/options.ts";
import type { Family } from "../context.ts";
import { E, SysError } from "../sys/errno.ts";
import { Netlink } from "../sys/netlink.ts";
import {
  type AddressInfo,
  IFA_F_NODAD,
  IFA_F_NOPREFIXROUTE,
  IFF_UP,
  listLinks,
  type RouteInfo,
  RT_SCOPE_LINK,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_MAIN,
  RTN_UNICAST,
  RTNH_F_ONLINK,
  RTPROT_BOOT,
} from "../sys/rtnetlink.ts";
import { addAddress, addRoute, setLink } from "../sys/rtnetlink_set.ts";
import { AF_INET, AF_INET6 } from "../sys/socket.ts";
import {
  type Address,
  copyAddress,
  formatAddress,
  isLinkLocal,
  isUnspecified,
  isV4,
  linkLocalFromMac,
  sameAddress,
} from "../wire/address.ts";
import type { HostFamily, HostNetwork } from "./host_network.ts";
import type { Network } from "./network.ts";

const LOOPBACK_INDEX = 1; // the loopback interface is the first of every namespace
const LINK_LOCAL_PREFIX = 64; // RFC 4291 §2.5.6
/** Packets the tap may queue towards us. */
export const TX_QUEUE_LENGTH = 10_000;

type GuestAddress = Omit<AddressInfo, "ifindex">;

/** What options say about the family. */
function optionsOf(options: Options, family: Family): FamilyOptions {
  return isV4(family.addr) ? options.v4 : options.v6;
}

/** The addresses to give to the guest. */
function guestAddresses(
  options: Options,
  family: Family,
  host: HostFamily | null,
): GuestAddress[] {
  const nodad = isV4(family.addr) ? 0 : IFA_F_NODAD;
  const { address } = optionsOf(options, family);
  if (host && !address && options.copyAddresses) {
    return host.addresses.map((info, i) => ({
      ...info,
      flags: info.flags & IFA_F_NOPREFIXROUTE | nodad,
      // -n is about the address that the guest is known by
      prefixLength: i === 0 && !info.peer ? family.prefixLength : info.prefixLength,
    }));
  }
  if (isUnspecified(family.addr)) return [];
  return [{
    family: isV4(family.addr) ? AF_INET : AF_INET6,
    prefixLength: family.prefixLength,
    scope: RT_SCOPE_UNIVERSE,
    flags: nodad,
    address: family.addr,
    peer: null,
    broadcast: null,
  }];
}

/** Whether `address` lies in the subnet of one of the guest's addresses. */
function isOnLink(address: Address, addresses: readonly GuestAddress[]): boolean {
  return isLinkLocal(address) && !isV4(address) || addresses.some((info) => {
    const start = info.family === AF_INET ? 96 : 0; // bits before the address proper
    const subnet = info.peer ?? info.address;
    for (let bit = start, left = info.prefixLength; left > 0; bit += 32, left -= 32) {
      const mask = left >= 32 ? -1 : -1 << (32 - left);
      if ((address[bit / 32] ^ subnet[bit / 32]) & mask) return false;
    }
    return isV4(address) === isV4(info.address);
  });
}

/** The default route over `gateway`; a gateway off the subnet is declared to be on the link. */
function defaultRoute(gateway: Address, onLink: boolean): RouteInfo {
  return {
    family: isV4(gateway) ? AF_INET : AF_INET6,
    destination: null,
    prefixLength: 0,
    sourceLength: 0,
    tos: 0,
    table: RT_TABLE_MAIN,
    protocol: RTPROT_BOOT,
    scope: RT_SCOPE_UNIVERSE,
    type: RTN_UNICAST,
    flags: 0,
    priority: 0,
    source: null,
    metrics: null,
    preference: null,
    hops: [{ ifindex: 0, gateway, flags: onLink ? 0 : RTNH_F_ONLINK, weight: 0 }],
    tunnel: false,
  };
}

/** The host's routes as the guest can have them: no source address that it does not have. */
function copiedRoutes(host: HostFamily, addresses: readonly GuestAddress[]): RouteInfo[] {
  return host.routes.filter((route) => route.sourceLength === 0).map((route) => {
    const { source } = route;
    const has = source && addresses.some((info) => sameAddress(info.address, 0, source, 0));
    return has ? route : { ...route, source: null };
  });
}

function describeRoute(route: RouteInfo): string {
  const { destination, prefixLength, hops: [{ gateway }] } = route;
  const to = destination ? `${formatAddress(destination)}/${prefixLength}` : "default";
  return `add route ${to}${gateway ? ` via ${formatAddress(gateway)}` : ""}`;
}

/** Adds routes in passes. @returns those that the kernel refuses, with its last reason */
function addRoutes(
  netlink: Netlink,
  ifindex: number,
  routes: readonly RouteInfo[],
): [RouteInfo, SysError][] {
  let waiting: RouteInfo[] = [...routes];
  for (;;) {
    const refused: [RouteInfo, SysError][] = [];
    for (const route of waiting) {
      try {
        addRoute(netlink, ifindex, route, describeRoute(route));
      } catch (error) {
        if (!(error instanceof SysError)) throw error;
        if (error.errno !== E.EEXIST) refused.push([route, error]); // else: came with an address
      }
    }
    if (refused.length === 0 || refused.length === waiting.length) return refused;
    waiting = refused.map(([route]) => route);
  }
}

/** Sets up one family. */
function configureFamily(
  netlink: Netlink,
  ifindex: number,
  options: Options,
  family: Family,
  host: HostFamily | null,
): void {
  const addresses = guestAddresses(options, family, host);
  // the kernel lists IPv4 addresses as they came, IPv6 addresses last one first
  const ordered = isV4(family.addr) ? addresses : addresses.toReversed();
  for (const info of ordered) {
    const what = `add address ${formatAddress(info.address)}/${info.prefixLength}`;
    try {
      addAddress(netlink, ifindex, info, what);
    } catch (error) {
      if (!(error instanceof SysError && error.errno === E.EEXIST)) throw error;
    }
  }
  const { gateway } = family;
  const own = gateway ? [defaultRoute(gateway, isOnLink(gateway, addresses))] : [];
  const onlyDefault = optionsOf(options, family).gateway || !options.copyRoutes && gateway;
  if (!host || onlyDefault) {
    for (const [, error] of addRoutes(netlink, ifindex, own)) throw error;
    return;
  }
  const copied = copiedRoutes(host, addresses)
    .filter(({ prefixLength }) => options.copyRoutes || prefixLength === 0);
  const refused = addRoutes(netlink, ifindex, copied);
  const lost = refused.some(([route]) => route.prefixLength === 0);
  // a guest with another address than the host's may have no route to the gateway: say it is there
  const stillRefused = lost && gateway
    ? addRoutes(netlink, ifindex, [defaultRoute(gateway, false)])
    : [];
  for (const [, error] of [...refused, ...stillRefused]) getLogger().debug(error.message);
}

/** Gives the tap the link-local address that the kernel would make, but usable at once. */
function addLinkLocal(netlink: Netlink, ifindex: number, address: Address): void {
  const info = {
    family: AF_INET6,
    address,
    peer: null,
    broadcast: null,
    prefixLength: LINK_LOCAL_PREFIX,
    scope: RT_SCOPE_LINK,
    flags: IFA_F_NODAD,
  };
  addAddress(netlink, ifindex, info, `add address ${formatAddress(address)}`);
}

/** Brings the tap up and gives it addresses and routes. */
function configure(
  netlink: Netlink,
  ifindex: number,
  options: Options,
  host: HostNetwork,
  network: Network,
  mac: Uint8Array,
): void {
  const { ip4, ip6 } = network;
  setLink(netlink, ifindex, { set: IFF_UP }, "bring interface up");
  if (ip6) {
    const linkLocal = linkLocalFromMac(mac);
    addLinkLocal(netlink, ifindex, linkLocal);
    copyAddress(ip6.linkLocalSeen, 0, linkLocal, 0);
    if (isUnspecified(ip6.addrSeen)) copyAddress(ip6.addrSeen, 0, linkLocal, 0);
    configureFamily(netlink, ifindex, options, ip6, host.v6);
  }
  if (ip4) configureFamily(netlink, ifindex, options, ip4, host.v4);
}

/**
 * Configures the loopback and the tap of the guest's namespace.
 *
 * @param netlinkFd a netlink socket of that namespace; stays open
 * @param ifindex the tap's index there
 * @param network as built; with `--config-net` the link-local address the guest has is noted in it
 * @returns the tap's MAC address, 6 bytes
 * @throws SysError when the kernel refuses
 */
export function configureGuest(
  netlinkFd: number,
  ifindex: number,
  options: Options,
  host: HostNetwork,
  network: Network,
): Uint8Array<ArrayBuffer> {
  const netlink = new Netlink(netlinkFd);
  setLink(netlink, LOOPBACK_INDEX, { set: IFF_UP }, "bring loopback up");
  const change = {
    ...(options.nsMac && { mac: options.nsMac }),
    ...(network.announceMtu && { mtu: network.mtu }),
    txQueueLength: TX_QUEUE_LENGTH,
    noLinkLocal: options.configNet && network.ip6 !== null,
  };
  setLink(netlink, ifindex, change, `set up ${network.ifname}`);
  const mac = listLinks(netlink).find((link) => link.index === ifindex)?.mac;
  if (!mac) throw new SysError("netlink", `read MAC address of ${network.ifname}`, E.ENODEV);
  if (options.configNet) configure(netlink, ifindex, options, host, network, mac);
  return mac;
}
