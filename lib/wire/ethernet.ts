// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Ethernet II headers (IEEE 802.3 §3.2, RFC 894): offsets, type, addresses. No VLAN tags.
 *
 * @module
 */

// Offsets from the start of the frame.
/** Offset of the destination address. */
export const ETH_DEST = 0;
/** Offset of the source address. */
export const ETH_SOURCE = 6;
/** Offset of the type, 2 bytes. */
export const ETH_TYPE = 12;
/** Bytes of the header. */
export const ETH_HEADER_SIZE = 14;
/** Bytes of an address (linux/if_ether.h ETH_ALEN). */
export const MAC_SIZE = 6;

// Types (linux/if_ether.h, IANA "Ether Types").
/** Type of IPv4. */
export const ETH_P_IP = 0x0800;
/** Type of ARP. */
export const ETH_P_ARP = 0x0806;
/** Type of IPv6. */
export const ETH_P_IPV6 = 0x86dd;

/** Type of the frame at `off`, which must have {@linkcode ETH_HEADER_SIZE} bytes. */
export function etherType(view: DataView, off: number): number {
  return view.getUint16(off + ETH_TYPE);
}

/** Writes a 6-byte address at `off`. */
export function storeMac(view: DataView, off: number, mac: Uint8Array): void {
  view.setUint32(off, mac[0] << 24 | mac[1] << 16 | mac[2] << 8 | mac[3]);
  view.setUint16(off + 4, mac[4] << 8 | mac[5]);
}

/** Reads the 6-byte address at `off`. */
export function loadMac(view: DataView, off: number, mac: Uint8Array): void {
  for (let i = 0; i < MAC_SIZE; i++) mac[i] = view.getUint8(off + i);
}

/** Whether the 6 bytes at `off` are `mac`. */
export function sameMac(view: DataView, off: number, mac: Uint8Array): boolean {
  for (let i = 0; i < MAC_SIZE; i++) if (mac[i] !== view.getUint8(off + i)) return false;
  return true;
}

/** Whether the address at `off` is a group address, broadcast included (IEEE 802.3 §3.2.3). */
export function isGroupMac(view: DataView, off: number): boolean {
  return (view.getUint8(off) & 1) !== 0;
}

/**
 * Writes an Ethernet header.
 *
 * @param type Ethernet type, host order
 * @example
 * ```ts
 * import { ETH_P_IP, etherType, writeEthernet } from "./ethernet.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(14));
 * writeEthernet(view, 0, Uint8Array.of(2, 0, 0, 0, 0, 1), Uint8Array.of(2, 0, 0, 0, 0, 2), ETH_P_IP);
 * assertEquals(etherType(view, 0), ETH_P_IP);
 * ```
 */
export function writeEthernet(
  view: DataView,
  off: number,
  dstMac: Uint8Array,
  srcMac: Uint8Array,
  type: number,
): void {
  storeMac(view, off + ETH_DEST, dstMac);
  storeMac(view, off + ETH_SOURCE, srcMac);
  view.setUint16(off + ETH_TYPE, type);
}

const MAC_TEXT =
  /^([0-9a-f]{2})[:-]([0-9a-f]{2})[:-]([0-9a-f]{2})[:-]([0-9a-f]{2})[:-]([0-9a-f]{2})[:-]([0-9a-f]{2})$/i;

/** Parses six hexadecimal pairs separated by `:` or `-`; null when the text is none. Allocates. */
export function parseMac(text: string): Uint8Array<ArrayBuffer> | null {
  const match = MAC_TEXT.exec(text);
  return match ? Uint8Array.from(match.slice(1), (pair) => parseInt(pair, 16)) : null;
}

/** Formats an address as `02:00:00:00:00:01`. Allocates. */
export function formatMac(mac: Uint8Array): string {
  return Array.from(mac.subarray(0, MAC_SIZE), (b) => b.toString(16).padStart(2, "0")).join(":");
}
