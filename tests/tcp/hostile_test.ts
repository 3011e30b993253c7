// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { libc } from "../../lib/sys/libc.ts";
import { seeded } from "../wire/random.ts";
import { ACK, buildSegment, FIN, PSH, SYN, synOptions } from "./segment.ts";
import { assertBytes, connected, drain, pattern, World } from "./world.ts";

const MUTATIONS = 100_000;

/** Frames of every kind a guest sends in and around one connection. */
function samples(sport: number, dport: number, seq: number, ack: number, v6: boolean) {
  const common = { sport, dport, seq, ack, v6 };
  return [
    buildSegment({ ...common, flags: SYN, options: synOptions(1460, 7) }),
    buildSegment({ ...common, flags: SYN | ACK, options: synOptions(1460, 7) }),
    buildSegment({ ...common, flags: ACK }),
    buildSegment({ ...common, flags: ACK | PSH, payload: pattern(300) }),
    buildSegment({ ...common, flags: FIN | ACK, payload: pattern(10) }),
    buildSegment({ ...common, flags: 4 }),
    buildSegment({ ...common, flags: ACK, options: [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2] }),
  ];
}

for (const v6 of [false, true]) {
  Deno.test(`no truncation of any segment is taken, answered or thrown at (${v6 ? 6 : 4})`, () => {
    using world = new World();
    using pair = connected(world, { v6 });
    const { guest, server } = pair;
    const before = world.table.data.slice();
    for (const whole of samples(guest.sport, guest.dport, guest.seq, guest.ack, v6)) {
      for (let length = 0; length < whole.length; length++) {
        world.link.inject(whole.slice(0, length));
        world.turn();
      }
    }
    assertEquals(world.segments(), []);
    assert(before.every((word, k) => word === world.table.data[k]), "the flow has changed");
    assertEquals([world.table.activeCount, typeof server.receive()], [1, "number"]);
  });

  Deno.test(`a TCP header cut off by a short IP length is refused (${v6 ? 6 : 4})`, () => {
    using world = new World();
    using pair = connected(world, { v6 });
    const { guest } = pair;
    for (const whole of samples(guest.sport, guest.dport, guest.seq, guest.ack, v6)) {
      const view = new DataView(whole.buffer);
      const ip = v6 ? 40 : 20, header = (whole[14 + ip + 12] >>> 4) * 4;
      for (let length = 0; length < header; length++) {
        const frame = whole.slice();
        const at = new DataView(frame.buffer);
        if (v6) at.setUint16(18, length);
        else at.setUint16(16, 20 + length);
        assertEquals(view.byteLength, frame.length);
        world.link.inject(frame);
        world.turn();
      }
    }
    assertEquals(world.segments(), []);
  });
}

/**
 * Lets connect(2) go nowhere but to a port of the loopback address while `work` runs: what a broken
 * SYN names is no business of this machine's network.
 */
function confined(port: number, work: () => void): void {
  const real = libc.connect;
  const replace = (value: typeof real) =>
    Object.defineProperty(libc, "connect", { configurable: true, writable: true, value });
  replace((fd, bytes, length) => {
    const at = bytes as Uint8Array;
    const family = at[0],
      allowed = (at[2] << 8 | at[3]) === port &&
        (family === 2 ? at[4] === 127 : at.slice(8, 23).every((byte) => byte === 0));
    return real(allowed ? fd : -1, bytes, length); // else EBADF
  });
  try {
    work();
  } finally {
    replace(real);
  }
}

/** Changes a few bytes, mostly of the headers. */
function mutate(frame: Uint8Array, random: (n: number) => number): Uint8Array {
  const copy = frame.slice(0, random(10) ? frame.length : random(frame.length) + 1);
  for (let k = random(4); k >= 0; k--) {
    copy[random(Math.min(copy.length, random(3) ? 90 : 1000))] = random(256);
  }
  return copy;
}

Deno.test(`${MUTATIONS} broken segments: nothing throws, at most one answer each, nothing piles up`, () => {
  const random = seeded(42);
  using world = new World({ capacity: 64 });
  const pairs = [connected(world), connected(world, { v6: true })];
  const { dport } = pairs[0].guest;
  const send = (k: number) => {
    const { guest } = pairs[k % 2];
    const kinds = k % 500 < 250
      ? samples(guest.sport, guest.dport, guest.seq, guest.ack, guest.v6)
      : samples(30_000 + random(8), dport, random(1 << 30), random(1 << 30), false);
    world.link.inject(mutate(kinds[random(kinds.length)], random));
    if (k % 16 === 15) {
      const sent = world.link.sentCount;
      world.turn();
      assert(world.link.sentCount - sent <= 40, `${world.link.sentCount - sent} answers to 16`);
      world.link.sent.length = 0;
    }
    if (k % 1000 === 0) {
      world.ctx.nowMs += 997;
      world.turn();
      world.scan();
      for (const { server } of pairs) server.receive();
    }
  };
  confined(dport, () => {
    for (let k = 0; k < MUTATIONS; k++) send(k);
    world.settle();
  });
  world.table.verify();
  // half-open connections time out, and the instance still works
  for (let second = 0; second < 200; second++) {
    world.pass(1000);
    world.scan();
  }
  world.link.sent.length = 0;
  assert(world.table.activeCount < 64);
  using next = connected(world);
  next.guest.data(pattern(1000));
  world.settle();
  assertBytes(drain(world, next.server, 1000), pattern(1000));
  for (const pair of pairs) pair[Symbol.dispose]();
});

Deno.test("a flood of SYNs to a refusing port costs one answer each and leaves no flow", () => {
  using world = new World({ capacity: 64 });
  for (let k = 0; k < 2000; k++) {
    world.link.inject(buildSegment({ sport: 1024 + k, dport: 1, seq: k, flags: SYN }));
    if (k % 16 === 15) {
      world.turn();
      world.scan();
    }
  }
  world.settle();
  assertEquals(world.link.sentCount, 2000);
  world.scan();
  assertEquals(world.table.activeCount, 0);
});

Deno.test("a guest that acknowledges nothing is sent one window, then less and less", () => {
  using world = new World();
  using pair = connected(world, { window: 65535, scale: 14 });
  const { server, guest } = pair;
  while (server.send(pattern(100_000)) > 0) world.settle();
  world.link.record = false;
  const sent = world.link.sentCount;
  for (let second = 0; second < 300; second++) {
    world.pass(1000);
    guest.send(ACK, { ack: guest.ack }); // a hostile duplicate each second
  }
  // 9 timeouts and one fast retransmission, of at most what the socket holds
  assert(world.link.sentCount - sent < 3000, `${world.link.sentCount - sent} frames`);
});

Deno.test("any window and shift is survived", () => {
  const random = seeded(7);
  using world = new World();
  using pair = connected(world, { window: 65535, scale: 14, mss: 64 });
  const { server, guest } = pair;
  let start = guest.ack;
  for (let k = 0; k < 2000; k++) {
    server.send(pattern(1000));
    guest.window = random(4) ? random(65536) : random(3);
    guest.send(ACK, { ack: (start + random(3000)) >>> 0 });
    world.turn();
    for (const { seq, payload } of world.segments()) {
      if (payload.length > 0) start = seq;
    }
    world.ctx.nowMs += random(100);
  }
  world.settle();
  assert(guest.flow >= 0);
});
