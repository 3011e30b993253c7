// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Memory that both TypeScript and the kernel address: one anonymous, page-aligned mapping with its
 * views and base address, from which long-lived buffers are cut once at start.
 *
 * Theory of operation: system calls such as sendmsg(2) take structures that hold addresses. Those are
 * written once with {@linkcode Arena.address}; afterwards only lengths change. Code above `lib/sys`
 * handles offsets into an arena, never addresses. Untouched pages cost no memory.
 *
 * @module
 */
import { libc } from "./libc_rare.ts";
import { lastError } from "./errno.ts";

const PROT_READ_WRITE = 0x1 | 0x2; // mman.h
const MAP_PRIVATE_ANONYMOUS = 0x02 | 0x20; // mman.h
const MAP_SHARED_ANONYMOUS = 0x01 | 0x20; // mman.h
const MAP_FAILED = 0xffffffffffffffffn; // mmap(2)

/** Bytes of a memory page. */
export const PAGE_SIZE = 4096;

/** Maps zeroed memory. @throws SysError */
function map(size: number, shared: boolean): ArrayBuffer {
  const flags = shared ? MAP_SHARED_ANONYMOUS : MAP_PRIVATE_ANONYMOUS;
  const base = libc.mmap(0n, BigInt(size), PROT_READ_WRITE, flags, -1, 0n);
  if (base === MAP_FAILED) throw lastError("mmap", `${size} bytes`);
  return Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(base)!, size);
}

/**
 * One mapping, its views and a bump allocator over it.
 *
 * @example
 * ```ts
 * import { Arena } from "./arena.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const arena = new Arena(1 << 16);
 * const off = arena.alloc(64);
 * arena.dv.setUint32(off, 0x01020304);
 * assertEquals(arena.u8[off], 1);
 * assertEquals(arena.address(off) % 64, 0);
 * ```
 */
export class Arena {
  /** All bytes. */
  readonly u8: Uint8Array<ArrayBuffer>;
  /** The same bytes for multi-byte access; network order is the default of DataView. */
  readonly dv: DataView<ArrayBuffer>;
  /** The same bytes as native 32-bit words (index = offset / 4). */
  readonly u32: Uint32Array<ArrayBuffer>;
  /** Bytes in the arena, a multiple of the page size. */
  readonly size: number;
  readonly #base: number;
  #used = 0;

  /**
   * Maps zeroed memory.
   *
   * @param size bytes, rounded up to whole pages
   * @param options `shared`: visible to child processes too (MAP_SHARED); `over`: nothing is mapped, the
   *   arena lies over these bytes, at least `size` of them, such as a memory of WebAssembly that never grows
   * @throws SysError when the kernel refuses the mapping
   */
  constructor(size: number, options: { shared?: boolean; over?: ArrayBuffer } = {}) {
    this.size = Math.ceil(size / PAGE_SIZE) * PAGE_SIZE;
    const buffer = options.over ?? map(this.size, options.shared ?? false);
    // user addresses have 47 bits: exact
    this.#base = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(new Uint8Array(buffer))));
    this.u8 = new Uint8Array(buffer);
    this.dv = new DataView(buffer);
    this.u32 = new Uint32Array(buffer);
  }

  /**
   * Cuts `bytes` from the arena for good.
   *
   * @returns the offset, a multiple of `align`
   * @throws RangeError when the arena is used up: arenas are sized by their owner
   */
  alloc(bytes: number, align = 64): number {
    const off = Math.ceil(this.#used / align) * align;
    if (off + bytes > this.size) throw new RangeError(`Arena of ${this.size} bytes is full`);
    this.#used = off + bytes;
    return off;
  }

  /** A view of `bytes` at `off`, to be made once and kept: creating one costs 50–100 ns. */
  view(off: number, bytes: number): Uint8Array<ArrayBuffer> {
    return this.u8.subarray(off, off + bytes);
  }

  /** The address of offset `off`, exact as a number. */
  address(off: number): number {
    return this.#base + off;
  }

  /** Stores a 64-bit value (an address or length below 2^53) at `off` as two words. */
  set64(off: number, value: number): void {
    this.u32[off >> 2] = value >>> 0;
    this.u32[(off >> 2) + 1] = Math.floor(value / 0x100000000);
  }

  /** Reads a 64-bit unsigned value at `off`; exact below 2^53. */
  get64(off: number): number {
    return this.u32[(off >> 2) + 1] * 0x100000000 + this.u32[off >> 2];
  }

  /** Fills one `struct iovec` (16 bytes) at `iov`: `bytes` at arena offset `off`. */
  setIovec(iov: number, off: number, bytes: number): void {
    this.set64(iov, this.address(off));
    this.set64(iov + 8, bytes);
  }
}
