// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * ICMP for IPv4 (RFC 792): offsets, echo check, emitters.
 *
 * Theory of operation: a received echo request is checked whole, its checksum too, for a ping socket
 * would compute a new one and so repair what the guest sent broken. Emitters write the header;
 * {@linkcode finishIcmp} then computes the checksum over header and data.
 *
 * @module
 */
import { checksumValid, invert, sum } from "./checksum.ts";
import type { Packet } from "./packet.ts";

// Offsets from the start of the message.
/** Offset of the type, 1 byte. */
export const ICMP_TYPE = 0;
/** Offset of the code, 1 byte. */
export const ICMP_CODE = 1;
/** Offset of the checksum, 2 bytes. */
export const ICMP_CHECKSUM = 2;
/** Offset of the identifier of an echo message, 2 bytes. */
export const ICMP_ECHO_ID = 4;
/** Offset of the sequence number of an echo message, 2 bytes. */
export const ICMP_ECHO_SEQ = 6;
/** Errors: second word; its low half is the next-hop MTU in "fragmentation needed" (RFC 1191 §4). */
export const ICMP_ERROR_WORD = 4;
/** Bytes of the header of echo and error messages. */
export const ICMP_HEADER_SIZE = 8;

// Types (RFC 792).
/** Answer to a ping. */
export const ICMP_ECHO_REPLY = 0;
/** The destination cannot be reached; the code says why. */
export const ICMP_UNREACHABLE = 3;
/** Ping. */
export const ICMP_ECHO_REQUEST = 8;
/** The time to live is over, or fragments were missing. */
export const ICMP_TIME_EXCEEDED = 11;
/** A header is wrong. */
export const ICMP_PARAMETER_PROBLEM = 12;

// Codes of ICMP_UNREACHABLE (RFC 792, RFC 1812 §5.2.7.1).
/** No route to the network. */
export const ICMP_NET_UNREACHABLE = 0;
/** No route to the host. */
export const ICMP_HOST_UNREACHABLE = 1;
/** Nobody listens on the port. */
export const ICMP_PORT_UNREACHABLE = 3;
/** Longer than the next hop takes, and not to be fragmented. */
export const ICMP_FRAGMENTATION_NEEDED = 4;
/** A policy forbids it. */
export const ICMP_ADMIN_PROHIBITED = 13;

/**
 * Checks an echo request: type 8, code 0, header within the packet, checksum.
 *
 * @returns offset of the data (which ends at `packet.end`), or -1
 */
export function checkIcmpEcho(view: DataView, packet: Packet): number {
  const l4 = packet.l4;
  if (l4 + ICMP_HEADER_SIZE > packet.end) return -1;
  if (icmpType(view, l4) !== ICMP_ECHO_REQUEST || icmpCode(view, l4) !== 0) return -1;
  return checksumValid(view, l4, packet.end - l4, 0) ? l4 + ICMP_HEADER_SIZE : -1;
}

/** Message type. */
export function icmpType(view: DataView, l4: number): number {
  return view.getUint8(l4 + ICMP_TYPE);
}

/** Message code. */
export function icmpCode(view: DataView, l4: number): number {
  return view.getUint8(l4 + ICMP_CODE);
}

/** Identifier of an echo message; the same place in ICMPv6. */
export function echoId(view: DataView, l4: number): number {
  return view.getUint16(l4 + ICMP_ECHO_ID);
}

/** Sequence number of an echo message; the same place in ICMPv6. */
export function echoSeq(view: DataView, l4: number): number {
  return view.getUint16(l4 + ICMP_ECHO_SEQ);
}

/**
 * Writes the header of an echo message, ICMP or ICMPv6, with checksum 0.
 *
 * @param type `ICMP_ECHO_REPLY`, `ICMPV6_ECHO_REPLY` or a request
 * @example
 * ```ts
 * import { echoId, finishIcmp, ICMP_ECHO_REPLY, writeEcho } from "./icmp.ts";
 * import { sum } from "./checksum.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(8));
 * writeEcho(view, 0, ICMP_ECHO_REPLY, 77, 1);
 * finishIcmp(view, 0, 8);
 * assertEquals(echoId(view, 0), 77);
 * assertEquals(sum(view, 0, 8), 0xffff);
 * ```
 */
export function writeEcho(
  view: DataView,
  off: number,
  type: number,
  id: number,
  seq: number,
): void {
  view.setUint32(off, type << 24);
  view.setUint16(off + ICMP_ECHO_ID, id);
  view.setUint16(off + ICMP_ECHO_SEQ, seq);
}

/**
 * Writes the header of an error message, ICMP or ICMPv6, with checksum 0. The offending packet, from
 * its IP header on, follows at `off + ICMP_HEADER_SIZE` (RFC 1812 §4.3.2.3: the whole message up
 * to 576 bytes; RFC 4443 §2.4(c): up to the minimum MTU).
 *
 * @param word second word: next-hop MTU where the type has one, else 0
 */
export function writeIcmpError(
  view: DataView,
  off: number,
  type: number,
  code: number,
  word: number,
): void {
  view.setUint32(off, type << 24 | code << 16);
  view.setUint32(off + ICMP_ERROR_WORD, word);
}

/** Computes and stores the checksum of an ICMP message of `length` bytes at `off`. */
export function finishIcmp(view: DataView, off: number, length: number): void {
  view.setUint16(off + ICMP_CHECKSUM, 0);
  view.setUint16(off + ICMP_CHECKSUM, invert(sum(view, off, length)));
}
