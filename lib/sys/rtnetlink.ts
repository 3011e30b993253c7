// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * rtnetlink(7): links, addresses and routes as plain objects, read from a namespace and set in one.
 *
 * IP addresses are four words, IPv4 v4-mapped, as everywhere. Used at start only.
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
  NLM_F_CREATE,
  NLM_F_EXCL,
} from "./netlink.ts";
import { ifaddrmsg, ifinfomsg, nlmsghdr, rtmsg, rtnexthop, rtvia } from "./layout.ts";
import { AF_INET, AF_INET6 } from "./socket.ts";

const RTM_NEWLINK = 16; // linux/rtnetlink.h
const RTM_GETLINK = 18;
const RTM_SETLINK = 19;
const RTM_NEWADDR = 20;
const RTM_GETADDR = 22;
const RTM_NEWROUTE = 24;
const RTM_GETROUTE = 26;

const IFLA_ADDRESS = 1; // linux/if_link.h
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_TXQLEN = 13;

const IFA_ADDRESS = 1; // linux/if_addr.h
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;

const RTA_DST = 1; // linux/rtnetlink.h
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RTA_VIA = 18;
const RTA_PREF = 20;
const RTA_ENCAP = 22;

/** Interface flags (linux/if.h). */
export const IFF_UP = 0x1;
export const IFF_LOOPBACK = 0x8;
export const IFF_NOARP = 0x80;
/** ARPHRD_ETHER (linux/if_arp.h): the link layer has 6-byte addresses. */
export const ARPHRD_ETHER = 1;
/** Address flags (linux/if_addr.h). */
export const IFA_F_NODAD = 0x02;
export const IFA_F_DEPRECATED = 0x20;
export const IFA_F_TENTATIVE = 0x40;
export const IFA_F_PERMANENT = 0x80;
export const IFA_F_NOPREFIXROUTE = 0x200;
/** Scopes, tables, types and protocols of linux/rtnetlink.h. */
export const RT_SCOPE_UNIVERSE = 0;
export const RT_SCOPE_LINK = 253;
export const RT_SCOPE_HOST = 254;
export const RT_TABLE_MAIN = 254;
export const RTN_UNICAST = 1;
export const RTPROT_BOOT = 3;
export const RTM_F_CLONED = 0x200;
export const RTNH_F_ONLINK = 4;

/** Four words. */
type Words = Int32Array<ArrayBuffer>;

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
  /** RTA_METRICS as it is; null: none. */
  readonly metrics: Uint8Array | null;
  /** RFC 4191 preference (RTA_PREF); null: none. */
  readonly preference: number | null;
  /** At least one. */
  readonly hops: readonly NextHop[];
  /** Whether it wraps packets (RTA_ENCAP). */
  readonly tunnel: boolean;
}

const V4_MAPPED = 0xffff;
const addressBytes = (family: number): number => family === AF_INET ? 4 : 16;

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

function writeAddress(words: Words, family: number): Uint8Array {
  const bytes = new Uint8Array(addressBytes(family));
  const view = new DataView(bytes.buffer);
  const first = family === AF_INET ? 3 : 0;
  for (let i = first; i < 4; i++) view.setInt32(4 * (i - first), words[i]);
  return bytes;
}

function readLink(view: DataView, off: number, end: number): LinkInfo | null {
  if (off + ifinfomsg.size > end) return null;
  const found = attributes(view, off + ifinfomsg.size, end);
  const mac = found.get(IFLA_ADDRESS);
  return {
    index: view.getInt32(off + ifinfomsg.at.ifi_index, true),
    name: attributeText(view, found.get(IFLA_IFNAME)) ?? "",
    mtu: attributeU32(view, found.get(IFLA_MTU)) ?? 0,
    mac: mac?.length === 6 ? attributeBytes(view, mac) : null,
    flags: view.getUint32(off + ifinfomsg.at.ifi_flags, true),
    type: view.getUint16(off + ifinfomsg.at.ifi_type, true),
    txQueueLength: attributeU32(view, found.get(IFLA_TXQLEN)) ?? 0,
  };
}

/** All interfaces of the socket's namespace. @throws SysError */
export function listLinks(netlink: Netlink): LinkInfo[] {
  const request = new NetlinkRequest(RTM_GETLINK, new Uint8Array(ifinfomsg.size));
  return netlink.dump(request, RTM_NEWLINK, readLink);
}

function readAddressInfo(view: DataView, off: number, end: number): AddressInfo | null {
  if (off + ifaddrmsg.size > end) return null;
  const family = view.getUint8(off + ifaddrmsg.at.ifa_family);
  if (family !== AF_INET && family !== AF_INET6) return null;
  const found = attributes(view, off + ifaddrmsg.size, end);
  const remote = readAddress(view, found.get(IFA_ADDRESS), family);
  const local = readAddress(view, found.get(IFA_LOCAL), family);
  const address = local ?? remote;
  if (!address) return null;
  const pointToPoint = local && remote && local.some((word, i) => word !== remote[i]);
  return {
    family,
    ifindex: view.getInt32(off + ifaddrmsg.at.ifa_index, true),
    prefixLength: view.getUint8(off + ifaddrmsg.at.ifa_prefixlen),
    scope: view.getUint8(off + ifaddrmsg.at.ifa_scope),
    flags: attributeU32(view, found.get(IFA_FLAGS)) ?? view.getUint8(off + ifaddrmsg.at.ifa_flags),
    address,
    peer: pointToPoint ? remote : null,
    broadcast: readAddress(view, found.get(IFA_BROADCAST), family),
  };
}

/** All addresses of a family (AF_INET or AF_INET6). @throws SysError */
export function listAddresses(netlink: Netlink, family: number): AddressInfo[] {
  const body = new Uint8Array(ifaddrmsg.size);
  body[ifaddrmsg.at.ifa_family] = family;
  const all = netlink.dump(new NetlinkRequest(RTM_GETADDR, body), RTM_NEWADDR, readAddressInfo);
  return all.filter((info) => info.family === family);
}

/** A gateway of the route's own family, or (RTA_VIA) none that the family could name. */
function readHop(
  view: DataView,
  found: Map<number, Attribute>,
  family: number,
  ifindex: number,
  flags: number,
  weight: number,
): NextHop {
  let gateway = readAddress(view, found.get(RTA_GATEWAY), family);
  const via = found.get(RTA_VIA);
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
  const multipath = found.get(RTA_MULTIPATH);
  const ifindex = attributeU32(view, found.get(RTA_OIF));
  const hops = multipath
    ? readMultipath(view, multipath, family)
    : ifindex === null
    ? []
    : [readHop(view, found, family, ifindex, flags, 0)];
  if (hops.length === 0) return null;
  const metrics = found.get(RTA_METRICS);
  const preference = found.get(RTA_PREF);
  return {
    family,
    destination: readAddress(view, found.get(RTA_DST), family),
    prefixLength: view.getUint8(off + rtmsg.at.rtm_dst_len),
    sourceLength: view.getUint8(off + rtmsg.at.rtm_src_len),
    tos: view.getUint8(off + rtmsg.at.rtm_tos),
    table: attributeU32(view, found.get(RTA_TABLE)) ?? view.getUint8(off + rtmsg.at.rtm_table),
    protocol: view.getUint8(off + rtmsg.at.rtm_protocol),
    scope: view.getUint8(off + rtmsg.at.rtm_scope),
    type: view.getUint8(off + rtmsg.at.rtm_type),
    flags,
    priority: attributeU32(view, found.get(RTA_PRIORITY)) ?? 0,
    source: readAddress(view, found.get(RTA_PREFSRC), family),
    metrics: metrics ? attributeBytes(view, metrics) : null,
    preference: preference?.length === 1 ? view.getUint8(preference.off) : null,
    hops,
    tunnel: found.has(RTA_ENCAP),
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
  return netlink.dump(new NetlinkRequest(RTM_GETROUTE, body), RTM_NEWROUTE, (view, off, end) => {
    const route = readRoute(view, off, end);
    const wanted = route?.family === family && route.table === RT_TABLE_MAIN &&
      route.type === RTN_UNICAST && !(route.flags & RTM_F_CLONED);
    return wanted ? route : null;
  });
}

/** What {@linkcode setLink} changes; what is left out stays. */
export interface LinkChange {
  mac?: Uint8Array;
  mtu?: number;
  txQueueLength?: number;
  /** Flags to set and to clear (IFF_…). */
  set?: number;
  clear?: number;
}

/** Changes an interface in one request. @param what the change in words, for the error @throws SysError */
export function setLink(netlink: Netlink, ifindex: number, change: LinkChange, what: string): void {
  const body = new Uint8Array(ifinfomsg.size);
  const view = new DataView(body.buffer);
  const set = change.set ?? 0;
  view.setInt32(ifinfomsg.at.ifi_index, ifindex, true);
  view.setUint32(ifinfomsg.at.ifi_flags, set, true);
  view.setUint32(ifinfomsg.at.ifi_change, set | (change.clear ?? 0), true);
  const request = new NetlinkRequest(RTM_SETLINK, body);
  if (change.mac) request.bytes(IFLA_ADDRESS, change.mac);
  if (change.mtu !== undefined) request.u32(IFLA_MTU, change.mtu);
  if (change.txQueueLength !== undefined) request.u32(IFLA_TXQLEN, change.txQueueLength);
  netlink.request(request, 0, what);
}

/**
 * Adds an address to `ifindex` (not to the one it was read from), or changes the flags of one that is
 * there with `replace`.
 *
 * @throws SysError; EEXIST when it is there
 */
export function addAddress(
  netlink: Netlink,
  ifindex: number,
  info: Omit<AddressInfo, "ifindex">,
  what: string,
  replace = false,
): void {
  const body = new Uint8Array(ifaddrmsg.size);
  body[ifaddrmsg.at.ifa_family] = info.family;
  body[ifaddrmsg.at.ifa_prefixlen] = info.prefixLength;
  body[ifaddrmsg.at.ifa_flags] = info.flags & 0xff;
  body[ifaddrmsg.at.ifa_scope] = info.scope;
  new DataView(body.buffer).setInt32(ifaddrmsg.at.ifa_index, ifindex, true);
  const request = new NetlinkRequest(RTM_NEWADDR, body)
    .bytes(IFA_LOCAL, writeAddress(info.address, info.family))
    .bytes(IFA_ADDRESS, writeAddress(info.peer ?? info.address, info.family))
    .u32(IFA_FLAGS, info.flags);
  if (info.broadcast) request.bytes(IFA_BROADCAST, writeAddress(info.broadcast, info.family));
  netlink.request(request, replace ? NLM_F_CREATE | REPLACE : NLM_F_CREATE | NLM_F_EXCL, what);
}

const REPLACE = 0x100; // NLM_F_REPLACE, linux/netlink.h

const isV4 = (words: Words): boolean => words[0] === 0 && words[1] === 0 && words[2] === V4_MAPPED;

function addGateway(request: NetlinkRequest, family: number, gateway: Words): void {
  const own = isV4(gateway) ? AF_INET : AF_INET6;
  const bytes = writeAddress(gateway, own);
  if (own === family) {
    request.bytes(RTA_GATEWAY, bytes);
    return;
  }
  const via = new Uint8Array(rtvia.size + bytes.length);
  new DataView(via.buffer).setUint16(rtvia.at.rtvia_family, own, true);
  via.set(bytes, rtvia.size);
  request.bytes(RTA_VIA, via);
}

/** RTA_MULTIPATH: `rtnexthop` structures with their attributes, built as a request without header. */
function multipathBytes(route: RouteInfo, ifindex: number): Uint8Array {
  const parts = route.hops.map((hop) => {
    const header = new Uint8Array(rtnexthop.size);
    const request = new NetlinkRequest(0, header);
    if (hop.gateway) addGateway(request, route.family, hop.gateway);
    const bytes = request.finish(0, 0).slice(nlmsghdr.size);
    const view = new DataView(bytes.buffer);
    view.setUint16(rtnexthop.at.rtnh_len, bytes.length, true);
    view.setUint8(rtnexthop.at.rtnh_flags, hop.flags);
    view.setUint8(rtnexthop.at.rtnh_hops, hop.weight);
    view.setInt32(rtnexthop.at.rtnh_ifindex, ifindex, true);
    return bytes;
  });
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

/**
 * Adds a route over `ifindex` (not over the one it was read from) to the main table.
 *
 * @throws SysError; EEXIST when it is there, ENETUNREACH or EHOSTUNREACH (IPv6) when the gateway has
 *   no route of its own yet, EINVAL when the preferred source is no address of the namespace
 */
export function addRoute(netlink: Netlink, ifindex: number, route: RouteInfo, what: string): void {
  const { family } = route;
  const single = route.hops.length === 1 ? route.hops[0] : null;
  const body = new Uint8Array(rtmsg.size);
  body[rtmsg.at.rtm_family] = family;
  body[rtmsg.at.rtm_dst_len] = route.prefixLength;
  body[rtmsg.at.rtm_tos] = route.tos;
  body[rtmsg.at.rtm_table] = RT_TABLE_MAIN;
  body[rtmsg.at.rtm_protocol] = route.protocol;
  body[rtmsg.at.rtm_scope] = route.scope;
  body[rtmsg.at.rtm_type] = route.type;
  new DataView(body.buffer).setUint32(rtmsg.at.rtm_flags, single?.flags ?? 0, true);
  const request = new NetlinkRequest(RTM_NEWROUTE, body);
  if (route.destination) request.bytes(RTA_DST, writeAddress(route.destination, family));
  if (single) {
    request.u32(RTA_OIF, ifindex);
    if (single.gateway) addGateway(request, family, single.gateway);
  } else request.bytes(RTA_MULTIPATH, multipathBytes(route, ifindex));
  if (route.priority) request.u32(RTA_PRIORITY, route.priority);
  if (route.source) request.bytes(RTA_PREFSRC, writeAddress(route.source, family));
  if (route.metrics) request.bytes(RTA_METRICS, route.metrics);
  if (route.preference !== null) request.u8(RTA_PREF, route.preference);
  netlink.request(request, NLM_F_CREATE | NLM_F_EXCL, what);
}
