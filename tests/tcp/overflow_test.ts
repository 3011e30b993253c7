// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { libc } from "../../lib/sys/libc.ts";
import { OVERFLOW_BLOCKS, OverflowPool } from "../../lib/tcp/overflow.ts";
import { W } from "../../lib/tcp/words.ts";
import { DATA_WORDS } from "../../lib/flow/table.ts";
import { seeded } from "../wire/random.ts";
import { assertBytes, concat, pattern } from "./world.ts";

const BLOCK = 65536;

/** Words of `n` flows as the TCP code sets them up. */
function flows(n: number): Int32Array {
  const data = new Int32Array(n * DATA_WORDS);
  for (let i = 0; i < n; i++) {
    data[i * DATA_WORDS + W.OVERFLOW_HEAD] = data[i * DATA_WORDS + W.OVERFLOW_TAIL] = -1;
  }
  return data;
}

/** Two connected stream sockets that do not block. */
function sockets(): [number, number] {
  const fds = new Int32Array(2);
  libc.socketpair(1, 1 | 0x800, 0, fds);
  return [fds[0], fds[1]];
}

function readAll(fd: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(1 << 20);
  const got = libc.recv(fd, bytes, bytes.length, 0);
  return bytes.slice(0, Math.max(0, got));
}

Deno.test("append() takes all there is room for and drain() gives it back in order", () => {
  const pool = new OverflowPool(), data = flows(1), [a, b] = sockets();
  const bytes = pattern(300_000);
  assertEquals(pool.append(data, 0, bytes, 0, 10), 10);
  assertEquals(pool.append(data, 0, bytes, 10, 299_990), 299_990);
  assertEquals(data[W.OVERFLOW_BYTES], 300_000);
  assertEquals(pool.freeCount, OVERFLOW_BLOCKS - Math.ceil(300_000 / BLOCK));
  const got: Uint8Array[] = [];
  while (data[W.OVERFLOW_BYTES] > 0) {
    assertEquals(pool.drain(data, 0, a), 0);
    got.push(readAll(b));
  }
  for (let rest = readAll(b); rest.length > 0; rest = readAll(b)) got.push(rest);
  assertBytes(concat(got), bytes);
  assertEquals([data[W.OVERFLOW_HEAD], data[W.OVERFLOW_TAIL], pool.freeCount], [
    -1,
    -1,
    OVERFLOW_BLOCKS,
  ]);
  libc.close(a);
  libc.close(b);
});

Deno.test("append() takes less when the pool is used up, release() gives blocks back", () => {
  const pool = new OverflowPool(), data = flows(2), bytes = new Uint8Array(1 << 20);
  let taken = 0;
  for (let k = 0; k < 70; k++) taken += pool.append(data, 0, bytes, 0, bytes.length);
  assertEquals([taken, pool.freeCount], [OVERFLOW_BLOCKS * BLOCK, 0]);
  assertEquals(pool.append(data, 1, bytes, 0, 1), 0);
  assertEquals(data[DATA_WORDS + W.OVERFLOW_HEAD], -1);
  pool.release(data, 0);
  assertEquals([pool.freeCount, data[W.OVERFLOW_BYTES]], [OVERFLOW_BLOCKS, 0]);
  pool.release(data, 0); // harmless
  assertEquals(pool.freeCount, OVERFLOW_BLOCKS);
  assertEquals(pool.append(data, 1, bytes, 0, 1), 1);
});

Deno.test("drain() passes on the socket's error and keeps what it could not send", () => {
  const pool = new OverflowPool(), data = flows(1), [a, b] = sockets();
  pool.append(data, 0, pattern(100), 0, 100);
  libc.close(b);
  assertEquals(pool.drain(data, 0, a), -32); // EPIPE
  assertEquals(data[W.OVERFLOW_BYTES], 100);
  libc.close(a);
});

for (let seed = 1; seed <= 4; seed++) {
  Deno.test(`flows that share the pool at random keep their bytes apart (${seed})`, () => {
    const random = seeded(seed), count = 5, pool = new OverflowPool(), data = flows(count);
    const pairs = Array.from({ length: count }, sockets);
    const put = Array<number>(count).fill(0), got: Uint8Array[][] = pairs.map(() => []);
    const read = (i: number) => got[i].push(readAll(pairs[i][1]));
    for (let step = 0; step < 3000; step++) {
      const i = random(count), length = random(random(3) ? 2000 : 200_000);
      if (random(2)) put[i] += pool.append(data, i, pattern(length, put[i]), 0, length);
      else assertEquals(pool.drain(data, i, pairs[i][0]), 0);
      if (random(3) === 0) read(i);
    }
    for (let i = 0; i < count; i++) {
      while (data[i * DATA_WORDS + W.OVERFLOW_BYTES] > 0) {
        pool.drain(data, i, pairs[i][0]);
        read(i);
      }
      for (let k = 0; k < 8; k++) read(i);
      assert(put[i] > 0);
      assertBytes(concat(got[i]), pattern(put[i]));
    }
    assertEquals(pool.freeCount, OVERFLOW_BLOCKS);
    for (const fd of pairs.flat()) libc.close(fd);
  });
}
