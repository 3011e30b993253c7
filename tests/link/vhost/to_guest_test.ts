// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { GSO, MAX_PIECES, RX_FRAMES, TX_CONTROL } from "../../../lib/link/link.ts";
import { Slots } from "../../../lib/link/slots.ts";
import { Queue } from "../../../lib/link/vhost/queue.ts";
import { ToGuest } from "../../../lib/link/vhost/to_guest.ts";
import { E } from "../../../lib/sys/errno.ts";
import { libc } from "../../../lib/sys/libc.ts";
import { Message } from "../../../lib/sys/message.ts";
import { AF_UNIX, SOCK_STREAM } from "../../../lib/sys/socket.ts";
import { VNET_HEADER_SIZE } from "../../../lib/sys/tun.ts";
import { Driver, TestMemory } from "./driver.ts";
import { pattern, tcpFrame } from "./frames.ts";

const HEADERS = 66;
const slots = new Slots(VNET_HEADER_SIZE, RX_FRAMES);
const message = new Message(1024);

interface Options {
  eventIdx?: boolean;
  mergeable?: boolean;
  cuts?: number[];
  base?: number;
}

class World {
  readonly memory: TestMemory;
  readonly driver: Driver;
  readonly queue: Queue;
  readonly to: ToGuest;
  /** By first descriptor: the buffers of each chain. */
  readonly chains = new Map<number, { off: number; length: number }[]>();
  #iovecs = 0;

  constructor(size = 64, options: Options = {}) {
    this.memory = new TestMemory(1 << 22, options.cuts);
    this.driver = new Driver(this.memory, size, options);
    this.queue = new Queue(this.memory);
    assertEquals(this.queue.start(this.driver.ring), "");
    this.to = new ToGuest(this.queue, this.memory, slots);
    this.to.mergeable = options.mergeable ?? true;
    this.to.kicked();
  }

  /** Makes a chain of empty buffers of these sizes available. */
  offer(...sizes: number[]): void {
    const buffers = sizes.map((length) => {
      const off = this.memory.alloc(length + 8, 1) + 3;
      this.memory.bytes(off - 3, length + 8).fill(0xee);
      return { off, length, write: true };
    });
    const head = this.driver.add(buffers);
    assert(head >= 0);
    this.chains.set(head, buffers);
  }

  offerMany(count: number, size: number): void {
    for (let k = 0; k < count; k++) this.offer(size);
  }

  /** Reserves room for payload. @returns number of iovecs */
  place(slot: number, length: number): number {
    if (slot === 0) this.#iovecs = 0;
    const n = this.to.place(message, this.#iovecs, slot, HEADERS, length);
    this.#iovecs += n;
    return n;
  }

  /** Has the kernel put payload where it belongs. */
  fill(payload: Uint8Array): void {
    const fds = new Int32Array(2);
    libc.socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
    assertEquals(libc.write(fds[0], payload, payload.length), payload.length);
    message.setCount(this.#iovecs);
    assertEquals(libc.recvmsg(fds[1], message.header, 0), payload.length);
    for (const fd of fds) libc.close(fd);
  }

  /** Writes the start of `frame` to a slot, and sends the slot. */
  send(slot: number, frame: Uint8Array, written = frame.length): number {
    slots.arena.u8.fill(0x99, slots.txOffset[slot], slots.txOffset[slot] + frame.length);
    slots.arena.u8.set(frame.subarray(0, written), slots.txOffset[slot]);
    return this.to.send(slot, frame.length, HEADERS, 34, 16, GSO.TCPV4, 1448);
  }

  /** Takes one frame as a driver does. @returns null: none */
  take(): { header: DataView; frame: Uint8Array; lengths: number[] } | null {
    const lengths: number[] = [], bytes: number[] = [];
    let buffers = 1;
    for (let k = 0; k < buffers; k++) {
      const used = this.driver.take();
      if (!used) {
        assertEquals(k, 0, "part of a frame");
        return null;
      }
      let left = used.length;
      for (const { off, length } of this.chains.get(used.head)!) {
        const part = Math.min(left, length);
        bytes.push(...this.memory.bytes(off, part));
        const rest = this.memory.bytes(off + part, length - part + 5);
        assert(left === 0 || rest.subarray(-5).every((byte) => byte === 0xee), "beyond the buffer");
        left -= part;
      }
      assertEquals(left, 0, "more used than there is");
      lengths.push(used.length);
      if (k === 0) buffers = bytes[10] | bytes[11] << 8;
    }
    const all = Uint8Array.from(bytes);
    return {
      header: new DataView(all.buffer, 0, VNET_HEADER_SIZE),
      frame: all.subarray(VNET_HEADER_SIZE),
      lengths,
    };
  }
}

const frame = tcpFrame(5000);

Deno.test("place() has the kernel write payload to the guest's buffers, send() adds the headers", () => {
  const layouts = [[6000], [12, 5000], [1, 6, 9, 62, 5000], [78, 5000], [79, 2000, 3000], [
    77,
    2000,
    3000,
  ]];
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
  for (let k = 0; k < 5; k++) assertEquals(world.send(0, tcpFrame(100)), 0);
  assertEquals(world.send(0, tcpFrame(100)), -E.ENOBUFS);
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
  assertEquals(world.send(0, tcpFrame(60000 + HEADERS)), -E.ENOBUFS);
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
