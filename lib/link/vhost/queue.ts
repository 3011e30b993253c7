// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * One split virtqueue, seen from the device (virtio 1.1 §2.6).
 *
 * Theory of operation: the driver puts the index of a chain's first descriptor in the *available* ring
 * and raises its index; the device walks the chain, uses its buffers, and puts the same number, with how many
 * bytes it has written, in the *used* ring. Indices count up to 65535 and on from 0.
 *
 * The driver is not trusted. It may write to all of this memory at any time, so each field is read
 * once, and what was read is checked before it is used: a chain may not leave the guest's memory, run
 * in circles, or be longer than the ring. Who breaks the rules has a {@linkcode Queue.broken} queue,
 * which is not touched any more until it is started anew.
 *
 * Order in memory: the available index is read before the ring's entries (`Atomics.load`, an acquiring
 * read), the used index is written after the used entries (`Atomics.store`, a releasing write).
 * Whether the other side wants to be told of something is looked up after a full barrier, which a
 * store and a load of `Atomics` give, as both are sequentially consistent; the same holds for asking
 * to be told, and looking once more.
 *
 * @module
 */
import { vringAvail, vringDesc, vringUsed, vringUsedElem } from "../../sys/layout.ts";
import { type Pieces, type Windows } from "./pieces.ts";

/** Descriptor flags (linux/virtio_ring.h). */
export const VRING_DESC_F_NEXT = 1;
export const VRING_DESC_F_WRITE = 2;
export const VRING_DESC_F_INDIRECT = 4;
/** "Do not kick" and "do not interrupt" (linux/virtio_ring.h). */
export const VRING_USED_F_NO_NOTIFY = 1;
export const VRING_AVAIL_F_NO_INTERRUPT = 1;
/** The largest ring of a split virtqueue (virtio 1.1 §2.6). */
export const MAX_QUEUE_SIZE = 32768;
/** The largest number of buffers in one chain, more than any driver makes. */
export const MAX_CHAIN = 1024;

const { addr: DESC_ADDR, len: DESC_LEN, flags: DESC_FLAGS } = vringDesc.at;
const DESC_SIZE = vringDesc.size;
const WORD_BYTES = 4, HALF_BYTES = 2;
/** Indices of 16-bit fields. */
const FLAGS = vringAvail.at.flags / HALF_BYTES, IDX = vringAvail.at.idx / HALF_BYTES;
const AVAIL_RING = vringAvail.size / HALF_BYTES;
const USED_RING = vringUsed.size / WORD_BYTES;
const USED_ELEM = vringUsedElem.size / WORD_BYTES;
/** Alignments that the rings need (virtio 1.1 §2.6). */
const DESC_ALIGN = 16, AVAIL_ALIGN = 2, USED_ALIGN = 4;
/** Of `used_event` and `avail_event`, behind the rings' entries (linux/virtio_ring.h). */
const EVENT_SIZE = 2;
const INDEX_MASK = 0xffff;
/** Where the count of a chain's bytes stops: more than any frame. */
const MANY_BYTES = 1 << 30;
const WORD_RANGE = 0x100000000;

/** Bytes of the descriptor table of a ring of `size`. */
export function descBytes(size: number): number {
  return DESC_SIZE * size;
}

/** Bytes of the available ring of `size`, `used_event` included. */
export function availBytes(size: number): number {
  return vringAvail.size + HALF_BYTES * size + EVENT_SIZE;
}

/** Bytes of the used ring of `size`, `avail_event` included. */
export function usedBytes(size: number): number {
  return vringUsed.size + vringUsedElem.size * size + EVENT_SIZE;
}

/** Where a ring lies, and what was agreed on. */
export interface Ring {
  /** Number of descriptors, a power of two. */
  size: number;
  /** Descriptor table, {@linkcode descBytes} long. */
  desc: Uint8Array<ArrayBuffer>;
  /** Available ring, {@linkcode availBytes} long. */
  avail: Uint8Array<ArrayBuffer>;
  /** Used ring, {@linkcode usedBytes} long. */
  used: Uint8Array<ArrayBuffer>;
  /** The available index to go on from. */
  base: number;
  /** VIRTIO_RING_F_EVENT_IDX. */
  eventIdx: boolean;
  /** VIRTIO_RING_F_INDIRECT_DESC. */
  indirect: boolean;
}

/** What is wrong with a ring's place, or "". */
function refusal({ size, desc, avail, used }: Ring): string {
  if (size < 1 || size > MAX_QUEUE_SIZE || (size & (size - 1)) !== 0) return "bad ring size";
  if (desc.length < descBytes(size) || avail.length < availBytes(size)) return "ring too short";
  if (used.length < usedBytes(size)) return "ring too short";
  const aligned = desc.byteOffset % DESC_ALIGN === 0 && avail.byteOffset % AVAIL_ALIGN === 0 &&
    used.byteOffset % USED_ALIGN === 0;
  return aligned ? "" : "ring not aligned";
}

const NO_HALVES = new Uint16Array(0), NO_WORDS = new Int32Array(0);
const NO_VIEW = new DataView(new ArrayBuffer(0));

/**
 * The device's side of a ring.
 *
 * Chains that are available and not taken yet are named by their distance (`ahead`) from the oldest.
 * They may be looked at with {@linkcode walk} any number of times before {@linkcode advance} takes them.
 *
 * @example
 * ```ts
 * import { GuestMemory } from "./memory.ts";
 * import { Pieces } from "./pieces.ts";
 * import { availBytes, descBytes, Queue, usedBytes } from "./queue.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const queue = new Queue(new GuestMemory()); // a guest without memory
 * const avail = new Uint8Array(availBytes(4)), used = new Uint8Array(usedBytes(4));
 * const ring = { size: 4, desc: new Uint8Array(descBytes(4)), avail, used, base: 0 };
 * assertEquals(queue.start({ ...ring, eventIdx: false, indirect: false }), "");
 * assert(!queue.has(0));
 * new DataView(ring.desc.buffer).setUint32(8, 100, true); // 100 bytes at 0
 * avail[2] = 1;
 * assert(queue.has(0) && !queue.walk(0, 0, new Pieces(8)));
 * assertEquals(queue.broken, "buffer outside the guest's memory");
 * ```
 */
export class Queue {
  /** Started and not broken. */
  running = false;
  /** Why nothing is done any more; "": all is well. */
  broken = "";
  /** Of the chain walked last: the first descriptor's index. */
  head = 0;
  /** Of the chain walked last: bytes in all its buffers, at most 1 GiB. */
  bytes = 0;
  /** Of the chain walked last: descriptors of the ring that it takes. */
  descriptors = 0;
  /** Descriptors that the ring has. */
  size = 0;
  readonly #memory: Windows;
  #desc: DataView = NO_VIEW;
  #avail: Uint16Array = NO_HALVES;
  #usedHalves: Uint16Array = NO_HALVES;
  #used: Int32Array = NO_WORDS;
  #usedEvent = 0;
  #availEvent = 0;
  #eventIdx = false;
  #indirect = false;
  /** Index of the oldest chain not taken, and how many are known to be available from it on. */
  #next = 0;
  #ready = 0;
  /** Index of the next used entry, as published, and as it was when the driver was told last. */
  #usedNext = 0;
  #published = 0;
  #told = 0;
  #toldOnce = false;
  #quiet = false;
  /** Window of the indirect table found last. */
  #table = 0;

  /** @param memory what the addresses in descriptors mean */
  constructor(memory: Windows) {
    this.#memory = memory;
  }

  /**
   * Begins to use a ring. Makes its views; allocates.
   *
   * @returns "", or why the ring is refused
   */
  start(ring: Ring): string {
    const wrong = refusal(ring);
    if (wrong !== "") return wrong;
    const { size, desc, avail, used } = ring;
    this.size = size;
    this.#desc = new DataView(desc.buffer, desc.byteOffset, descBytes(size));
    this.#avail = new Uint16Array(avail.buffer, avail.byteOffset, availBytes(size) / HALF_BYTES);
    this.#usedHalves = new Uint16Array(used.buffer, used.byteOffset, usedBytes(size) / HALF_BYTES);
    this.#used = new Int32Array(used.buffer, used.byteOffset, usedBytes(size) / WORD_BYTES | 0);
    this.#usedEvent = AVAIL_RING + size;
    this.#availEvent = (vringUsed.size + vringUsedElem.size * size) / HALF_BYTES;
    this.#eventIdx = ring.eventIdx;
    this.#indirect = ring.indirect;
    this.#next = ring.base & INDEX_MASK;
    this.#ready = 0;
    this.#usedNext = this.#published = this.#told = Atomics.load(this.#usedHalves, IDX);
    this.#toldOnce = this.#quiet = false;
    this.broken = "";
    this.running = true;
    return "";
  }

  /**
   * Ends the use of the ring: publishes what was used, and forgets its memory.
   *
   * @returns the available index that {@linkcode start} is to go on from
   */
  stop(): number {
    if (this.running) this.publish();
    this.running = false;
    this.#ready = 0;
    this.#desc = NO_VIEW;
    this.#avail = this.#usedHalves = NO_HALVES;
    this.#used = NO_WORDS;
    return this.#next;
  }

  /** Whether the chain `ahead` is available. */
  has(ahead: number): boolean {
    return ahead < this.#ready || this.running && this.#look() > ahead;
  }

  /** Reads the available index. @returns number of chains available */
  #look(): number {
    const ready = (Atomics.load(this.#avail, IDX) - this.#next) & INDEX_MASK;
    if (ready > this.size) {
      this.fail("more chains than descriptors are available");
      return 0;
    }
    this.#ready = ready;
    return ready;
  }

  /** Stops the queue for a violation of the ring's rules. @returns false */
  fail(reason: string): false {
    this.broken = reason;
    this.running = false;
    this.#ready = 0;
    return false;
  }

  /**
   * Walks the chain `ahead`, which must be available, and adds its buffers to `pieces`.
   *
   * @param direction what the chain must be: 0 (to be read) or {@linkcode VRING_DESC_F_WRITE}
   * @returns whether all is well with it; if not, the queue is broken
   */
  walk(ahead: number, direction: number, pieces: Pieces): boolean {
    const most = pieces.count + MAX_CHAIN;
    let view = this.#desc, base = 0, limit = this.size, steps = 0, nested = false;
    let index = this.#avail[AVAIL_RING + ((this.#next + ahead) & (limit - 1))];
    this.head = index;
    this.bytes = this.descriptors = 0;
    for (;;) {
      if (index >= limit) return this.fail("descriptor beyond the table");
      if (++steps > limit) return this.fail("descriptors in a circle");
      const at = base + index * DESC_SIZE;
      const low = view.getInt32(at + DESC_ADDR, true);
      const high = view.getInt32(at + DESC_ADDR + WORD_BYTES, true);
      const length = view.getInt32(at + DESC_LEN, true);
      const meta = view.getInt32(at + DESC_FLAGS, true); // flags and next
      if (!nested) this.descriptors = steps;
      if (meta & VRING_DESC_F_INDIRECT) {
        if (nested || !this.#openTable(low, high, length, meta)) {
          return this.fail("bad indirect descriptor");
        }
        view = this.#memory.views[this.#table];
        base = this.#memory.at;
        limit = length / DESC_SIZE;
        index = steps = 0;
        nested = true;
        continue;
      }
      if ((meta & VRING_DESC_F_WRITE) !== direction) {
        return this.fail("buffer of a wrong direction");
      }
      if (!this.#add(low, high, length, most, pieces)) return false;
      if (!(meta & VRING_DESC_F_NEXT)) return true;
      index = meta >>> 16;
    }
  }

  /** Finds an indirect table (virtio 1.1 §2.6.5.3). @returns whether it is one */
  #openTable(low: number, high: number, length: number, meta: number): boolean {
    if (!this.#indirect || meta & VRING_DESC_F_NEXT) return false;
    if (length <= 0 || length % DESC_SIZE !== 0 || length > descBytes(this.size)) return false;
    this.#table = this.#memory.locate(low, high);
    return this.#table >= 0 && this.#memory.room >= length;
  }

  /** Adds one buffer, in as many pieces as it has windows. */
  #add(low: number, high: number, length: number, most: number, pieces: Pieces): boolean {
    const memory = this.#memory;
    let left = length >>> 0;
    if (left === 0) return this.fail("empty buffer");
    for (;;) {
      const window = memory.locate(low, high);
      if (window < 0) return this.fail("buffer outside the guest's memory");
      if (pieces.count === most) return this.fail("chain too long");
      const bytes = Math.min(left, memory.room);
      pieces.add(window, memory.at, bytes);
      this.bytes = Math.min(this.bytes + bytes, MANY_BYTES);
      left -= bytes;
      if (left === 0) return true;
      const sum = (low >>> 0) + bytes;
      if (sum >= WORD_RANGE) high = (high + 1) | 0;
      low = sum | 0;
    }
  }

  /** Takes the `count` oldest chains. */
  advance(count: number): void {
    this.#next = (this.#next + count) & INDEX_MASK;
    this.#ready -= count;
  }

  /** Notes that the chain that begins with `head` was used, and `length` bytes written to it. */
  use(head: number, length: number): void {
    if (!this.running) return;
    const at = USED_RING + (this.#usedNext & (this.size - 1)) * USED_ELEM;
    this.#used[at] = head;
    this.#used[at + 1] = length;
    this.#usedNext = (this.#usedNext + 1) & INDEX_MASK;
  }

  /** Lets the driver see the chains used. */
  publish(): void {
    if (this.#published === this.#usedNext || !this.running) return;
    this.#published = this.#usedNext;
    Atomics.store(this.#usedHalves, IDX, this.#published);
  }

  /** Whether the driver wants to be told of what was published since it was asked last. */
  wantsCall(): boolean {
    const old = this.#told, now = this.#published;
    if (old === now || !this.running) return false;
    this.#told = now;
    if (!this.#eventIdx) return !(Atomics.load(this.#avail, FLAGS) & VRING_AVAIL_F_NO_INTERRUPT);
    if (!this.#toldOnce) return this.#toldOnce = true; // what was told before start() is unknown
    return needEvent(Atomics.load(this.#avail, this.#usedEvent), now, old);
  }

  /** Whether chains have been added since {@linkcode watch} or {@linkcode has} looked. */
  hasGrown(): boolean {
    const known = this.#ready;
    return this.running && this.#look() !== known;
  }

  /** Asks the driver not to kick: the ring is looked at anyway. A hint. */
  unwatch(): void {
    if (this.#eventIdx || this.#quiet || !this.running) return; // an index passed long ago is quiet
    this.#quiet = true;
    Atomics.store(this.#usedHalves, FLAGS, VRING_USED_F_NO_NOTIFY);
  }

  /**
   * Asks the driver to kick when it adds another chain.
   *
   * @returns whether it has added one meanwhile, and there may be no kick
   */
  watch(): boolean {
    if (!this.running) return false;
    const known = this.#ready;
    if (this.#eventIdx) {
      const index = (this.#next + known) & INDEX_MASK;
      Atomics.store(this.#usedHalves, this.#availEvent, index);
    } else {
      this.#quiet = false;
      Atomics.store(this.#usedHalves, FLAGS, 0);
    }
    return this.#look() !== known;
  }
}

/** Whether `event` lies among the indices from `old` to `now` - 1 (linux/virtio_ring.h). */
export function needEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & INDEX_MASK) < ((now - old) & INDEX_MASK);
}
