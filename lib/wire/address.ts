// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * IP addresses: four 32-bit words, IPv4 v4-mapped (RFC 4291 §2.5.5.2), each word the big-endian
 * value of four bytes. All functions but parsing and formatting allocate nothing.
 *
 * @module
 */

/** Four words; index 3 alone holds an IPv4 address when words 0–2 are `0, 0, 0xffff`. */
export type Address = Int32Array<ArrayBuffer>;

/** Third word of a v4-mapped address. */
export const V4_MAPPED = 0xffff;

/** `127.0.0.1`. */
export const LOOPBACK4: Address = Int32Array.of(0, 0, V4_MAPPED, 0x7f000001);
/** `::1`. */
export const LOOPBACK6: Address = Int32Array.of(0, 0, 0, 1);
/** `0.0.0.0`. */
export const ANY4: Address = Int32Array.of(0, 0, V4_MAPPED, 0);
/** `::`. */
export const ANY6: Address = Int32Array.of(0, 0, 0, 0);

/** A v4-mapped address from its 32-bit value. */
export function fromV4(value: number): Address {
  return Int32Array.of(0, 0, V4_MAPPED, value);
}

/** Whether `words[at…]` is v4-mapped. */
export function isV4(words: Int32Array, at = 0): boolean {
  return words[at + 2] === V4_MAPPED && words[at] === 0 && words[at + 1] === 0;
}

/** Whether two addresses are the same. */
export function sameAddress(a: Int32Array, i: number, b: Int32Array, j: number): boolean {
  return a[i + 3] === b[j + 3] && a[i + 2] === b[j + 2] && a[i + 1] === b[j + 1] && a[i] === b[j];
}

/** Copies an address. */
export function copyAddress(to: Int32Array, i: number, from: Int32Array, j: number): void {
  to[i] = from[j];
  to[i + 1] = from[j + 1];
  to[i + 2] = from[j + 2];
  to[i + 3] = from[j + 3];
}

/** 127.0.0.0/8 or ::1 (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3). */
export function isLoopback(words: Int32Array, at = 0): boolean {
  if (isV4(words, at)) return words[at + 3] >>> 24 === 127;
  return words[at + 3] === 1 && words[at + 2] === 0 && words[at + 1] === 0 && words[at] === 0;
}

/** 0.0.0.0 or ::. */
export function isUnspecified(words: Int32Array, at = 0): boolean {
  return words[at + 3] === 0 && words[at] === 0 && words[at + 1] === 0 &&
    (words[at + 2] === 0 || words[at + 2] === V4_MAPPED);
}

/** 224.0.0.0/4 or ff00::/8 (RFC 1112, RFC 4291 §2.7). */
export function isMulticast(words: Int32Array, at = 0): boolean {
  return isV4(words, at) ? words[at + 3] >>> 28 === 0xe : words[at] >>> 24 === 0xff;
}

/** 255.255.255.255 (RFC 919). */
export function isBroadcast(words: Int32Array, at = 0): boolean {
  return isV4(words, at) && words[at + 3] === -1;
}

/** 169.254.0.0/16 or fe80::/10 (RFC 3927, RFC 4291 §2.5.6). */
export function isLinkLocal(words: Int32Array, at = 0): boolean {
  return isV4(words, at) ? words[at + 3] >>> 16 === 0xa9fe : words[at] >>> 22 === 0x3fa;
}

/** Reads 4 bytes at `off` as a v4-mapped address. */
export function loadV4(view: DataView, off: number, words: Int32Array, at: number): void {
  words[at] = words[at + 1] = 0;
  words[at + 2] = V4_MAPPED;
  words[at + 3] = view.getInt32(off);
}

/** Reads 16 bytes at `off`. */
export function loadV6(view: DataView, off: number, words: Int32Array, at: number): void {
  words[at] = view.getInt32(off);
  words[at + 1] = view.getInt32(off + 4);
  words[at + 2] = view.getInt32(off + 8);
  words[at + 3] = view.getInt32(off + 12);
}

/** Writes the 4 bytes of a v4-mapped address at `off`. */
export function storeV4(view: DataView, off: number, words: Int32Array, at: number): void {
  view.setInt32(off, words[at + 3]);
}

/** Writes 16 bytes at `off`. */
export function storeV6(view: DataView, off: number, words: Int32Array, at: number): void {
  view.setInt32(off, words[at]);
  view.setInt32(off + 4, words[at + 1]);
  view.setInt32(off + 8, words[at + 2]);
  view.setInt32(off + 12, words[at + 3]);
}

/** The netmask of an IPv4 prefix length (0–32) as a 32-bit value (RFC 4632 §3.1). */
export function maskV4(prefixLength: number): number {
  return prefixLength === 0 ? 0 : -1 << (32 - prefixLength);
}

/** `fe80::/64` with the modified EUI-64 identifier of `mac` (RFC 4291 §2.5.6, RFC 2464 §5). */
export function linkLocalFromMac(mac: Uint8Array): Address {
  const high = (mac[0] ^ 0x02) << 24 | mac[1] << 16 | mac[2] << 8 | 0xff;
  const low = 0xfe << 24 | mac[3] << 16 | mac[4] << 8 | mac[5];
  return Int32Array.of(0xfe800000, 0, high, low);
}

function parseV4(text: string): number | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (!match) return null;
  let value = 0;
  for (let i = 1; i <= 4; i++) {
    const byte = Number(match[i]);
    if (byte > 255 || (match[i].length > 1 && match[i][0] === "0")) return null;
    value = value << 8 | byte;
  }
  return value;
}

function parseV6(text: string): Address | null {
  const dotted = text.lastIndexOf(":");
  if (text.includes(".")) {
    const v4 = parseV4(text.slice(dotted + 1));
    if (v4 === null) return null;
    const high = (v4 >>> 16).toString(16), low = (v4 & 0xffff).toString(16);
    text = `${text.slice(0, dotted + 1)}${high}:${low}`;
  }
  const halves = text.split("::");
  if (halves.length > 2) return null;
  const [head, tail] = halves.map((half) => half === "" ? [] : half.split(":"));
  const gap = 8 - head.length - (tail?.length ?? 0);
  if (tail === undefined ? gap !== 0 : gap < 1) return null;
  const groups = tail === undefined ? head : [...head, ...Array(gap).fill("0"), ...tail];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  const values = groups.map((group) => parseInt(group, 16));
  return Int32Array.from([0, 2, 4, 6], (i) => values[i] << 16 | values[i + 1]);
}

/**
 * Parses a numeric address, dotted (RFC 6943 §3.1.1, strict form) or RFC 4291 §2.2 text.
 *
 * @returns the address, or null when the text is none
 * @example
 * ```ts
 * import { formatAddress, parseAddress } from "./address.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatAddress(parseAddress("2001:DB8:0:0:1::1")!), "2001:db8::1:0:0:1");
 * assertEquals(formatAddress(parseAddress("192.0.2.1")!), "192.0.2.1");
 * assertEquals(parseAddress("192.0.2.256"), null);
 * ```
 */
export function parseAddress(text: string): Address | null {
  if (text.includes(":")) return parseV6(text);
  const value = parseV4(text);
  return value === null ? null : fromV4(value);
}

/** Formats an address: dotted for v4-mapped, else RFC 5952 canonical text. */
export function formatAddress(words: Int32Array, at = 0): string {
  if (isV4(words, at)) {
    const v = words[at + 3];
    return `${v >>> 24}.${v >>> 16 & 255}.${v >>> 8 & 255}.${v & 255}`;
  }
  const groups: number[] = [];
  for (let i = 0; i < 4; i++) groups.push(words[at + i] >>> 16, words[at + i] & 0xffff);
  let start = -1, best = 1;
  for (let i = 0; i < 8; i++) {
    let n = 0;
    while (i + n < 8 && groups[i + n] === 0) n++;
    if (n > best) [start, best] = [i, n];
  }
  const hex = (part: number[]) => part.map((group) => group.toString(16)).join(":");
  return start < 0
    ? hex(groups)
    : `${hex(groups.slice(0, start))}::${hex(groups.slice(start + best))}`;
}
