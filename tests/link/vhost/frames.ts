// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Frames for tests of the rings: right in what decides how they are handled, the rest is a pattern.
 *
 * @module
 */

/** Bytes that tell their place. */
export function pattern(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, k) => (k * 7 + (k >> 8) * 13 + seed) & 0xff);
}

function ipv4(length: number, protocol: number): Uint8Array<ArrayBuffer> {
  const frame = pattern(length), view = new DataView(frame.buffer);
  view.setUint16(12, 0x0800);
  view.setUint8(14, 0x45);
  view.setUint16(16, length - 14);
  view.setUint16(20, 0x4000); // don't fragment
  view.setUint8(23, protocol);
  return frame;
}

/** TCP over IPv4 with 12 bytes of options: 66 bytes of headers. */
export function tcpFrame(length: number): Uint8Array<ArrayBuffer> {
  const frame = ipv4(length, 6);
  frame[14 + 20 + 12] = 0x80;
  return frame;
}

/** TCP over IPv6 without options: 74 bytes of headers. */
export function tcp6Frame(length: number): Uint8Array<ArrayBuffer> {
  const frame = pattern(length), view = new DataView(frame.buffer);
  view.setUint16(12, 0x86dd);
  view.setUint8(14, 0x60);
  view.setUint16(18, length - 54);
  view.setUint8(20, 6);
  frame[54 + 12] = 0x50;
  return frame;
}

/** UDP over IPv4. */
export function udpFrame(length: number): Uint8Array<ArrayBuffer> {
  return ipv4(length, 17);
}
