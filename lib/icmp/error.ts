// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * ICMP and ICMPv6 errors to the guest, for any protocol.
 *
 * Theory of operation: an error quotes the packet it is about. Where that packet is still in a receive
 * slot it is copied from there ({@linkcode sendUnreachable}, {@linkcode sendTooBig}); where only its
 * payload came back from a socket's error queue, the caller rebuilds it at {@linkcode quoteOffset} and
 * calls {@linkcode sendQuotedError}. Frames are built in the control slot. Errors that the guest can
 * provoke without anything having happened on the host's network are limited to
 * {@linkcode LOCAL_ERRORS_PER_SECOND}; those that pass on what a router said are not, for routers
 * have limits of their own. None is sent about a packet to or from a group (RFC 1122 §3.2.2,
 * RFC 4443 §2.4(e)).
 *
 * @module
 */
import type { Context } from "../context.ts";
import { SIDE_EADDR, SIDE_OADDR } from "../flow/side.ts";
import { familyFor } from "../forward/nat.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { ETH_HEADER_SIZE, GSO, TX_CONTROL } from "../link/link.ts";
import { E } from "../sys/errno.ts";
import {
  copyAddress,
  isBroadcast,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  isV4,
  sameAddress,
} from "../wire/address.ts";
import { ETH_P_IP, ETH_P_IPV6, writeEthernet } from "../wire/ethernet.ts";
import {
  finishIcmp,
  ICMP_ADMIN_PROHIBITED,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HEADER_SIZE,
  ICMP_HOST_UNREACHABLE,
  ICMP_NET_UNREACHABLE,
  ICMP_PARAMETER_PROBLEM,
  ICMP_PORT_UNREACHABLE,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
  writeIcmpError,
} from "../wire/icmp.ts";
import {
  finishIcmpv6,
  ICMPV6_ADDRESS_UNREACHABLE,
  ICMPV6_ADMIN_PROHIBITED,
  ICMPV6_NO_ROUTE,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_PARAMETER_PROBLEM,
  ICMPV6_PORT_UNREACHABLE,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_UNREACHABLE,
} from "../wire/icmpv6.ts";
import { IPPROTO_ICMP, IPV4_HEADER_SIZE, writeIpv4 } from "../wire/ipv4.ts";
import { IPPROTO_ICMPV6, IPV6_HEADER_SIZE, writeIpv6 } from "../wire/ipv6.ts";
import { DEST, type Packet, SOURCE } from "../wire/packet.ts";

/** Most bytes of the offending packet in an ICMP error: 576 in all (RFC 1812 §4.3.2.3). */
export const MAX_QUOTE4 = 576 - IPV4_HEADER_SIZE - ICMP_HEADER_SIZE;
/** Likewise in an ICMPv6 error: 1280 in all (RFC 4443 §2.4(c)). */
export const MAX_QUOTE6 = 1280 - IPV6_HEADER_SIZE - ICMP_HEADER_SIZE;
/** As many as the kernel allows itself (icmp_msgs_per_sec, ip-sysctl). */
export const LOCAL_ERRORS_PER_SECOND = 1000;
/** Smallest MTU that may be told: RFC 791 §3.2, RFC 8200 §5. */
const MIN_MTU4 = 68;
const MIN_MTU6 = 1280;
const ERROR_TTL = 64; // RFC 1700, default TTL

const limit = new RateLimit(LOCAL_ERRORS_PER_SECOND);
const source = new Int32Array(4);

/** Where the quoted packet of an error has to lie in the link's arena before it is sent. */
export function quoteOffset(ctx: Context, version: number): number {
  const header = version === 4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  return ctx.link.txOffset[TX_CONTROL] + ETH_HEADER_SIZE + header + ICMP_HEADER_SIZE;
}

/** Most bytes that may be put at {@linkcode quoteOffset}. */
export function quoteRoom(version: number): number {
  return version === 4 ? MAX_QUOTE4 : MAX_QUOTE6;
}

/**
 * Sends an error whose quote of `bytes` bytes lies at {@linkcode quoteOffset} already.
 *
 * @param version 4 or 6: of the packet, the addresses and the meaning of type and code
 * @param word second word of the message: next-hop MTU or pointer, 0 where the type has none
 * @param src, dst sender of the error (a router or the destination) and the guest
 * @returns 0 or a negative errno: the frame was dropped
 */
export function sendQuotedError(
  ctx: Context,
  version: number,
  type: number,
  code: number,
  word: number,
  src: Int32Array,
  srcAt: number,
  dst: Int32Array,
  dstAt: number,
  bytes: number,
): number {
  const link = ctx.link, view = link.arena.dv;
  const frame = link.txOffset[TX_CONTROL], l3 = frame + ETH_HEADER_SIZE;
  const length = ICMP_HEADER_SIZE + bytes;
  const v4 = version === 4;
  const header = v4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  writeEthernet(view, frame, ctx.guestMac, ctx.ourMac, v4 ? ETH_P_IP : ETH_P_IPV6);
  writeIcmpError(view, l3 + header, type, code, word);
  if (v4) {
    writeIpv4(view, l3, header + length, IPPROTO_ICMP, ERROR_TTL, 0, true, src, srcAt, dst, dstAt);
    finishIcmp(view, l3 + header, length);
  } else {
    writeIpv6(view, l3, length, IPPROTO_ICMPV6, ERROR_TTL, 0, src, srcAt, dst, dstAt);
    finishIcmpv6(view, l3 + header, length, src, srcAt, dst, dstAt);
  }
  return link.send(TX_CONTROL, ETH_HEADER_SIZE + header + length, 0, 0, 0, GSO.NONE, 0);
}

/**
 * Sends an error about a packet that lies in memory, from its IP header on; what exceeds
 * {@linkcode quoteRoom} is not quoted.
 *
 * @param from memory that holds the packet: `bytes` bytes at `at`
 * @returns 0 or a negative errno: the frame was dropped
 */
export function sendIcmpError(
  ctx: Context,
  version: number,
  type: number,
  code: number,
  word: number,
  src: Int32Array,
  srcAt: number,
  dst: Int32Array,
  dstAt: number,
  from: Uint8Array,
  at: number,
  bytes: number,
): number {
  const to = ctx.link.arena.u8, off = quoteOffset(ctx, version);
  const quoted = Math.min(bytes, quoteRoom(version));
  for (let k = 0; k < quoted; k++) to[off + k] = from[at + k];
  return sendQuotedError(ctx, version, type, code, word, src, srcAt, dst, dstAt, quoted);
}

/** Whether an error about this packet may be sent at all, and now. */
function mayAnswer(ctx: Context, packet: Packet): boolean {
  const words = packet.addresses;
  return !isUnspecified(words, SOURCE) && !isMulticast(words, SOURCE) &&
    !isMulticast(words, DEST) &&
    !isBroadcast(words, SOURCE) && !isBroadcast(words, DEST) && limit.allow(ctx.nowMs);
}

/** Our own address as a router towards whoever sent the packet, into {@linkcode source}. */
function chooseSource(ctx: Context, packet: Packet): void {
  const words = packet.addresses;
  const family = familyFor(ctx, words, SOURCE);
  const linkLocal = packet.version === 6 && isLinkLocal(words, SOURCE);
  if (!family || isUnspecified(family.ourAddr)) copyAddress(source, 0, words, DEST);
  else copyAddress(source, 0, linkLocal ? family.ourLinkLocal : family.ourAddr, 0);
}

/** Sends an error about a guest's packet that lies in the link's arena. */
function answer(ctx: Context, packet: Packet, type: number, code: number, word: number): void {
  const { l3, end, addresses, version } = packet;
  const from = ctx.link.arena.u8;
  sendIcmpError(ctx, version, type, code, word, source, 0, addresses, SOURCE, from, l3, end - l3);
}

/** Code of ICMP's "unreachable" for an errno, or -1. */
function unreachable4(error: number): number {
  switch (error) {
    case E.ENETUNREACH:
    case E.ENETDOWN:
      return ICMP_NET_UNREACHABLE;
    case E.EHOSTUNREACH:
    case E.EHOSTDOWN:
      return ICMP_HOST_UNREACHABLE;
    case E.ECONNREFUSED:
      return ICMP_PORT_UNREACHABLE;
    case E.EACCES:
    case E.EPERM:
      return ICMP_ADMIN_PROHIBITED;
  }
  return -1;
}

/** Code of ICMPv6's "unreachable" for an errno, or -1. */
function unreachable6(error: number): number {
  switch (error) {
    case E.ENETUNREACH:
    case E.ENETDOWN:
      return ICMPV6_NO_ROUTE;
    case E.EHOSTUNREACH:
    case E.EHOSTDOWN:
      return ICMPV6_ADDRESS_UNREACHABLE;
    case E.ECONNREFUSED:
      return ICMPV6_PORT_UNREACHABLE;
    case E.EACCES:
    case E.EPERM:
      return ICMPV6_ADMIN_PROHIBITED;
  }
  return -1;
}

/** Code of "unreachable" of either family for a positive errno, or -1: none says that. */
export function unreachableCode(v4: boolean, error: number): number {
  return v4 ? unreachable4(error) : unreachable6(error);
}

/**
 * Answers a guest's packet with "destination unreachable", from our own address, or for a refused
 * port from the destination's.
 *
 * @param packet parsed packet that lies in the link's arena
 * @param error positive errno of the call that failed on its behalf: `ENETUNREACH`, `EHOSTUNREACH`,
 *   `EACCES` …
 * @returns false when nothing was sent: no ICMP code says what `error` says, or the rate limit or the
 *   nature of the packet forbids it
 */
export function sendUnreachable(ctx: Context, packet: Packet, error: number): boolean {
  const v4 = packet.version === 4;
  const code = unreachableCode(v4, error);
  if (code < 0) return false;
  if (!mayAnswer(ctx, packet)) return false;
  if (error === E.ECONNREFUSED) copyAddress(source, 0, packet.addresses, DEST);
  else chooseSource(ctx, packet);
  answer(ctx, packet, v4 ? ICMP_UNREACHABLE : ICMPV6_UNREACHABLE, code, 0);
  return true;
}

/**
 * Answers a guest's packet with "fragmentation needed" (RFC 1191 §4) or "packet too big"
 * (RFC 4443 §3.2).
 *
 * @param mtu what the path takes; smaller values than the protocol allows are raised
 */
export function sendTooBig(ctx: Context, packet: Packet, mtu: number): void {
  if (!mayAnswer(ctx, packet)) return;
  chooseSource(ctx, packet);
  if (packet.version === 4) {
    const word = Math.max(mtu, MIN_MTU4) & 0xffff;
    answer(ctx, packet, ICMP_UNREACHABLE, ICMP_FRAGMENTATION_NEEDED, word);
  } else {
    answer(ctx, packet, ICMPV6_PACKET_TOO_BIG, 0, Math.max(mtu, MIN_MTU6));
  }
}

/**
 * Replaces the address of a node on the host's side that reported an error by the one under which
 * the guest can know it: the destination keeps the name the guest gave it, and what a guest would
 * take for itself or for its own loopback becomes our address.
 *
 * @param words address to replace, at 0
 * @param sides words of the flow's sides; `tap` and `host` are where each side's words start
 */
export function nameForGuest(
  ctx: Context,
  words: Int32Array,
  sides: Int32Array,
  tap: number,
  host: number,
): void {
  const destination = sameAddress(words, 0, sides, host + SIDE_EADDR);
  if (destination || isV4(words) !== isV4(sides, tap + SIDE_EADDR)) {
    return copyAddress(words, 0, sides, tap + SIDE_OADDR);
  }
  const family = familyFor(ctx, words, 0);
  const own = isLoopback(words) || isUnspecified(words) ||
    sameAddress(words, 0, sides, tap + SIDE_EADDR) ||
    (family !== null && sameAddress(words, 0, family.addr, 0));
  if (own && family) copyAddress(words, 0, family.ourAddr, 0);
}

/** Whether the guest is told of errors of this kind. */
export function isRelayed(v4: boolean, type: number): boolean {
  return v4
    ? type === ICMP_UNREACHABLE || type === ICMP_TIME_EXCEEDED || type === ICMP_PARAMETER_PROBLEM
    : type >= ICMPV6_UNREACHABLE && type <= ICMPV6_PARAMETER_PROBLEM;
}

/**
 * Second word of an error to the guest.
 *
 * @param info MTU or pointer as `ee_info` has it: a plain number
 */
export function secondWord(v4: boolean, type: number, code: number, info: number): number {
  if (v4) {
    return type === ICMP_UNREACHABLE && code === ICMP_FRAGMENTATION_NEEDED ? info & 0xffff : 0;
  }
  return type === ICMPV6_PACKET_TOO_BIG || type > ICMPV6_TIME_EXCEEDED ? info : 0;
}
