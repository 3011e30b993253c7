// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * One received IP packet, described by offsets into the frame's memory.
 *
 * Theory of operation: one {@linkcode Packet} is made at start and filled anew by
 * {@linkcode parseIp} for each frame. Past that call, the network header, all extension headers and
 * `end` are known to lie within the frame; the transport header is checked by `checkTcp`, `checkUdp`
 * and the like. A packet that is refused leaves the object's fields undefined.
 *
 * @module
 */
import { isV4, loadV4, loadV6 } from "./address.ts";
import { ETH_HEADER_SIZE, ETH_P_IP, ETH_P_IPV6, etherType } from "./ethernet.ts";
import {
  checkIpv4,
  IPV4_DEST,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TOS,
  IPV4_TTL,
  ipv4HeaderSize,
} from "./ipv4.ts";
import {
  checkIpv6,
  IPV6_DEST,
  IPV6_HOP_LIMIT,
  IPV6_SOURCE,
  ipv6TrafficClass,
  skipExtensions,
} from "./ipv6.ts";

/** Word index of the source address in {@linkcode Packet.addresses}. */
export const SOURCE = 0;
/** Word index of the destination address in {@linkcode Packet.addresses}. */
export const DEST = 4;

/** An IP packet in a frame. Offsets count from the start of the view it was parsed from. */
export class Packet {
  /** 4 or 6. */
  version = 0;
  /** Protocol number of the transport header. */
  proto = 0;
  /** Offset of the IP header. */
  l3 = 0;
  /** Offset of the transport header; may equal {@linkcode end}. */
  l4 = 0;
  /** One past the last byte of the IP packet; Ethernet padding is beyond. */
  end = 0;
  /** Time to live or hop limit. */
  ttl = 0;
  /** Type of service or traffic class: DSCP and ECN bits. */
  tos = 0;
  /** Source address (words 0–3) and destination address (words 4–7), v4-mapped for IPv4. */
  readonly addresses: Int32Array<ArrayBuffer> = new Int32Array(8);
}

function parseIpv4(view: DataView, l3: number, length: number, packet: Packet): boolean {
  const total = checkIpv4(view, l3, length);
  if (total < 0) return false;
  packet.version = 4;
  packet.l3 = l3;
  packet.l4 = l3 + ipv4HeaderSize(view, l3);
  packet.end = l3 + total;
  packet.proto = view.getUint8(l3 + IPV4_PROTOCOL);
  packet.ttl = view.getUint8(l3 + IPV4_TTL);
  packet.tos = view.getUint8(l3 + IPV4_TOS);
  loadV4(view, l3 + IPV4_SOURCE, packet.addresses, SOURCE);
  loadV4(view, l3 + IPV4_DEST, packet.addresses, DEST);
  return true;
}

function parseIpv6(view: DataView, l3: number, length: number, packet: Packet): boolean {
  const total = checkIpv6(view, l3, length);
  if (total < 0) return false;
  const upper = skipExtensions(view, l3, l3 + total);
  if (upper < 0) return false;
  packet.version = 6;
  packet.l3 = l3;
  packet.l4 = l3 + (upper >>> 8);
  packet.end = l3 + total;
  packet.proto = upper & 0xff;
  packet.ttl = view.getUint8(l3 + IPV6_HOP_LIMIT);
  packet.tos = ipv6TrafficClass(view, l3);
  loadV6(view, l3 + IPV6_SOURCE, packet.addresses, SOURCE);
  loadV6(view, l3 + IPV6_DEST, packet.addresses, DEST);
  return !isV4(packet.addresses, SOURCE) && !isV4(packet.addresses, DEST);
}

/**
 * Checks the Ethernet and IP headers of a frame and fills `packet`. Allocates nothing.
 *
 * @param view memory that holds the frame
 * @param off offset of the Ethernet header
 * @param length bytes of the frame as received, all of them within `view`
 * @returns false for anything that is not an intact, unfragmented IPv4 or IPv6 packet, and for an
 *   IPv6 packet with a v4-mapped address (RFC 4291 §2.5.5.2): it would be taken for IPv4 further on
 * @example
 * ```ts
 * import { Packet, parseIp } from "./packet.ts";
 * import { assert } from "@std/assert";
 *
 * const packet = new Packet();
 * assert(!parseIp(new DataView(new ArrayBuffer(60)), 0, 60, packet));
 * ```
 */
export function parseIp(view: DataView, off: number, length: number, packet: Packet): boolean {
  if (length < ETH_HEADER_SIZE) return false;
  const type = etherType(view, off);
  const l3 = off + ETH_HEADER_SIZE;
  if (type === ETH_P_IP) return parseIpv4(view, l3, length - ETH_HEADER_SIZE, packet);
  if (type === ETH_P_IPV6) return parseIpv6(view, l3, length - ETH_HEADER_SIZE, packet);
  return false;
}
