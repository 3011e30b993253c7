// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The unused entries of a table, kept in free clusters.
 *
 * Theory of operation: neighbouring unused entries form a cluster. Its first entry, the head, carries
 * the number of entries `n` and the index of the `next` head, or the capacity when there is none; in
 * all other entries both words are zero. The chain of heads starts at {@linkcode FreeClusters.first} and
 * only ascends. Clusters may touch until the next scan merges them.
 *
 * An entry is taken from the front of the first cluster, so it is the lowest one. What was taken last
 * can be given back at once, as it lies before every cluster. Anything else is given back in a scan,
 * which goes through the table in ascending order and tells of each entry what it is (see
 * {@linkcode FreeClusters.beginScan}), while the chain is built anew behind it. At any moment the new
 * chain up to the current entry and the old one from there on make up the whole, so a scan can be
 * ended early.
 *
 * @module
 */

/** Chain of free clusters over an array of two words for each entry. */
export class FreeClusters {
  readonly #words: Int32Array;
  #first = 0;
  #head = -1; // scan: of the cluster that ends just before the current entry
  #last = -1; // scan: newest head of the new chain
  #rest = 0; // scan: the first head in the old chain that was not passed yet

  /** Makes one cluster of everything. `words` are zero; only those of entry 0 are touched. */
  constructor(words: Int32Array, capacity: number) {
    this.#words = words;
    this.#set(0, capacity, capacity);
  }

  /** First head, which is the lowest unused entry; the capacity when there is none. */
  get first(): number {
    return this.#first;
  }

  /** `n` of the cluster with head `i`; 0 when `i` is no head. */
  lengthOf(i: number): number {
    return this.#words[2 * i];
  }

  /** `next` of the cluster with head `i`; 0 when `i` is no head. */
  nextOf(i: number): number {
    return this.#words[2 * i + 1];
  }

  /** Takes the first unused entry. There must be one. */
  take(): number {
    const i = this.#first, n = this.#words[2 * i], next = this.#words[2 * i + 1];
    if (n > 1) this.#set(i + 1, n - 1, next);
    this.#first = n > 1 ? i + 1 : next;
    this.#set(i, 0, 0);
    return i;
  }

  /** Gives back the entry that was taken last, as a cluster of its own. */
  giveBack(i: number): void {
    this.#set(i, 1, this.#first);
    this.#first = i;
  }

  /**
   * Begins a scan. Then for each entry in ascending order call one of {@linkcode passCluster},
   * {@linkcode passUsed} and {@linkcode passFreed}, and {@linkcode endScan} at last.
   */
  beginScan(): void {
    this.#head = this.#last = -1;
    this.#rest = this.#first;
  }

  /** `i` is the head of a cluster. Returns its `n` entries, which are passed together. */
  passCluster(i: number): number {
    const n = this.#words[2 * i];
    this.#rest = this.#words[2 * i + 1];
    if (this.#head < 0) {
      this.#append(i);
    } else {
      this.#words[2 * this.#head] += n;
      this.#set(i, 0, 0);
    }
    return n;
  }

  /** The entry is in use. */
  passUsed(): void {
    this.#head = -1;
  }

  /** Entry `i` was in use and is not any more. */
  passFreed(i: number): void {
    if (this.#head < 0) {
      this.#append(i);
      this.#words[2 * i] = 1;
    } else {
      this.#words[2 * this.#head]++;
    }
  }

  /** Ends the scan, at the end of the table or early. */
  endScan(): void {
    this.#link(this.#rest);
  }

  #append(i: number): void {
    this.#link(i);
    this.#head = this.#last = i;
  }

  /** Makes `i` what follows the newest head of the new chain. */
  #link(i: number): void {
    if (this.#last < 0) this.#first = i;
    else this.#words[2 * this.#last + 1] = i;
  }

  #set(i: number, n: number, next: number): void {
    this.#words[2 * i] = n;
    this.#words[2 * i + 1] = next;
  }
}
