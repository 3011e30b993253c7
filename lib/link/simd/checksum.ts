// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * An arena whose bytes can be summed, and copied and summed at once, as fast as they can be read.
 *
 * Theory of operation: `checksum.wat` does it with WebAssembly's 128-bit instructions. They reach the
 * module's own memory only, so the arena lies in that. Where the engine refuses the module, or the
 * memory, the same is done in TypeScript over an ordinary arena.
 *
 * @module
 */
import { Arena } from "../../sys/arena.ts";
import { sum } from "../../wire/checksum.ts";
import { CHECKSUM_WASM } from "./checksum_wasm.ts";

/** WebAssembly's unit of memory (Core Specification §4.2.8). */
const WASM_PAGE = 65536;

/** An arena and what sums its bytes (RFC 1071). Sums are folded and not inverted. */
export interface Summing {
  readonly arena: Arena;
  /** Sum of `length` ≤ 128 KiB bytes at `off`, any alignment; an odd last byte counts as if a zero followed. */
  readonly sum: (off: number, length: number) => number;
  /** Copies `length` bytes from `from` to `to`, which do not overlap, and returns their sum. */
  readonly copySum: (to: number, from: number, length: number) => number;
}

/** As {@linkcode newSumming}, in WebAssembly. @throws when the engine refuses it */
export function wasmSumming(size: number): Summing {
  const pages = Math.ceil(size / WASM_PAGE);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  const module = new WebAssembly.Module(CHECKSUM_WASM);
  const { exports } = new WebAssembly.Instance(module, { env: { memory } });
  return {
    arena: new Arena(size, { over: memory.buffer as ArrayBuffer }),
    sum: exports.sum as Summing["sum"],
    copySum: exports.copySum as Summing["copySum"],
  };
}

/** As {@linkcode newSumming}, in plain TypeScript. @throws SysError */
export function plainSumming(size: number): Summing {
  const arena = new Arena(size), { dv, u8 } = arena;
  return {
    arena,
    sum: (off, length) => sum(dv, off, length),
    copySum: (to, from, length) => {
      u8.copyWithin(to, from, from + length);
      return sum(dv, to, length);
    },
  };
}

/**
 * Makes such an arena.
 *
 * @param size bytes
 * @throws SysError when there is no memory
 * @example
 * ```ts
 * import { newSumming } from "./checksum.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { arena, copySum } = newSumming(4096);
 * arena.u8.set([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
 * assertEquals(copySum(100, 0, 8), 0xddf2); // RFC 1071 §3
 * assertEquals(arena.u8[107], 0xf7);
 * ```
 */
export function newSumming(size: number): Summing {
  try {
    return wasmSumming(size);
  } catch {
    return plainSumming(size);
  }
}
