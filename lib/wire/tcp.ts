// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP headers (RFC 9293 §3.1): offsets, check, accessors, options, emitter.
 *
 * Theory of operation: {@linkcode checkTcp} is called once per segment; after that the fixed header
 * and the options area are known to lie within the packet and accessors cannot fail. Sequence
 * numbers are int32, so that `(a - b) | 0` compares them (RFC 9293 §3.4).
 *
 * @module
 */
import type { Packet } from "./packet.ts";

// Offsets from the start of the header.
/** Offset of the source port, 2 bytes. */
export const TCP_SOURCE = 0;
/** Offset of the destination port, 2 bytes. */
export const TCP_DEST = 2;
/** Offset of the sequence number, 4 bytes. */
export const TCP_SEQ = 4;
/** Offset of the acknowledgment number, 4 bytes. */
export const TCP_ACK_SEQ = 8;
/** Offset of the header length in words (high half of 1 byte). */
export const TCP_DATA_OFFSET = 12;
/** Offset of the control bits, 1 byte. */
export const TCP_FLAGS = 13;
/** Offset of the window, 2 bytes. */
export const TCP_WINDOW = 14;
/** Offset of the checksum, 2 bytes; the urgent pointer is behind it. */
export const TCP_CHECKSUM = 16;
/** Bytes of a header without options. */
export const TCP_HEADER_SIZE = 20;

// Control bits (RFC 9293 §3.1).
/** No more data from the sender. */
export const TCP_FIN = 0x01;
/** Synchronize sequence numbers. */
export const TCP_SYN = 0x02;
/** Reset the connection. */
export const TCP_RST = 0x04;
/** Push. */
export const TCP_PSH = 0x08;
/** The acknowledgment number counts. */
export const TCP_ACK = 0x10;

// Option kinds (RFC 9293 §3.2, RFC 7323 §2.2) and their lengths.
/** End of the options, one byte without length. */
export const TCP_OPTION_END = 0;
/** Padding, one byte without length. */
export const TCP_OPTION_NOP = 1;
/** Maximum segment size. */
export const TCP_OPTION_MSS = 2;
/** Bytes of {@linkcode TCP_OPTION_MSS}. */
export const TCP_OPTION_MSS_SIZE = 4;
/** Window scale. */
export const TCP_OPTION_WINDOW_SCALE = 3;
/** Bytes of {@linkcode TCP_OPTION_WINDOW_SCALE}. */
export const TCP_OPTION_WINDOW_SCALE_SIZE = 3;
/** Bytes {@linkcode writeTcpWindowScale} takes: the option and one NOP for alignment. */
export const TCP_OPTION_WINDOW_SCALE_PADDED = 4;
/** Largest shift count (RFC 7323 §2.3). */
export const TCP_MAX_WINDOW_SCALE = 14;

/** Bytes of the header at `l4`, from its data offset field. */
export function tcpHeaderSize(view: DataView, l4: number): number {
  return view.getUint8(l4 + TCP_DATA_OFFSET) >>> 4 << 2;
}

/**
 * Checks a segment: fixed header and data offset within the packet.
 *
 * @returns offset of the payload (which ends at `packet.end`), or -1
 */
export function checkTcp(view: DataView, packet: Packet): number {
  const l4 = packet.l4;
  if (l4 + TCP_HEADER_SIZE > packet.end) return -1;
  const header = tcpHeaderSize(view, l4);
  return header < TCP_HEADER_SIZE || l4 + header > packet.end ? -1 : l4 + header;
}

/** Source port. */
export function tcpSourcePort(view: DataView, l4: number): number {
  return view.getUint16(l4 + TCP_SOURCE);
}

/** Destination port. */
export function tcpDestPort(view: DataView, l4: number): number {
  return view.getUint16(l4 + TCP_DEST);
}

/** Sequence number, int32. */
export function tcpSeq(view: DataView, l4: number): number {
  return view.getInt32(l4 + TCP_SEQ);
}

/** Acknowledgment number, int32; means something only with {@linkcode TCP_ACK}. */
export function tcpAck(view: DataView, l4: number): number {
  return view.getInt32(l4 + TCP_ACK_SEQ);
}

/** The eight control bits. */
export function tcpFlags(view: DataView, l4: number): number {
  return view.getUint8(l4 + TCP_FLAGS);
}

/** Window as sent: not scaled. */
export function tcpWindow(view: DataView, l4: number): number {
  return view.getUint16(l4 + TCP_WINDOW);
}

/** Offset of the first option of `kind` that is `size` bytes and whole; -1 when absent. */
function findOption(view: DataView, l4: number, kind: number, size: number): number {
  const end = l4 + tcpHeaderSize(view, l4);
  let at = l4 + TCP_HEADER_SIZE;
  while (at < end) {
    const found = view.getUint8(at);
    if (found === TCP_OPTION_END) return -1;
    if (found === TCP_OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 2 > end) return -1;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return -1;
    if (found === kind && length === size) return at;
    at += length;
  }
  return -1;
}

/** Maximum segment size option of a checked segment; 0 when absent. */
export function tcpMssOption(view: DataView, l4: number): number {
  const at = findOption(view, l4, TCP_OPTION_MSS, TCP_OPTION_MSS_SIZE);
  return at < 0 ? 0 : view.getUint16(at + 2);
}

/** Window scale option of a checked segment, at most {@linkcode TCP_MAX_WINDOW_SCALE}; -1: absent. */
export function tcpWindowScaleOption(view: DataView, l4: number): number {
  const at = findOption(view, l4, TCP_OPTION_WINDOW_SCALE, TCP_OPTION_WINDOW_SCALE_SIZE);
  return at < 0 ? -1 : Math.min(view.getUint8(at + 2), TCP_MAX_WINDOW_SCALE);
}

/**
 * Writes a fixed header; checksum and urgent pointer are 0, options are left to the caller.
 *
 * @param sport, dport ports, host order
 * @param seq, ack any 32-bit number
 * @param window as it goes on the wire: shifted already, at most 0xffff
 * @param headerBytes header length with options, a multiple of 4 from 20 to 60
 * @example
 * ```ts
 * import { TCP_SYN, tcpFlags, tcpMssOption, writeTcpHeader, writeTcpMss } from "./tcp.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(24));
 * writeTcpHeader(view, 0, 4000, 80, 1, 0, TCP_SYN, 0xffff, 24);
 * writeTcpMss(view, 20, 1460);
 * assertEquals(tcpFlags(view, 0), TCP_SYN);
 * assertEquals(tcpMssOption(view, 0), 1460);
 * ```
 */
export function writeTcpHeader(
  view: DataView,
  off: number,
  sport: number,
  dport: number,
  seq: number,
  ack: number,
  flags: number,
  window: number,
  headerBytes: number,
): void {
  view.setUint16(off + TCP_SOURCE, sport);
  view.setUint16(off + TCP_DEST, dport);
  view.setInt32(off + TCP_SEQ, seq);
  view.setInt32(off + TCP_ACK_SEQ, ack);
  view.setUint8(off + TCP_DATA_OFFSET, headerBytes << 2);
  view.setUint8(off + TCP_FLAGS, flags);
  view.setUint16(off + TCP_WINDOW, window);
  view.setUint32(off + TCP_CHECKSUM, 0); // and the urgent pointer
}

/** Writes a maximum segment size option ({@linkcode TCP_OPTION_MSS_SIZE} bytes) at `off`. */
export function writeTcpMss(view: DataView, off: number, mss: number): void {
  view.setUint32(off, TCP_OPTION_MSS << 24 | TCP_OPTION_MSS_SIZE << 16 | mss);
}

/** Writes NOP and window scale ({@linkcode TCP_OPTION_WINDOW_SCALE_PADDED} bytes) at `off`. */
export function writeTcpWindowScale(view: DataView, off: number, shift: number): void {
  view.setUint32(
    off,
    TCP_OPTION_NOP << 24 | TCP_OPTION_WINDOW_SCALE << 16 | TCP_OPTION_WINDOW_SCALE_SIZE << 8 |
      shift,
  );
}
