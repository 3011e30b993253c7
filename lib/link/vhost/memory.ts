// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The guest's memory, as the front-end has described it: regions of files that are mapped here.
 *
 * Theory of operation: guest addresses have 64 bits and come as two words, so that no BigInt and no
 * floating-point number is made of them where packets pass. A region is seen through *windows* of
 * {@linkcode WINDOW} bytes, in which every offset is a small integer; each view reaches a bit into the next
 * window, so that a buffer is hardly ever cut in two. Two regions are never joined, even where one
 * follows the other.
 *
 * Nothing in a table is trusted: sizes and sums are checked against 64 bits, against each other and
 * against the size of the files ({@linkcode SharedMapping}). A new table replaces the old one only when all
 * of it could be mapped.
 *
 * @module
 */
import { PAGE_SIZE } from "../../sys/arena.ts";
import { E, SysError } from "../../sys/errno.ts";
import { SharedMapping } from "../../sys/shared_memory.ts";

/** The largest number of regions (vhost-user, SET_MEM_TABLE). */
export const MAX_REGIONS = 8;
const WINDOW_BITS = 30;
/** Bytes from one window's beginning to the next. */
export const WINDOW: number = 1 << WINDOW_BITS;
/** Bytes by which a window reaches into the next one of its region. */
export const OVERLAP = 1 << 16;
/** Windows in 4 GiB, which the high word of a distance counts. */
const WINDOWS_PER_HIGH = 1 << (32 - WINDOW_BITS);
/** All regions together: more than any guest has. */
const MAX_BYTES = 1n << 44n;
const ADDRESSES = 1n << 64n;

/** One region, as in a message (vhost-user, "Memory region description"). */
export interface RegionDescription {
  readonly guestAddress: bigint;
  readonly size: bigint;
  /** The address in the front-end's own memory, in terms of which rings are placed. */
  readonly userAddress: bigint;
  /** Where in the file the region begins. */
  readonly mmapOffset: bigint;
}

interface Region extends RegionDescription {
  readonly mapping: SharedMapping;
}

/** What a table does wrong whatever its files are; empty: nothing. */
function tableProblem(table: readonly RegionDescription[]): string {
  if (table.length > MAX_REGIONS) return `${table.length} regions`;
  let total = 0n;
  for (const { guestAddress, size, userAddress, mmapOffset } of table) {
    if (size === 0n) return "an empty region";
    const highest = guestAddress > userAddress ? guestAddress : userAddress;
    if (highest + size > ADDRESSES || mmapOffset + size >= ADDRESSES) return "a region that wraps";
    total += size;
  }
  if (total > MAX_BYTES) return `${total} bytes of memory`;
  const sorted = [...table].sort((a, b) => a.guestAddress < b.guestAddress ? -1 : 1);
  const overlap = sorted.some((region, k) =>
    k > 0 && sorted[k - 1].guestAddress + sorted[k - 1].size > region.guestAddress
  );
  return overlap ? "regions that overlap" : "";
}

/**
 * The memory of one guest; empty until {@linkcode GuestMemory.set}.
 *
 * Arrays are replaced by a new table: whoever keeps one, or an element, lets go of it before.
 */
export class GuestMemory {
  /** Per window: its bytes. */
  views: DataView<ArrayBuffer>[] = [];
  /** Per window: the address of its first byte, for iovecs. */
  addresses: Float64Array<ArrayBuffer> = new Float64Array(0);
  /** Left by {@linkcode locate}: offset in the window. */
  at = 0;
  /** Left by {@linkcode locate}: bytes from there to the window's end, at least 1. */
  room = 0;

  #regions: Region[] = [];
  #lengths = new Int32Array(0); // per window: its bytes
  // per region: guest address and size as two words, and its first window
  readonly #low = new Int32Array(MAX_REGIONS);
  readonly #high = new Int32Array(MAX_REGIONS);
  readonly #sizeLow = new Int32Array(MAX_REGIONS);
  readonly #sizeHigh = new Int32Array(MAX_REGIONS);
  readonly #first = new Int32Array(MAX_REGIONS);

  /** Number of regions. */
  get count(): number {
    return this.#regions.length;
  }

  /**
   * Replaces all regions. Nothing changes when the new ones are refused.
   *
   * @param table at most {@linkcode MAX_REGIONS}
   * @param fds a file for each; they stay open, and are the caller's
   * @throws SysError EINVAL when they contradict each other; as {@linkcode SharedMapping}
   */
  set(table: readonly RegionDescription[], fds: ArrayLike<number>): void {
    const problem = tableProblem(table);
    if (problem !== "") throw new SysError("mmap", problem, E.EINVAL);
    const regions: Region[] = [];
    try {
      for (const [k, region] of table.entries()) {
        const mapping = new SharedMapping(fds[k], { offset: region.mmapOffset, size: region.size });
        regions.push({ ...region, mapping });
      }
    } catch (error) {
      for (const { mapping } of regions) mapping.unmap();
      throw error;
    }
    this.#replace(regions);
  }

  /** Gives all memory back. */
  clear(): void {
    this.#replace([]);
  }

  #replace(regions: Region[]): void {
    const old = this.#regions;
    this.#regions = regions;
    this.views = [];
    const lengths: number[] = [], addresses: number[] = [];
    for (const [k, { guestAddress, size, mapping }] of regions.entries()) {
      this.#low[k] = Number(BigInt.asIntN(32, guestAddress));
      this.#high[k] = Number(BigInt.asIntN(32, guestAddress >> 32n));
      this.#sizeLow[k] = Number(BigInt.asIntN(32, size));
      this.#sizeHigh[k] = Number(size >> 32n);
      this.#first[k] = lengths.length;
      for (let at = 0, left = Number(size); left > 0; at += WINDOW, left -= WINDOW) {
        const length = Math.min(left, WINDOW + OVERLAP);
        this.views.push(new DataView(mapping.buffer(at, length)));
        lengths.push(length);
        addresses.push(mapping.address + at);
      }
    }
    this.#lengths = Int32Array.from(lengths);
    this.addresses = Float64Array.from(addresses);
    for (const { mapping } of old) mapping.unmap();
  }

  /**
   * Finds a guest address, given as two words (signed or not).
   *
   * @returns the window; the offset in it is left in {@linkcode at}, the bytes from there on that are in
   *   the window in {@linkcode room}. -1: no region has that address
   */
  locate(low: number, high: number): number {
    for (let k = 0; k < this.#regions.length; k++) {
      const distance = (low - this.#low[k]) | 0;
      const borrow = (low >>> 0) < (this.#low[k] >>> 0) ? 1 : 0;
      const above = (high - this.#high[k] - borrow) | 0;
      const most = this.#sizeHigh[k];
      const inside = (above >>> 0) < most ||
        above === most && (distance >>> 0) < (this.#sizeLow[k] >>> 0);
      if (!inside) continue;
      const window = this.#first[k] + above * WINDOWS_PER_HIGH + (distance >>> WINDOW_BITS);
      this.at = distance & (WINDOW - 1);
      this.room = this.#lengths[window] - this.at;
      return window;
    }
    return -1;
  }

  /**
   * Finds bytes by their address in the front-end's memory.
   *
   * @returns a view of them, or null when they do not lie in one region. Its `byteOffset` is aligned as
   *   the bytes are
   */
  user(address: bigint, bytes: number): Uint8Array<ArrayBuffer> | null {
    for (const { userAddress, size, mapping } of this.#regions) {
      const offset = address - userAddress;
      if (offset < 0n || offset + BigInt(bytes) > size) continue;
      const inPage = Number(offset) % PAGE_SIZE; // regions begin with a page
      const buffer = mapping.buffer(Number(offset) - inPage, inPage + bytes);
      return new Uint8Array(buffer, inPage, bytes);
    }
    return null;
  }
}
