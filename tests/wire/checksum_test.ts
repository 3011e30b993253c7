// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { parseAddress } from "../../lib/wire/address.ts";
import {
  checksumValid,
  fold,
  invert,
  invertUdp,
  MAX_SUM_BYTES,
  pseudoSum,
  sum,
  transportChecksum,
} from "../../lib/wire/checksum.ts";
import { seeded } from "./random.ts";

/** The definition of RFC 1071 §1, word by word. */
function naive(bytes: Uint8Array, initial = 0): number {
  let total = initial;
  for (let i = 0; i < bytes.length; i += 2) {
    total += bytes[i] << 8 | (bytes[i + 1] ?? 0);
    if (total > 0xffff) total -= 0xffff;
  }
  return total;
}

function randomBytes(random: (n: number) => number, size: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: size }, () => random(256));
}

Deno.test("sum() gives the figures of RFC 1071 §3", () => {
  const view = new DataView(Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7).buffer);
  assertEquals(sum(view, 0, 8), 0xddf2);
});

Deno.test("sum() equals the naive sum for each length to 300 at each offset to 17", () => {
  const bytes = randomBytes(seeded(1), 320);
  const view = new DataView(bytes.buffer);
  for (let off = 0; off <= 17; off++) {
    for (let length = 0; length <= 300; length++) {
      const want = naive(bytes.subarray(off, off + length));
      assertEquals(sum(view, off, length), want, `${length} bytes at ${off}`);
    }
  }
});

Deno.test("sum() equals the naive sum for random bytes, lengths, offsets and initial sums", () => {
  const random = seeded(2);
  const bytes = randomBytes(random, 70000);
  const view = new DataView(bytes.buffer, 3);
  for (let i = 0; i < 500; i++) {
    const off = random(1000), length = random(65536), initial = random(65536);
    const want = naive(bytes.subarray(3 + off, 3 + off + length), initial);
    assertEquals(sum(view, off, length, initial), want, `${length} bytes at ${off}, ${initial}`);
  }
});

Deno.test("sum() is exact for the longest input of all ones, zeros and single high bits", () => {
  for (const byte of [0xff, 0x00, 0x80, 0x01]) {
    const bytes = new Uint8Array(MAX_SUM_BYTES).fill(byte);
    for (const length of [MAX_SUM_BYTES, MAX_SUM_BYTES - 1, 65535, 65536]) {
      const want = naive(bytes.subarray(0, length));
      assertEquals(sum(new DataView(bytes.buffer), 0, length), want, `${byte} × ${length}`);
    }
  }
});

Deno.test("sum() over two parts equals the sum over both", () => {
  const random = seeded(3);
  const view = new DataView(randomBytes(random, 4001).buffer);
  for (let cut = 0; cut < 4000; cut += 2) {
    assertEquals(sum(view, cut, 4001 - cut, sum(view, 0, cut)), sum(view, 0, 4001));
  }
});

Deno.test("fold() adds carries around for any 32-bit value", () => {
  for (const value of [0, 1, 0xffff, 0x10000, 0x1ffff, 0xffff0000, 0xffffffff, 0xfffeffff]) {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value);
    assertEquals(fold(value), naive(bytes));
  }
});

Deno.test("invertUdp() never gives zero", () => {
  assertEquals(invert(0xffff), 0);
  assertEquals(invertUdp(0xffff), 0xffff);
  for (let value = 0; value < 0xffff; value++) assertEquals(invertUdp(value), invert(value));
});

Deno.test("pseudoSum() sums the pseudo-header's bytes, IPv4 and IPv6", () => {
  const random = seeded(4);
  for (let i = 0; i < 2000; i++) {
    const v4 = i % 2 === 0;
    const words = new Int32Array(new Uint8Array(randomBytes(random, 40)).buffer);
    if (v4) words.set([0, 0, 0xffff], 1), words.set([0, 0, 0xffff], 6);
    const length = random(65536), proto = random(256);
    const header = new DataView(new ArrayBuffer(40));
    for (let w = 0; w < 4; w++) {
      header.setInt32(w * 4, words[1 + w]);
      header.setInt32(16 + w * 4, words[6 + w]);
    }
    const bytes = new Uint8Array(header.buffer);
    header.setUint32(32, length);
    header.setUint32(36, proto);
    const part = v4
      ? Uint8Array.of(
        ...bytes.slice(12, 16),
        ...bytes.slice(28, 32),
        0,
        proto,
        ...bytes.slice(34, 36),
      )
      : bytes;
    assertEquals(pseudoSum(words, 1, words, 6, proto, length), naive(part));
  }
});

Deno.test("transportChecksum() makes a packet valid that no single changed byte leaves valid", () => {
  const bytes = randomBytes(seeded(5), 101);
  const view = new DataView(bytes.buffer);
  const src = parseAddress("10.0.0.1")!, dst = parseAddress("10.0.0.2")!;
  const pseudo = pseudoSum(src, 0, dst, 0, 17, 101);
  view.setUint16(6, 0);
  view.setUint16(6, transportChecksum(view, 0, 101, 17, pseudo));
  assert(checksumValid(view, 0, 101, pseudo));
  for (let i = 0; i < 101; i++) {
    bytes[i] ^= 0x10;
    assert(!checksumValid(view, 0, 101, pseudo));
    bytes[i] ^= 0x10;
  }
});
