// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The layer-2 link to the guest, whatever carries it.
 *
 * Theory of operation: received frames lie in the link's arena until {@linkcode Link.release}; frames to
 * send are built in fixed transmit slots and handed over one by one with {@linkcode Link.send}, after
 * which the slot is free again. A frame's offset is that of its Ethernet header. Checksums and
 * segmentation are asked for per frame, in the terms of the virtio network header
 * (linux/virtio_net.h); a link that cannot leave them to the guest's kernel does them itself, so that
 * callers do not care.
 *
 * A turn of the event loop: {@linkcode Link.event} for each event on one of the link's descriptors,
 * {@linkcode Link.receive} when there may be frames, {@linkcode Link.release} when they have been dealt
 * with, {@linkcode Link.flush} at the turn's end.
 *
 * Payload of TCP can stay where the guest has it. On a link that shares memory with the guest, the
 * frame at an offset has its headers there, and the place of its payload is only reserved: it lies
 * in the guest's buffers until {@linkcode Link.fetch} copies it. {@linkcode Link.gather} says, as iovecs,
 * where it is, and {@linkcode Link.place} where payload to be sent is to be put. Elsewhere both name the
 * arena.
 *
 * @module
 */
import type { Arena } from "../sys/arena.ts";
import type { Message } from "../sys/message.ts";
import { ETH_HEADER_SIZE } from "../wire/ethernet.ts";

export { ETH_HEADER_SIZE };

/** `gsoType` of linux/virtio_net.h. */
export const GSO = {
  NONE: 0,
  TCPV4: 1,
  TCPV6: 4,
  UDP_L4: 5,
} as const;

/** The largest number of frames one {@linkcode Link.receive} returns. */
export const RX_FRAMES = 64;
/** The largest number of iovecs that one {@linkcode Link.gather} or {@linkcode Link.place} takes. */
export const MAX_PIECES = 64;
/** Transmit slots. Slots 0…TX_SLOTS-2 take bulk data, the last is for single short frames. */
export const TX_SLOTS = 10;
/** The slot for frames that are built and sent at once (answers, acknowledgements). */
export const TX_CONTROL = TX_SLOTS - 1;
/** Bytes each slot has for a frame: 64 KiB of IP packet and the Ethernet header. */
export const SLOT_FRAME_SIZE = 65535 + ETH_HEADER_SIZE;

/** Where a link has its descriptors watched. */
export interface LinkWatcher {
  /**
   * Has `fd` watched, level-triggered unless EPOLLET is asked for; what happens comes to {@linkcode Link.event} with `kind`.
   *
   * @param events EPOLLIN and the like, see `EPOLL`
   * @returns 0 or a negative errno
   */
  add(fd: number, events: number, kind: number): number;
  /** Changes what is watched for. @returns 0 or a negative errno */
  modify(fd: number, events: number, kind: number): number;
  /** Stops watching. To be called before the descriptor is closed. */
  remove(fd: number): void;
}

/** A carrier of Ethernet frames. */
export interface Link {
  /** Memory of all slots and received frames. */
  readonly arena: Arena;
  /** Whether TCP super-frames of up to 64 KiB may be sent ({@linkcode GSO}.TCPV4/TCPV6). */
  readonly tso: boolean;
  /** Whether UDP super-frames may be sent ({@linkcode GSO}.UDP_L4). */
  readonly uso: boolean;
  /** Per received frame: offset of the Ethernet header. */
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
  /** How many guests have left: another one's frames come when this has grown. */
  readonly guests: number;
  /** Whether frames wait that no event will tell of: {@linkcode Link.receive} is to be called again. */
  readonly pending: boolean;
  /**
   * Whether there is room for bulk data. When not, an event will come when there is again. Single
   * frames may be sent at any time; they are dropped when there is no room at all.
   */
  readonly writable: boolean;

  /** Has the link's descriptors watched from now on. @throws SysError when that is refused */
  watch(watcher: LinkWatcher): void;

  /** Something happened to a descriptor. @returns whether there may be frames to receive */
  event(kind: number, events: number): boolean;

  /**
   * Receives up to `max` (≤ {@linkcode RX_FRAMES}) frames. They stay valid until {@linkcode Link.release}.
   *
   * @returns the number of frames, 0 when there are none; -1 when the link is gone for good
   */
  receive(max: number): number;

  /** The frames received last are not needed any more. */
  release(): void;

  /**
   * Points iovecs to bytes of a received TCP frame's payload, for a sendmsg(2) before
   * {@linkcode Link.release}.
   *
   * @param message its iovecs from `piece` on are set
   * @param off offset of the first byte, as if the whole frame lay at its `rxOffset`
   * @returns the number of iovecs, at most {@linkcode MAX_PIECES}
   */
  gather(message: Message, piece: number, off: number, length: number): number;

  /** Makes sure that these bytes of a received frame lie in the arena. Only payload of TCP may not. */
  fetch(off: number, length: number): void;

  /**
   * Points iovecs to where payload for a frame is to be received to, which {@linkcode Link.send} of
   * `slot` is to follow with nothing sent in between, in the order of the slots from 0 on. Slots that
   * turn out not to be needed are forgotten by the next call for slot 0, the next other frame sent, or
   * {@linkcode Link.flush}: until then nobody else builds frames in slots for bulk data.
   *
   * @param message its iovecs from `piece` on are set
   * @param headers bytes of all headers, which are written to the slot as always
   * @param length bytes of payload
   * @returns the number of iovecs, at most {@linkcode MAX_PIECES}; 0: there is no room for it now
   */
  place(message: Message, piece: number, slot: number, headers: number, length: number): number;

  /**
   * Sends the frame in transmit slot `slot`. Never blocks.
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

  /** Hands over what {@linkcode Link.send} may have gathered. */
  flush(): void;

  /** Releases descriptors, and what else the link holds. */
  close(): void;
}
