// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The driver's side of a split virtqueue over ordinary memory, as Linux does it
 * (drivers/virtio/virtio_ring.c, linux/virtio_ring.h), for tests of the device's side.
 *
 * @module
 */
import { Arena } from "../../../lib/sys/arena.ts";
import { vringUsed, vringUsedElem } from "../../../lib/sys/layout.ts";
import type { Windows } from "../../../lib/link/vhost/pieces.ts";
import {
  availBytes,
  descBytes,
  needEvent,
  type Ring,
  usedBytes,
  VRING_AVAIL_F_NO_INTERRUPT,
  VRING_DESC_F_INDIRECT,
  VRING_DESC_F_NEXT,
  VRING_DESC_F_WRITE,
  VRING_USED_F_NO_NOTIFY,
} from "../../../lib/link/vhost/queue.ts";

/** Guest address of the memory's first byte: the first page lies below 4 GiB, the rest above. */
export const GUEST_BASE = 0xfffff000;
const CANARY = 0xc7;
const CANARY_BYTES = 4096;
const HIGH = 0x100000000;

/** Some memory of a guest, seen through windows, with bytes around it that nobody may touch. */
export class TestMemory implements Windows {
  readonly arena: Arena;
  readonly views: DataView<ArrayBuffer>[] = [];
  readonly addresses: Float64Array;
  at = 0;
  room = 0;
  readonly #starts: number[];
  readonly #size: number;
  #free = 0;

  /**
   * @param size bytes
   * @param cuts offsets where another window begins
   */
  constructor(size: number, cuts: number[] = []) {
    this.#size = size;
    this.arena = new Arena(size + 2 * CANARY_BYTES);
    this.arena.u8.fill(CANARY, 0, CANARY_BYTES);
    this.arena.u8.fill(CANARY, CANARY_BYTES + size);
    this.#starts = [0, ...cuts];
    this.addresses = Float64Array.from(
      this.#starts,
      (start) => this.arena.address(CANARY_BYTES + start),
    );
    this.#starts.forEach((start, k) =>
      this.views.push(
        new DataView(
          this.arena.u8.buffer,
          CANARY_BYTES + start,
          (this.#starts[k + 1] ?? size) - start,
        ),
      )
    );
  }

  locate(low: number, high: number): number {
    const off = (high >>> 0) * HIGH + (low >>> 0) - GUEST_BASE;
    if (off < 0 || off >= this.#size) return -1;
    let k = this.#starts.length - 1;
    while (this.#starts[k] > off) k--;
    this.at = off - this.#starts[k];
    this.room = this.views[k].byteLength - this.at;
    return k;
  }

  /** Bytes of the guest's memory, from `off` on. */
  bytes(off: number, length: number): Uint8Array<ArrayBuffer> {
    return this.arena.view(CANARY_BYTES + off, length);
  }

  /** Sets some memory aside. @returns its offset */
  alloc(bytes: number, align = 16): number {
    const off = Math.ceil(this.#free / align) * align;
    this.#free = off + bytes;
    if (this.#free > this.#size) throw new RangeError("The guest's memory is used up");
    return off;
  }

  /** Sets memory aside from `off` on again, as if all of it was free. */
  reset(off: number): void {
    this.#free = off;
  }

  /** Whether nothing was written outside. */
  intact(): boolean {
    const { u8 } = this.arena;
    return u8.subarray(0, CANARY_BYTES).every((byte) => byte === CANARY) &&
      u8.subarray(CANARY_BYTES + this.#size).every((byte) => byte === CANARY);
  }
}

/** One buffer of a chain. */
export interface Buffer {
  /** Offset in the memory. */
  off: number;
  length: number;
  write?: boolean;
}

/** The driver. */
export class Driver {
  readonly ring: Ring;
  readonly desc: DataView<ArrayBuffer>;
  readonly avail: Uint16Array<ArrayBuffer>;
  readonly used: Uint16Array<ArrayBuffer>;
  readonly usedWords: Uint32Array<ArrayBuffer>;
  readonly memory: TestMemory;
  /** As in struct vring_virtqueue: shadow of the available index, what was added since the last kick. */
  availIndex: number;
  lastUsed: number;
  #added = 0;
  #free: number[] = [];
  readonly #chains = new Map<number, number[]>();

  constructor(
    memory: TestMemory,
    size: number,
    options: { eventIdx?: boolean; indirect?: boolean; base?: number } = {},
  ) {
    const { eventIdx = true, indirect = true, base = 0 } = options;
    this.memory = memory;
    const place = (bytes: number) => memory.bytes(memory.alloc(bytes, 64), bytes);
    const [desc, avail, used] = [descBytes(size), availBytes(size), usedBytes(size)].map(place);
    this.ring = { size, desc, avail, used, base, eventIdx, indirect };
    this.desc = new DataView(desc.buffer, desc.byteOffset, desc.length);
    this.avail = new Uint16Array(avail.buffer, avail.byteOffset, avail.length / 2);
    this.used = new Uint16Array(used.buffer, used.byteOffset, used.length / 2);
    this.usedWords = new Uint32Array(used.buffer, used.byteOffset, used.length >> 2);
    this.availIndex =
      this.lastUsed =
      this.avail[1] =
      this.used[1] =
        base;
    for (let k = size - 1; k >= 0; k--) this.#free.push(k);
  }

  /** Descriptors not in use. */
  get free(): number {
    return this.#free.length;
  }

  /** Writes one descriptor to `table`, unchecked. */
  describe(
    table: DataView,
    k: number,
    address: number,
    length: number,
    flags: number,
    next: number,
  ): void {
    table.setUint32(k * 16, address % HIGH, true);
    table.setUint32(k * 16 + 4, Math.floor(address / HIGH), true);
    table.setUint32(k * 16 + 8, length, true);
    table.setUint16(k * 16 + 12, flags, true);
    table.setUint16(k * 16 + 14, next, true);
  }

  #chain(table: DataView, places: number[], buffers: Buffer[]): void {
    buffers.forEach(({ off, length, write }, k) => {
      const flags = (write ? VRING_DESC_F_WRITE : 0) |
        (k + 1 < buffers.length ? VRING_DESC_F_NEXT : 0);
      this.describe(table, places[k], GUEST_BASE + off, length, flags, places[k + 1] ?? 0);
    });
  }

  /** Makes a chain available (virtqueue_add()). @returns its first descriptor, -1: no room */
  add(buffers: Buffer[], indirect = false): number {
    const places = this.#free.splice(-(indirect ? 1 : buffers.length)).reverse();
    if (places.length < (indirect ? 1 : buffers.length)) {
      this.#free.push(...places.reverse());
      return -1;
    }
    if (indirect) {
      const off = this.memory.alloc(16 * buffers.length), bytes = 16 * buffers.length;
      const memory = this.memory.bytes(off, bytes);
      const table = new DataView(memory.buffer, memory.byteOffset, bytes);
      this.#chain(table, buffers.map((_, k) => k), buffers);
      this.describe(this.desc, places[0], GUEST_BASE + off, bytes, VRING_DESC_F_INDIRECT, 0);
    } else this.#chain(this.desc, places, buffers);
    this.#chains.set(places[0], places);
    this.offer(places[0]);
    return places[0];
  }

  /** Puts `head` in the available ring. */
  offer(head: number): void {
    this.avail[2 + this.availIndex % this.ring.size] = head;
    this.availIndex = (this.availIndex + 1) & 0xffff;
    this.#added++;
    Atomics.store(this.avail, 1, this.availIndex);
  }

  /** Whether the device is to be kicked (virtqueue_kick_prepare()). */
  kicks(): boolean {
    const now = this.availIndex, old = (now - this.#added) & 0xffff;
    this.#added = 0;
    if (this.ring.eventIdx) return needEvent(this.availEvent, now, old);
    return !(Atomics.load(this.used, 0) & VRING_USED_F_NO_NOTIFY);
  }

  /** Where the device wants to be kicked. */
  get availEvent(): number {
    return Atomics.load(this.used, (vringUsed.size + vringUsedElem.size * this.ring.size) / 2);
  }

  /** Takes a used chain (virtqueue_get_buf()). */
  take(): { head: number; length: number } | null {
    if (Atomics.load(this.used, 1) === this.lastUsed) return null;
    const at = 1 + this.lastUsed % this.ring.size * 2;
    const [head, length] = [this.usedWords[at], this.usedWords[at + 1]];
    this.lastUsed = (this.lastUsed + 1) & 0xffff;
    const places = this.#chains.get(head);
    if (!places) throw new Error(`Descriptor ${head} was not available`);
    this.#chains.delete(head);
    this.#free.push(...places.reverse());
    return { head, length };
  }

  /** Takes all used chains. */
  takeAll(): { head: number; length: number }[] {
    const all = [];
    for (let one = this.take(); one; one = this.take()) all.push(one);
    return all;
  }

  /** Wants an interrupt for the next used chain (virtqueue_enable_cb()). */
  enableCalls(at = this.lastUsed): void {
    if (this.ring.eventIdx) Atomics.store(this.avail, 2 + this.ring.size, at);
    else Atomics.store(this.avail, 0, 0);
  }

  /** Wants none. */
  disableCalls(): void {
    Atomics.store(this.avail, 0, VRING_AVAIL_F_NO_INTERRUPT);
  }
}
