// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Neighbour discovery (RFC 4861): checks of received messages, emitters of advertisements.
 *
 * Theory of operation: {@linkcode checkNdp} applies the validity rules of RFC 4861 §6.1 and §7.1 to
 * messages of types 133–137: hop limit 255, code 0, checksum, length, options that are not empty and
 * fill the message exactly; then those of each type. Afterwards accessors cannot fail.
 *
 * Emitters write a message's fixed part; option writers append at an offset and return the next one,
 * or -1 without a write when the option would pass `limit`. A -1 given as the offset is returned as
 * it is, so that writers can be chained. `finishIcmpv6` completes the message.
 *
 * @module
 */
import { storeV6 } from "./address.ts";
import { MAC_SIZE, storeMac } from "./ethernet.ts";
import { icmpCode, icmpType } from "./icmp.ts";
import { icmpv6ChecksumValid } from "./icmpv6.ts";
import { IPPROTO_ICMPV6 } from "./ipv6.ts";
import { DEST, type Packet, SOURCE } from "./packet.ts";

// Message types (RFC 4861 §4).
/** A host looks for routers. */
export const NDP_ROUTER_SOLICIT = 133;
/** A router tells of itself and its prefixes. */
export const NDP_ROUTER_ADVERT = 134;
/** Who has this address? */
export const NDP_NEIGHBOR_SOLICIT = 135;
/** It is here. */
export const NDP_NEIGHBOR_ADVERT = 136;
/** There is a better way. */
export const NDP_REDIRECT = 137;

// Bytes of the fixed part of each message, ICMPv6 header included (RFC 4861 §4.1–§4.5).
/** Of {@linkcode NDP_ROUTER_SOLICIT}. */
export const NDP_ROUTER_SOLICIT_SIZE = 8;
/** Of {@linkcode NDP_ROUTER_ADVERT}. */
export const NDP_ROUTER_ADVERT_SIZE = 16;
/** Of {@linkcode NDP_NEIGHBOR_SOLICIT} and {@linkcode NDP_NEIGHBOR_ADVERT}. */
export const NDP_NEIGHBOR_SIZE = 24;
/** Of {@linkcode NDP_REDIRECT}. */
export const NDP_REDIRECT_SIZE = 40;

// Offsets from the start of the message (RFC 4861 §4.2–§4.5).
/** Offset of the hop limit that hosts are to use, 1 byte. */
export const NDP_RA_HOP_LIMIT = 4;
/** Offset of a router advertisement's flags, 1 byte. */
export const NDP_RA_FLAGS = 5;
/** Offset of the router's lifetime in seconds, 2 bytes. */
export const NDP_RA_LIFETIME = 6;
/** Offset of the reachable time in milliseconds, 4 bytes. */
export const NDP_RA_REACHABLE_TIME = 8;
/** Offset of the time between solicitations in milliseconds, 4 bytes. */
export const NDP_RA_RETRANS_TIMER = 12;
/** Offset of a neighbour advertisement's flags, 1 byte. */
export const NDP_NA_FLAGS = 4;
/** Offset of the address that a neighbour message is about. */
export const NDP_TARGET = 8;

// Router advertisement flags (RFC 4861 §4.2): managed addresses, other configuration (DHCPv6).
/** Addresses come from DHCPv6. */
export const NDP_RA_MANAGED = 0x80;
/** The rest comes from DHCPv6. */
export const NDP_RA_OTHER = 0x40;
// Neighbour advertisement flags (RFC 4861 §4.4).
/** From a router. */
export const NDP_NA_ROUTER = 0x80;
/** Answer to a solicitation. */
export const NDP_NA_SOLICITED = 0x40;
/** Replaces what is known. */
export const NDP_NA_OVERRIDE = 0x20;

// Option types (RFC 4861 §4.6, RFC 8106 §5).
/** The sender's link-layer address. */
export const NDP_OPT_SOURCE_MAC = 1;
/** The target's link-layer address. */
export const NDP_OPT_TARGET_MAC = 2;
/** A prefix. */
export const NDP_OPT_PREFIX = 3;
/** The link's MTU. */
export const NDP_OPT_MTU = 5;
/** Resolvers. */
export const NDP_OPT_RDNSS = 25;
/** Search list of domains. */
export const NDP_OPT_DNSSL = 31;

/** Hop limit of every valid message: it did not cross a router (RFC 4861 §3.1). */
export const NDP_HOP_LIMIT = 255;
/** Largest router lifetime, seconds (RFC 8319 §4). */
export const NDP_MAX_ROUTER_LIFETIME = 65535;
/** "Forever" as a 32-bit lifetime (RFC 4861 §4.6.2). */
export const NDP_INFINITY = 0xffffffff;

/** Options come in units of 8 bytes and begin with type and length (RFC 4861 §4.6). */
const OPT_UNIT = 8;
/** Link-layer address options: one unit for a 6-byte address (RFC 2464 §6). */
const LINK_LAYER_UNITS = 1;
const PREFIX_UNITS = 4;
const MTU_UNITS = 1;
/** Bytes before the addresses or names of RDNSS and DNSSL (RFC 8106 §5). */
const DNS_HEADER = 8;
const ADDRESS_SIZE = 16;
const MAX_UNITS = 255;
// Prefix option: on-link and autonomous flags (RFC 4861 §4.6.2).
/** Its addresses are on the link. */
export const NDP_PREFIX_ON_LINK = 0x80;
/** Hosts make themselves addresses of it. */
export const NDP_PREFIX_AUTONOMOUS = 0x40;

/** ff02::1:ff00:0/104, the solicited-node group (RFC 4291 §2.7.1). */
function isSolicitedNode(words: Int32Array, at: number): boolean {
  return words[at] >>> 0 === 0xff020000 && words[at + 1] === 0 && words[at + 2] === 1 &&
    words[at + 3] >>> 24 === 0xff;
}

function isUnspecified6(words: Int32Array, at: number): boolean {
  return (words[at] | words[at + 1] | words[at + 2] | words[at + 3]) === 0;
}

/** Fixed size of a message of `type`; 0 for types that are not ours. */
function fixedSize(type: number): number {
  switch (type) {
    case NDP_ROUTER_SOLICIT:
      return NDP_ROUTER_SOLICIT_SIZE;
    case NDP_ROUTER_ADVERT:
      return NDP_ROUTER_ADVERT_SIZE;
    case NDP_NEIGHBOR_SOLICIT:
    case NDP_NEIGHBOR_ADVERT:
      return NDP_NEIGHBOR_SIZE;
    case NDP_REDIRECT:
      return NDP_REDIRECT_SIZE;
    default:
      return 0;
  }
}

/** Whether options fill `at…end` exactly, none of them empty (RFC 4861 §4.6, §6.1.1, §7.1.1). */
function optionsFill(view: DataView, at: number, end: number): boolean {
  while (at < end) {
    const units = end - at < OPT_UNIT ? 0 : view.getUint8(at + 1);
    if (units === 0) return false;
    at += units * OPT_UNIT;
  }
  return at === end;
}

/** Rules that depend on the type (RFC 4861 §6.1.1, §6.1.2, §7.1.1, §7.1.2). */
function typeRulesHold(view: DataView, packet: Packet, type: number): boolean {
  const words = packet.addresses;
  const l4 = packet.l4;
  const anonymous = isUnspecified6(words, SOURCE);
  switch (type) {
    case NDP_ROUTER_SOLICIT:
      return !anonymous || ndpOption(view, packet, NDP_OPT_SOURCE_MAC) < 0;
    case NDP_ROUTER_ADVERT:
    case NDP_REDIRECT:
      return words[SOURCE] >>> 22 === 0x3fa; // fe80::/10
    case NDP_NEIGHBOR_SOLICIT:
      if (view.getUint8(l4 + NDP_TARGET) === 0xff) return false; // multicast
      return !anonymous || isSolicitedNode(words, DEST) &&
          ndpOption(view, packet, NDP_OPT_SOURCE_MAC) < 0;
    default: // NDP_NEIGHBOR_ADVERT
      if (view.getUint8(l4 + NDP_TARGET) === 0xff) return false;
      return words[DEST] >>> 24 !== 0xff ||
        (view.getUint8(l4 + NDP_NA_FLAGS) & NDP_NA_SOLICITED) === 0;
  }
}

/**
 * Checks a neighbour discovery message.
 *
 * @returns its type, 133–137; or -1 when it must be ignored
 */
export function checkNdp(view: DataView, packet: Packet): number {
  const l4 = packet.l4;
  if (packet.proto !== IPPROTO_ICMPV6 || packet.version !== 6) return -1;
  if (packet.ttl !== NDP_HOP_LIMIT || l4 + NDP_ROUTER_SOLICIT_SIZE > packet.end) return -1;
  const type = icmpType(view, l4);
  const fixed = fixedSize(type);
  if (fixed === 0 || icmpCode(view, l4) !== 0 || l4 + fixed > packet.end) return -1;
  if (!optionsFill(view, l4 + fixed, packet.end)) return -1;
  return icmpv6ChecksumValid(view, packet) && typeRulesHold(view, packet, type) ? type : -1;
}

/**
 * Finds an option of a message checked by {@linkcode checkNdp}.
 *
 * @returns offset of the first one's type byte, or -1; it has `8 * length byte` bytes
 */
export function ndpOption(view: DataView, packet: Packet, option: number): number {
  let at = packet.l4 + fixedSize(icmpType(view, packet.l4));
  while (at < packet.end) {
    if (view.getUint8(at) === option) return at;
    at += view.getUint8(at + 1) * OPT_UNIT;
  }
  return -1;
}

/**
 * Writes the fixed part of a neighbour advertisement, {@linkcode NDP_NEIGHBOR_SIZE} bytes.
 *
 * @param flags {@linkcode NDP_NA_ROUTER} and the like
 * @returns offset behind it, for {@linkcode putLinkLayer} with {@linkcode NDP_OPT_TARGET_MAC}
 */
export function writeNeighborAdvert(
  view: DataView,
  off: number,
  flags: number,
  target: Int32Array,
  targetAt: number,
): number {
  view.setUint32(off, NDP_NEIGHBOR_ADVERT << 24);
  view.setUint32(off + NDP_NA_FLAGS, flags << 24);
  storeV6(view, off + NDP_TARGET, target, targetAt);
  return off + NDP_NEIGHBOR_SIZE;
}

/**
 * Writes the fixed part of a router advertisement; reachable time and retransmission timer are left
 * unspecified (0).
 *
 * @param hopLimit hop limit for the guest's packets, 0: unspecified
 * @param flags {@linkcode NDP_RA_MANAGED}, {@linkcode NDP_RA_OTHER}
 * @param lifetime seconds as a default router, 0–65535; 0: not one
 * @returns offset behind it, for option writers
 * @example
 * ```ts
 * import { NDP_RA_OTHER, putMtu, putPrefix, writeRouterAdvert } from "./ndp.ts";
 * import { parseAddress } from "./address.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(56));
 * let at = writeRouterAdvert(view, 0, 255, NDP_RA_OTHER, 65535);
 * at = putPrefix(view, at, 56, parseAddress("2001:db8::")!, 0, 64, 0xc0, 3600, 3600);
 * at = putMtu(view, at, 56, 1500);
 * assertEquals(at, 56);
 * assertEquals(putMtu(view, at, 56, 1500), -1);
 * ```
 */
export function writeRouterAdvert(
  view: DataView,
  off: number,
  hopLimit: number,
  flags: number,
  lifetime: number,
): number {
  view.setUint32(off, NDP_ROUTER_ADVERT << 24);
  view.setUint8(off + NDP_RA_HOP_LIMIT, hopLimit);
  view.setUint8(off + NDP_RA_FLAGS, flags);
  view.setUint16(off + NDP_RA_LIFETIME, Math.min(lifetime, NDP_MAX_ROUTER_LIFETIME));
  view.setUint32(off + NDP_RA_REACHABLE_TIME, 0);
  view.setUint32(off + NDP_RA_RETRANS_TIMER, 0);
  return off + NDP_ROUTER_ADVERT_SIZE;
}

/** Writes type and length where the option fits; the offset behind it, or -1. */
function beginOption(
  view: DataView,
  at: number,
  limit: number,
  type: number,
  units: number,
): number {
  const next = at + units * OPT_UNIT;
  if (at < 0 || units > MAX_UNITS || next > limit) return -1;
  view.setUint8(at, type);
  view.setUint8(at + 1, units);
  return next;
}

/** Appends a link-layer address option (RFC 4861 §4.6.1). */
export function putLinkLayer(
  view: DataView,
  at: number,
  limit: number,
  option: number,
  mac: Uint8Array,
): number {
  const next = beginOption(view, at, limit, option, LINK_LAYER_UNITS);
  if (next > 0) storeMac(view, next - MAC_SIZE, mac);
  return next;
}

/**
 * Appends a prefix information option (RFC 4861 §4.6.2). Bits of `prefix` beyond the length are
 * sent as they are: clear them first.
 *
 * @param flags {@linkcode NDP_PREFIX_ON_LINK}, {@linkcode NDP_PREFIX_AUTONOMOUS}
 * @param valid, preferred lifetimes in seconds, or {@linkcode NDP_INFINITY}
 */
export function putPrefix(
  view: DataView,
  at: number,
  limit: number,
  prefix: Int32Array,
  prefixAt: number,
  prefixLength: number,
  flags: number,
  valid: number,
  preferred: number,
): number {
  const next = beginOption(view, at, limit, NDP_OPT_PREFIX, PREFIX_UNITS);
  if (next < 0) return -1;
  view.setUint8(at + 2, prefixLength);
  view.setUint8(at + 3, flags);
  view.setUint32(at + 4, valid);
  view.setUint32(at + 8, preferred);
  view.setUint32(at + 12, 0);
  storeV6(view, at + 16, prefix, prefixAt);
  return next;
}

/** Appends an MTU option (RFC 4861 §4.6.4). */
export function putMtu(view: DataView, at: number, limit: number, mtu: number): number {
  const next = beginOption(view, at, limit, NDP_OPT_MTU, MTU_UNITS);
  if (next < 0) return -1;
  view.setUint16(at + 2, 0);
  view.setUint32(at + 4, mtu);
  return next;
}

/**
 * Appends a recursive DNS server option (RFC 8106 §5.1).
 *
 * @param lifetime seconds, or {@linkcode NDP_INFINITY}
 * @param servers at least one address
 */
export function putRdnss(
  view: DataView,
  at: number,
  limit: number,
  lifetime: number,
  servers: readonly Int32Array[],
): number {
  const units = (DNS_HEADER + servers.length * ADDRESS_SIZE) / OPT_UNIT;
  const next = servers.length === 0 ? -1 : beginOption(view, at, limit, NDP_OPT_RDNSS, units);
  if (next < 0) return -1;
  view.setUint16(at + 2, 0);
  view.setUint32(at + 4, lifetime);
  for (let i = 0; i < servers.length; i++) {
    storeV6(view, at + DNS_HEADER + i * ADDRESS_SIZE, servers[i], 0);
  }
  return next;
}

/**
 * Appends a DNS search list option (RFC 8106 §5.2), padded with zeros.
 *
 * @param lifetime seconds, or {@linkcode NDP_INFINITY}
 * @param names at least one name, as `encodeSearchList` makes them, not compressed
 */
export function putDnssl(
  view: DataView,
  at: number,
  limit: number,
  lifetime: number,
  names: Uint8Array,
): number {
  const units = Math.ceil((DNS_HEADER + names.length) / OPT_UNIT);
  const next = names.length === 0 ? -1 : beginOption(view, at, limit, NDP_OPT_DNSSL, units);
  if (next < 0) return -1;
  view.setUint16(at + 2, 0);
  view.setUint32(at + 4, lifetime);
  let to = at + DNS_HEADER;
  for (let i = 0; i < names.length; i++) view.setUint8(to++, names[i]);
  while (to < next) view.setUint8(to++, 0);
  return next;
}
