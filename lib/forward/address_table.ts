// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What is known of addresses for a while, in a table of fixed size.
 *
 * Theory of operation: an entry is a tag and an address. There are four places for each value of a hash; when
 * all are taken the one that expires first gives way. So nobody can make the table grow, and who floods it loses
 * what he knew himself. Nothing is allocated.
 *
 * @module
 */
import { sameAddress } from "../wire/address.ts";

/** Words of an entry: address, tag plus one (0: unused), second in which it expires. */
const WORDS = 6, TAG = 4, EXPIRES = 5;
/** Places per value of the hash. */
const WAYS = 4;
const MS_PER_SECOND = 1000;

/** FNV-1a of Fowler, Noll and Vo, 32 bits: prime and basis; every table mixes in a word of its own. */
export const FNV_PRIME = 0x01000193;
export const FNV_BASIS: number = 0x811c9dc5 | 0;

/** The table; places are 0 to its capacity - 1. */
export class AddressTable {
  readonly #sets: number;
  readonly #words: Int32Array<ArrayBuffer>;
  readonly #seed = crypto.getRandomValues(new Int32Array(1))[0];
  /** Whether the last {@linkcode AddressTable.put} has made an entry. */
  isNew = false;

  /** @param capacity entries that there is room for: a power of two, four at least */
  constructor(capacity: number) {
    this.#sets = capacity / WAYS;
    this.#words = new Int32Array(capacity * WORDS);
  }

  /** Where an entry is that has not expired; -1: nowhere. */
  find(tag: number, words: Int32Array, at: number, nowMs: number): number {
    const place = this.#find(tag, words, at);
    return place >= 0 && nowMs / MS_PER_SECOND < this.#words[place * WORDS + EXPIRES] ? place : -1;
  }

  /**
   * Puts an entry into the table, or prolongs it.
   *
   * @param expires second of the clock of `nowMs`
   * @returns its place
   */
  put(tag: number, words: Int32Array, at: number, expires: number): number {
    const entries = this.#words;
    let place = this.#find(tag, words, at);
    this.isNew = place < 0;
    if (this.isNew) {
      place = this.#oldest(this.#setOf(tag, words, at));
      for (let k = 0; k < 4; k++) entries[place * WORDS + k] = words[at + k];
      entries[place * WORDS + TAG] = tag + 1;
      entries[place * WORDS + EXPIRES] = expires;
    } else if (expires > entries[place * WORDS + EXPIRES]) {
      entries[place * WORDS + EXPIRES] = expires;
    }
    return place;
  }

  #find(tag: number, words: Int32Array, at: number): number {
    const entries = this.#words, first = this.#setOf(tag, words, at);
    for (let place = first; place < first + WAYS; place++) {
      const entry = place * WORDS;
      if (entries[entry + TAG] === tag + 1 && sameAddress(entries, entry, words, at)) return place;
    }
    return -1;
  }

  /** Of the places of one hash, the one that expires first; unused ones have expired at 0. */
  #oldest(first: number): number {
    const entries = this.#words;
    let oldest = first;
    for (let place = first; place < first + WAYS; place++) {
      if (entries[place * WORDS + EXPIRES] < entries[oldest * WORDS + EXPIRES]) oldest = place;
    }
    return oldest;
  }

  /** The first place that an entry can have. */
  #setOf(tag: number, words: Int32Array, at: number): number {
    let hash = this.#seed ^ FNV_BASIS ^ tag;
    for (let k = 0; k < 4; k++) hash = mix(Math.imul(hash ^ words[at + k], FNV_PRIME));
    return (hash >>> 0) % this.#sets * WAYS;
  }
}

/** Brings the upper bits, which a multiplication fills, down to the lower ones. */
function mix(hash: number): number {
  return hash ^ hash >>> 15;
}
