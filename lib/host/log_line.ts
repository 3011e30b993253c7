// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Log lines as bytes: bounded, in one buffer that all outlets share.
 *
 * @module
 */

/** Longest line in bytes, its end included: what RFC 3164 §4.1 allows a message of syslog. */
export const MAX_LINE = 1024;

const NEWLINE = 10;
const encoder = new TextEncoder();

/** The bytes of the last line made. */
export const lineBytes: Uint8Array<ArrayBuffer> = new Uint8Array(MAX_LINE);
const content = lineBytes.subarray(0, MAX_LINE - 1);

/**
 * Encodes a line and its newline into {@linkcode lineBytes}; what is too long is cut between
 * characters.
 *
 * @returns bytes, at most {@linkcode MAX_LINE}
 * @example
 * ```ts
 * import { encodeLine, lineBytes, MAX_LINE } from "./log_line.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(encodeLine("ab"), 3);
 * assertEquals(lineBytes.slice(0, 3), new TextEncoder().encode("ab\n"));
 * assertEquals(encodeLine("x".repeat(5000)), MAX_LINE);
 * ```
 */
export function encodeLine(text: string): number {
  const { written } = encoder.encodeInto(text, content);
  lineBytes[written] = NEWLINE;
  return written + 1;
}
