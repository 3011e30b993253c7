// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Frames into a guest's receive ring.
 *
 * Theory of operation: {@linkcode ToGuest.place} looks at as many available chains as a frame needs
 * and points iovecs to where its payload belongs in them, behind the virtio network header and the
 * frame's own headers; nothing is taken from the ring yet. {@linkcode ToGuest.send} then copies the
 * headers in front, and takes only the chains that the frame, as long as it has become, fills. So
 * payload goes from a socket to the guest's buffers in one copy. A reservation that does not lead to
 * frames is forgotten. Frames without one are copied whole from their slot.
 *
 * With mergeable receive buffers (VIRTIO_NET_F_MRG_RXBUF) a frame takes as many chains as it needs,
 * else it must fit in one (virtio 1.1 §5.1.6.4).
 *
 * When there is no room for bulk data, {@linkcode ToGuest.writable} is false until the guest kicks.
 * Single frames wait in a {@linkcode Backlog} meanwhile. After a kick they go first, every other
 * time only when bulk data has had its turn: so neither starves the other. A driver fills its ring again when half of it is used up, at the latest: what does not fit although
 * half of the ring or more is available may never fit. It is not waited for then, but built in the slot and
 * dropped if it does not fit when it is sent, as any network drops what is too large for it. For rings so small
 * that this could happen to super-frames, {@linkcode ToGuest.roomy} is false.
 *
 * @module
 */
import type { Arena } from "../../sys/arena.ts";
import { E } from "../../sys/errno.ts";
import { virtioNetHdrV1 } from "../../sys/layout.ts";
import type { Message } from "../../sys/message.ts";
import { VNET_HEADER_SIZE } from "../../sys/tun.ts";
import { fold, invertUdp, sum } from "../../wire/checksum.ts";
import { MAX_PIECES, SLOT_FRAME_SIZE, TX_SLOTS } from "../link.ts";
import type { Slots } from "../slots.ts";
import { Pieces, type Windows } from "./pieces.ts";
import { Backlog } from "./backlog.ts";
import { MAX_CHAIN, type Queue, VRING_DESC_F_WRITE } from "./queue.ts";

const { flags: FLAGS, gso_type: GSO_TYPE, hdr_len: HDR_LEN, gso_size: GSO_SIZE } =
  virtioNetHdrV1.at;
const { csum_start: CSUM_START, csum_offset: CSUM_OFFSET, num_buffers: NUM_BUFFERS } =
  virtioNetHdrV1.at;
const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1; // linux/virtio_net.h

/** Chains, and pieces of them, that all frames reserved at a time have at most. */
const MAX_CHAINS = 4096;
const MAX_PIECES_RESERVED = 8192;
/** How often a ring that is just being filled is looked at again. */
const LOOKS = 64;
/** Mergeable buffers have at least this size (virtio 1.1 §5.1.6.3.1, linux drivers/net/virtio_net.c). */
const USUAL_BUFFER = 1536;
/** What became of looking for room. */
const FITS = 0, LATER = 1, NEVER = 2;

/** The sending half of a link over virtqueues. */
export class ToGuest {
  /** Whether a frame may take several chains (VIRTIO_NET_F_MRG_RXBUF). */
  mergeable = false;
  /** Whether the guest completes checksums (VIRTIO_NET_F_GUEST_CSUM). */
  checksums = true;
  #writable = true;
  /** Bulk data goes before the backlog in this turn; it did after the last kick. */
  #bulkFirst = false;
  #wasFirst = false;
  readonly #queue: Queue;
  readonly #memory: Windows;
  readonly #slots: Slots;
  readonly #backlog = new Backlog();
  readonly #pieces = new Pieces(MAX_PIECES_RESERVED);
  /** Chains reserved, from the oldest available on: first descriptor, bytes. */
  readonly #heads = new Int32Array(MAX_CHAINS);
  readonly #sizes = new Int32Array(MAX_CHAINS);
  #chains = 0;
  /** Descriptors that they take. */
  #descriptors = 0;
  /** Per slot reserved: its first chain and piece, bytes of all headers, and of the whole frame. */
  readonly #firstChain = new Int32Array(TX_SLOTS + 1);
  readonly #firstPiece = new Int32Array(TX_SLOTS + 1);
  readonly #firstDescriptor = new Int32Array(TX_SLOTS + 1);
  readonly #headers = new Int32Array(TX_SLOTS);
  readonly #total = new Int32Array(TX_SLOTS);
  /** Slots reserved, and sent of them. */
  #reserved = 0;
  #sent = 0;

  /**
   * @param queue the guest's receive ring
   * @param slots with room for the virtio header before each
   */
  constructor(queue: Queue, memory: Windows, slots: Slots) {
    this.#queue = queue;
    this.#memory = memory;
    this.#slots = slots;
  }

  /** Whether frames of 64 KiB always find room in a ring that its driver keeps half full. */
  get roomy(): boolean {
    if (!this.mergeable) return true;
    return this.#queue.size / 2 * USUAL_BUFFER >= VNET_HEADER_SIZE + SLOT_FRAME_SIZE;
  }

  /**
   * As in `Link`; true also when the queue does not run: frames are dropped then. The ring is looked at
   * again, so that a kick that was lost on the way does not stop us.
   */
  get writable(): boolean {
    if (this.#writable || !this.#queue.running) return true;
    if (this.#queue.hasGrown()) this.kicked();
    return this.#writable;
  }

  /** The guest has kicked, or the queue was started. */
  kicked(): void {
    this.#forget();
    this.#queue.unwatch();
    this.#writable = true;
    if (!this.#queue.running) this.#backlog.clear();
    else if (this.#backlog.count > 0 && !this.#wasFirst) {
      this.#bulkFirst = this.#wasFirst = true; // flush() sees to the backlog
    } else {
      this.#wasFirst = false;
      this.#drain();
    }
  }

  /** Has the guest kick when there is more room. @returns whether there is already */
  #wait(): boolean {
    if (this.#queue.watch()) return true;
    this.#writable = false;
    return false;
  }

  /** Whether what was just not found may never be there: see the module's description. */
  #hopeless(): boolean {
    return this.#descriptors >= this.#queue.size / 2;
  }

  /** Sends what waits. @returns whether nothing waits any more */
  #drain(): boolean {
    const backlog = this.#backlog;
    let looks = 0;
    while (backlog.count > 0) {
      this.#forget();
      const total = backlog.length;
      const fit = this.#reserve(0, total, total);
      if (fit === FITS) this.#hand(0, backlog.arena, backlog.offset, total, total);
      else if (fit === LATER && !this.#hopeless()) {
        this.#forget();
        if (!this.#wait()) return false;
        if (++looks < LOOKS) continue;
        backlog.clear(); // somebody plays with the index
        return true;
      }
      backlog.shift();
    }
    this.#forget();
    return true;
  }

  /** Gives up what was reserved. */
  #forget(): void {
    this.#reserved = 0;
    this.#sent = 0;
    this.#chains = 0;
    this.#descriptors = 0;
    this.#pieces.count = 0;
  }

  /** Gives up what was reserved for `slot`, the newest. */
  #forgetSlot(slot: number): void {
    this.#chains = this.#firstChain[slot];
    this.#pieces.count = this.#firstPiece[slot];
    this.#descriptors = this.#firstDescriptor[slot];
  }

  /** As `Link.place`. */
  place(message: Message, piece: number, slot: number, headers: number, length: number): number {
    if (slot === 0) {
      this.#forget();
      if (this.#backlog.count > 0 && !this.#bulkFirst && !this.#drain()) return 0;
    }
    const fit = this.#placeable(slot) ? this.#room(slot, headers, length) : NEVER;
    if (fit === LATER) return 0;
    const off = VNET_HEADER_SIZE + headers;
    if (fit === NEVER) {
      message.set(piece, this.#slots.arena, this.#slots.txOffset[slot] + headers, length);
      return 1;
    }
    this.#reserved = slot + 1;
    const first = this.#firstPiece[slot];
    return this.#pieces.point(this.#memory, first, off, length, message, piece);
  }

  /** Whether payload for `slot` may lie in the guest's buffers: all slots before it have theirs there. */
  #placeable(slot: number): boolean {
    return this.checksums && this.#queue.running && slot === this.#reserved && this.#sent === 0;
  }

  /** Reserves chains for a frame that {@linkcode place} is asked for. */
  #room(slot: number, headers: number, length: number): number {
    const total = VNET_HEADER_SIZE + headers + length;
    let fit = this.#reserve(slot, headers, total);
    for (let k = 0; fit === LATER && slot === 0; k++) {
      const hopeless = this.#hopeless();
      this.#forget();
      if (hopeless || k === LOOKS) return NEVER;
      if (!this.#wait()) return LATER;
      fit = this.#reserve(slot, headers, total);
    }
    if (fit === FITS) {
      const first = this.#firstPiece[slot];
      if (this.#pieces.span(first, total - length, length) <= MAX_PIECES) return FITS;
      fit = NEVER; // bulk data in tiny buffers: no way to be fast
    }
    this.#forgetSlot(slot);
    return fit;
  }

  /** Adds the chains that `total` bytes need to those reserved, for `slot`. */
  #reserve(slot: number, headers: number, total: number): number {
    const queue = this.#queue, pieces = this.#pieces;
    this.#firstChain[slot] = this.#chains;
    this.#firstPiece[slot] = pieces.count;
    this.#firstDescriptor[slot] = this.#descriptors;
    this.#headers[slot] = headers;
    this.#total[slot] = total;
    let room = 0;
    do {
      const k = this.#chains;
      if (k === MAX_CHAINS || pieces.count + MAX_CHAIN > MAX_PIECES_RESERVED) return NEVER;
      if (!queue.has(k)) return queue.running ? LATER : NEVER;
      if (!queue.walk(k, VRING_DESC_F_WRITE, pieces)) return NEVER;
      if (queue.bytes < VNET_HEADER_SIZE) {
        queue.fail("receive buffer shorter than the header");
        return NEVER;
      }
      this.#heads[k] = queue.head;
      this.#sizes[k] = queue.bytes;
      this.#chains = k + 1;
      this.#descriptors += queue.descriptors;
      room += queue.bytes;
    } while (room < total && this.mergeable);
    return room >= total ? FITS : NEVER;
  }

  /** As `Link.send`. */
  send(
    slot: number,
    length: number,
    headerLength: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number {
    const { arena, txOffset } = this.#slots;
    const off = txOffset[slot], total = VNET_HEADER_SIZE + length;
    if (csumStart > 0 && !this.checksums) {
      this.#complete(off, length, csumStart, csumOffset);
      csumStart = 0;
    }
    const view = arena.dv, vnet = off - VNET_HEADER_SIZE;
    view.setUint8(vnet + FLAGS, csumStart > 0 ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0);
    view.setUint8(vnet + GSO_TYPE, gsoType);
    view.setUint16(vnet + HDR_LEN, headerLength, true);
    view.setUint16(vnet + GSO_SIZE, gsoSize, true);
    view.setUint16(vnet + CSUM_START, csumStart, true);
    view.setUint16(vnet + CSUM_OFFSET, csumStart > 0 ? csumOffset : 0, true);
    if (slot === this.#sent && slot < this.#reserved && total <= this.#total[slot]) {
      const copied = Math.min(total, VNET_HEADER_SIZE + this.#headers[slot]);
      this.#hand(slot, arena, vnet, total, copied);
      return 0;
    }
    return this.#sendWhole(slot, vnet, total);
  }

  /** Sends a frame that lies in its slot, now or when there is room. */
  #sendWhole(slot: number, vnet: number, total: number): number {
    const { arena } = this.#slots, backlog = this.#backlog;
    this.#forget();
    if (!this.#queue.running) return -E.ENETDOWN;
    if (backlog.count === 0) {
      const fit = this.#reserve(slot, total, total);
      if (fit === FITS) {
        this.#hand(slot, arena, vnet, total, total);
        return 0;
      }
      const hopeless = fit === NEVER || this.#hopeless();
      this.#forget();
      if (hopeless) return -E.EMSGSIZE;
    }
    if (!backlog.push(arena, vnet, total)) return -E.ENOBUFS;
    if (backlog.count === 1) this.#drain(); // it was full, and may be no more; else asks for a kick
    return 0;
  }

  /** Completes a checksum in the slot, for a guest that does not. */
  #complete(off: number, length: number, csumStart: number, csumOffset: number): void {
    const { dv } = this.#slots.arena;
    const start = off + csumStart;
    const folded = fold(sum(dv, start, length - csumStart));
    dv.setUint16(start + csumOffset, invertUdp(folded)); // the same, to all others, as 0
  }

  /**
   * Copies the first `copied` of `total` bytes at `from`, which begin with the virtio header, to the
   * chains reserved for `slot`, and gives those to the guest.
   */
  #hand(slot: number, arena: Arena, from: number, total: number, copied: number): void {
    const queue = this.#queue;
    const first = this.#firstChain[slot];
    let buffers = 1;
    for (let left = total - this.#sizes[first]; left > 0; buffers++) {
      left -= this.#sizes[first + buffers];
    }
    arena.dv.setUint16(from + NUM_BUFFERS, buffers, true);
    this.#pieces.store(this.#memory, this.#firstPiece[slot], arena, from, copied);
    for (let k = first, left = total; left > 0; k++) {
      const bytes = Math.min(left, this.#sizes[k]);
      queue.use(this.#heads[k], bytes);
      left -= bytes;
    }
    queue.advance(buffers);
    const last = slot + 1 < this.#reserved ? this.#firstChain[slot + 1] : this.#chains;
    // after a frame that has become shorter than reserved, chains would be used out of turn
    if (this.#sent + 1 < this.#reserved && first + buffers === last) this.#sent++;
    else this.#forget();
    if (copied < total) queue.publish(); // bulk data: the guest may begin with it
  }

  /** Lets the guest see all frames, and gives up what is reserved. @returns whether it is to be told */
  flush(): boolean {
    this.#forget(); // the slots are anybody's again
    if (this.#bulkFirst) {
      this.#bulkFirst = false;
      if (this.#queue.running) this.#drain();
    }
    this.#queue.publish();
    return this.#queue.wantsCall();
  }
}
