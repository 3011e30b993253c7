// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MAX_LOAD, SideIndex } from "../../lib/flow/hash.ts";
import { copySide, SIDE_PIF, SIDE_PORTS, SIDE_WORDS } from "../../lib/flow/side.ts";
import { randomFrom } from "./random.ts";

const PROTOS = [6, 17, 1, 58];
const KEY = Int32Array.of(1, 2, 3, 4);

/** Sides whose words differ in few bits, so that a sloppy comparison would mix them up. */
function makeSides(capacity: number, random: (below: number) => number): Int32Array {
  const sides = new Int32Array(capacity * SIDE_WORDS);
  const seen = new Set<string>();
  for (let sidx = 0; sidx < capacity; sidx++) {
    const words = sides.subarray(sidx * SIDE_WORDS, (sidx + 1) * SIDE_WORDS);
    do {
      words[random(8)] = random(4);
      words[SIDE_PORTS] = random(64) << 16 | random(4);
      words[SIDE_PIF] = random(4);
    } while (seen.has(words.join()));
    seen.add(words.join());
  }
  return sides;
}

function find(index: SideIndex, sides: Int32Array, sidx: number): number {
  const key = new Int32Array(SIDE_WORDS);
  copySide(key, 0, sides, sidx * SIDE_WORDS);
  return index.find(PROTOS[sidx % PROTOS.length], key);
}

/** Random inserts and removals, compared with a Set; returns the highest load reached. */
function compareWithModel(capacity: number, steps: number, checkAll: number, seed: number): number {
  const random = randomFrom(seed), sides = makeSides(capacity, random);
  const key = Int32Array.from({ length: 4 }, () => random(2 ** 32));
  const index = new SideIndex(sides, capacity, (sidx) => PROTOS[sidx % PROTOS.length], key);
  const model = new Set<number>();
  let growth = 5, highest = 0;
  for (let step = 0; step < steps; step++) {
    if (random(4 * capacity) === 0) growth = 2 + random(8);
    const sidx = random(capacity);
    if (model.has(sidx) ? random(10) >= growth : random(10) < growth) {
      if (model.delete(sidx)) assert(index.remove(sidx));
      else index.insert(model.add(sidx) && sidx);
    }
    highest = Math.max(highest, model.size);
    assertSame(index.count, model.size);
    assertSame(find(index, sides, sidx), model.has(sidx) ? sidx : -1);
    if (step % checkAll !== 0) continue;
    for (let k = 0; k < capacity; k++) assertSame(find(index, sides, k), model.has(k) ? k : -1);
  }
  return highest / index.size;
}

/** As assertEquals(), but fast enough for a million calls. */
function assertSame(actual: number, expected: number): void {
  if (actual !== expected) assertEquals(actual, expected);
}

for (const capacity of [1, 2, 3, 7, 20]) {
  Deno.test(`SideIndex of ${capacity} sides equals a Set after each of many random steps`, () => {
    for (let seed = 1; seed <= 10; seed++) compareWithModel(capacity, 4000, 1, seed);
  });
}

Deno.test("SideIndex of 3000 sides equals a Set, up to the highest load", () => {
  let highest = 0;
  for (const seed of [1, 2, 3]) {
    highest = Math.max(highest, compareWithModel(3000, 200_000, 20_000, seed));
  }
  assert(highest > 0.9 * MAX_LOAD && highest <= MAX_LOAD, `load ${highest}`);
});

Deno.test("SideIndex.find() tells apart every word and the protocol", () => {
  const sides = new Int32Array(SIDE_WORDS), index = new SideIndex(sides, 1, () => 6, KEY);
  index.insert(0);
  assertEquals(index.find(6, sides), 0);
  assertEquals(index.find(17, sides), -1);
  for (let bit = 0; bit < 32 * SIDE_WORDS; bit++) {
    const key = new Int32Array(SIDE_WORDS);
    key[bit >> 5] = 1 << (bit & 31);
    assertEquals(index.find(6, key), -1);
  }
});

Deno.test("SideIndex keeps equal keys apart when one is removed", () => {
  const index = new SideIndex(new Int32Array(4 * SIDE_WORDS), 4, () => 6, KEY);
  const key = new Int32Array(SIDE_WORDS);
  for (const sidx of [2, 0, 3]) index.insert(sidx);
  assertEquals(index.find(6, key), 2);
  assertEquals(index.remove(2), true);
  assertEquals(index.remove(2), false);
  assertEquals(index.remove(3), true);
  assertEquals(index.find(6, key), 0);
  assertEquals(index.remove(0), true);
  assertEquals([index.find(6, key), index.count], [-1, 0]);
});

Deno.test("SideIndex never uses more than 70 % of its slots", () => {
  for (const capacity of [1, 2, 3, 10, 100, 262142]) {
    const { size } = new SideIndex(new Int32Array(0), capacity, () => 0);
    assert(size > capacity && capacity / size <= MAX_LOAD, `${capacity} of ${size}`);
  }
});

Deno.test("SideIndex refuses a key of the wrong length", () => {
  const make = () => new SideIndex(new Int32Array(0), 1, () => 0, new Int32Array(3));
  assertThrows(make, RangeError, "4 words");
});
