// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Frames from a guest's transmit ring.
 *
 * Theory of operation: each chain is a virtio network header and a frame, cut up as the driver likes
 * (virtio 1.1 §2.6.4). Header and frame are copied to a receive slot, unless the frame is a long TCP
 * segment: then only its first {@linkcode HEAD_SIZE} bytes are, and the rest stays in the guest's
 * buffers, from where the kernel takes it ({@linkcode FromGuest.gather}). Chains are given back in
 * {@linkcode FromGuest.release}, when nobody needs them any more.
 *
 * What is copied is looked at only after that: the guest may write to its buffers all the time. It
 * cannot do more than change its own payload.
 *
 * The guest is asked to kick only when the ring was found empty; else {@linkcode FromGuest.pending}
 * says that there is more.
 *
 * @module
 */
import { virtioNetHdrV1 } from "../../sys/layout.ts";
import type { Message } from "../../sys/message.ts";
import { VNET_HEADER_SIZE } from "../../sys/tun.ts";
import { ETH_P_IP, ETH_P_IPV6, etherType } from "../../wire/ethernet.ts";
import {
  IPPROTO_TCP,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER_SIZE,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  ipv4HeaderSize,
} from "../../wire/ipv4.ts";
import { IPV6_HEADER_SIZE, IPV6_NEXT_HEADER } from "../../wire/ipv6.ts";
import { TCP_HEADER_SIZE, tcpHeaderSize } from "../../wire/tcp.ts";
import { ETH_HEADER_SIZE, GSO, MAX_PIECES, RX_FRAMES, SLOT_FRAME_SIZE } from "../link.ts";
import type { Slots } from "../slots.ts";
import { Pieces, type Windows } from "./pieces.ts";
import { MAX_CHAIN, type Queue } from "./queue.ts";

const { flags: FLAGS, gso_type: GSO_TYPE, gso_size: GSO_SIZE } = virtioNetHdrV1.at;
const { csum_start: CSUM_START, csum_offset: CSUM_OFFSET } = virtioNetHdrV1.at;
/** linux/virtio_net.h */
const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
const VIRTIO_NET_HDR_GSO_ECN = 0x80;
const CHECKSUM_SIZE = 2;

/** Bytes of a frame that are always copied: Ethernet, IPv4 and TCP headers of any length. */
export const HEAD_SIZE = 136;
/** Frames up to this size are copied whole, which costs less than another iovec. */
export const COPIED_WHOLE = 256;
/** Bytes of one batch: more do not fit the processor's cache. */
const BATCH_BYTES = 256 * 1024;
const FRAGMENT_MASK = IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET;

/** The receiving half of a link over virtqueues. */
export class FromGuest {
  /** As in `Link`. */
  readonly rxLength: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  readonly rxGsoSize: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  readonly rxCsumStart: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  readonly rxCsumOffset: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  #pending = false;
  readonly #queue: Queue;
  readonly #memory: Windows;
  readonly #slots: Slots;
  readonly #stride: number;
  readonly #pieces = new Pieces(RX_FRAMES * MAX_PIECES + MAX_CHAIN);
  /** Per frame: its first piece, and how much of it lies in the slot. */
  readonly #first = new Int32Array(RX_FRAMES);
  readonly #copied = new Int32Array(RX_FRAMES);
  /** First descriptors of the chains taken. */
  readonly #heads = new Int32Array(RX_FRAMES);
  #taken = 0;

  /**
   * @param queue the guest's transmit ring
   * @param slots {@linkcode RX_FRAMES} receive slots, with room for the virtio header before each
   */
  constructor(queue: Queue, memory: Windows, slots: Slots) {
    this.#queue = queue;
    this.#memory = memory;
    this.#slots = slots;
    this.#stride = slots.rxOffset[1] - slots.rxOffset[0];
  }

  /**
   * Whether there may be chains that no kick will tell of. Asked for in every turn of the loop, so that a
   * kick that was lost on the way does not stop the guest.
   */
  get pending(): boolean {
    return this.#pending || this.#queue.has(0);
  }

  /** The guest has kicked, or the queue was started: there may be frames. */
  kicked(): void {
    this.#pending = this.#queue.running;
  }

  /** As `Link.receive`; 0 also when the queue does not run. */
  receive(max: number): number {
    const queue = this.#queue, pieces = this.#pieces;
    this.release();
    queue.unwatch();
    const most = Math.min(max, RX_FRAMES);
    let n = 0, taken = 0, bytes = 0;
    pieces.count = 0;
    while (taken < most && bytes < BATCH_BYTES && queue.has(taken)) {
      const first = pieces.count;
      if (!queue.walk(taken, 0, pieces)) break;
      this.#heads[taken++] = queue.head;
      const length = queue.bytes - VNET_HEADER_SIZE;
      if (length >= ETH_HEADER_SIZE && length <= SLOT_FRAME_SIZE && this.#take(n, first, length)) {
        bytes += this.#copied[n++];
      } else pieces.count = first; // dropped
    }
    this.#taken = taken;
    queue.advance(taken);
    this.#pending = queue.running && (queue.has(0) || queue.watch());
    return n;
  }

  /** Makes frame `k` of the chain whose pieces begin with `first`. @returns false: nonsense */
  #take(k: number, first: number, length: number): boolean {
    const { arena, rxOffset } = this.#slots, pieces = this.#pieces;
    const off = rxOffset[k], head = Math.min(length, HEAD_SIZE);
    pieces.load(this.#memory, first, 0, VNET_HEADER_SIZE + head, arena, off - VNET_HEADER_SIZE);
    if (!this.#offloads(k, off - VNET_HEADER_SIZE, length)) return false;
    this.rxLength[k] = length;
    this.#first[k] = first;
    this.#copied[k] = head;
    if (length > COPIED_WHOLE && pieces.count - first <= MAX_PIECES && isTcp(arena.dv, off)) {
      return true;
    }
    if (length > head) this.fetch(off, length);
    pieces.count = first;
    return true;
  }

  /** Reads the virtio header at `vnet`. @returns whether it makes sense for a frame of `length` bytes */
  #offloads(k: number, vnet: number, length: number): boolean {
    const view = this.#slots.arena.dv;
    const gsoType = view.getUint8(vnet + GSO_TYPE) & ~VIRTIO_NET_HDR_GSO_ECN;
    const gsoSize = view.getUint16(vnet + GSO_SIZE, true);
    const needsCsum = (view.getUint8(vnet + FLAGS) & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
    const csumStart = needsCsum ? view.getUint16(vnet + CSUM_START, true) : 0;
    const csumOffset = needsCsum ? view.getUint16(vnet + CSUM_OFFSET, true) : 0;
    this.rxCsumStart[k] = csumStart;
    this.rxCsumOffset[k] = csumOffset;
    this.rxGsoSize[k] = gsoType === GSO.NONE ? 0 : gsoSize;
    if (needsCsum) {
      if (csumStart < ETH_HEADER_SIZE) return false;
      if (csumStart + csumOffset + CHECKSUM_SIZE > length) return false;
    }
    if (gsoType === GSO.NONE) return true;
    if (!needsCsum || gsoSize === 0) return false; // virtio 1.1 §5.1.6.2
    return gsoType === GSO.TCPV4 || gsoType === GSO.TCPV6 || gsoType === GSO.UDP_L4;
  }

  /** Number of the frame that offset `off` belongs to. */
  #frameAt(off: number): number {
    return (off - this.#slots.rxOffset[0]) / this.#stride | 0;
  }

  /** As `Link.gather`. */
  gather(message: Message, piece: number, off: number, length: number): number {
    const k = this.#frameAt(off), { arena, rxOffset } = this.#slots;
    const skip = off - rxOffset[k];
    if (skip + length <= this.#copied[k]) {
      message.set(piece, arena, off, length);
      return 1;
    }
    const from = skip + VNET_HEADER_SIZE;
    return this.#pieces.point(this.#memory, this.#first[k], from, length, message, piece);
  }

  /** As `Link.fetch`. */
  fetch(off: number, length: number): void {
    const k = this.#frameAt(off), { arena, rxOffset } = this.#slots;
    const start = off - rxOffset[k], end = start + length, copied = this.#copied[k];
    if (end <= copied) return;
    const from = Math.max(start, copied); // what was checked is not read again
    const bytes = end - from;
    const skip = from + VNET_HEADER_SIZE;
    this.#pieces.load(this.#memory, this.#first[k], skip, bytes, arena, rxOffset[k] + from);
    if (start <= copied) this.#copied[k] = end;
  }

  /** As `Link.release`: the guest gets its buffers back. */
  release(): void {
    const queue = this.#queue;
    for (let k = 0; k < this.#taken; k++) queue.use(this.#heads[k], 0);
    this.#taken = 0;
    queue.publish();
  }

  /** @returns whether the guest is to be told of buffers it got back */
  flush(): boolean {
    return this.#queue.wantsCall();
  }
}

/** Whether the frame at `off` is TCP, with all headers within the first {@linkcode HEAD_SIZE} bytes. */
function isTcp(view: DataView, off: number): boolean {
  const ip = off + ETH_HEADER_SIZE;
  let l4 = 0;
  switch (etherType(view, off)) {
    case ETH_P_IP:
      if (view.getUint8(ip + IPV4_PROTOCOL) !== IPPROTO_TCP) return false;
      if (view.getUint16(ip + IPV4_FRAGMENT) & FRAGMENT_MASK) return false;
      l4 = ip + ipv4HeaderSize(view, ip);
      if (l4 < ip + IPV4_HEADER_SIZE) return false;
      break;
    case ETH_P_IPV6:
      if (view.getUint8(ip + IPV6_NEXT_HEADER) !== IPPROTO_TCP) return false;
      l4 = ip + IPV6_HEADER_SIZE;
      break;
    default:
      return false;
  }
  const header = tcpHeaderSize(view, l4);
  return header >= TCP_HEADER_SIZE && l4 + header <= off + HEAD_SIZE;
}
