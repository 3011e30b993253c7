// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * rtnetlink(7): links, addresses and routes as plain objects, read from a namespace and set in one.
 *
 * IP addresses are four words, IPv4 v4-mapped, as everywhere. Reading is here,
 * setting in `rtnetlink_set.ts`. Used at start only.
 *
 * @module
 */
import {
  type Attribute,
  attributeBytes,
  attributes,
  attributeText,
  attributeU32,
  type Netlink,
  NetlinkRequest,
} from "./netlink.ts";
import { ifaddrmsg, ifinfomsg, rtmsg, rtnexthop, rtvia } from "./layout.ts";
import { AF_INET, AF_INET6 } from "./socket.ts";

/** Message types (linux/rtnetlink.h). */
export const RTM = {
  NEWLINK: 16,
  GETLINK: 18,
  SETLINK: 19,
  NEWADDR: 20,
  GETADDR: 22,
  NEWROUTE: 24,
  GETROUTE: 26,
} as const;

/** Link attributes (linux/if_link.h). */
export const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  TXQLEN: 13,
  AF_SPEC: 26,
} as const;

/** Attributes of the IPv6 part of AF_SPEC (linux/if_link.h). */
export const IFLA_INET6 = { ADDR_GEN_MODE: 8 } as const;
/** No address is generated when the interface comes up (linux/if_link.h). */
export const IN6_ADDR_GEN_MODE_NONE = 1;

/** Address attributes (linux/if_addr.h). */
export const IFA = {
  ADDRESS: 1,
  LOCAL: 2,
  BROADCAST: 4,
  FLAGS: 8,
} as const;

/** Route attributes (linux/rtnetlink.h). */
export const RTA = {
  DST: 1,
  OIF: 4,
  GATEWAY: 5,
  PRIORITY: 6,
  PREFSRC: 7,
  METRICS: 8,
  MULTIPATH: 9,
  TABLE: 15,
  VIA: 18,
  PREF: 20,
  ENCAP: 22,
} as const;

/** Interface flags (linux/if.h). */
export const IFF_UP = 0x1;
export const IFF_LOOPBACK = 0x8;
/** ARPHRD_ETHER (linux/if_arp.h): the link layer has 6-byte addresses. */
export const ARPHRD_ETHER = 1;
/** Address flags (linux/if_addr.h). */
export const IFA_F_NODAD = 0x02;
export const IFA_F_DEPRECATED = 0x20;
export const IFA_F_NOPREFIXROUTE = 0x200;
/** Scopes, tables, types and protocols of linux/rtnetlink.h. */
export const RT_SCOPE_UNIVERSE = 0;
export const RT_SCOPE_LINK = 253;
export const RT_SCOPE_HOST = 254;
export const RT_TABLE_MAIN = 254;
export const RTN_UNICAST = 1;
export const RTPROT_BOOT = 3;
const RTM_F_CLONED = 0x200;
export const RTNH_F_ONLINK = 4;

/** Four words. */
export type Words = Int32Array<ArrayBuffer>;

/** A network interface. */
export interface LinkInfo {
  readonly index: number;
  readonly name: string;
  readonly mtu: number;
  /** Hardware address; null when it does not have 6 bytes. */
  readonly mac: Uint8Array<ArrayBuffer> | null;
  /** IFF_… */
  readonly flags: number;
  /** ARPHRD_… */
  readonly type: number;
  readonly txQueueLength: number;
}

/** An address of an interface. */
export interface AddressInfo {
  /** AF_INET or AF_INET6. */
  readonly family: number;
  readonly ifindex: number;
  /** 0–32 or 0–128. */
  readonly prefixLength: number;
  /** RT_SCOPE_… */
  readonly scope: number;
  /** IFA_F_… */
  readonly flags: number;
  readonly address: Words;
  /** Other end of a point-to-point link; null: none. */
  readonly peer: Words | null;
  readonly broadcast: Words | null;
}

/** One way a route may take. */
export interface NextHop {
  readonly ifindex: number;
  /** Null: the destination is on the link. */
  readonly gateway: Words | null;
  /** RTNH_F_ONLINK or 0. */
  readonly flags: number;
  /** Share of the traffic minus one. */
  readonly weight: number;
}

/** A route. */
export interface RouteInfo {
  readonly family: number;
  /** Destination; null with a {@linkcode prefixLength} of 0. */
  readonly destination: Words | null;
  readonly prefixLength: number;
  readonly sourceLength: number;
  readonly tos: number;
  readonly table: number;
  readonly protocol: number;
  readonly scope: number;
  /** RTN_… */
  readonly type: number;
  /** RTM_F_… */
  readonly flags: number;
  /** Metric; 0: none given. */
  readonly priority: number;
  /** Preferred source. */
  readonly source: Words | null;
  /** RTA.METRICS as it is; null: none. */
  readonly metrics: Uint8Array | null;
  /** RFC 4191 preference (RTA.PREF); null: none. */
  readonly preference: number | null;
  /** At least one. */
  readonly hops: readonly NextHop[];
  /** Whether it wraps packets (RTA.ENCAP). */
  readonly tunnel: boolean;
}

/** Third word of a v4-mapped address. */
export const V4_MAPPED = 0xffff;
/** Bytes of an address on the wire. */
export const addressBytes = (family: number): number => family === AF_INET ? 4 : 16;

/** Reads an address; null when it is absent or has not the family's length. */
function readAddress(
  view: DataView,
  attribute: Attribute | undefined,
  family: number,
): Words | null {
  if (!attribute || attribute.length !== addressBytes(family)) return null;
  const { off } = attribute;
  if (family === AF_INET) return Int32Array.of(0, 0, V4_MAPPED, view.getInt32(off));
  return Int32Array.from([0, 4, 8, 12], (at) => view.getInt32(off + at));
}

function readLink(view: DataView, off: number, end: number): LinkInfo | null {
  if (off + ifinfomsg.size > end) return null;
  const found = attributes(view, off + ifinfomsg.size, end);
  const mac = found.get(IFLA.ADDRESS);
  return {
    index: view.getInt32(off + ifinfomsg.at.ifi_index, true),
    name: attributeText(view, found.get(IFLA.IFNAME)) ?? "",
    mtu: attributeU32(view, found.get(IFLA.MTU)) ?? 0,
    mac: mac?.length === 6 ? attributeBytes(view, mac) : null,
    flags: view.getUint32(off + ifinfomsg.at.ifi_flags, true),
    type: view.getUint16(off + ifinfomsg.at.ifi_type, true),
    txQueueLength: attributeU32(view, found.get(IFLA.TXQLEN)) ?? 0,
  };
}

/** All interfaces of the socket's namespace. @throws SysError */
export function listLinks(netlink: Netlink): LinkInfo[] {
  const request = new NetlinkRequest(RTM.GETLINK, new Uint8Array(ifinfomsg.size));
  return netlink.dump(request, RTM.NEWLINK, readLink);
}

function readAddressInfo(view: DataView, off: number, end: number): AddressInfo | null {
  if (off + ifaddrmsg.size > end) return null;
  const family = view.getUint8(off + ifaddrmsg.at.ifa_family);
  if (family !== AF_INET && family !== AF_INET6) return null;
  const found = attributes(view, off + ifaddrmsg.size, end);
  const remote = readAddress(view, found.get(IFA.ADDRESS), family);
  const local = readAddress(view, found.get(IFA.LOCAL), family);
  const address = local ?? remote;
  if (!address) return null;
  const pointToPoint = local && remote && local.some((word, i) => word !== remote[i]);
  return {
    family,
    ifindex: view.getInt32(off + ifaddrmsg.at.ifa_index, true),
    prefixLength: view.getUint8(off + ifaddrmsg.at.ifa_prefixlen),
    scope: view.getUint8(off + ifaddrmsg.at.ifa_scope),
    flags: attributeU32(view, found.get(IFA.FLAGS)) ?? view.getUint8(off + ifaddrmsg.at.ifa_flags),
    address,
    peer: pointToPoint ? remote : null,
    broadcast: readAddress(view, found.get(IFA.BROADCAST), family),
  };
}

/** All addresses of a family (AF_INET or AF_INET6). @throws SysError */
export function listAddresses(netlink: Netlink, family: number): AddressInfo[] {
  const body = new Uint8Array(ifaddrmsg.size);
  body[ifaddrmsg.at.ifa_family] = family;
  const all = netlink.dump(new NetlinkRequest(RTM.GETADDR, body), RTM.NEWADDR, readAddressInfo);
  return all.filter((info) => info.family === family);
}

/** A gateway of the route's own family, or (RTA.VIA) none that the family could name. */
function readHop(
  view: DataView,
  found: Map<number, Attribute>,
  family: number,
  ifindex: number,
  flags: number,
  weight: number,
): NextHop {
  let gateway = readAddress(view, found.get(RTA.GATEWAY), family);
  const via = found.get(RTA.VIA);
  if (!gateway && via && via.length > rtvia.size) {
    const viaFamily = view.getUint16(via.off + rtvia.at.rtvia_family, true);
    const address = { off: via.off + rtvia.size, length: via.length - rtvia.size };
    gateway = readAddress(view, address, viaFamily);
  }
  return { ifindex, gateway, flags: flags & RTNH_F_ONLINK, weight };
}

function readMultipath(view: DataView, attribute: Attribute, family: number): NextHop[] {
  const hops: NextHop[] = [];
  const end = attribute.off + attribute.length;
  for (let at = attribute.off; at + rtnexthop.size <= end;) {
    const length = view.getUint16(at + rtnexthop.at.rtnh_len, true);
    if (length < rtnexthop.size || at + length > end) break;
    const found = attributes(view, at + rtnexthop.size, at + length);
    const ifindex = view.getInt32(at + rtnexthop.at.rtnh_ifindex, true);
    const flags = view.getUint8(at + rtnexthop.at.rtnh_flags);
    hops.push(
      readHop(view, found, family, ifindex, flags, view.getUint8(at + rtnexthop.at.rtnh_hops)),
    );
    at += (length + 3) & ~3;
  }
  return hops;
}

function readRoute(view: DataView, off: number, end: number): RouteInfo | null {
  if (off + rtmsg.size > end) return null;
  const family = view.getUint8(off + rtmsg.at.rtm_family);
  const found = attributes(view, off + rtmsg.size, end);
  const flags = view.getUint32(off + rtmsg.at.rtm_flags, true);
  const multipath = found.get(RTA.MULTIPATH);
  const ifindex = attributeU32(view, found.get(RTA.OIF));
  const hops = multipath
    ? readMultipath(view, multipath, family)
    : ifindex === null
    ? []
    : [readHop(view, found, family, ifindex, flags, 0)];
  if (hops.length === 0) return null;
  const metrics = found.get(RTA.METRICS);
  const preference = found.get(RTA.PREF);
  return {
    family,
    destination: readAddress(view, found.get(RTA.DST), family),
    prefixLength: view.getUint8(off + rtmsg.at.rtm_dst_len),
    sourceLength: view.getUint8(off + rtmsg.at.rtm_src_len),
    tos: view.getUint8(off + rtmsg.at.rtm_tos),
    table: attributeU32(view, found.get(RTA.TABLE)) ?? view.getUint8(off + rtmsg.at.rtm_table),
    protocol: view.getUint8(off + rtmsg.at.rtm_protocol),
    scope: view.getUint8(off + rtmsg.at.rtm_scope),
    type: view.getUint8(off + rtmsg.at.rtm_type),
    flags,
    priority: attributeU32(view, found.get(RTA.PRIORITY)) ?? 0,
    source: readAddress(view, found.get(RTA.PREFSRC), family),
    metrics: metrics ? attributeBytes(view, metrics) : null,
    preference: preference?.length === 1 ? view.getUint8(preference.off) : null,
    hops,
    tunnel: found.has(RTA.ENCAP),
  };
}

/**
 * The unicast routes of the main table, in the kernel's order (by destination, then metric).
 *
 * @throws SysError
 */
export function listRoutes(netlink: Netlink, family: number): RouteInfo[] {
  const body = new Uint8Array(rtmsg.size);
  body[rtmsg.at.rtm_family] = family;
  body[rtmsg.at.rtm_table] = RT_TABLE_MAIN;
  body[rtmsg.at.rtm_type] = RTN_UNICAST;
  return netlink.dump(new NetlinkRequest(RTM.GETROUTE, body), RTM.NEWROUTE, (view, off, end) => {
    const route = readRoute(view, off, end);
    const wanted = route?.family === family && route.table === RT_TABLE_MAIN &&
      route.type === RTN_UNICAST && !(route.flags & RTM_F_CLONED);
    return wanted ? route : null;
  });
}
