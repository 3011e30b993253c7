// SPDX-License-Identifier: GPL-2.0-or-later
/** Sums of bytes by WebAssembly: the module itself, and what it computes. */
import { assert, assertEquals } from "@std/assert";
import {
  newSumming,
  plainSumming,
  type Summing,
  wasmSumming,
} from "../../lib/link/simd/checksum.ts";
import { CHECKSUM_WASM } from "../../lib/link/simd/checksum_wasm.ts";
import { libc } from "../../lib/sys/libc.ts";
import { sum } from "../../lib/wire/checksum.ts";
import { assemble } from "../../scripts/wasm.ts";
import { requirements } from "../helpers/require.ts";
import { seeded } from "../wire/random.ts";

const SIZE = 1 << 19;
const KINDS: [string, (size: number) => Summing][] = [
  ["WebAssembly", wasmSumming],
  ["TypeScript", plainSumming],
];

/** The definition of RFC 1071 §1, word by word. */
function naive(bytes: Uint8Array): number {
  let total = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    total += bytes[i]! << 8 | (bytes[i + 1] ?? 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

function fill(summing: Summing, seed: number, end: number): void {
  const random = seeded(seed), { u8 } = summing.arena;
  for (let k = 0; k < end; k++) u8[k] = random(256);
}

Deno.test({
  name: "the bytes in the tree are those that wat2wasm makes of checksum.wat",
  ...requirements({ root: false, packages: ["wabt"] }),
  async fn() {
    assertEquals(CHECKSUM_WASM, await assemble());
  },
});

Deno.test("newSumming() uses WebAssembly", () => {
  const { copySum } = newSumming(SIZE);
  assertEquals(copySum.toString(), wasmSumming(SIZE).copySum.toString());
});

for (const [kind, make] of KINDS) {
  Deno.test(`${kind}: sum() and copySum() give the figures of RFC 1071 §3`, () => {
    const { arena, sum, copySum } = make(4096);
    arena.u8.set([0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], 3);
    assertEquals([sum(3, 8), copySum(1000, 3, 8), sum(1000, 8)], [0xddf2, 0xddf2, 0xddf2]);
  });

  Deno.test(`${kind}: sums are right for each length to 300 at each offset to 17, copies exact`, () => {
    const summing = make(4096), { u8 } = summing.arena;
    fill(summing, 1, 1000);
    for (let off = 0; off <= 17; off++) {
      for (let length = 0; length <= 300; length++) {
        const bytes = u8.subarray(off, off + length), want = naive(bytes);
        assertEquals(summing.sum(off, length), want, `${length} bytes at ${off}`);
        const to = 2000 + (off * 7 + length) % 19;
        u8.fill(0xee, 1900, 2500);
        assertEquals(summing.copySum(to, off, length), want, `${length} bytes at ${off}`);
        assertEquals(u8.subarray(to, to + length), bytes);
        assert(u8[to - 1] === 0xee && u8[to + length] === 0xee, "beyond its place");
      }
    }
  });

  Deno.test(`${kind}: random lengths and places agree with lib/wire/checksum.ts`, () => {
    const random = seeded(2), summing = make(SIZE), { dv, u8 } = summing.arena;
    fill(summing, 3, 70_000 + 128);
    for (let k = 0; k < 1000; k++) {
      const off = random(128), length = 1 + random(k < 500 ? 3000 : 70_000);
      const to = 200_000 + random(128), want = sum(dv, off, length);
      assertEquals(summing.sum(off, length), want);
      assertEquals(summing.copySum(to, off, length), want);
      assertEquals(libc.recv(-1, u8, 0, 0), -1); // the arena is fit for system calls
      assertEquals(u8[to + length - 1], u8[off + length - 1]);
    }
  });

  Deno.test(`${kind}: the longest input of all ones, zeros and single bits is summed exactly`, () => {
    const summing = make(SIZE), { u8 } = summing.arena;
    for (const byte of [0xff, 0x00, 0x80, 0x01]) {
      u8.fill(byte, 0, 1 << 17);
      for (const length of [1 << 17, (1 << 17) - 1, 65_535]) {
        const want = naive(u8.subarray(0, length));
        assertEquals([summing.sum(0, length), summing.copySum(200_000, 0, length)], [want, want]);
      }
    }
  });

  Deno.test(`${kind}: the arena's addresses are those of its bytes`, () => {
    const { arena } = make(4096), fds = new Int32Array(2);
    const off = arena.alloc(64);
    arena.u8.set([1, 2, 3, 4], off);
    libc.pipe2(fds, 0);
    arena.setIovec(128, off + 1, 2);
    assertEquals(libc.writev(fds[1]!, arena.view(128, 16), 1), 2);
    const got = new Uint8Array(4);
    assertEquals([libc.read(fds[0]!, got, 4), got[0], got[1]], [2, 2, 3]);
    for (const fd of fds) libc.close(fd);
  });
}
