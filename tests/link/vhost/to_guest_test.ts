// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { GSO, MAX_PIECES, TX_CONTROL } from "../../../lib/link/link.ts";
import { E } from "../../../lib/sys/errno.ts";
import { VNET_HEADER_SIZE } from "../../../lib/sys/tun.ts";
import { pattern, tcpFrame, udpFrame } from "./frames.ts";
import { HEADERS, message, slots, World } from "./to_guest_world.ts";

const frame = tcpFrame(5000);

Deno.test("place() has the kernel write payload to the guest's buffers, send() adds the headers", () => {
  const torn = [[78, 5000], [79, 2000, 3000], [77, 2000, 3000]];
  const layouts = [[6000], [12, 5000], [1, 6, 9, 62, 5000], ...torn];
  for (const layout of layouts) {
    for (const mergeable of [true, false]) {
      const world = new World(64, { mergeable });
      world.offer(...layout);
      assert(world.place(0, frame.length - HEADERS) > 0);
      world.fill(frame.subarray(HEADERS));
      assertEquals(world.driver.take(), null);
      assertEquals(world.send(0, frame, HEADERS), 0);
      assert(world.to.flush());
      assertEquals(world.take()?.frame, frame, `${layout}`);
    }
  }
});

Deno.test("send() writes the virtio header as it was asked for", () => {
  const world = new World();
  world.offerMany(4, 4000);
  const bytes = [1, GSO.TCPV4, HEADERS, 0, 1448 & 0xff, 1448 >> 8, 34, 0, 16, 0, 2, 0];
  assertEquals(world.send(3, frame), 0);
  assertEquals(world.to.send(TX_CONTROL, 60, 0, 0, 0, GSO.NONE, 0), 0);
  world.to.flush();
  const first = world.take()!;
  assertEquals([...new Uint8Array(first.header.buffer, 0, 12)], bytes);
  assertEquals([first.frame, first.lengths], [frame, [4000, 1012]]);
  const second = world.take()!;
  assertEquals([...new Uint8Array(second.header.buffer, 0, 12)], [...Array(10).fill(0), 1, 0]);
});

Deno.test("a frame takes as many mergeable buffers as it needs, placed or not", () => {
  for (const size of [12, 13, 70, 100, 1536]) {
    for (const placed of [true, false]) {
      const world = new World(512);
      world.offerMany(Math.ceil(5012 / size) + 1, size);
      if (placed) {
        world.place(0, frame.length - HEADERS);
        // in buffers that small, payload is received to the slot, and copied from there
        const small = Math.ceil(5012 / size) > MAX_PIECES;
        if (!small) world.fill(frame.subarray(HEADERS));
        assertEquals(world.send(0, frame, small ? frame.length : HEADERS), 0);
      } else assertEquals(world.send(0, frame), 0);
      world.to.flush();
      const got = world.take()!;
      assertEquals(got.frame, frame, `${size} ${placed}`);
      assertEquals(got.lengths.length, Math.ceil(5012 / size));
      assertEquals(world.take(), null);
      assert(world.memory.intact());
    }
  }
});

Deno.test("a frame placed in memory of several windows arrives whole", () => {
  const world = new World(64, { cuts: [9000, 9100, 11000, 12000, 12001, 13000] });
  world.offerMany(10, 1536);
  world.place(0, frame.length - HEADERS);
  world.fill(frame.subarray(HEADERS));
  assertEquals(world.send(0, frame, HEADERS), 0);
  world.to.flush();
  assertEquals(world.take()?.frame, frame);
});

Deno.test("several frames are placed at once, and sent in order", () => {
  const world = new World();
  world.offerMany(20, 1536);
  const frames = [tcpFrame(5000), tcpFrame(5000), tcpFrame(5000)];
  for (const slot of [0, 1, 2]) assertEquals(world.place(slot, 5000 - HEADERS), 4);
  world.fill(new Uint8Array(frames.flatMap((bytes) => [...bytes.subarray(HEADERS)])));
  for (const slot of [0, 1, 2]) assertEquals(world.send(slot, frames[slot], HEADERS), 0);
  world.to.flush();
  for (const slot of [0, 1, 2]) assertEquals(world.take()?.frame, frames[slot]);
  assertEquals(world.take(), null);
});

Deno.test("frames that become shorter than their reservation leave the rest to others", () => {
  for (const length of [HEADERS + 1, 1500, 1524, 1525, 3060, 4999]) {
    const world = new World();
    world.offerMany(16, 1536);
    for (const slot of [0, 1, 2]) assertEquals(world.place(slot, 5000 - HEADERS), 4);
    const short = tcpFrame(length);
    world.fill(new Uint8Array([...frame.subarray(HEADERS), ...short.subarray(HEADERS)]));
    assertEquals(world.send(0, frame, HEADERS), 0);
    assertEquals(world.send(1, short, HEADERS), 0);
    assertEquals(world.send(TX_CONTROL, tcpFrame(70)), 0);
    assertEquals(world.place(0, 4000), 3);
    const next = tcpFrame(4000 + HEADERS);
    world.fill(next.subarray(HEADERS));
    assertEquals(world.send(0, next, HEADERS), 0);
    world.to.flush();
    for (const sent of [frame, short, tcpFrame(70), next]) assertEquals(world.take()?.frame, sent);
    assertEquals(world.take(), null);
  }
});

Deno.test("a frame sent in between, or a new place() for slot 0, cancels what was reserved", () => {
  const world = new World();
  world.offerMany(8, 1536);
  assertEquals(world.place(0, 1000), 1);
  assertEquals(world.place(1, 1000), 1);
  assertEquals(world.send(TX_CONTROL, tcpFrame(70)), 0);
  assertEquals(world.place(0, 4900), 4);
  assertEquals(world.place(0, 1000), 1);
  world.fill(tcpFrame(1000 + HEADERS).subarray(HEADERS));
  assertEquals(world.send(0, tcpFrame(1000 + HEADERS), HEADERS), 0);
  assertEquals(world.send(0, tcpFrame(90)), 0); // not reserved any more: copied whole
  world.to.flush();
  for (const length of [70, 1000 + HEADERS, 90]) {
    assertEquals(world.take()?.frame, tcpFrame(length));
  }
  assertEquals(world.take(), null);
});

Deno.test("frames without room wait for the guest's buffers, in order", () => {
  const world = new World(256);
  world.offerMany(2, 1536);
  world.driver.kicks();
  const sizes = [100, 3000, 60, 60000, 200, 70];
  for (const size of sizes) assertEquals(world.send(TX_CONTROL, tcpFrame(size)), 0);
  assert(!world.to.writable);
  const sent = (count: number) => {
    world.to.flush();
    for (const size of sizes.splice(0, count)) assertEquals(world.take()?.frame, tcpFrame(size));
    assertEquals(world.take(), null);
  };
  sent(1);
  assertEquals(world.place(0, 100), 0); // not before the others
  world.offerMany(4, 1536);
  assert(world.driver.kicks());
  world.to.kicked();
  assert(world.to.writable); // bulk data may go first
  sent(2);
  assert(!world.to.writable);
  world.offerMany(45, 1536);
  assert(world.driver.kicks());
  world.to.kicked(); // the turn of what waits
  sent(3);
  assert(world.to.writable);
  assertEquals(world.place(0, 100), 1);
});

Deno.test("what waits is dropped when there is too much of it, and when the ring is stopped", () => {
  const world = new World();
  let count = 0;
  while (world.send(0, tcpFrame(60000)) === 0) count++;
  assertEquals(world.send(0, tcpFrame(60000)), -E.ENOBUFS);
  assertEquals(count, (7 << 17) / (60000 + VNET_HEADER_SIZE) | 0);
  assertEquals(world.send(0, tcpFrame(200)), 0); // room for short ones is kept
  assertEquals(world.send(1, tcpFrame(70)), 0);
  const base = world.queue.stop();
  world.to.kicked();
  assertEquals(world.queue.start({ ...world.driver.ring, base }), "");
  world.to.kicked();
  world.offerMany(60, 1536);
  assert(world.to.writable);
  assertEquals(world.send(1, tcpFrame(80)), 0);
  world.to.flush();
  assertEquals(world.take()?.frame, tcpFrame(80));
  assertEquals(world.take(), null);
});

Deno.test("frames wait in a circle of memory, however long they are", () => {
  const world = new World(256);
  const waiting: number[] = [];
  let next = 0, offered = 0, taken = 0;
  const start = world.memory.alloc(0);
  const kinds = [60000, 70, 1500, 33333, 9000];
  for (let round = 0; round < 200; round++) {
    for (let k = 0; k < 3; k++) {
      const size = kinds[next++ % kinds.length];
      if (world.send(0, tcpFrame(size)) === 0) waiting.push(size);
    }
    const buffers = Math.min(30, world.driver.free);
    if ((offered += buffers) > 500) { // those at the beginning were used long ago
      world.memory.reset(start);
      offered = buffers;
    }
    world.offerMany(buffers, 1536);
    world.to.kicked();
    world.to.flush();
    for (let got = world.take(); got; got = world.take()) {
      assertEquals(got.frame, tcpFrame(waiting.shift()!));
      taken++;
    }
  }
  assert(
    next === 600 && taken > 300 && taken < 600 && waiting.length > 10,
    `${taken} taken of ${next}`,
  );
});

for (const eventIdx of [true, false]) {
  Deno.test(`without room, place() waits for the guest's kick (event index: ${eventIdx})`, () => {
    const world = new World(64, { eventIdx });
    world.driver.kicks();
    world.offerMany(2, 1536);
    assert(!world.driver.kicks() || eventIdx);
    assert(world.to.writable);
    assertEquals([world.place(0, 4000), world.to.writable], [0, false]);
    world.offer(1536);
    assert(world.driver.kicks());
    world.to.kicked();
    assert(world.to.writable);
    world.offer(1536);
    assert(!world.driver.kicks());
    assertEquals([world.place(0, 4000), world.to.writable], [3, true]);
    assertEquals([world.place(1, 4000), world.to.writable], [0, true]); // only what there is
    world.fill(tcpFrame(4066).subarray(HEADERS));
    assertEquals(world.send(0, tcpFrame(4066), HEADERS), 0);
    world.to.flush();
    assertEquals(world.take()?.frame, tcpFrame(4066));
  });
}

Deno.test("a ring that is half full and too small is not waited for", () => {
  const world = new World(8);
  world.offerMany(4, 1536);
  assert(!world.to.roomy);
  assertEquals([world.place(0, 60000), world.to.writable], [1, true]);
  world.fill(pattern(60000)); // to the slot
  assertEquals(world.send(0, tcpFrame(60000 + HEADERS)), -E.EMSGSIZE);
  assertEquals(world.place(0, 4000), 3);
  world.to.mergeable = false; // one buffer is never enough
  assertEquals([world.place(0, 4000), world.to.writable], [1, true]);
  assertEquals(world.send(0, tcpFrame(4066)), -E.EMSGSIZE);
  assertEquals(world.send(0, tcpFrame(1500)), 0);
  assert(new World(128).to.roomy);
  assert(new World(8, { mergeable: false }).to.roomy);
});

Deno.test("what follows a frame that had to go to its slot goes there, too", () => {
  const world = new World(512);
  world.offerMany(8, 1536);
  world.offerMany(100, 40);
  world.offerMany(8, 1536);
  assertEquals(world.place(0, 12000), 8);
  assertEquals(world.place(1, 3900), 1); // in the slot
  assertEquals(world.place(2, 1000), 1); // in the slot
  const sizes = [12000, 3900, 1000];
  const frames = sizes.map((size) => tcpFrame(size + HEADERS));
  world.fill(new Uint8Array(frames.flatMap((bytes) => [...bytes.subarray(HEADERS)])));
  for (const slot of [0, 1, 2]) {
    slots.arena.u8.set(frames[slot].subarray(0, HEADERS), slots.txOffset[slot]);
    const length = frames[slot].length;
    assertEquals(world.to.send(slot, length, HEADERS, 34, 16, GSO.TCPV4, 1448), 0);
  }
  world.to.flush();
  for (const sent of frames) assertEquals(world.take()?.frame, sent);
});

Deno.test("checksums are completed for a guest that does not", () => {
  const world = new World();
  world.to.checksums = false;
  world.offerMany(4, 4000);
  const bytes = new Uint8Array(101).fill(0x11);
  assertEquals(world.to.place(message, 0, 0, 54, 47), 1);
  bytes.set([0x12, 0x34], 34 + 16); // the pseudo-header's sum
  slots.arena.u8.set(bytes, slots.txOffset[0]);
  assertEquals(world.to.send(0, 101, 54, 34, 16, GSO.NONE, 0), 0);
  world.to.flush();
  const { header, frame } = world.take()!;
  assertEquals([header.getUint8(0), header.getUint16(6, true), header.getUint16(8, true)], [
    0,
    0,
    0,
  ]);
  let sum = 0; // RFC 1071 §4.1, over what follows the IP header, the odd byte padded
  for (let k = 34; k < 101; k++) sum += k % 2 ? frame[k] : frame[k] << 8;
  // with the sum that was there, which the receiver adds itself
  sum += 0x1234;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  assertEquals(sum, 0xffff);
});

Deno.test("a receive buffer shorter than the header breaks the ring", () => {
  const world = new World();
  world.offer(11);
  assertEquals(world.send(0, frame), -E.EMSGSIZE);
  assert(world.queue.broken.includes("header") && world.to.writable);
  assertEquals(world.send(0, frame), -E.ENETDOWN);
  assertEquals(world.place(0, 100), 1); // to the slot, and dropped
  assert(!world.to.flush());
});

Deno.test("a buffer that may not be written breaks the ring", () => {
  const world = new World();
  world.driver.add([{ off: 0, length: 2000 }]);
  assertEquals(world.place(0, 100), 1);
  assert(!world.queue.running);
  assertEquals(world.send(0, frame), -E.ENETDOWN);
});

Deno.test("a ring's used indices wrap while frames take several buffers", () => {
  const world = new World(16, { base: 65530 });
  world.driver.enableCalls();
  for (let round = 0; round < 30; round++) {
    const buffers = 1 + round % 4;
    for (let k = 0; k < buffers; k++) world.offer(1500);
    const bytes = tcpFrame(1500 * buffers - VNET_HEADER_SIZE);
    world.place(0, bytes.length - HEADERS);
    world.fill(bytes.subarray(HEADERS));
    assertEquals(world.send(0, bytes, HEADERS), 0);
    assert(world.to.flush() && !world.to.flush());
    assertEquals(world.take()?.frame, bytes);
    world.driver.enableCalls();
  }
});

Deno.test("a reservation that led to no frame does not outlive the turn", () => {
  const world = new World(), datagram = udpFrame(1000);
  world.offerMany(60, 1536);
  assert(world.place(0, 30_000) > 0); // and recvmsg(2) says EAGAIN
  world.to.flush();
  assertEquals(world.send(0, datagram), 0);
  world.to.flush();
  assertEquals(world.take()?.frame, datagram);
});

Deno.test("nor does that of a later slot, when data came short", () => {
  const world = new World(), datagram = udpFrame(1000), one = tcpFrame(HEADERS + 30_000);
  world.offerMany(60, 1536);
  assert(world.place(0, 30_000) > 0 && world.place(1, 30_000) > 0);
  world.fill(one.subarray(HEADERS));
  assertEquals(world.send(0, one, HEADERS), 0);
  world.to.flush();
  assertEquals(world.send(1, datagram), 0);
  world.to.flush();
  assertEquals(world.take()?.frame, one);
  assertEquals(world.take()?.frame, datagram);
});

Deno.test("a flood of single frames does not keep bulk data from the guest, nor the other way round", () => {
  const world = new World(256), datagram = udpFrame(1000);
  world.offerMany(256, 1536);
  let bulk = 0, single = 0;
  for (let turn = 0; turn < 200; turn++) {
    for (let k = 0; k < 300; k++) if (world.send(0, datagram) === 0) single++;
    if (world.to.writable && world.place(0, 1448) > 0) {
      world.send(0, tcpFrame(HEADERS + 1448), HEADERS);
      bulk++;
    }
    world.to.flush();
    const used = world.driver.takeAll().length;
    world.memory.reset(40_000);
    world.offerMany(used, 1536);
    if (world.driver.kicks()) world.to.kicked();
  }
  assert(bulk > 50, `${bulk} of 200`);
  assert(single > 10_000, `${single} datagrams`);
});
