// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * IPv4 headers (RFC 791 §3.1): offsets, check, emitter.
 *
 * Theory of operation: {@linkcode checkIpv4} is called once per packet; after that every offset
 * below is readable. Options are skipped, fragments refused. The header checksum of received packets
 * is not verified here: nothing between the guest's kernel and us can alter a byte.
 *
 * @module
 */
import { invert, sum } from "./checksum.ts";

// Offsets from the start of the header.
/** Offset of version (high) and header length in words (low), 1 byte. */
export const IPV4_VERSION_IHL = 0;
/** Offset of DSCP and ECN, 1 byte. */
export const IPV4_TOS = 1;
/** Offset of the length of header and payload, 2 bytes. */
export const IPV4_TOTAL_LENGTH = 2;
/** Offset of the identification, 2 bytes. */
export const IPV4_ID = 4;
/** Offset of flags and fragment offset, 2 bytes. */
export const IPV4_FRAGMENT = 6;
/** Offset of the time to live, 1 byte. */
export const IPV4_TTL = 8;
/** Offset of the protocol, 1 byte. */
export const IPV4_PROTOCOL = 9;
/** Offset of the header's checksum, 2 bytes. */
export const IPV4_CHECKSUM = 10;
/** Offset of the source address. */
export const IPV4_SOURCE = 12;
/** Offset of the destination address. */
export const IPV4_DEST = 16;
/** Bytes of a header without options. */
export const IPV4_HEADER_SIZE = 20;

// Fragmentation word: flags and offset (RFC 791 §3.1).
/** Flag: not to be fragmented. */
export const IPV4_DONT_FRAGMENT = 0x4000;
/** Flag: not the last fragment. */
export const IPV4_MORE_FRAGMENTS = 0x2000;
/** Bits of the offset, in units of 8 bytes. */
export const IPV4_FRAGMENT_OFFSET = 0x1fff;

const VERSION_4_IHL_5 = 0x45;

// Protocol numbers (RFC 790, IANA "Protocol Numbers").
/** ICMP. */
export const IPPROTO_ICMP = 1;
/** TCP. */
export const IPPROTO_TCP = 6;
/** UDP. */
export const IPPROTO_UDP = 17;

/** Bytes of the header at `off`, from its length field. */
export function ipv4HeaderSize(view: DataView, off: number): number {
  return (view.getUint8(off) & 0x0f) << 2;
}

/** Whether "don't fragment" is set. */
export function ipv4DontFragment(view: DataView, off: number): boolean {
  return (view.getUint16(off + IPV4_FRAGMENT) & IPV4_DONT_FRAGMENT) !== 0;
}

/**
 * Checks a header: version, header length, total length within `length`, not a fragment.
 *
 * @param length bytes from the IP header to the end of the frame
 * @returns total length of the packet (what exceeds it is Ethernet padding), or -1
 */
export function checkIpv4(view: DataView, off: number, length: number): number {
  if (length < IPV4_HEADER_SIZE || view.getUint8(off) >>> 4 !== 4) return -1;
  const header = ipv4HeaderSize(view, off);
  const total = view.getUint16(off + IPV4_TOTAL_LENGTH);
  if (header < IPV4_HEADER_SIZE || total < header || total > length) return -1;
  const fragment = view.getUint16(off + IPV4_FRAGMENT);
  return (fragment & (IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET)) === 0 ? total : -1;
}

/**
 * Writes a header without options, checksum included.
 *
 * The identification is 0: we never let a packet be fragmented on the way to the guest (RFC 6864 §4.1).
 *
 * @param totalLength bytes of header and payload
 * @param src, dst addresses of which word 3 counts (see `address.ts`)
 * @example
 * ```ts
 * import { checkIpv4, IPPROTO_UDP, writeIpv4 } from "./ipv4.ts";
 * import { LOOPBACK4 } from "./address.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(28));
 * writeIpv4(view, 0, 28, IPPROTO_UDP, 64, 0, true, LOOPBACK4, 0, LOOPBACK4, 0);
 * assertEquals(checkIpv4(view, 0, 28), 28);
 * ```
 */
export function writeIpv4(
  view: DataView,
  off: number,
  totalLength: number,
  proto: number,
  ttl: number,
  tos: number,
  dontFragment: boolean,
  src: Int32Array,
  srcAt: number,
  dst: Int32Array,
  dstAt: number,
): void {
  view.setUint8(off + IPV4_VERSION_IHL, VERSION_4_IHL_5);
  view.setUint8(off + IPV4_TOS, tos);
  view.setUint16(off + IPV4_TOTAL_LENGTH, totalLength);
  view.setUint16(off + IPV4_ID, 0);
  view.setUint16(off + IPV4_FRAGMENT, dontFragment ? IPV4_DONT_FRAGMENT : 0);
  view.setUint8(off + IPV4_TTL, ttl);
  view.setUint8(off + IPV4_PROTOCOL, proto);
  view.setUint16(off + IPV4_CHECKSUM, 0);
  view.setInt32(off + IPV4_SOURCE, src[srcAt + 3]);
  view.setInt32(off + IPV4_DEST, dst[dstAt + 3]);
  view.setUint16(off + IPV4_CHECKSUM, invert(sum(view, off, IPV4_HEADER_SIZE)));
}
