// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * ARP for IPv4 over Ethernet (RFC 826): offsets, check, emitter.
 *
 * @module
 */
import { loadV4, storeV4 } from "./address.ts";
import { ETH_HEADER_SIZE, ETH_P_ARP, ETH_P_IP, etherType, MAC_SIZE, storeMac } from "./ethernet.ts";

// Offsets from the start of the ARP packet.
/** Offset of the hardware type, 2 bytes. */
export const ARP_HARDWARE = 0;
/** Offset of the protocol type, 2 bytes. */
export const ARP_PROTOCOL = 2;
/** Offset of the length of hardware addresses, 1 byte. */
export const ARP_HARDWARE_LENGTH = 4;
/** Offset of the length of protocol addresses, 1 byte. */
export const ARP_PROTOCOL_LENGTH = 5;
/** Offset of the operation, 2 bytes. */
export const ARP_OPERATION = 6;
/** Offset of the sender's hardware address. */
export const ARP_SENDER_MAC = 8;
/** Offset of the sender's IPv4 address. */
export const ARP_SENDER_IP = 14;
/** Offset of the target's hardware address. */
export const ARP_TARGET_MAC = 18;
/** Offset of the target's IPv4 address. */
export const ARP_TARGET_IP = 24;
/** Bytes of a packet with Ethernet and IPv4 addresses. */
export const ARP_SIZE = 28;

/** Operation: who has this address (RFC 826). */
export const ARP_REQUEST = 1;
/** Operation: it is here (RFC 826). */
export const ARP_REPLY = 2;
/** Hardware type of Ethernet (RFC 826, linux/if_arp.h ARPHRD_ETHER). */
export const ARPHRD_ETHER = 1;

const IPV4_SIZE = 4;

/**
 * Checks a frame: ARP, Ethernet and IPv4 addresses, all of it there.
 *
 * @param off offset of the Ethernet header
 * @param length bytes of the frame
 * @returns offset of the ARP packet, or -1
 */
export function checkArp(view: DataView, off: number, length: number): number {
  if (length < ETH_HEADER_SIZE + ARP_SIZE || etherType(view, off) !== ETH_P_ARP) return -1;
  const arp = off + ETH_HEADER_SIZE;
  return view.getUint16(arp + ARP_HARDWARE) === ARPHRD_ETHER &&
      view.getUint16(arp + ARP_PROTOCOL) === ETH_P_IP &&
      view.getUint8(arp + ARP_HARDWARE_LENGTH) === MAC_SIZE &&
      view.getUint8(arp + ARP_PROTOCOL_LENGTH) === IPV4_SIZE
    ? arp
    : -1;
}

/** Operation: {@linkcode ARP_REQUEST}, {@linkcode ARP_REPLY} or another. */
export function arpOperation(view: DataView, arp: number): number {
  return view.getUint16(arp + ARP_OPERATION);
}

/** Reads the sender's IPv4 address. */
export function arpSender(view: DataView, arp: number, words: Int32Array, at: number): void {
  loadV4(view, arp + ARP_SENDER_IP, words, at);
}

/** Reads the target's IPv4 address. */
export function arpTarget(view: DataView, arp: number, words: Int32Array, at: number): void {
  loadV4(view, arp + ARP_TARGET_IP, words, at);
}

/**
 * Writes an ARP packet at `off` (after the Ethernet header).
 *
 * @example
 * ```ts
 * import { ARP_REPLY, arpOperation, writeArp } from "./arp.ts";
 * import { fromV4 } from "./address.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(28));
 * const mac = Uint8Array.of(2, 0, 0, 0, 0, 1);
 * writeArp(view, 0, ARP_REPLY, mac, fromV4(0x0a000001), 0, mac, fromV4(0x0a000002), 0);
 * assertEquals(arpOperation(view, 0), ARP_REPLY);
 * ```
 */
export function writeArp(
  view: DataView,
  off: number,
  operation: number,
  senderMac: Uint8Array,
  sender: Int32Array,
  senderAt: number,
  targetMac: Uint8Array,
  target: Int32Array,
  targetAt: number,
): void {
  view.setUint16(off + ARP_HARDWARE, ARPHRD_ETHER);
  view.setUint16(off + ARP_PROTOCOL, ETH_P_IP);
  view.setUint8(off + ARP_HARDWARE_LENGTH, MAC_SIZE);
  view.setUint8(off + ARP_PROTOCOL_LENGTH, IPV4_SIZE);
  view.setUint16(off + ARP_OPERATION, operation);
  storeMac(view, off + ARP_SENDER_MAC, senderMac);
  storeV4(view, off + ARP_SENDER_IP, sender, senderAt);
  storeMac(view, off + ARP_TARGET_MAC, targetMac);
  storeV4(view, off + ARP_TARGET_IP, target, targetAt);
}
