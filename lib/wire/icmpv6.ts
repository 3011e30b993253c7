// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * ICMPv6 (RFC 4443): types, echo check, checksum. Header offsets and the emitters of echo and error
 * messages are those of `icmp.ts`, the layout being the same; only the checksum differs, which covers
 * the pseudo-header here.
 *
 * @module
 */
import { checksumValid, invert, pseudoSum, sum } from "./checksum.ts";
import { ICMP_CHECKSUM, ICMP_HEADER_SIZE, icmpCode, icmpType } from "./icmp.ts";
import { IPPROTO_ICMPV6 } from "./ipv6.ts";
import { DEST, type Packet, SOURCE } from "./packet.ts";

// Error types (RFC 4443 §3).
/** The destination cannot be reached; the code says why. */
export const ICMPV6_UNREACHABLE = 1;
/** Longer than the next hop takes. */
export const ICMPV6_PACKET_TOO_BIG = 2;
/** The hop limit is used up, or fragments were missing. */
export const ICMPV6_TIME_EXCEEDED = 3;
/** A header is wrong. */
export const ICMPV6_PARAMETER_PROBLEM = 4;
// Echo types (RFC 4443 §4).
/** Ping. */
export const ICMPV6_ECHO_REQUEST = 128;
/** Answer to a ping. */
export const ICMPV6_ECHO_REPLY = 129;

// Codes of ICMPV6_UNREACHABLE (RFC 4443 §3.1).
/** No route to the destination. */
export const ICMPV6_NO_ROUTE = 0;
/** A policy forbids it. */
export const ICMPV6_ADMIN_PROHIBITED = 1;
/** Nobody answers at the address. */
export const ICMPV6_ADDRESS_UNREACHABLE = 3;
/** Nobody listens on the port. */
export const ICMPV6_PORT_UNREACHABLE = 4;

/** Whether the checksum over pseudo-header and message is right. */
export function icmpv6ChecksumValid(view: DataView, packet: Packet): boolean {
  const length = packet.end - packet.l4;
  const words = packet.addresses;
  const initial = pseudoSum(words, SOURCE, words, DEST, IPPROTO_ICMPV6, length);
  return checksumValid(view, packet.l4, length, initial);
}

/**
 * Checks an echo request: type 128, code 0, header within the packet, checksum.
 *
 * @returns offset of the data (which ends at `packet.end`), or -1
 */
export function checkIcmpv6Echo(view: DataView, packet: Packet): number {
  const l4 = packet.l4;
  if (l4 + ICMP_HEADER_SIZE > packet.end) return -1;
  if (icmpType(view, l4) !== ICMPV6_ECHO_REQUEST || icmpCode(view, l4) !== 0) return -1;
  return icmpv6ChecksumValid(view, packet) ? l4 + ICMP_HEADER_SIZE : -1;
}

/**
 * Computes and stores the checksum of a message of `length` bytes at `off`.
 *
 * @param src, dst the packet's addresses
 * @example
 * ```ts
 * import { finishIcmpv6, ICMPV6_ECHO_REPLY } from "./icmpv6.ts";
 * import { writeEcho } from "./icmp.ts";
 * import { pseudoSum, sum } from "./checksum.ts";
 * import { LOOPBACK6 as lo } from "./address.ts";
 * import { IPPROTO_ICMPV6 } from "./ipv6.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(8));
 * writeEcho(view, 0, ICMPV6_ECHO_REPLY, 77, 1);
 * finishIcmpv6(view, 0, 8, lo, 0, lo, 0);
 * assertEquals(sum(view, 0, 8, pseudoSum(lo, 0, lo, 0, IPPROTO_ICMPV6, 8)), 0xffff);
 * ```
 */
export function finishIcmpv6(
  view: DataView,
  off: number,
  length: number,
  src: Int32Array,
  srcAt: number,
  dst: Int32Array,
  dstAt: number,
): void {
  const initial = pseudoSum(src, srcAt, dst, dstAt, IPPROTO_ICMPV6, length);
  view.setUint16(off + ICMP_CHECKSUM, 0);
  view.setUint16(off + ICMP_CHECKSUM, invert(sum(view, off, length, initial)));
}
