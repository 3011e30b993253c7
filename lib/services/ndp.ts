// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Neighbour discovery (RFC 4861): every IPv6 address but the guest's own is ours, and we are its
 * router.
 *
 * Theory of operation: a neighbour solicitation is answered with our MAC address unless its target is
 * an address that the guest was assigned or uses. Duplicate address detection, whose source is ::
 * (RFC 4862 §5.4.2), is never answered: the guest may take any address it likes. A router
 * solicitation is answered with one advertisement: default router for as long as the protocol can say
 * (RFC 8319), the /64 prefix of the assigned address for SLAAC, resolvers and search list (RFC
 * 8106), MTU if it was set, and the managed flag when DHCPv6 is served. All lifetimes are infinite,
 * so no advertisement is sent unasked. Advertisements and redirects of the guest are ignored: its
 * MAC address is that of the frames it sends.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Context, Family } from "../context.ts";
import {
  type Address,
  formatAddress,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  loadV6,
  sameAddress,
} from "../wire/address.ts";
import { ICMP_HEADER_SIZE, icmpType } from "../wire/icmp.ts";
import { IPPROTO_ICMPV6, IPV6_HEADER_SIZE } from "../wire/ipv6.ts";
import {
  checkNdp,
  NDP_INFINITY,
  NDP_MAX_ROUTER_LIFETIME,
  NDP_NA_OVERRIDE,
  NDP_NA_ROUTER,
  NDP_NA_SOLICITED,
  NDP_NEIGHBOR_SOLICIT,
  NDP_OPT_SOURCE_MAC,
  NDP_OPT_TARGET_MAC,
  NDP_PREFIX_AUTONOMOUS,
  NDP_PREFIX_ON_LINK,
  NDP_RA_MANAGED,
  NDP_REDIRECT,
  NDP_ROUTER_SOLICIT,
  NDP_TARGET,
  putDnssl,
  putLinkLayer,
  putMtu,
  putPrefix,
  putRdnss,
  writeNeighborAdvert,
  writeRouterAdvert,
} from "../wire/ndp.ts";
import { type Packet, SOURCE } from "../wire/packet.ts";
import {
  ALL_NODES_MAC,
  answerOffset,
  ICMPV6_MESSAGE,
  IPV6_MIN_MTU,
  learnGuestMac,
  sendIcmpv6,
} from "./reply.ts";
import { plainSearchList } from "./search_list.ts";

const log = getLogger();
const target: Address = new Int32Array(4);
const prefix: Address = new Int32Array(4);

/** ff02::1, all nodes on the link (RFC 4291 §2.7.1). */
export const ALL_NODES: Address = Int32Array.of(0xff020000 | 0, 0, 0, 1);

/** Hop limit for the guest's packets (IANA "IP Parameters", the default of most systems). */
const GUEST_HOP_LIMIT = 64;
/** The only prefix length that SLAAC knows over Ethernet (RFC 2464 §4). */
const SLAAC_PREFIX_LENGTH = 64;
/** Most resolvers in one advertisement, leaving room for the search list at 1280 bytes. */
const MAX_RESOLVERS = 32;

/** Whether the guest has, or has shown, the address in `target`. */
function isGuests(family: Family): boolean {
  return sameAddress(target, 0, family.addr, 0) ||
    sameAddress(target, 0, family.addrSeen, 0) ||
    sameAddress(target, 0, family.linkLocalSeen, 0);
}

/** Whether `target` is an address of ours for good, whatever source the guest has used. */
function isTaken(family: Family): boolean {
  if (sameAddress(target, 0, family.ourAddr, 0)) return true;
  if (sameAddress(target, 0, family.ourLinkLocal, 0)) return true;
  return family.gateway !== null && sameAddress(target, 0, family.gateway, 0);
}

function answerSolicitation(ctx: Context, family: Family, packet: Packet): void {
  const view = ctx.link.arena.dv, words = packet.addresses;
  loadV6(view, packet.l4 + NDP_TARGET, target, 0);
  if (isUnspecified(words, SOURCE)) return;
  if (isUnspecified(target) || isLoopback(target)) return;
  if (sameAddress(target, 0, words, SOURCE) || sameAddress(target, 0, family.addr, 0)) return;
  if (isGuests(family) && !isTaken(family)) return;
  if (log.level <= LogLevels.TRACE) log.trace(`NDP: ${formatAddress(target)} is ours`);
  const start = answerOffset(ctx) + ICMPV6_MESSAGE;
  const flags = NDP_NA_ROUTER | NDP_NA_SOLICITED | NDP_NA_OVERRIDE;
  const limit = start + IPV6_MIN_MTU - IPV6_HEADER_SIZE;
  let at = writeNeighborAdvert(view, start, flags, target, 0);
  at = putLinkLayer(view, at, limit, NDP_OPT_TARGET_MAC, ctx.ourMac);
  sendIcmpv6(ctx, at - start, ctx.guestMac, words, SOURCE);
}

/** Appends the /64 of the assigned address, unless that has no global prefix. */
function putAssignedPrefix(view: DataView, at: number, limit: number, family: Family): number {
  const addr = family.addr;
  if (isUnspecified(addr) || isLinkLocal(addr) || isLoopback(addr)) return at;
  prefix[0] = addr[0];
  prefix[1] = addr[1];
  const flags = NDP_PREFIX_ON_LINK | NDP_PREFIX_AUTONOMOUS;
  const forever = NDP_INFINITY;
  return putPrefix(view, at, limit, prefix, 0, SLAAC_PREFIX_LENGTH, flags, forever, forever);
}

function putResolvers(view: DataView, at: number, limit: number, family: Family): number {
  const all = family.dns;
  if (all.length === 0) return at;
  const servers = all.length <= MAX_RESOLVERS ? all : all.slice(0, MAX_RESOLVERS);
  return putRdnss(view, at, limit, NDP_INFINITY, servers);
}

/**
 * Sends a router advertisement.
 *
 * @param dst words with the destination at `dstAt`: the guest's address, or :: for all nodes
 */
export function sendRouterAdvertisement(ctx: Context, dst: Int32Array, dstAt = 0): void {
  const family = ctx.ip6;
  if (family === null || !ctx.features.ndp || !ctx.features.ra) return;
  const view = ctx.link.arena.dv, start = answerOffset(ctx) + ICMPV6_MESSAGE;
  const limit = start + IPV6_MIN_MTU - IPV6_HEADER_SIZE;
  const flags = ctx.features.dhcpv6 ? NDP_RA_MANAGED : 0;
  let at = writeRouterAdvert(view, start, GUEST_HOP_LIMIT, flags, NDP_MAX_ROUTER_LIFETIME);
  at = putLinkLayer(view, at, limit, NDP_OPT_SOURCE_MAC, ctx.ourMac);
  at = putAssignedPrefix(view, at, limit, family);
  if (ctx.announceMtu) at = putMtu(view, at, limit, ctx.mtu);
  at = putResolvers(view, at, limit, family);
  const names = plainSearchList(ctx.search).at(-1);
  if (names) at = putDnssl(view, at, limit, NDP_INFINITY, names);
  if (at < 0) return; // cannot be: the parts' limits add up to 1280 bytes
  if (isUnspecified(dst, dstAt)) sendIcmpv6(ctx, at - start, ALL_NODES_MAC, ALL_NODES, 0);
  else sendIcmpv6(ctx, at - start, ctx.guestMac, dst, dstAt);
}

/**
 * Takes an ICMPv6 packet if it is of Neighbour Discovery, answering solicitations.
 *
 * @param packet as parsed; types other than 133–137 are left alone
 * @param off offset of the Ethernet header in the link's arena
 * @returns whether it was taken: valid or not, such messages never leave the link
 */
export function handleNdp(ctx: Context, packet: Packet, off: number): boolean {
  const view = ctx.link.arena.dv, family = ctx.ip6;
  if (packet.version !== 6 || packet.proto !== IPPROTO_ICMPV6) return false;
  if (packet.l4 + ICMP_HEADER_SIZE > packet.end) return false;
  const claimed = icmpType(view, packet.l4);
  if (claimed < NDP_ROUTER_SOLICIT || claimed > NDP_REDIRECT) return false;
  if (family === null || !ctx.features.ndp) return true;
  const type = checkNdp(view, packet);
  if (type !== NDP_NEIGHBOR_SOLICIT && type !== NDP_ROUTER_SOLICIT) return true;
  if (isMulticast(packet.addresses, SOURCE) || !learnGuestMac(ctx, off)) return true;
  if (type === NDP_NEIGHBOR_SOLICIT) answerSolicitation(ctx, family, packet);
  else sendRouterAdvertisement(ctx, packet.addresses, SOURCE);
  return true;
}
