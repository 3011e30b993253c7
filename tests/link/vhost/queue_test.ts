// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { Pieces } from "../../../lib/link/vhost/pieces.ts";
import {
  needEvent,
  Queue,
  usedBytes,
  VRING_DESC_F_INDIRECT as F_INDIRECT,
  VRING_DESC_F_NEXT as F_NEXT,
  VRING_DESC_F_WRITE as F_WRITE,
} from "../../../lib/link/vhost/queue.ts";
import { runC } from "../../helpers/compile.ts";
import { Driver, GUEST_BASE, TestMemory } from "./driver.ts";

const MEMORY = 1 << 18;

interface Options {
  size?: number;
  eventIdx?: boolean;
  indirect?: boolean;
  base?: number;
  cuts?: number[];
}

function started(options: Options = {}) {
  const memory = new TestMemory(MEMORY, options.cuts);
  const driver = new Driver(memory, options.size ?? 8, options);
  const queue = new Queue(memory);
  assertEquals(queue.start(driver.ring), "");
  return { memory, driver, queue, pieces: new Pieces(4096) };
}

/** What was walked, as offsets in the guest's memory. */
function places(memory: TestMemory, pieces: Pieces): [number, number][] {
  return Array.from({ length: pieces.count }, (_, k) => [
    memory.addresses[pieces.window[k]] + pieces.at[k] - memory.addresses[0],
    pieces.length[k],
  ]);
}

Deno.test("walk() returns a chain's buffers in order, and what it takes", () => {
  const { memory, driver, queue, pieces } = started();
  assert(!queue.has(0));
  const head = driver.add([{ off: 64, length: 12 }, { off: 9000, length: 100 }]);
  driver.add([{ off: 128, length: 1 }]);
  assert(queue.has(0) && queue.has(1) && !queue.has(2));
  assert(queue.walk(0, 0, pieces));
  assertEquals(places(memory, pieces), [[64, 12], [9000, 100]]);
  assertEquals([queue.head, queue.bytes, queue.descriptors], [head, 112, 2]);
  assert(queue.walk(1, 0, pieces));
  assertEquals(pieces.count, 3);
});

Deno.test("walk() cuts a buffer where a window ends, also across 4 GiB", () => {
  const { memory, driver, queue, pieces } = started({ cuts: [1024, 4096, 8192] });
  driver.add([{ off: 1000, length: 8000 }]); // the first page lies below 4 GiB
  assert(queue.has(0) && queue.walk(0, 0, pieces));
  assertEquals(places(memory, pieces), [[1000, 24], [1024, 3072], [4096, 4096], [8192, 808]]);
  assertEquals(queue.bytes, 8000);
});

Deno.test("walk() follows an indirect table, alone or after other buffers", () => {
  const { memory, driver, queue, pieces } = started();
  const three = [{ off: 64, length: 12 }, { off: 500, length: 7 }, { off: 600, length: 9 }];
  driver.add(three, true);
  assert(queue.has(0) && queue.walk(0, 0, pieces));
  assertEquals(places(memory, pieces), [[64, 12], [500, 7], [600, 9]]);
  assertEquals([queue.bytes, queue.descriptors], [28, 1]);
  const table = memory.alloc(16);
  const view = new DataView(memory.arena.u8.buffer, memory.bytes(table, 16).byteOffset, 16);
  driver.describe(view, 0, GUEST_BASE + 900, 5, F_WRITE, 0);
  driver.describe(driver.desc, 5, GUEST_BASE + 800, 4, F_NEXT | F_WRITE, 6);
  driver.describe(driver.desc, 6, GUEST_BASE + table, 16, F_INDIRECT, 0);
  driver.offer(5);
  pieces.count = 0;
  assert(queue.has(1) && queue.walk(1, F_WRITE, pieces));
  assertEquals(places(memory, pieces), [[800, 4], [900, 5]]);
  assertEquals([queue.head, queue.descriptors], [5, 2]);
});

type Break = (driver: Driver, memory: TestMemory) => void;

/** One descriptor at index 0, offered. */
function one(address: number, length: number, flags = 0, next = 0): Break {
  return (driver) => {
    driver.describe(driver.desc, 0, address, length, flags, next);
    driver.offer(0);
  };
}

/** An indirect table of `entries` descriptors, each as `entry` says, offered. */
function table(
  entries: number,
  entry: (k: number) => [address: number, length: number, flags: number, next: number],
  bytes = entries * 16,
  flags = 0,
): Break {
  return (driver, memory) => {
    const off = memory.alloc(entries * 16);
    const { buffer, byteOffset } = memory.bytes(off, entries * 16);
    const view = new DataView(buffer, byteOffset);
    for (let k = 0; k < entries; k++) driver.describe(view, k, ...entry(k));
    driver.describe(driver.desc, 0, GUEST_BASE + off, bytes, F_INDIRECT | flags, 1);
    driver.describe(driver.desc, 1, GUEST_BASE, 16, 0, 0);
    driver.offer(0);
  };
}

const VIOLATIONS: [name: string, reason: string, Break][] = [
  ["an empty buffer", "empty buffer", one(GUEST_BASE, 0)],
  ["an address below the memory", "outside", one(GUEST_BASE - 1, 4)],
  ["an address above the memory", "outside", one(GUEST_BASE + MEMORY, 1)],
  ["a buffer that reaches beyond the memory", "outside", one(GUEST_BASE + MEMORY - 8, 9)],
  ["the longest length", "outside", one(GUEST_BASE, 0xffffffff)],
  ["a length of 2 GiB", "outside", one(GUEST_BASE, 0x80000000)],
  ["an address that wraps", "outside", (driver) => {
    driver.desc.setBigUint64(0, 0xffffffffffffffffn, true);
    driver.desc.setUint32(8, 2, true);
    driver.offer(0);
  }],
  ["an address that is right but for its highest bit", "outside", (driver) => {
    driver.desc.setBigUint64(0, BigInt(GUEST_BASE) + (1n << 63n), true);
    driver.desc.setUint32(8, 2, true);
    driver.offer(0);
  }],
  ["a head beyond the table", "beyond the table", (driver) => driver.offer(8)],
  ["the largest head", "beyond the table", (driver) => driver.offer(0xffff)],
  ["a next beyond the table", "beyond the table", one(GUEST_BASE, 1, F_NEXT, 8)],
  ["a descriptor that follows itself", "circle", one(GUEST_BASE, 1, F_NEXT, 0)],
  ["a circle of all descriptors", "circle", (driver) => {
    for (let k = 0; k < 8; k++) {
      driver.describe(driver.desc, k, GUEST_BASE, 1, F_NEXT, (k + 1) % 8);
    }
    driver.offer(3);
  }],
  ["a buffer to be written", "direction", one(GUEST_BASE, 1, F_WRITE)],
  ["a second buffer to be written", "direction", (driver) => {
    driver.add([{ off: 0, length: 4 }, { off: 8, length: 4, write: true }]);
  }],
  ["an index that is too far", "more chains", (driver) => Atomics.store(driver.avail, 1, 9)],
  ["an index that went back", "more chains", (driver) => Atomics.store(driver.avail, 1, 0xffff)],
  ["an empty indirect table", "indirect", table(1, () => [GUEST_BASE, 4, 0, 0], 0)],
  ["a table of broken size", "indirect", table(1, () => [GUEST_BASE, 4, 0, 0], 15)],
  ["a table larger than the ring", "indirect", table(9, () => [GUEST_BASE, 4, 0, 0])],
  ["a table of 4 GiB", "indirect", table(1, () => [GUEST_BASE, 4, 0, 0], 0xfffffff0)],
  ["a table that has a successor", "indirect", table(1, () => [GUEST_BASE, 4, 0, 0], 16, F_NEXT)],
  ["a table in a table", "indirect", table(1, () => [GUEST_BASE, 16, F_INDIRECT, 0])],
  ["a table outside the memory", "indirect", one(GUEST_BASE + MEMORY - 16, 32, F_INDIRECT)],
  ["a circle in a table", "circle", table(2, (k) => [GUEST_BASE, 4, F_NEXT, 1 - k])],
  ["a next beyond the table", "beyond the table", table(2, () => [GUEST_BASE, 4, F_NEXT, 2])],
];

for (const [name, reason, violate] of VIOLATIONS) {
  Deno.test(`walk() breaks the queue for ${name} (${reason})`, () => {
    const { memory, driver, queue, pieces } = started();
    violate(driver, memory);
    assert(!(queue.has(0) && queue.walk(0, 0, pieces)));
    assert(queue.broken.includes(reason), queue.broken);
    assert(!queue.running && !queue.has(0) && !queue.wantsCall() && !queue.watch());
    queue.use(0, 1);
    queue.publish();
    queue.unwatch();
    assertEquals(driver.used[1], 0);
    assert(memory.intact());
  });
}

Deno.test("walk() refuses indirect tables that were not agreed on", () => {
  const { driver, queue, pieces } = started({ indirect: false });
  driver.add([{ off: 0, length: 4 }], true);
  assert(queue.has(0) && !queue.walk(0, 0, pieces));
});

Deno.test("walk() refuses more than 1024 buffers", () => {
  const { driver, queue, pieces } = started({ size: 2048 });
  driver.add(Array.from({ length: 1024 }, (_, k) => ({ off: k, length: 1 })));
  driver.add(Array.from({ length: 1024 }, (_, k) => ({ off: k, length: 1 })));
  assert(queue.has(1) && queue.walk(0, 0, pieces) && queue.walk(1, 0, pieces));
  assertEquals(pieces.count, 2048);
  queue.advance(2);
  for (let k = 0; k < 2048; k++) {
    driver.describe(driver.desc, k, GUEST_BASE, 1, k < 1024 ? F_NEXT : 0, k + 1);
  }
  driver.offer(0);
  assert(queue.has(0) && !queue.walk(0, 0, pieces));
  assertEquals(queue.broken, "chain too long");
});

Deno.test("a queue reads a chain's fields once: what changes later does not count", () => {
  const { memory, driver, queue, pieces } = started();
  driver.add([{ off: 64, length: 12 }]);
  assert(queue.has(0) && queue.walk(0, 0, pieces));
  driver.describe(driver.desc, 0, 0, 0xffffffff, F_NEXT | F_INDIRECT, 0xffff);
  assertEquals(places(memory, pieces), [[64, 12]]);
});

Deno.test("indices go on from 65535 to 0, with and without event indices", () => {
  for (const eventIdx of [true, false]) {
    const { driver, queue, pieces } = started({ base: 65530, eventIdx });
    driver.enableCalls();
    for (let k = 0; k < 20; k++) {
      const head = driver.add([{ off: 64 * k, length: 10 + k }]);
      assert(queue.has(0) && !queue.has(1));
      pieces.count = 0;
      assert(queue.walk(0, 0, pieces));
      queue.advance(1);
      queue.use(queue.head, k);
      assertEquals(driver.take(), null);
      queue.publish();
      assert(queue.wantsCall() && !queue.wantsCall());
      assertEquals(driver.take(), { head, length: k });
      driver.enableCalls();
    }
    assertEquals([driver.used[1], queue.stop()], [14, 14]);
  }
});

Deno.test("needEvent() tells whether an index was passed, as the kernel's header says", () => {
  // [event, now, old, expected], by hand from vring_need_event() in linux/virtio_ring.h
  const rows: [number, number, number, boolean][] = [
    [0, 1, 0, true],
    [1, 1, 0, false],
    [0, 2, 1, false],
    [5, 10, 5, true],
    [9, 10, 5, true],
    [10, 10, 5, false],
    [4, 10, 5, false],
    [0xffff, 0, 0xffff, true],
    [0, 0, 0xffff, false],
    [0xfffe, 0, 0xffff, false],
    [0, 3, 0xfffe, true],
    [3, 3, 0xfffe, false],
    [0, 0, 0, false],
  ];
  for (const [event, now, old, expected] of rows) {
    assertEquals(needEvent(event, now, old), expected, `${event} ${now} ${old}`);
  }
});

Deno.test("needEvent() is the kernel header's, whatever the indices", async () => {
  const source = `
    #include <stdio.h>
    #include <linux/virtio_ring.h>
    int main(void) {
      unsigned x = 1;
      for (int k = 0; k < 100000; k++) {
        unsigned short now, old, event;
        x ^= x << 13; x ^= x >> 17; x ^= x << 5; now = x;
        x ^= x << 13; x ^= x >> 17; x ^= x << 5; old = now - x % 40;
        x ^= x << 13; x ^= x >> 17; x ^= x << 5; event = k % 8 ? now - x % 50 + 5 : x;
        printf("%u %u %u %d\\n", event, now, old, vring_need_event(event, now, old));
      }
    }`;
  let passed = 0;
  for (const line of (await runC(source)).trim().split("\n")) {
    const [event, now, old, expected] = line.split(" ").map(Number);
    if (needEvent(event, now, old) !== (expected === 1)) throw new Error(line);
    passed += expected;
  }
  assert(passed > 10_000 && passed < 90_000, `${passed}`);
});

Deno.test("wantsCall() follows the driver's event index over the wrap", () => {
  const { driver, queue } = started({ size: 64, base: 65500 });
  const use = (count: number) => {
    for (let k = 0; k < count; k++) queue.use(0, 0);
    queue.publish();
    return queue.wantsCall();
  };
  assert(use(1)); // the first time always: what was told before is unknown
  driver.enableCalls(65510);
  assert(!use(9)); // up to 65509
  assert(use(2)); // 65510 is among them
  driver.enableCalls(3);
  assert(!use(27)); // up to 2
  assert(use(1)); // 3 itself
  assert(!use(5));
  assert(!use(0));
});

Deno.test("wantsCall() follows the driver's flag", () => {
  const { driver, queue } = started({ eventIdx: false });
  const use = () => {
    queue.use(0, 0);
    queue.publish();
    return queue.wantsCall();
  };
  assert(use());
  driver.disableCalls();
  assert(!use());
  driver.enableCalls();
  assert(use());
});

for (const eventIdx of [true, false]) {
  Deno.test(`watch() has the driver kick for the next chain only (event index: ${eventIdx})`, () => {
    const { driver, queue } = started({ eventIdx, base: 65533 });
    queue.unwatch();
    for (let k = 0; k < 6; k++) {
      assert(!queue.watch());
      driver.add([{ off: 0, length: 4 }]);
      assert(driver.kicks(), `round ${k}`);
      queue.unwatch();
      driver.add([{ off: 0, length: 4 }]);
      assert(!driver.kicks());
      assert(queue.has(1));
      queue.advance(2);
      queue.use(driver.avail[2 + (65533 + 2 * k) % 8], 0);
      queue.use(driver.avail[2 + (65533 + 2 * k + 1) % 8], 0);
      queue.publish();
      assertEquals(driver.takeAll().length, 2);
    }
    driver.add([{ off: 0, length: 4 }]);
    assert(queue.watch(), "one came before it was asked for");
  });
}

Deno.test("start() refuses rings that cannot be", () => {
  const memory = new TestMemory(MEMORY);
  const { ring } = new Driver(memory, 8);
  const queue = new Queue(memory);
  for (const size of [0, -8, 7, 65536, 16]) {
    assert(queue.start({ ...ring, size }) !== "", `${size}`);
  }
  const odd = memory.bytes(memory.alloc(1000) + 2, 990);
  assert(queue.start({ ...ring, desc: odd }) !== "");
  assert(queue.start({ ...ring, used: odd.subarray(0, usedBytes(8)) }) !== "");
  assert(queue.start({ ...ring, avail: odd.subarray(1) }) !== "");
  assert(!queue.running);
  assertEquals(queue.start(ring), "");
});

Deno.test("stop() publishes what was used, and start() goes on from there", () => {
  const { driver, queue, pieces } = started();
  const heads = [64, 128, 192].map((off) => driver.add([{ off, length: 4 }]));
  assert(queue.has(0) && queue.walk(0, 0, pieces));
  queue.advance(1);
  queue.use(queue.head, 0);
  const base = queue.stop();
  assertEquals(base, 1);
  assert(!queue.running && !queue.has(0));
  assertEquals(driver.takeAll().map(({ head }) => head), [heads[0]]);
  assertEquals(queue.start({ ...driver.ring, base }), "");
  assert(queue.has(1) && queue.walk(0, 0, pieces) && queue.head === heads[1]);
  queue.advance(1);
  queue.use(queue.head, 0);
  queue.publish();
  assertEquals(driver.takeAll().map(({ head }) => head), [heads[1]]);
});

Deno.test("a broken queue works again after start()", () => {
  const { driver, queue, pieces } = started();
  driver.offer(99);
  assert(queue.has(0) && !queue.walk(0, 0, pieces));
  driver.availIndex = driver.avail[1] = 0;
  assertEquals(queue.start(driver.ring), "");
  driver.add([{ off: 0, length: 4 }]);
  assert(queue.has(0) && queue.walk(0, 0, pieces));
  assertEquals(queue.broken, "");
});
