// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * rtnetlink(7): setting links, addresses and routes.
 *
 * @module
 */
import { ifaddrmsg, ifinfomsg, nlmsghdr, rtmsg, rtnexthop, rtvia } from "./layout.ts";
import { type Netlink, NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from "./netlink.ts";
import {
  addressBytes,
  type AddressInfo,
  IFA,
  IFLA,
  IFLA_INET6,
  IN6_ADDR_GEN_MODE_NONE,
  type RouteInfo,
  RT_TABLE_MAIN,
  RTA,
  RTM,
  V4_MAPPED,
  type Words,
} from "./rtnetlink.ts";
import { AF_INET, AF_INET6 } from "./socket.ts";

function writeAddress(words: Words, family: number): Uint8Array {
  const bytes = new Uint8Array(addressBytes(family));
  const view = new DataView(bytes.buffer);
  const first = family === AF_INET ? 3 : 0;
  for (let i = first; i < 4; i++) view.setInt32(4 * (i - first), words[i]);
  return bytes;
}

/** What {@linkcode setLink} changes; what is left out stays. */
export interface LinkChange {
  mac?: Uint8Array;
  mtu?: number;
  txQueueLength?: number;
  /** Flags to set and to clear (IFF_…). */
  set?: number;
  clear?: number;
  /** The kernel shall not make a link-local IPv6 address when the interface comes up. */
  noLinkLocal?: boolean;
}

/** Changes an interface in one request. @param what the change in words, for the error @throws SysError */
export function setLink(netlink: Netlink, ifindex: number, change: LinkChange, what: string): void {
  const body = new Uint8Array(ifinfomsg.size);
  const view = new DataView(body.buffer);
  const set = change.set ?? 0;
  view.setInt32(ifinfomsg.at.ifi_index, ifindex, true);
  view.setUint32(ifinfomsg.at.ifi_flags, set, true);
  view.setUint32(ifinfomsg.at.ifi_change, set | (change.clear ?? 0), true);
  const request = new NetlinkRequest(RTM.SETLINK, body);
  if (change.mac) request.bytes(IFLA.ADDRESS, change.mac);
  if (change.mtu !== undefined) request.u32(IFLA.MTU, change.mtu);
  if (change.txQueueLength !== undefined) request.u32(IFLA.TXQLEN, change.txQueueLength);
  if (change.noLinkLocal) {
    request.nested(IFLA.AF_SPEC, (spec) => {
      spec.nested(AF_INET6, (v6) => v6.u8(IFLA_INET6.ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE));
    });
  }
  netlink.request(request, 0, what);
}

/**
 * Adds an address to `ifindex` (not to the one it was read from).
 *
 * @throws SysError; EEXIST when it is there
 */
export function addAddress(
  netlink: Netlink,
  ifindex: number,
  info: Omit<AddressInfo, "ifindex">,
  what: string,
): void {
  const body = new Uint8Array(ifaddrmsg.size);
  body[ifaddrmsg.at.ifa_family] = info.family;
  body[ifaddrmsg.at.ifa_prefixlen] = info.prefixLength;
  body[ifaddrmsg.at.ifa_flags] = info.flags & 0xff;
  body[ifaddrmsg.at.ifa_scope] = info.scope;
  new DataView(body.buffer).setInt32(ifaddrmsg.at.ifa_index, ifindex, true);
  const request = new NetlinkRequest(RTM.NEWADDR, body)
    .bytes(IFA.LOCAL, writeAddress(info.address, info.family))
    .bytes(IFA.ADDRESS, writeAddress(info.peer ?? info.address, info.family))
    .u32(IFA.FLAGS, info.flags);
  if (info.broadcast) request.bytes(IFA.BROADCAST, writeAddress(info.broadcast, info.family));
  netlink.request(request, NLM_F_CREATE | NLM_F_EXCL, what);
}

const isV4 = (words: Words): boolean => words[0] === 0 && words[1] === 0 && words[2] === V4_MAPPED;

function addGateway(request: NetlinkRequest, family: number, gateway: Words): void {
  const own = isV4(gateway) ? AF_INET : AF_INET6;
  const bytes = writeAddress(gateway, own);
  if (own === family) {
    request.bytes(RTA.GATEWAY, bytes);
    return;
  }
  const via = new Uint8Array(rtvia.size + bytes.length);
  new DataView(via.buffer).setUint16(rtvia.at.rtvia_family, own, true);
  via.set(bytes, rtvia.size);
  request.bytes(RTA.VIA, via);
}

/** RTA.MULTIPATH: `rtnexthop` structures with their attributes, built as a request without header. */
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
  const request = new NetlinkRequest(RTM.NEWROUTE, body);
  if (route.destination) request.bytes(RTA.DST, writeAddress(route.destination, family));
  if (single) {
    request.u32(RTA.OIF, ifindex);
    if (single.gateway) addGateway(request, family, single.gateway);
  } else request.bytes(RTA.MULTIPATH, multipathBytes(route, ifindex));
  if (route.priority) request.u32(RTA.PRIORITY, route.priority);
  if (route.source) request.bytes(RTA.PREFSRC, writeAddress(route.source, family));
  if (route.metrics) request.bytes(RTA.METRICS, route.metrics);
  if (route.preference !== null) request.u8(RTA.PREF, route.preference);
  netlink.request(request, NLM_F_CREATE | NLM_F_EXCL, what);
}
