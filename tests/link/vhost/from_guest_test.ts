// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { GSO, MAX_PIECES, RX_FRAMES, SLOT_FRAME_SIZE } from "../../../lib/link/link.ts";
import { Slots } from "../../../lib/link/slots.ts";
import { COPIED_WHOLE, FromGuest, HEAD_SIZE } from "../../../lib/link/vhost/from_guest.ts";
import { Queue } from "../../../lib/link/vhost/queue.ts";
import { libc } from "../../../lib/sys/libc.ts";
import { Message } from "../../../lib/sys/message.ts";
import { AF_UNIX, SOCK_DGRAM } from "../../../lib/sys/socket.ts";
import { VNET_HEADER_SIZE } from "../../../lib/sys/tun.ts";
import { type Buffer, Driver, TestMemory } from "./driver.ts";
import { tcp6Frame, tcpFrame, udpFrame } from "./frames.ts";

const slots = new Slots(VNET_HEADER_SIZE, RX_FRAMES);
const message = new Message(MAX_PIECES);

interface Header {
  flags?: number;
  gsoType?: number;
  gsoSize?: number;
  csumStart?: number;
  csumOffset?: number;
}

/** A `struct virtio_net_hdr_v1`. */
function header(fields: Header): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(VNET_HEADER_SIZE), view = new DataView(bytes.buffer);
  view.setUint8(0, fields.flags ?? 0);
  view.setUint8(1, fields.gsoType ?? 0);
  view.setUint16(4, fields.gsoSize ?? 0, true);
  view.setUint16(6, fields.csumStart ?? 0, true);
  view.setUint16(8, fields.csumOffset ?? 0, true);
  return bytes;
}

class World {
  readonly memory: TestMemory;
  readonly driver: Driver;
  readonly queue: Queue;
  readonly from: FromGuest;

  constructor(size = 256, options: { eventIdx?: boolean; cuts?: number[] } = {}) {
    this.memory = new TestMemory(1 << 21, options.cuts);
    this.driver = new Driver(this.memory, size, options);
    this.queue = new Queue(this.memory);
    assertEquals(this.queue.start(this.driver.ring), "");
    this.from = new FromGuest(this.queue, this.memory, slots);
    this.from.kicked();
  }

  /** Sends a frame as buffers of these sizes, the rest in a last one. @returns its buffers */
  send(frame: Uint8Array, layout: number[] = [], fields: Header = {}, indirect = false): Buffer[] {
    const bytes = new Uint8Array([...header(fields), ...frame]);
    const buffers: Buffer[] = [];
    let at = 0;
    for (const length of [...layout, Infinity]) {
      const part = bytes.subarray(at, at + length);
      at += part.length;
      if (part.length === 0) break;
      const off = this.memory.alloc(part.length, 1) + 1; // odd places, and gaps
      this.memory.alloc(2);
      this.memory.bytes(off, part.length).set(part);
      buffers.push({ off, length: part.length });
    }
    assert(this.driver.add(buffers, indirect) >= 0);
    return buffers;
  }

  /** What the link says frame `k` is, all of it fetched. */
  whole(k: number): Uint8Array<ArrayBuffer> {
    this.from.fetch(slots.rxOffset[k], this.from.rxLength[k]);
    return this.inSlot(k);
  }

  inSlot(k: number): Uint8Array<ArrayBuffer> {
    return slots.arena.u8.slice(slots.rxOffset[k], slots.rxOffset[k] + this.from.rxLength[k]);
  }

  /** What the kernel sees of part of frame `k`. @returns the number of iovecs, and the bytes */
  gathered(k: number, from: number, length: number): [number, Uint8Array] {
    const pieces = this.from.gather(message, 0, slots.rxOffset[k] + from, length);
    message.setCount(pieces);
    const fds = new Int32Array(2), got = new Uint8Array(SLOT_FRAME_SIZE);
    libc.socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
    assertEquals(libc.sendmsg(fds[0], message.header, 0), length);
    assertEquals(libc.recv(fds[1], got, got.length, 0), length);
    for (const fd of fds) libc.close(fd);
    return [pieces, got.subarray(0, length)];
  }
}

Deno.test("receive() returns frames however header and frame are cut up", () => {
  const frame = udpFrame(300), segment = tcpFrame(3000), six = tcp6Frame(2000);
  const layouts = [
    [],
    [VNET_HEADER_SIZE],
    [1],
    [5, 3, 4, 14],
    [VNET_HEADER_SIZE + 10, 1, 1, 1, 100],
    Array.from({ length: 200 }, () => 1),
    [VNET_HEADER_SIZE + HEAD_SIZE],
    [VNET_HEADER_SIZE + HEAD_SIZE - 1, 2, 5],
  ];
  for (const indirect of [false, true]) {
    for (const layout of layouts) {
      const world = new World();
      for (const bytes of [frame, segment, six]) {
        world.send(bytes, layout, {}, indirect);
        assertEquals(world.from.receive(RX_FRAMES), 1);
        assertEquals(world.from.rxLength[0], bytes.length);
        assertEquals(world.gathered(0, 60, 220)[1], bytes.subarray(60, 280));
        assertEquals(world.whole(0), bytes);
        world.from.release();
        assertEquals(world.driver.takeAll().length, 1);
      }
    }
  }
});

Deno.test("receive() finds frames in memory of several windows", () => {
  const world = new World(64, { cuts: [8192, 8300, 20000, 20001, 22000] });
  world.memory.alloc(6000, 1);
  for (let k = 0; k < 6; k++) world.send(tcpFrame(4000 + k), [100]);
  assertEquals(world.from.receive(RX_FRAMES), 6);
  for (let k = 0; k < 6; k++) {
    assertEquals(world.gathered(k, 66, 3900)[1], tcpFrame(4000 + k).subarray(66, 3966));
    assertEquals(world.whole(k), tcpFrame(4000 + k));
  }
});

Deno.test("payload of long TCP segments stays where it is until it is fetched", () => {
  const world = new World();
  const frame = tcpFrame(40000);
  const buffers = world.send(frame, [VNET_HEADER_SIZE + 66, 10000, 10000, 10000]);
  slots.arena.u8.fill(0, slots.rxOffset[0], slots.rxOffset[0] + 40000);
  assertEquals(world.from.receive(RX_FRAMES), 1);
  assertEquals(world.inSlot(0).subarray(0, HEAD_SIZE), frame.subarray(0, HEAD_SIZE));
  assert(world.inSlot(0).subarray(HEAD_SIZE).every((byte) => byte === 0));
  assertEquals(world.gathered(0, 66, frame.length - 66), [4, frame.subarray(66)]);
  assertEquals(world.gathered(0, 10066, 10000), [1, frame.subarray(10066, 20066)]);
  assertEquals(world.gathered(0, 10065, 10002), [3, frame.subarray(10065, 20067)]);
  assertEquals(world.gathered(0, 66, 20), [1, frame.subarray(66, 86)]);
  assertEquals(world.gathered(0, 39999, 1), [1, frame.subarray(39999)]);
  world.from.fetch(slots.rxOffset[0] + 20000, 50);
  assertEquals(world.inSlot(0).subarray(20000, 20050), frame.subarray(20000, 20050));
  assert(world.inSlot(0).subarray(20050).every((byte) => byte === 0));
  assertEquals(world.gathered(0, 66, frame.length - 66), [4, frame.subarray(66)]);
  world.memory.bytes(buffers[0].off, 78).fill(0xff); // what was checked is not read again
  assertEquals(world.whole(0), frame);
  assertEquals(world.gathered(0, 66, frame.length - 66), [1, frame.subarray(66)]);
});

Deno.test("receive() copies whole what is not a long TCP segment with plain headers", () => {
  const change = (frame: Uint8Array<ArrayBuffer>, at: number, byte: number) => {
    frame[at] = byte;
    return frame;
  };
  const frames = {
    short: tcpFrame(COPIED_WHOLE),
    udp: udpFrame(1000),
    fragment: change(tcpFrame(1000), 20, 0x20),
    "fragment's rest": change(tcpFrame(1000), 21, 1),
    "IP header too short": change(tcpFrame(1000), 14, 0x44),
    "TCP header too short": change(tcpFrame(1000), 46, 0x40),
    "IPv6 with extension": change(tcp6Frame(1000), 20, 0),
    ARP: change(tcpFrame(1000), 13, 6),
    VLAN: change(change(tcpFrame(1000), 12, 0x81), 13, 0),
  };
  for (const [name, frame] of Object.entries(frames)) {
    const world = new World();
    world.send(frame, [100, 100]);
    assertEquals(world.from.receive(1), 1, name);
    assertEquals(world.inSlot(0), frame, name);
    assertEquals(world.gathered(0, 0, frame.length), [1, frame], name);
  }
  const longest = change(change(tcpFrame(1000), 14, 0x4f), 14 + 60 + 12, 0xf0);
  const world = new World();
  slots.arena.u8.fill(0, slots.rxOffset[0], slots.rxOffset[0] + longest.length);
  world.send(longest, [100]);
  assertEquals(world.from.receive(1), 1);
  assertEquals(world.gathered(0, 134, 866), [1, longest.subarray(134)]); // still stays
  assertEquals(world.inSlot(0)[999], 0);
  assertEquals(world.whole(0), longest);
});

Deno.test("receive() copies a frame of too many pieces for one message", () => {
  for (const count of [MAX_PIECES - 1, MAX_PIECES]) {
    const world = new World();
    const frame = tcpFrame(20000);
    slots.arena.u8.fill(0, slots.rxOffset[0], slots.rxOffset[0] + 20000);
    world.send(frame, Array.from({ length: count }, () => 100));
    assertEquals(world.from.receive(1), 1);
    assertEquals(world.inSlot(0)[19999] === frame[19999], count === MAX_PIECES);
    assertEquals(world.gathered(0, 66, 19934)[1], frame.subarray(66));
  }
});

Deno.test("receive() takes the offloads from the header, and drops frames whose header is nonsense", () => {
  const length = 1000;
  const rows: [Header, [gso: number, start: number, offset: number] | null][] = [
    [{}, [0, 0, 0]],
    [{ csumStart: 34, csumOffset: 16, gsoSize: 77 }, [0, 0, 0]],
    [{ flags: 1, csumStart: 34, csumOffset: 16 }, [0, 34, 16]],
    [{ flags: 1, csumStart: 34, csumOffset: 16, gsoType: GSO.TCPV4, gsoSize: 1448 }, [
      1448,
      34,
      16,
    ]],
    [{ flags: 1, csumStart: 34, csumOffset: 16, gsoType: GSO.TCPV4 | 0x80, gsoSize: 9 }, [
      9,
      34,
      16,
    ]],
    [{ flags: 1, csumStart: 54, csumOffset: 16, gsoType: GSO.TCPV6, gsoSize: 1 }, [1, 54, 16]],
    [{ flags: 1, csumStart: 34, csumOffset: 6, gsoType: GSO.UDP_L4, gsoSize: 100 }, [100, 34, 6]],
    [{ flags: 1, csumStart: 998, csumOffset: 0 }, [0, 998, 0]],
    [{ flags: 1, csumStart: 999, csumOffset: 0 }, null],
    [{ flags: 1, csumStart: 34, csumOffset: 0xffff }, null],
    [{ flags: 1, csumStart: 0xffff, csumOffset: 0xffff }, null],
    [{ flags: 1, csumStart: 13, csumOffset: 2 }, null],
    [{ gsoType: GSO.TCPV4, gsoSize: 1448 }, null], // without a checksum to complete
    [{ flags: 1, csumStart: 34, csumOffset: 16, gsoType: GSO.TCPV4 }, null], // of no size
    [{ flags: 1, csumStart: 34, csumOffset: 16, gsoType: 3, gsoSize: 9 }, null], // UFO
    [{ flags: 1, csumStart: 34, csumOffset: 16, gsoType: 0x7f, gsoSize: 9 }, null],
  ];
  const world = new World();
  for (const [fields, expected] of rows) {
    world.send(tcpFrame(length), [7], fields);
    const n = world.from.receive(RX_FRAMES);
    assertEquals(n, expected ? 1 : 0, JSON.stringify(fields));
    const { rxGsoSize, rxCsumStart, rxCsumOffset } = world.from;
    if (expected) assertEquals([rxGsoSize[0], rxCsumStart[0], rxCsumOffset[0]], expected);
    world.from.release();
    assertEquals(world.driver.takeAll().length, 1);
    assert(world.queue.running);
  }
});

Deno.test("receive() drops frames that are too short or too long", () => {
  const world = new World();
  for (const length of [0, 1, 13, 14, SLOT_FRAME_SIZE, SLOT_FRAME_SIZE + 1]) {
    const off = world.memory.alloc(length + VNET_HEADER_SIZE);
    world.driver.add([{ off, length: length + VNET_HEADER_SIZE }]);
  }
  world.driver.add([{ off: 0, length: 5 }]); // not even a header
  world.driver.add([{ off: 0, length: 1 << 20 }, { off: 0, length: 1 << 20 }]);
  assertEquals(world.from.receive(RX_FRAMES), 2);
  assertEquals([...world.from.rxLength.subarray(0, 2)], [14, SLOT_FRAME_SIZE]);
  assertEquals(world.driver.takeAll().length, 0);
  world.from.release();
  assertEquals(world.driver.takeAll().length, 8);
});

Deno.test("release() gives chains back in order, and not before", () => {
  const world = new World();
  const heads = [];
  for (let k = 0; k < 5; k++) {
    world.send(tcpFrame(600 + k), [100]);
    heads.push(world.driver.avail[2 + k]);
  }
  assertEquals(world.from.receive(3), 3);
  assert(world.from.pending);
  assertEquals(world.driver.take(), null);
  world.from.release();
  assertEquals(
    world.driver.takeAll(),
    heads.slice(0, 3).map((head) => ({ head, length: 0 })),
  );
  assertEquals(world.from.receive(3), 2);
  world.from.release();
  assertEquals(world.driver.takeAll().map(({ head }) => head), heads.slice(3));
  assertEquals(world.from.receive(3), 0);
  world.from.release();
  assertEquals(world.driver.takeAll(), []);
});

for (const eventIdx of [true, false]) {
  Deno.test(`the guest kicks only when the ring was found empty (event index: ${eventIdx})`, () => {
    const world = new World(8, { eventIdx });
    assertEquals([world.from.receive(8), world.from.pending], [0, false]);
    world.send(tcpFrame(100));
    assert(world.driver.kicks());
    world.from.kicked();
    assert(world.from.pending);
    world.send(tcpFrame(100));
    assertEquals([world.from.receive(1), world.from.pending], [1, true]);
    world.send(tcpFrame(100));
    assert(!world.driver.kicks(), "we look again anyway");
    assertEquals([world.from.receive(8), world.from.pending], [2, false]);
    world.from.release();
    world.driver.takeAll();
    world.send(tcpFrame(100));
    assert(world.driver.kicks());
  });
}

Deno.test("flush() says whether the guest wants to know of buffers it got back", () => {
  const world = new World();
  const turn = () => {
    world.send(tcpFrame(100));
    world.from.receive(8);
    world.from.release();
    world.driver.takeAll();
    return world.from.flush();
  };
  assert(turn());
  assert(!world.from.flush());
  assert(!turn()); // used_event is behind
  world.driver.enableCalls();
  assert(turn());
});

Deno.test("a broken ring gives no frames, and is left alone", () => {
  const world = new World();
  world.send(tcpFrame(1000), [100]);
  world.driver.offer(999);
  assertEquals(world.from.receive(8), 1);
  assert(!world.queue.running && !world.from.pending);
  assertEquals(world.whole(0), tcpFrame(1000));
  world.from.release();
  assertEquals(world.driver.used[1], 0);
  world.from.kicked();
  assertEquals([world.from.receive(8), world.from.pending, world.from.flush()], [0, false, false]);
});
