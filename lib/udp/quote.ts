// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Datagrams as errors quote them, rebuilt from a flow's side and from the payload that came back with
 * an error (`UdpState.errorPayload`).
 *
 * @module
 */
import { SIDE_EADDR, SIDE_OADDR, SIDE_PORTS } from "../flow/side.ts";
import { quoteRoom } from "../icmp/error.ts";
import type { Arena } from "../sys/arena.ts";
import { IPPROTO_UDP } from "../sys/socket.ts";
import { isV4 } from "../wire/address.ts";
import { pseudoSum, transportChecksum } from "../wire/checksum.ts";
import { IPV4_HEADER_SIZE, writeIpv4 } from "../wire/ipv4.ts";
import { IPV6_HEADER_SIZE, writeIpv6 } from "../wire/ipv6.ts";
import { UDP_CHECKSUM, UDP_HEADER_SIZE, writeUdpHeader } from "../wire/udp.ts";
import type { UdpState } from "./state.ts";

/**
 * Writes the datagram that the endpoint of side `words[at…]` has sent to our address there, from its IP
 * header on, as far as an error has room for it.
 *
 * @param off where it goes in `arena`
 * @param ttl of the header
 * @param bytes how much of the payload is there
 * @returns bytes written
 */
export function writeQuote(
  state: UdpState,
  arena: Arena,
  off: number,
  words: Int32Array,
  at: number,
  ttl: number,
  bytes: number,
): number {
  const view = arena.dv, to = arena.u8, from = state.arena.u8;
  const peer = at + SIDE_EADDR, our = at + SIDE_OADDR, v4 = isV4(words, peer);
  const ip = v4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE, l4 = off + ip;
  const payload = Math.min(bytes, quoteRoom(v4 ? 4 : 6) - ip - UDP_HEADER_SIZE);
  const length = UDP_HEADER_SIZE + payload;
  if (v4) {
    writeIpv4(view, off, ip + length, IPPROTO_UDP, ttl, 0, true, words, peer, words, our);
  } else {
    writeIpv6(view, off, length, IPPROTO_UDP, ttl, 0, words, peer, words, our);
  }
  const data = l4 + UDP_HEADER_SIZE;
  for (let k = 0; k < payload; k++) to[data + k] = from[state.errorPayload + k];
  const ports = words[at + SIDE_PORTS];
  writeUdpHeader(view, l4, ports >>> 16, ports & 0xffff, length, 0);
  const initial = pseudoSum(words, peer, words, our, IPPROTO_UDP, length);
  const checksum = transportChecksum(view, l4, length, IPPROTO_UDP, initial);
  view.setUint16(l4 + UDP_CHECKSUM, checksum);
  return ip + length;
}
