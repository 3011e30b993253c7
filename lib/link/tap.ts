// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A tap device as link: one frame per read(2) or write(2), each behind a virtio network header.
 *
 * Theory of operation: the header (IFF_VNET_HDR, linux/virtio_net.h) lets the guest's kernel hand us
 * TCP super-frames of up to 64 KiB whatever the MTU, with the checksum left undone, and take the same
 * from us. `hdr_len` is always set: the guest's kernel then copies only headers into the linear part of
 * its buffer, which doubles the speed of large frames. One call of {@linkcode TapLink.receive} stops
 * at a quarter megabyte, so that a batch stays in the processor's cache.
 *
 * @module
 */
import { E, SysError } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import type { Arena } from "../sys/arena.ts";
import { virtioNetHdrV1 } from "../sys/layout.ts";
import { type Offloads, VNET_HEADER_SIZE } from "../sys/tun.ts";
import { ETH_HEADER_SIZE } from "../wire/ethernet.ts";
import { EPOLL } from "../sys/epoll.ts";
import { ArenaLink } from "./arena_link.ts";
import { GSO, type Link, type LinkWatcher, SLOT_FRAME_SIZE } from "./link.ts";
import { Slots } from "./slots.ts";

/** Offsets of the header's fields, which are in host order on a tap. */
const { flags: FLAGS, gso_type: GSO_TYPE, hdr_len: HDR_LEN, gso_size: GSO_SIZE } =
  virtioNetHdrV1.at;
const { csum_start: CSUM_START, csum_offset: CSUM_OFFSET, num_buffers: NUM_BUFFERS } =
  virtioNetHdrV1.at;
const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
const VIRTIO_NET_HDR_GSO_ECN = 0x80;
const READ_SIZE = VNET_HEADER_SIZE + SLOT_FRAME_SIZE;
const BATCH_BYTES = 256 * 1024;
/** Receive slots: a batch of more does not fit the processor's cache. */
const RX_SLOTS = 16;

/** A link over a tap device opened with IFF_VNET_HDR and a 12-byte header. */
export class TapLink extends ArenaLink implements Link {
  readonly pending = false;
  readonly writable = true; // a full queue drops, as on any network
  readonly guests = 0;
  readonly arena: Arena;
  readonly tso: boolean;
  readonly uso: boolean;
  readonly rxOffset: Int32Array;
  readonly txOffset: Int32Array;
  readonly rxLength: Int32Array<ArrayBuffer> = new Int32Array(RX_SLOTS);
  readonly rxGsoSize: Int32Array<ArrayBuffer> = new Int32Array(RX_SLOTS);
  readonly rxCsumStart: Int32Array<ArrayBuffer> = new Int32Array(RX_SLOTS);
  readonly rxCsumOffset: Int32Array<ArrayBuffer> = new Int32Array(RX_SLOTS);
  readonly #fd: number;
  #watcher: LinkWatcher | null = null;
  readonly #rxView: Uint8Array<ArrayBuffer>[];
  readonly #txView: Uint8Array<ArrayBuffer>[];
  readonly #view: DataView;

  /**
   * @param fd non-blocking descriptor of the tap, owned by the link from now on
   * @param offloads what the kernel agreed to
   */
  constructor(fd: number, offloads: Pick<Offloads, "tso" | "uso">) {
    super();
    const slots = new Slots(VNET_HEADER_SIZE, RX_SLOTS);
    this.#fd = fd;
    this.tso = offloads.tso;
    this.uso = offloads.uso;
    this.arena = slots.arena;
    this.rxOffset = slots.rxOffset;
    this.txOffset = slots.txOffset;
    this.#rxView = slots.rxView;
    this.#txView = slots.txView;
    this.#view = slots.arena.dv;
  }

  watch(watcher: LinkWatcher): void {
    const result = watcher.add(this.#fd, EPOLL.IN, 0);
    if (result < 0) throw new SysError("epoll_ctl", "tap", -result);
    this.#watcher = watcher;
  }

  event(): boolean {
    return true;
  }

  receive(max: number): number {
    const most = Math.min(max, RX_SLOTS);
    let n = 0, bytes = 0;
    while (n < most && bytes < BATCH_BYTES) {
      const got = libc.read(this.#fd, this.#rxView[n], READ_SIZE);
      if (got < 0) {
        // EBADFD: the device was deleted (our descriptor keeps its namespace); others pass
        return n === 0 && errno() === E.EBADFD ? this.#gone() : n;
      }
      if (got < VNET_HEADER_SIZE + ETH_HEADER_SIZE) continue;
      this.#accept(n, got - VNET_HEADER_SIZE);
      bytes += got;
      n++;
    }
    return n;
  }

  /** The device was deleted: epoll would tell of that for ever. */
  #gone(): -1 {
    this.#watcher?.remove(this.#fd);
    return -1;
  }

  /** Takes the offload fields of the frame in slot `k` out of its virtio header. */
  #accept(k: number, length: number): void {
    const view = this.#view;
    const vnet = this.rxOffset[k] - VNET_HEADER_SIZE;
    const gsoType = view.getUint8(vnet + GSO_TYPE) & ~VIRTIO_NET_HDR_GSO_ECN;
    const needsCsum = view.getUint8(vnet + FLAGS) & VIRTIO_NET_HDR_F_NEEDS_CSUM;
    this.rxLength[k] = length;
    this.rxGsoSize[k] = gsoType === GSO.NONE ? 0 : view.getUint16(vnet + GSO_SIZE, true);
    this.rxCsumStart[k] = needsCsum ? view.getUint16(vnet + CSUM_START, true) : 0;
    this.rxCsumOffset[k] = view.getUint16(vnet + CSUM_OFFSET, true);
  }

  send(
    slot: number,
    length: number,
    headerLength: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number {
    const view = this.#view;
    const vnet = this.txOffset[slot] - VNET_HEADER_SIZE;
    view.setUint16(vnet, (csumStart ? VIRTIO_NET_HDR_F_NEEDS_CSUM : 0) | gsoType << 8, true);
    view.setUint16(vnet + HDR_LEN, headerLength, true);
    view.setUint16(vnet + GSO_SIZE, gsoSize, true);
    view.setUint16(vnet + CSUM_START, csumStart, true);
    view.setUint16(vnet + CSUM_OFFSET, csumOffset, true);
    view.setUint16(vnet + NUM_BUFFERS, 0, true);
    return libc.write(this.#fd, this.#txView[slot], VNET_HEADER_SIZE + length) < 0 ? -errno() : 0;
  }

  flush(): void {
    // every frame was written at once
  }

  close(): void {
    libc.close(this.#fd);
  }
}
