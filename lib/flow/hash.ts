// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The index that finds a side of a flow by protocol, interface, addresses and ports.
 *
 * Theory of operation: open addressing with linear probing over slots of two words, the side's number
 * plus one (0: empty) and the lower 32 bits of its SipHash-2-4. There are enough slots that even with
 * both sides of every flow in the index no more than {@linkcode MAX_LOAD} of them are used. A slot's
 * home is hash × slots / 2³², which needs no power of two. Comparing hashes first means that almost
 * only the side that is looked for is touched in the flow table. Removing shifts the slots that
 * follow back towards their homes, so there are no tombstones and lookups never get slower with age.
 *
 * @module
 */
import { KEY_WORDS, siphash24 } from "./siphash.ts";
import { SIDE_PIF, SIDE_PORTS, SIDE_WORDS } from "./side.ts";

/** Largest share of slots in use. */
export const MAX_LOAD = 0.7;

const ADDRESS_BLOCKS = 4; // two addresses of 16 bytes, 8 bytes per SipHash block
const MESSAGE_BYTES = 38; // two addresses, two ports, interface and protocol of one byte each
const TWO_32 = 0x1_0000_0000;

/** Finds sides that lie as {@linkcode SIDE_WORDS} words each in an array that its owner keeps. */
export class SideIndex {
  /** Number of slots. */
  readonly size: number;
  #count = 0;
  readonly #key: Int32Array<ArrayBuffer>;
  readonly #slots: Int32Array<ArrayBuffer>;
  readonly #sides: Int32Array;
  readonly #protoOf: (sidx: number) => number;

  /**
   * @param sides words of all sides; side `sidx` starts at `sidx * SIDE_WORDS`
   * @param capacity largest number of sides in the index
   * @param protoOf IP protocol number of a side in the index
   * @param key {@linkcode KEY_WORDS} words; random unless given (for tests only)
   */
  constructor(
    sides: Int32Array,
    capacity: number,
    protoOf: (sidx: number) => number,
    key: Int32Array<ArrayBuffer> = crypto.getRandomValues(new Int32Array(KEY_WORDS)),
  ) {
    if (key.length !== KEY_WORDS) throw new RangeError(`A hash key has ${KEY_WORDS} words`);
    this.size = Math.ceil(capacity / MAX_LOAD);
    this.#sides = sides;
    this.#protoOf = protoOf;
    this.#key = key.slice();
    this.#slots = new Int32Array(2 * this.size);
  }

  /** Number of sides in the index. */
  get count(): number {
    return this.#count;
  }

  /** Adds a side. It must not be in the index; equal keys are allowed, any of them is found. */
  insert(sidx: number): void {
    const slots = this.#slots;
    const hash = this.#hash(this.#protoOf(sidx), this.#sides, sidx * SIDE_WORDS);
    let slot = this.#home(hash);
    while (slots[2 * slot] !== 0) slot = this.#after(slot);
    slots[2 * slot] = sidx + 1;
    slots[2 * slot + 1] = hash;
    this.#count++;
  }

  /**
   * Takes a side out. Its words must still be those it was added with.
   *
   * @returns false when it was not there
   */
  remove(sidx: number): boolean {
    const slots = this.#slots;
    const hash = this.#hash(this.#protoOf(sidx), this.#sides, sidx * SIDE_WORDS);
    let slot = this.#home(hash);
    while (slots[2 * slot] !== sidx + 1) {
      if (slots[2 * slot] === 0) return false;
      slot = this.#after(slot);
    }
    this.#closeGap(slot);
    this.#count--;
    return true;
  }

  /**
   * Finds a side.
   *
   * @param proto IP protocol number
   * @param key the side's words, {@linkcode SIDE_WORDS}
   * @returns number of the side, or -1
   */
  find(proto: number, key: Int32Array): number {
    const slots = this.#slots;
    const hash = this.#hash(proto, key, 0);
    let slot = this.#home(hash);
    for (;;) {
      const entry = slots[2 * slot];
      if (entry === 0) return -1;
      if (slots[2 * slot + 1] === hash && this.#same(entry - 1, proto, key)) return entry - 1;
      slot = this.#after(slot);
    }
  }

  /** SipHash-2-4 of addresses, ports, interface and protocol. */
  #hash(proto: number, words: Int32Array, at: number): number {
    const tail = MESSAGE_BYTES << 24 | proto << 8 | words[at + SIDE_PIF];
    return siphash24(this.#key, words, at, ADDRESS_BLOCKS, words[at + SIDE_PORTS], tail);
  }

  #home(hash: number): number {
    return (hash >>> 0) * this.size / TWO_32 | 0;
  }

  #after(slot: number): number {
    return slot + 1 === this.size ? 0 : slot + 1;
  }

  #same(sidx: number, proto: number, key: Int32Array): boolean {
    const sides = this.#sides, at = sidx * SIDE_WORDS;
    for (let k = 0; k < SIDE_WORDS; k++) {
      if (sides[at + k] !== key[k]) return false;
    }
    return this.#protoOf(sidx) === proto;
  }

  /** Empties a slot: what follows moves up unless that would put it before its home. */
  #closeGap(gap: number): void {
    const slots = this.#slots, { size } = this;
    let slot = this.#after(gap);
    for (; slots[2 * slot] !== 0; slot = this.#after(slot)) {
      const home = this.#home(slots[2 * slot + 1]);
      const fromHome = slot >= home ? slot - home : slot - home + size;
      const fromGap = slot >= gap ? slot - gap : slot - gap + size;
      if (fromHome < fromGap) continue;
      slots[2 * gap] = slots[2 * slot];
      slots[2 * gap + 1] = slots[2 * slot + 1];
      gap = slot;
    }
    slots[2 * gap] = 0;
  }
}
