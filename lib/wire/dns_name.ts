// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Domain names in wire form (RFC 1035 §3.1, §4.1.4), for the search lists of DHCP (RFC 3397), DHCPv6
 * (RFC 3646) and router advertisements (RFC 8106). Called at start only: allocates.
 *
 * @module
 */

/** Longest name in wire form (RFC 1035 §2.3.4). */
const DNS_MAX_NAME = 255;

/** First byte of a compression pointer, and the largest offset it can hold (RFC 1035 §4.1.4). */
const POINTER = 0xc0;
const POINTER_MAX = 0x3fff;

/** A label: printable ASCII without dot and blank. Internationalised names come as `xn--…`. */
const LABEL = /^[\x21-\x2d\x2f-\x7e]{1,63}$/;

/** Labels of a name, which may end in a dot; null unless it is encodable. "." has none. */
function splitLabels(name: string): string[] | null {
  if (name === ".") return [];
  const labels = (name.endsWith(".") ? name.slice(0, -1) : name).split(".");
  const size = labels.reduce((bytes, label) => bytes + label.length + 1, 1);
  return size <= DNS_MAX_NAME && labels.every((label) => LABEL.test(label)) ? labels : null;
}

function pushLabel(out: number[], label: string): void {
  out.push(label.length);
  for (let i = 0; i < label.length; i++) out.push(label.charCodeAt(i));
}

/**
 * Encodes one name: labels with their lengths, then a zero.
 *
 * @returns null when the name is empty, a label is empty, longer than 63 bytes or not printable
 *   ASCII, or the whole is longer than 255 bytes
 * @example
 * ```ts
 * import { encodeDomainName } from "./dns_name.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(encodeDomainName("a.bc"), Uint8Array.of(1, 0x61, 2, 0x62, 0x63, 0));
 * assertEquals(encodeDomainName("a..bc"), null);
 * ```
 */
export function encodeDomainName(name: string): Uint8Array<ArrayBuffer> | null {
  const labels = splitLabels(name);
  if (labels === null) return null;
  const out: number[] = [];
  for (const label of labels) pushLabel(out, label);
  return Uint8Array.from([...out, 0]);
}

/** Appends a name; with `seen`, a suffix written before becomes a pointer to it. */
function pushName(out: number[], labels: string[], seen: Map<string, number> | null): void {
  for (let i = 0; i < labels.length; i++) {
    const suffix = labels.slice(i).join(".").toLowerCase();
    const offset = seen?.get(suffix);
    if (offset !== undefined) {
      out.push(POINTER | offset >>> 8, offset & 0xff);
      return;
    }
    if (out.length <= POINTER_MAX) seen?.set(suffix, out.length);
    pushLabel(out, labels[i]);
  }
  out.push(0);
}

/**
 * Encodes a search list: names one after the other. The root is left out: it says nothing in a search
 * list, and RFC 8106 pads with the same zero.
 *
 * @param options `compress`: point to earlier suffixes, offsets counting from the list's first byte
 *   (RFC 3397 §2; DHCPv4 only: RFC 8415 §10 and RFC 8106 §5.2 forbid it)
 * @returns null when a name cannot be encoded
 */
export function encodeSearchList(
  names: readonly string[],
  options: { compress?: boolean } = {},
): Uint8Array<ArrayBuffer> | null {
  const out: number[] = [];
  const seen = options.compress ? new Map<string, number>() : null;
  for (const name of names) {
    const labels = splitLabels(name);
    if (labels === null) return null;
    if (labels.length > 0) pushName(out, labels, seen);
  }
  return Uint8Array.from(out);
}
