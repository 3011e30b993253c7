// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The Internet checksum (RFC 1071).
 *
 * Theory of operation: a *sum* here is the one's complement sum of 16-bit big-endian words, folded to
 * 16 bits and not inverted, so that sums can be added, stored with `setUint16` as the seed of a
 * checksum that somebody else completes (virtio's `VIRTIO_NET_HDR_F_NEEDS_CSUM`), or inverted to
 * become a checksum. The sum does not depend on byte order except for a final swap (RFC 1071 §2(B)),
 * so memory is read in the machine's likely order, four bytes at a time: `words` collects the sum
 * modulo 2³², `high` the upper halves alone, and the lower halves are what remains, exact while both
 * stay below 2³¹, that is up to {@linkcode MAX_SUM_BYTES}.
 *
 * @module
 */
import { isV4 } from "./address.ts";

/** Most bytes {@linkcode sum} takes in one call: 32768 words of at most 0xffff per half. */
export const MAX_SUM_BYTES = 1 << 17;

/** Protocol number of UDP (RFC 768), whose checksum 0 means "none". */
const UDP = 17;

/** Folds an unsigned value below 2³² to 16 bits with end-around carry (RFC 1071 §4.1). */
export function fold(value: number): number {
  const once = (value & 0xffff) + (value >>> 16);
  return (once & 0xffff) + (once >>> 16);
}

/** One's complement of a folded sum: the checksum to be stored. */
export function invert(folded: number): number {
  return ~folded & 0xffff;
}

/** As {@linkcode invert}, but never 0, which in UDP means "no checksum" (RFC 768). */
export function invertUdp(folded: number): number {
  return folded === 0xffff ? 0xffff : ~folded & 0xffff;
}

/**
 * Sum of `length` bytes at `off`, any alignment; an odd last byte counts as if a zero followed.
 *
 * @param length at most {@linkcode MAX_SUM_BYTES}
 * @param initial folded sum to continue from (of an even number of bytes)
 * @returns folded sum, not inverted
 * @example
 * ```ts
 * import { invert, sum } from "./checksum.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7).buffer);
 * assertEquals(sum(view, 0, 8), 0xddf2); // RFC 1071 §3
 * assertEquals(invert(sum(view, 0, 8)), 0x220d);
 * ```
 */
export function sum(view: DataView, off: number, length: number, initial = 0): number {
  const end = off + length;
  let at = off, words = 0, high = 0;
  for (; at + 16 <= end; at += 16) {
    const a = view.getInt32(at, true), b = view.getInt32(at + 4, true);
    const c = view.getInt32(at + 8, true), d = view.getInt32(at + 12, true);
    words = (words + a + b + c + d) | 0;
    high = (high + (a >>> 16) + (b >>> 16) + (c >>> 16) + (d >>> 16)) | 0;
  }
  for (; at + 4 <= end; at += 4) {
    const a = view.getInt32(at, true);
    words = (words + a) | 0;
    high = (high + (a >>> 16)) | 0;
  }
  const low = (words - (high << 16)) >>> 0;
  const swapped = fold(fold(low) + fold(high) + sumTail(view, at, end));
  return fold(initial + ((swapped & 0xff) << 8 | swapped >>> 8));
}

/** The last 0–3 bytes, little-endian. */
function sumTail(view: DataView, at: number, end: number): number {
  let tail = 0;
  if (at + 2 <= end) {
    tail = view.getUint16(at, true);
    at += 2;
  }
  return at < end ? tail + view.getUint8(at) : tail;
}

function sumAddress(words: Int32Array, at: number): number {
  const a = words[at], b = words[at + 1], c = words[at + 2], d = words[at + 3];
  return (a >>> 16) + (a & 0xffff) + (b >>> 16) + (b & 0xffff) +
    (c >>> 16) + (c & 0xffff) + (d >>> 16) + (d & 0xffff);
}

/**
 * Sum of the pseudo-header: RFC 9293 §3.1 for v4-mapped addresses, else RFC 8200 §8.1.
 *
 * @param length bytes from the transport header on
 * @returns folded sum, not inverted
 */
export function pseudoSum(
  src: Int32Array,
  srcAt: number,
  dst: Int32Array,
  dstAt: number,
  proto: number,
  length: number,
): number {
  const rest = proto + (length >>> 16) + (length & 0xffff);
  if (isV4(dst, dstAt)) {
    const s = src[srcAt + 3], d = dst[dstAt + 3];
    return fold((s >>> 16) + (s & 0xffff) + (d >>> 16) + (d & 0xffff) + rest);
  }
  return fold(sumAddress(src, srcAt) + sumAddress(dst, dstAt) + rest);
}

/**
 * Checksum of a transport packet whose checksum field is zero (or holds part of `initial`'s sum).
 *
 * @param off offset of the transport header
 * @param length bytes from there on
 * @param proto protocol number; UDP's 0 becomes 0xffff
 * @param initial {@linkcode pseudoSum}, or 0 for ICMP (which has no pseudo-header)
 * @returns the value to store
 */
export function transportChecksum(
  view: DataView,
  off: number,
  length: number,
  proto: number,
  initial: number,
): number {
  const folded = sum(view, off, length, initial);
  return proto === UDP ? invertUdp(folded) : invert(folded);
}

/** Whether the bytes, checksum field included, together with `initial` sum to 0xffff. */
export function checksumValid(
  view: DataView,
  off: number,
  length: number,
  initial: number,
): boolean {
  return sum(view, off, length, initial) === 0xffff;
}
