// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * UDP headers (RFC 768): offsets, check, accessors, emitter.
 *
 * @module
 */
import type { Packet } from "./packet.ts";

// Offsets from the start of the header.
/** Offset of the source port, 2 bytes. */
export const UDP_SOURCE = 0;
/** Offset of the destination port, 2 bytes. */
export const UDP_DEST = 2;
/** Offset of the length of header and payload, 2 bytes. */
export const UDP_LENGTH = 4;
/** Offset of the checksum, 2 bytes. */
export const UDP_CHECKSUM = 6;
/** Bytes of the header. */
export const UDP_HEADER_SIZE = 8;

/**
 * Checks a datagram: header within the packet, length field from 8 up to what the packet holds.
 *
 * @returns offset of the payload, which has {@linkcode udpPayloadSize} bytes; or -1
 */
export function checkUdp(view: DataView, packet: Packet): number {
  const l4 = packet.l4;
  if (l4 + UDP_HEADER_SIZE > packet.end) return -1;
  const length = udpLength(view, l4);
  return length < UDP_HEADER_SIZE || l4 + length > packet.end ? -1 : l4 + UDP_HEADER_SIZE;
}

/** Source port. */
export function udpSourcePort(view: DataView, l4: number): number {
  return view.getUint16(l4 + UDP_SOURCE);
}

/** Destination port. */
export function udpDestPort(view: DataView, l4: number): number {
  return view.getUint16(l4 + UDP_DEST);
}

/** Length field: header and payload. */
export function udpLength(view: DataView, l4: number): number {
  return view.getUint16(l4 + UDP_LENGTH);
}

/** Bytes of payload of a checked datagram. */
export function udpPayloadSize(view: DataView, l4: number): number {
  return udpLength(view, l4) - UDP_HEADER_SIZE;
}

/**
 * Writes a header.
 *
 * @param length bytes of header and payload
 * @param checksum as it goes on the wire: complete, 0 (none; IPv4 only, RFC 8200 §8.1), or the
 *   pseudo-header's sum for somebody else to complete
 * @example
 * ```ts
 * import { udpDestPort, udpPayloadSize, writeUdpHeader } from "./udp.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(8));
 * writeUdpHeader(view, 0, 4000, 53, 20, 0);
 * assertEquals([udpDestPort(view, 0), udpPayloadSize(view, 0)], [53, 12]);
 * ```
 */
export function writeUdpHeader(
  view: DataView,
  off: number,
  sport: number,
  dport: number,
  length: number,
  checksum: number,
): void {
  view.setUint16(off + UDP_SOURCE, sport);
  view.setUint16(off + UDP_DEST, dport);
  view.setUint16(off + UDP_LENGTH, length);
  view.setUint16(off + UDP_CHECKSUM, checksum);
}
