// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Changing a word of an ICMP message without computing its checksum anew.
 *
 * @module
 */
import { fold } from "../wire/checksum.ts";
import { ICMP_CHECKSUM } from "../wire/icmp.ts";

/** Replaces a 16-bit word of a message at `l4` and adapts its checksum (RFC 1624 §3, equation 3). */
export function replaceWord(view: DataView, l4: number, off: number, value: number): void {
  const old = view.getUint16(l4 + off), checksum = view.getUint16(l4 + ICMP_CHECKSUM);
  view.setUint16(l4 + off, value);
  const sum = fold((~checksum & 0xffff) + (~old & 0xffff) + value);
  view.setUint16(l4 + ICMP_CHECKSUM, ~sum & 0xffff);
}
