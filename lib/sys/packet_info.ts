// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Which of the host's addresses a datagram was sent to, or is to be sent from: control messages
 * IP_PKTINFO (ip(7)) and IPV6_PKTINFO (ipv6(7)).
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { IP_PKTINFO, IPV6_PKTINFO } from "./ip_options.ts";
import { in6Pktinfo, inPktinfo } from "./layout.ts";
import { cmsgSpace, type MessageVector, writeCmsg } from "./message_vector.ts";
import { AF_INET, familyOf, IPPROTO_IP, IPPROTO_IPV6 } from "./socket.ts";

const V4_MAPPED = 0xffff; // RFC 4291 §2.5.5.2
const { ipi_ifindex: INDEX4, ipi_spec_dst: LOCAL4, ipi_addr: DEST4 } = inPktinfo.at;
const { ipi6_addr: ADDRESS6, ipi6_ifindex: INDEX6 } = in6Pktinfo.at;

/** Bytes of the control message for an IPv4 and for an IPv6 destination. */
export const PACKET_INFO_SPACE4 = cmsgSpace(inPktinfo.size);
export const PACKET_INFO_SPACE6 = cmsgSpace(in6Pktinfo.size);

/** Bytes of the control message for `words[at…]`. */
export function packetInfoSpace(words: Int32Array, at: number): number {
  return familyOf(words, at) === AF_INET ? PACKET_INFO_SPACE4 : PACKET_INFO_SPACE6;
}

/**
 * Writes the control message that has a datagram sent from `words[at…]`.
 *
 * @param off where it goes
 * @param ifindex interface to send from; 0: as routed
 */
export function writePacketInfo(
  arena: Arena,
  off: number,
  words: Int32Array,
  at: number,
  ifindex: number,
): void {
  if (familyOf(words, at) === AF_INET) {
    const info = writeCmsg(arena, off, IPPROTO_IP, IP_PKTINFO, inPktinfo.size);
    arena.dv.setInt32(info + INDEX4, ifindex, true);
    arena.dv.setInt32(info + LOCAL4, words[at + 3]);
    return;
  }
  const info = writeCmsg(arena, off, IPPROTO_IPV6, IPV6_PKTINFO, in6Pktinfo.size);
  for (let i = 0; i < 4; i++) arena.dv.setInt32(info + ADDRESS6 + 4 * i, words[at + i]);
  arena.dv.setInt32(info + INDEX6, ifindex, true);
}

/**
 * Reads our address out of message `k`, received or from the error queue, into `words[at…]`.
 *
 * @returns false when the kernel did not tell
 */
export function readPacketInfo(
  messages: MessageVector,
  k: number,
  words: Int32Array,
  at: number,
): boolean {
  const view = messages.arena.dv;
  const info6 = messages.findControl(k, IPPROTO_IPV6, IPV6_PKTINFO, in6Pktinfo.size);
  if (info6 >= 0) {
    for (let i = 0; i < 4; i++) words[at + i] = view.getInt32(info6 + ADDRESS6 + 4 * i);
    return true;
  }
  const info4 = messages.findControl(k, IPPROTO_IP, IP_PKTINFO, inPktinfo.size);
  if (info4 < 0) return false;
  words[at] = words[at + 1] = 0;
  words[at + 2] = V4_MAPPED;
  // of a broadcast: the address to answer from; of an error: only in the header
  words[at + 3] = view.getInt32(info4 + LOCAL4) || view.getInt32(info4 + DEST4);
  return true;
}
