// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the services share: sending one short answer to the guest, and learning its MAC address.
 *
 * Theory of operation: an answer is built in the link's control slot. The service writes its message
 * at a fixed distance from the slot's start ({@linkcode UDP4_PAYLOAD} and so on), then one of the
 * senders below puts the headers before it, completes the checksums and hands the frame over. If the
 * link drops it, the client asks again: every protocol here is made for that.
 *
 * Answers go to the Ethernet source of the question, which {@linkcode learnGuestMac} has checked.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { GSO, TX_CONTROL } from "../link/link.ts";
import { pseudoSum, transportChecksum } from "../wire/checksum.ts";
import {
  ETH_HEADER_SIZE,
  ETH_P_IP,
  ETH_P_IPV6,
  ETH_SOURCE,
  isGroupMac,
  loadMac,
  sameMac,
  writeEthernet,
} from "../wire/ethernet.ts";
import { IPPROTO_UDP, IPV4_HEADER_SIZE, writeIpv4 } from "../wire/ipv4.ts";
import { IPPROTO_ICMPV6, IPV6_HEADER_SIZE, writeIpv6 } from "../wire/ipv6.ts";
import { UDP_CHECKSUM, UDP_HEADER_SIZE, writeUdpHeader } from "../wire/udp.ts";

/** Offset of a UDP message from the control slot's start, by IP version. */
export const UDP4_PAYLOAD = ETH_HEADER_SIZE + IPV4_HEADER_SIZE + UDP_HEADER_SIZE;
export const UDP6_PAYLOAD = ETH_HEADER_SIZE + IPV6_HEADER_SIZE + UDP_HEADER_SIZE;
/** Offset of an ICMPv6 message from the control slot's start. */
export const ICMPV6_MESSAGE = ETH_HEADER_SIZE + IPV6_HEADER_SIZE;

/** Largest IPv6 packet every link carries (RFC 8200 §5); longer answers are never needed. */
export const IPV6_MIN_MTU = 1280;

/** ff:ff:ff:ff:ff:ff (RFC 894). */
export const BROADCAST_MAC: Uint8Array<ArrayBuffer> = new Uint8Array(6).fill(0xff);
/** 33:33:00:00:00:01, where ff02::1, all nodes, is sent (RFC 2464 §7). */
export const ALL_NODES_MAC: Uint8Array<ArrayBuffer> = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);

/** Time to live of UDP answers: the default of IANA "IP Parameters" and of RFC 1700. */
const DEFAULT_TTL = 64;
/** Hop limit that Neighbor Discovery asks for (RFC 4861 §7.1), and good for all on the link. */
const ON_LINK_HOP_LIMIT = 255;
/** Offset of the checksum in an ICMPv6 message (RFC 4443 §2.1). */
const ICMPV6_CHECKSUM_OFFSET = 2;

/** Offset, in the arena, where the answer's frame begins. */
export function answerOffset(ctx: Context): number {
  return ctx.link.txOffset[TX_CONTROL];
}

/** Whether the 6 bytes at `at` are a MAC address somebody else than we can have: not a group, not 0. */
export function isForeignMac(ctx: Context, view: DataView, at: number): boolean {
  if (isGroupMac(view, at) || sameMac(view, at, ctx.ourMac)) return false;
  return view.getUint32(at) !== 0 || view.getUint16(at + 4) !== 0;
}

/**
 * Takes the Ethernet source of the frame at `off` as the guest's address ({@linkcode Context}'s
 * `guestMac`).
 *
 * @returns false, with nothing learnt, when it is a group address, zero or ours: such a frame is
 *   not to be answered
 */
export function learnGuestMac(ctx: Context, off: number): boolean {
  const view = ctx.link.arena.dv;
  if (!isForeignMac(ctx, view, off + ETH_SOURCE)) return false;
  loadMac(view, off + ETH_SOURCE, ctx.guestMac);
  return true;
}

/** Hands over the frame of `length` bytes in the control slot, complete with checksums. */
export function sendAnswer(ctx: Context, length: number): void {
  ctx.link.send(TX_CONTROL, length, 0, 0, 0, GSO.NONE, 0);
}

function finishUdp(
  ctx: Context,
  l4: number,
  ports: number,
  bytes: number,
  src: Int32Array,
  dst: Int32Array,
  dstAt: number,
): void {
  const view = ctx.link.arena.dv;
  writeUdpHeader(view, l4, ports >>> 16, ports & 0xffff, bytes, 0);
  const pseudo = pseudoSum(src, 0, dst, dstAt, IPPROTO_UDP, bytes);
  view.setUint16(l4 + UDP_CHECKSUM, transportChecksum(view, l4, bytes, IPPROTO_UDP, pseudo));
}

/**
 * Sends the UDP message at {@linkcode UDP4_PAYLOAD} over IPv4.
 *
 * @param payloadBytes bytes of the message
 * @param mac Ethernet destination
 * @param ports source port << 16 | destination port
 */
export function sendUdp4(
  ctx: Context,
  payloadBytes: number,
  mac: Uint8Array,
  src: Int32Array,
  dst: Int32Array,
  ports: number,
): void {
  const view = ctx.link.arena.dv, off = answerOffset(ctx);
  const l3 = off + ETH_HEADER_SIZE;
  const total = IPV4_HEADER_SIZE + UDP_HEADER_SIZE + payloadBytes;
  writeEthernet(view, off, mac, ctx.ourMac, ETH_P_IP);
  writeIpv4(view, l3, total, IPPROTO_UDP, DEFAULT_TTL, 0, true, src, 0, dst, 0);
  finishUdp(ctx, l3 + IPV4_HEADER_SIZE, ports, UDP_HEADER_SIZE + payloadBytes, src, dst, 0);
  sendAnswer(ctx, ETH_HEADER_SIZE + total);
}

/**
 * Sends the UDP message at {@linkcode UDP6_PAYLOAD} to the guest's MAC address over IPv6, from our
 * link-local address.
 *
 * @param payloadBytes bytes of the message
 * @param dst words with the destination at `dstAt`
 * @param ports source port << 16 | destination port
 */
export function sendUdp6(
  ctx: Context,
  payloadBytes: number,
  dst: Int32Array,
  dstAt: number,
  ports: number,
): void {
  const view = ctx.link.arena.dv, off = answerOffset(ctx);
  const l3 = off + ETH_HEADER_SIZE, src = ctx.ip6!.ourLinkLocal;
  const bytes = UDP_HEADER_SIZE + payloadBytes;
  writeEthernet(view, off, ctx.guestMac, ctx.ourMac, ETH_P_IPV6);
  writeIpv6(view, l3, bytes, IPPROTO_UDP, ON_LINK_HOP_LIMIT, 0, src, 0, dst, dstAt);
  finishUdp(ctx, l3 + IPV6_HEADER_SIZE, ports, bytes, src, dst, dstAt);
  sendAnswer(ctx, ICMPV6_MESSAGE + bytes);
}

/**
 * Sends the ICMPv6 message at {@linkcode ICMPV6_MESSAGE} from our link-local address.
 *
 * @param bytes bytes of the message
 * @param mac Ethernet destination
 * @param dst words with the destination at `dstAt`
 */
export function sendIcmpv6(
  ctx: Context,
  bytes: number,
  mac: Uint8Array,
  dst: Int32Array,
  dstAt: number,
): void {
  const view = ctx.link.arena.dv, off = answerOffset(ctx);
  const l3 = off + ETH_HEADER_SIZE, l4 = off + ICMPV6_MESSAGE, src = ctx.ip6!.ourLinkLocal;
  writeEthernet(view, off, mac, ctx.ourMac, ETH_P_IPV6);
  writeIpv6(view, l3, bytes, IPPROTO_ICMPV6, ON_LINK_HOP_LIMIT, 0, src, 0, dst, dstAt);
  const pseudo = pseudoSum(src, 0, dst, dstAt, IPPROTO_ICMPV6, bytes);
  const checksum = l4 + ICMPV6_CHECKSUM_OFFSET;
  view.setUint16(checksum, 0);
  view.setUint16(checksum, transportChecksum(view, l4, bytes, IPPROTO_ICMPV6, pseudo));
  sendAnswer(ctx, ICMPV6_MESSAGE + bytes);
}
