// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The layer-2 link to the guest, whatever carries it.
 *
 * Theory of operation: received frames lie in fixed slots of the link's arena until the next
 * {@linkcode Link.receive}; frames to send are built in fixed transmit slots and handed over one by
 * one with {@linkcode Link.send}, after which the slot is free again. A frame's offset is that of its
 * Ethernet header. Checksums and segmentation are asked for per frame, in the terms of the virtio
 * network header (linux/virtio_net.h); a link that cannot leave them to the guest's kernel does them
 * itself, so that callers do not care.
 *
 * @module
 */
import type { Arena } from "../sys/arena.ts";
import { ETH_HEADER_SIZE } from "../wire/ethernet.ts";

export { ETH_HEADER_SIZE };

/** `gsoType` of linux/virtio_net.h. */
export const GSO = {
  NONE: 0,
  TCPV4: 1,
  TCPV6: 4,
  UDP_L4: 5,
} as const;

/** Receive slots: the largest number of frames one {@linkcode Link.receive} returns. */
export const RX_SLOTS = 16;
/** Transmit slots. Slots 0…TX_SLOTS-2 take bulk data, the last is for single short frames. */
export const TX_SLOTS = 10;
/** The slot for frames that are built and sent at once (answers, acknowledgements). */
export const TX_CONTROL = TX_SLOTS - 1;
/** Bytes each slot has for a frame: 64 KiB of IP packet and the Ethernet header. */
export const SLOT_FRAME_SIZE = 65535 + ETH_HEADER_SIZE;

/** A carrier of Ethernet frames. */
export interface Link {
  /** Descriptor to watch for input. */
  readonly fd: number;
  /** Memory of all slots. */
  readonly arena: Arena;
  /** Whether TCP super-frames of up to 64 KiB may be sent ({@linkcode GSO}.TCPV4/TCPV6). */
  readonly tso: boolean;
  /** Whether UDP super-frames may be sent ({@linkcode GSO}.UDP_L4). */
  readonly uso: boolean;
  /** Per receive slot: offset of the Ethernet header. Fixed. */
  readonly rxOffset: Int32Array;
  /** Per received frame: bytes from the Ethernet header on. */
  readonly rxLength: Int32Array;
  /** Per received frame: segment size of a super-frame (payload bytes per packet), else 0. */
  readonly rxGsoSize: Int32Array;
  /** Per received frame: where its checksum starts, from the Ethernet header; 0: it is complete. */
  readonly rxCsumStart: Int32Array;
  /** Per received frame: offset of the checksum field from there. */
  readonly rxCsumOffset: Int32Array;
  /** Per transmit slot: offset of the Ethernet header. Fixed. */
  readonly txOffset: Int32Array;

  /**
   * Reads up to `max` (≤ RX_SLOTS) frames into slots 0, 1, ….
   *
   * @returns the number of frames, 0 when there are none; -1 when the link is gone. Level-triggered
   *   waiting tells whether more are there
   */
  receive(max: number): number;

  /**
   * Sends the frame in transmit slot `slot` (one system call on a tap; never blocks).
   *
   * @param length bytes from the Ethernet header on
   * @param headerLength bytes of all headers (Ethernet, IP, transport), 0 when checksum is not wanted
   * @param csumStart offset, from the Ethernet header, where the transport header begins; 0: frame is
   *   complete. Otherwise the transport checksum field holds the folded, not inverted sum of the
   *   pseudo-header and is completed by the kernel or the link
   * @param csumOffset offset of the checksum field from `csumStart` (TCP 16, UDP 6, ICMPv6 2)
   * @param gsoType one of {@linkcode GSO}; not NONE only with a checksum wanted
   * @param gsoSize payload bytes per segment, 0 with NONE
   * @returns 0, or a negative errno when the frame was dropped
   */
  send(
    slot: number,
    length: number,
    headerLength: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number;

  /** Releases the descriptor. */
  close(): void;
}
