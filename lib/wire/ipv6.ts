// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * IPv6 headers (RFC 8200): offsets, check, extension headers, emitter.
 *
 * Theory of operation: {@linkcode checkIpv6} is called once per packet; after that every offset of
 * the fixed header is readable. {@linkcode skipExtensions} walks hop-by-hop, routing and
 * destination options headers within bounds. Fragments are refused, and so is a routing header that
 * has segments left: we are not the node it names next. Jumbograms (RFC 2675) do not fit a frame.
 *
 * @module
 */
import { storeV6 } from "./address.ts";

// Offsets from the start of the header.
/** Offset of version, traffic class and flow label, 4 bytes. */
export const IPV6_VERSION_CLASS_FLOW = 0;
/** Offset of the length of what follows the header, 2 bytes. */
export const IPV6_PAYLOAD_LENGTH = 4;
/** Offset of the next header, 1 byte. */
export const IPV6_NEXT_HEADER = 6;
/** Offset of the hop limit, 1 byte. */
export const IPV6_HOP_LIMIT = 7;
/** Offset of the source address. */
export const IPV6_SOURCE = 8;
/** Offset of the destination address. */
export const IPV6_DEST = 24;
/** Bytes of the fixed header. */
export const IPV6_HEADER_SIZE = 40;

// Next header values (RFC 8200 §4, IANA "Protocol Numbers").
/** Hop-by-hop options. */
export const IPPROTO_HOPOPTS = 0;
/** Routing header. */
export const IPPROTO_ROUTING = 43;
/** Fragment header. */
export const IPPROTO_FRAGMENT = 44;
/** ICMPv6. */
export const IPPROTO_ICMPV6 = 58;
/** Destination options. */
export const IPPROTO_DSTOPTS = 60;

/** Offsets in an extension header (RFC 8200 §4.3, §4.4, §4.6). */
const EXT_NEXT_HEADER = 0;
const EXT_LENGTH = 1;
const ROUTING_SEGMENTS_LEFT = 3;
/** Extension headers come in units of 8 bytes; the length does not count the first. */
const EXT_UNIT = 8;
/** Longest chain accepted (RFC 8504 §5.3 allows limits); the order of RFC 8200 §4.1 needs 4. */
const MAX_EXTENSIONS = 8;

/** Traffic class of the header at `off`. */
export function ipv6TrafficClass(view: DataView, off: number): number {
  return view.getUint16(off) >>> 4 & 0xff;
}

/**
 * Checks a fixed header: version, and payload within `length`.
 *
 * @param length bytes from the IP header to the end of the frame
 * @returns total length of the packet, fixed header included (the rest is padding), or -1
 */
export function checkIpv6(view: DataView, off: number, length: number): number {
  if (length < IPV6_HEADER_SIZE || view.getUint8(off) >>> 4 !== 6) return -1;
  const total = IPV6_HEADER_SIZE + view.getUint16(off + IPV6_PAYLOAD_LENGTH);
  return total <= length ? total : -1;
}

function isExtension(proto: number): boolean {
  return proto === IPPROTO_HOPOPTS || proto === IPPROTO_ROUTING || proto === IPPROTO_DSTOPTS;
}

/**
 * Skips the extension headers of a packet checked by {@linkcode checkIpv6}.
 *
 * @param off offset of the fixed header
 * @param end one past the last byte of the packet
 * @returns `transport << 8 | protocol`, where transport is the upper-layer header's distance from
 *   `off` and protocol is the first next-header value that is none of those skipped; -1 when the
 *   chain leaves the packet, is too long, out of place, a fragment or a route with segments left
 */
export function skipExtensions(view: DataView, off: number, end: number): number {
  let proto = view.getUint8(off + IPV6_NEXT_HEADER);
  let at = off + IPV6_HEADER_SIZE;
  for (let n = 0; isExtension(proto); n++) {
    if (n === MAX_EXTENSIONS || at + EXT_UNIT > end) return -1;
    if (proto === IPPROTO_HOPOPTS && n !== 0) return -1; // RFC 8200 §4.1: first or nowhere
    if (proto === IPPROTO_ROUTING && view.getUint8(at + ROUTING_SEGMENTS_LEFT) !== 0) return -1;
    proto = view.getUint8(at + EXT_NEXT_HEADER);
    at += (view.getUint8(at + EXT_LENGTH) + 1) * EXT_UNIT;
    if (at > end) return -1;
  }
  return proto === IPPROTO_FRAGMENT ? -1 : (at - off) << 8 | proto;
}

/**
 * Writes a fixed header with flow label 0.
 *
 * @param payloadLength bytes after the header
 * @param src, dst addresses in four words (see `address.ts`)
 * @example
 * ```ts
 * import { checkIpv6, IPPROTO_ICMPV6, writeIpv6 } from "./ipv6.ts";
 * import { LOOPBACK6 } from "./address.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(48));
 * writeIpv6(view, 0, 8, IPPROTO_ICMPV6, 64, 0, LOOPBACK6, 0, LOOPBACK6, 0);
 * assertEquals(checkIpv6(view, 0, 48), 48);
 * ```
 */
export function writeIpv6(
  view: DataView,
  off: number,
  payloadLength: number,
  nextHeader: number,
  hopLimit: number,
  trafficClass: number,
  src: Int32Array,
  srcAt: number,
  dst: Int32Array,
  dstAt: number,
): void {
  view.setUint32(off + IPV6_VERSION_CLASS_FLOW, 6 << 28 | trafficClass << 20);
  view.setUint16(off + IPV6_PAYLOAD_LENGTH, payloadLength);
  view.setUint8(off + IPV6_NEXT_HEADER, nextHeader);
  view.setUint8(off + IPV6_HOP_LIMIT, hopLimit);
  storeV6(view, off + IPV6_SOURCE, src, srcAt);
  storeV6(view, off + IPV6_DEST, dst, dstAt);
}
