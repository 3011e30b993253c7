// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { Ev, W } from "../../lib/tcp/words.ts";
import { acknowledge, end, payload, serve } from "./exchange.ts";
import { ACK, PSH, type Segment } from "./segment.ts";
import { assertBytes, connected, pattern, withoutPeekOffset, World } from "./world.ts";

for (const v6 of [false, true]) {
  Deno.test(`data goes to the guest as super-frames, ${v6 ? "IPv6" : "IPv4"}`, () => {
    using world = new World();
    using pair = connected(world, { v6, window: 4000 });
    const { guest, server } = pair;
    const start = guest.ack, segments: Segment[] = [];
    assertEquals(server.send(pattern(200_000)), 200_000);
    while (((guest.ack - start) | 0) < 200_000) { // more than the socket's window at first
      world.settle();
      segments.push(...world.segments());
      if (segments.length > 0) guest.ack = end(segments.at(-1)!);
      guest.send(ACK);
    }
    assertEquals(segments[0].seq, start);
    assertBytes(payload(segments), pattern(200_000));
    const mss = v6 ? 1440 : 1460;
    for (const { sent, flags, payload } of segments) {
      assertEquals([flags, sent.gsoSize], [ACK | PSH, payload.length > mss ? mss : 0]);
      assertEquals(sent.gsoType, payload.length > mss ? (v6 ? 4 : 1) : 0);
      assert(payload.length <= 65535);
    }
    assert(segments.some(({ payload }) => payload.length > 60_000));
  });
}

Deno.test("without offloads every frame is one packet", () => {
  using world = new World({ tso: false });
  using pair = connected(world, { mss: 1000 });
  const segments = serve(world, pair.server, pattern(50_000));
  assertBytes(payload(segments), pattern(50_000));
  for (const { sent, payload } of segments) {
    assertEquals(sent.gsoType, 0);
    assert(payload.length <= 1000);
  }
});

Deno.test("a guest that takes no super-frames any more gets none, also in a connection from before", () => {
  using world = new World();
  using pair = connected(world, { mss: 1000 });
  const first = serve(world, pair.server, pattern(20_000));
  assert(first.some(({ payload }) => payload.length > 1000));
  world.link.tso = false;
  world.pass(1000); // nothing was acknowledged: all is sent again
  const again = world.segments();
  assertBytes(payload(again), pattern(20_000));
  for (const { sent, payload } of again) assertEquals([sent.gsoType, payload.length], [0, 1000]);
});

Deno.test("what the guest acknowledges leaves the socket, the rest is kept", () => {
  using world = new World();
  using pair = connected(world, { rcvbuf: 65536 });
  const { guest, server } = pair;
  const start = guest.ack;
  serve(world, server, pattern(30_000));
  assertEquals(acknowledge(world, guest, start + 10_000), []);
  assertEquals([guest.word(W.ACKED), guest.word(W.SEQ_UNACKED)], [0, (start + 10_000) | 0]);
  guest.poke(W.PROGRESS_AT, world.ctx.nowMs - 10_000); // a timeout
  world.pass(50);
  const again = world.segments();
  assertEquals(again[0].seq, start + 10_000);
  assertBytes(payload(again), pattern(20_000, 10_000));
});

Deno.test("three duplicate acknowledgements: sent again from the lowest byte, once", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  const start = guest.ack;
  serve(world, server, pattern(20_000));
  const duplicate = () => acknowledge(world, guest, start);
  assertEquals([duplicate(), duplicate()], [[], []]);
  const again = duplicate();
  assertEquals(again[0].seq, start);
  assertBytes(payload(again), pattern(20_000));
  for (let k = 0; k < 10; k++) assertEquals(duplicate(), []); // once per loss
  // a part of it arrives; further duplicates belong to the same loss
  assertEquals(acknowledge(world, guest, start + 5000), []);
  for (let k = 0; k < 10; k++) assertEquals(acknowledge(world, guest, start + 5000), []);
  assertEquals(acknowledge(world, guest, start + 20_000), []);
  // a later loss is noticed again
  const next = serve(world, server, pattern(5000, 20_000));
  assertEquals(next[0].seq, start + 20_000);
  duplicate.call(null);
  for (let k = 0; k < 2; k++) acknowledge(world, guest, start + 20_000);
  assertBytes(payload(acknowledge(world, guest, start + 20_000)), pattern(5000, 20_000));
});

Deno.test("what looks like a duplicate but is none does not cause anything to be sent again", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  serve(world, server, pattern(5000));
  for (let k = 0; k < 9; k++) {
    guest.window -= 10; // window updates
    guest.send(ACK);
  }
  for (let k = 0; k < 9; k++) guest.data(pattern(1)); // segments with payload
  world.settle();
  assert(world.segments().every(({ payload }) => payload.length === 0));
  acknowledge(world, guest, guest.ack + 5000);
  for (let k = 0; k < 9; k++) guest.send(ACK); // nothing is in flight
  world.settle();
  assertEquals(world.segments(), []);
});

Deno.test("a timeout goes back, with exponential backoff, until the guest answers", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  const began = world.ctx.nowMs;
  serve(world, server, pattern(3000));
  const times: number[] = [];
  while (world.ctx.nowMs - began < 40_000) {
    world.pass(50);
    for (const segment of world.segments()) {
      assertEquals(segment.seq, guest.ack);
      times.push(Math.round((world.ctx.nowMs - began) / 1000));
    }
  }
  assertEquals(times, [1, 3, 7, 15, 31]); // RFC 6298 §2.1, §5.5
  acknowledge(world, guest, guest.ack + 3000);
  assertEquals(guest.word(W.RETRIES), 0);
  // a measured round trip shortens the timeout (RFC 6298 §2.2)
  serve(world, server, pattern(100));
  world.ctx.nowMs += 20;
  acknowledge(world, guest, guest.ack + 100);
  assertEquals(guest.word(W.RTO), 200);
  world.pass(100);
  assertEquals(world.tcp.timeoutMs(), -1); // nothing in flight: nothing is timed
});

Deno.test("a guest that has gone silent with data in flight is given up, and the peer reset", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  serve(world, server, pattern(3000));
  const began = world.ctx.nowMs;
  while (guest.flow >= 0 && world.ctx.nowMs - began < 3_600_000) {
    world.ctx.nowMs += 1000;
    world.turn();
  }
  const minutes = (world.ctx.nowMs - began) / 60_000;
  assert(minutes > 5 && minutes < 30, `${minutes} minutes`);
  assertEquals(server.receive(), -E.ECONNRESET);
  assertEquals(world.segments().at(-1)!.flags & 4, 4);
  world.scan();
  assertEquals(world.table.activeCount, 0);
});

Deno.test("a slow guest that answers is never given up", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  serve(world, server, pattern(3000));
  for (let minute = 0; minute < 120; minute++) {
    for (let k = 0; k < 60; k++) {
      world.ctx.nowMs += 1000;
      world.turn();
    }
    guest.send(ACK); // still nothing received
    world.settle();
  }
  assert(guest.flow >= 0);
});

Deno.test("an acknowledgement of what was never sent is answered and ignored", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  const start = guest.ack;
  serve(world, server, pattern(1000));
  for (const beyond of [1001, 5000, 0x7fff0000]) {
    guest.send(ACK, { ack: (start + beyond) >>> 0, payload: pattern(10) });
    world.settle();
    const answer = world.one();
    assertEquals([answer.flags, answer.ack], [ACK, guest.seq]); // its payload was not taken
  }
  assertEquals(guest.word(W.SEQ_UNACKED), start | 0);
  assertBytes(payload(acknowledge(world, guest, start + 1000)), pattern(0));
});

for (const fallback of [false, true]) {
  const how = fallback ? "without" : "with";
  Deno.test(`an acknowledgement above where we went back to: ${how} SO_PEEK_OFF, all goes on from there`, () => {
    using world = new World();
    using pair = connected(world, { window: 30_000, scale: 0 });
    const { guest, server } = pair;
    if (fallback) withoutPeekOffset(guest);
    const start = guest.ack;
    serve(world, server, pattern(60_000)); // 29,200 of it fit the window
    const sent = (guest.word(W.SEQ_MAX) - start) | 0;
    guest.window = 3000;
    for (let k = 0; k < 4; k++) guest.send(ACK);
    world.settle();
    assertBytes(payload(world.segments()), pattern(2920)); // 3 duplicates: back to the start
    guest.window = 30_000;
    const next = acknowledge(world, guest, start + 20_000); // it had more all the time
    assertEquals(next[0].seq, start + 20_000);
    assertBytes(payload(next), pattern(29_200, 20_000));
    assert(sent < 30_001);
  });

  Deno.test(`frames are the same ${how} SO_PEEK_OFF, with ACKs in between`, () => {
    using world = new World();
    using pair = connected(world, { scale: 2, window: 3000 });
    const { guest, server } = pair;
    if (fallback) withoutPeekOffset(guest);
    const start = guest.ack, total = 60_000; // less than the host's kernel queues at first
    assertEquals(server.send(pattern(total)), total);
    const [fd, queued] = [guest.word(W.FD), new Int32Array(1)], FIONREAD = 0x541b; // tty(4)
    while (queued[0] < total) libc.ioctl(fd, FIONREAD, queued);
    const got: [number, number][] = [];
    let at = 0;
    for (let round = 0; at < total; round++) {
      world.settle();
      for (const { seq, payload: bytes } of world.segments()) {
        assertBytes(bytes, pattern(bytes.length, seq - start));
        got.push([seq - start, bytes.length]);
        at = Math.max(at, seq - start + bytes.length);
      }
      guest.ack = (start + at - (round % 3 && at < total ? 7777 : 0)) >>> 0;
      guest.send(ACK);
    }
    world.settle();
    if (fallback) assertEquals(got, frames);
    else frames = got;
  });
}
let frames: [number, number][] = [];

for (const [name, jump] of [["2^32", 0], ["2^31", 0x80000000]] as const) {
  Deno.test(`our sequence numbers pass ${name}: data, acknowledgements, going back, FIN`, () => {
    using world = new World();
    using pair = connected(world);
    const { guest, server } = pair;
    const start = (0x100000000 - 5000 + jump) % 0x100000000;
    for (const word of [W.SEQ_TO_TAP, W.SEQ_UNACKED, W.SEQ_MAX, W.SEQ_RECOVER]) {
      guest.poke(word, start);
    }
    guest.ack = start;
    const first = serve(world, server, pattern(20_000));
    assertEquals(first[0].seq, start);
    assertBytes(payload(first), pattern(20_000));
    acknowledge(world, guest, start + 4000);
    for (let k = 0; k < 3; k++) guest.send(ACK);
    world.settle();
    const again = world.segments();
    assertEquals(again[0].seq, (start + 4000) >>> 0);
    assertBytes(payload(again), pattern(16_000, 4000));
    acknowledge(world, guest, start + 10_000);
    guest.poke(W.PROGRESS_AT, world.ctx.nowMs - 10_000);
    world.pass(50);
    assertBytes(payload(world.segments()), pattern(10_000, 10_000));
    server.shutdown();
    world.until(() => guest.word(W.EVENTS) & Ev.TAP_FIN_SENT, "FIN");
    world.settle();
    acknowledge(world, guest, start + 20_001);
    assert(guest.word(W.EVENTS) & Ev.TAP_FIN_ACKED);
  });
}

Deno.test("urgent data comes in line and nothing after it is held back", () => {
  for (const fallback of [false, true]) {
    using world = new World();
    using pair = connected(world);
    const { guest, server } = pair;
    if (fallback) withoutPeekOffset(guest);
    const MSG_OOB = 1; // send(2)
    const start = guest.ack, got: Segment[] = [];
    server.send(pattern(1000));
    server.send(pattern(1, 1000), MSG_OOB);
    server.send(pattern(1000, 1001));
    for (let round = 0; round < 4; round++) {
      world.until(() => true);
      world.settle();
      got.push(...world.segments());
      if (got.length > 0) guest.ack = end(got.at(-1)!);
      guest.send(ACK);
    }
    assertBytes(payload(got), pattern(2001));
    assertEquals(guest.ack, start + 2001);
    server.send(pattern(500, 2001));
    world.until(() => world.link.sent.length > 0);
    assertBytes(payload(world.segments()), pattern(500, 2001));
  }
});

Deno.test("frames that the link drops are sent again in time", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  world.link.sendResult = -E.ENOBUFS;
  server.send(pattern(100_000));
  world.settle();
  guest.data(pattern(10));
  world.settle();
  world.link.sendResult = 0;
  world.pass(1000);
  const segments = world.segments();
  assertEquals(segments[0].seq, guest.ack);
  assertBytes(payload(segments), pattern(100_000));
  assertEquals(segments[0].ack, guest.seq); // the lost acknowledgement is made up for, too
});
