// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Headers of capture files (pcap-savefile(5)), little-endian, microseconds, Ethernet.
 *
 * @module
 */

/** Bytes of the file's header. */
export const PCAP_HEADER_SIZE = 24;
/** Bytes of a record's header. */
export const PCAP_RECORD_SIZE = 16;

/** Timestamps in microseconds (pcap-savefile(5)). */
const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const VERSION_MAJOR = 2;
const VERSION_MINOR = 4;
/** pcap-linktype(7). */
const LINKTYPE_ETHERNET = 1;

/** Offsets in the file's header. */
const HEADER_MAJOR = 4;
const HEADER_MINOR = 6;
const HEADER_RESERVED = 8;
const HEADER_SNAP_LENGTH = 16;
const HEADER_LINK_TYPE = 20;
/** Offsets in a record's header. */
const RECORD_SECONDS = 0;
const RECORD_MICROSECONDS = 4;
const RECORD_CAPTURED = 8;
const RECORD_ORIGINAL = 12;

/**
 * Writes the header of a file.
 *
 * @param snapLength most bytes kept of a frame
 * @example
 * ```ts
 * import { PCAP_HEADER_SIZE, writePcapHeader } from "./pcap.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(PCAP_HEADER_SIZE));
 * writePcapHeader(view, 0, 65549);
 * assertEquals(view.getUint32(0, true), 0xa1b2c3d4);
 * ```
 */
export function writePcapHeader(view: DataView, off: number, snapLength: number): void {
  view.setUint32(off, MAGIC_MICROSECONDS, true);
  view.setUint16(off + HEADER_MAJOR, VERSION_MAJOR, true);
  view.setUint16(off + HEADER_MINOR, VERSION_MINOR, true);
  view.setUint32(off + HEADER_RESERVED, 0);
  view.setUint32(off + HEADER_RESERVED + 4, 0);
  view.setUint32(off + HEADER_SNAP_LENGTH, snapLength, true);
  view.setUint32(off + HEADER_LINK_TYPE, LINKTYPE_ETHERNET, true);
}

/**
 * Writes the header of a record; the frame's bytes follow it.
 *
 * @param seconds since the epoch
 * @param microseconds 0–999999
 * @param captured bytes that follow
 * @param original bytes the frame had
 */
export function writePcapRecord(
  view: DataView,
  off: number,
  seconds: number,
  microseconds: number,
  captured: number,
  original: number,
): void {
  view.setUint32(off + RECORD_SECONDS, seconds, true);
  view.setUint32(off + RECORD_MICROSECONDS, microseconds, true);
  view.setUint32(off + RECORD_CAPTURED, captured, true);
  view.setUint32(off + RECORD_ORIGINAL, original, true);
}
