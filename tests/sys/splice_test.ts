// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { CopyBuffer, PipePool, splice } from "../../lib/sys/splice.ts";
import { descriptors } from "../helpers/drive_loop.ts";

function socketPair(): Int32Array<ArrayBuffer> {
  const pair = new Int32Array(2);
  libc.socketpair(1, 1 | 0x800, 0, pair);
  return pair;
}

function close(...fds: number[]): void {
  for (const fd of fds) libc.close(fd);
}

Deno.test("splice() moves bytes through a pipe and tells end, empty and error apart", () => {
  const [a, b] = socketPair(), [c, d] = socketPair();
  const pool = new PipePool();
  const pipe = pool.ready();
  assertEquals(splice(b, pool.input[pipe], 100), -E.EAGAIN);
  libc.send(a, Uint8Array.of(1, 2, 3), 3, 0);
  assertEquals(splice(b, pool.input[pipe], 100), 3);
  assertEquals(splice(pool.output[pipe], c, 3), 3);
  const bytes = new Uint8Array(3);
  assertEquals([libc.recv(d, bytes, 3, 0), ...bytes], [3, 1, 2, 3]);
  libc.shutdown(a, 1);
  assertEquals(splice(b, pool.input[pipe], 100), 0);
  assertEquals(splice(-1, pool.input[pipe], 100), -E.EBADF);
  pool.close();
  close(a, b, c, d);
});

Deno.test("CopyBuffer.write() writes a part of the buffer", () => {
  const pool = new PipePool();
  const pipe = pool.ready(), copy = new CopyBuffer(1 << 16);
  copy.bytes.set([1, 2, 3, 4, 5]);
  assertEquals(copy.write(pool.input[pipe], 1, 4), 3);
  const bytes = new Uint8Array(8);
  assertEquals(libc.read(pool.output[pipe], bytes, 8), 3);
  assertEquals([...bytes.subarray(0, 3)], [2, 3, 4]);
  assertEquals(copy.write(pool.input[pipe], 0, pool.size[pipe]), pool.size[pipe]); // it has the room
  assertEquals(copy.write(pool.input[pipe], 0, 1), -E.EAGAIN);
  pool.close();
});

Deno.test("PipePool: one pipe serves as long as it is not taken", () => {
  const before = descriptors();
  const pool = new PipePool(3);
  assertEquals(pool.open, 0);
  const first = pool.ready();
  assertEquals([pool.ready(), pool.open], [first, 1]);
  pool.take();
  const second = pool.ready();
  assert(second !== first);
  pool.take();
  assert(pool.ready() >= 0);
  pool.take();
  assertEquals([pool.ready(), pool.open], [-1, 3]);
  pool.give(first);
  assertEquals(pool.ready(), first);
  pool.discard(second);
  assertEquals(pool.open, 2);
  assertEquals(descriptors() - before, 4);
  pool.take();
  assertEquals(pool.ready(), second);
  pool.give(first);
  pool.close();
  assertEquals([pool.open, descriptors() - before], [1, 2]); // the third was never given back
});

Deno.test("PipePool.tick() closes what nobody needed since, the busiest last", () => {
  const pool = new PipePool(8);
  const taken = Array.from({ length: 5 }, () => {
    const pipe = pool.ready();
    pool.take();
    return pipe;
  });
  for (const pipe of taken) pool.give(pipe);
  pool.tick();
  assertEquals([pool.open, pool.timed], [5, true]);
  const busy = pool.ready();
  pool.tick();
  assertEquals([pool.open, pool.ready()], [1, busy]);
  pool.tick();
  pool.tick();
  assertEquals([pool.open, pool.timed], [0, false]);
  pool.close();
});

Deno.test("PipePool.enlarge() enlarges a bounded number of pipes", () => {
  const pool = new PipePool(40);
  const sizes = Array.from({ length: 40 }, () => {
    const pipe = pool.ready();
    pool.take();
    pool.enlarge(pipe);
    pool.give(pipe);
    pool.ready();
    pool.take();
    return pool.size[pipe];
  });
  const large = sizes.filter((size) => size > 1 << 16).length;
  assert(large <= 32, `${large}`);
  for (let pipe = 0; pipe < 40; pipe++) pool.discard(pipe);
});
