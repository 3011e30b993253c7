// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { Ev, W } from "../../lib/tcp/words.ts";
import { acknowledge, end, payload, serve } from "./exchange.ts";
import { ACK, FIN, type Segment } from "./segment.ts";
import { assertBytes, connected, pattern, World } from "./world.ts";

Deno.test("a closed window: nothing is sent, probes ask, and data follows when it opens", () => {
  using world = new World();
  using pair = connected(world, { window: 0, scale: null });
  const { guest, server } = pair;
  server.send(pattern(5000));
  world.settle();
  assertEquals(world.segments(), []);
  const began = world.ctx.nowMs, times: number[] = [];
  while (world.ctx.nowMs - began < 33_000) {
    world.pass(50);
    for (const { seq, payload, flags } of world.segments()) {
      assertEquals([flags, seq + 1, payload.length], [ACK, guest.ack, 0]);
      times.push(Math.round((world.ctx.nowMs - began) / 1000));
      guest.send(ACK); // still closed
      world.settle();
    }
  }
  assertEquals(times, [1, 3, 7, 15, 31]);
  guest.window = 10_000;
  assertBytes(payload(acknowledge(world, guest, guest.ack)), pattern(5000));
  assertEquals(guest.word(W.RETRIES), 0);
  acknowledge(world, guest, guest.ack + 5000);
  world.pass(1000);
  assertEquals([world.segments(), world.tcp.timeoutMs()], [[], -1]);
});

Deno.test("a window that closes with data in flight: what was lost goes out as soon as it opens", () => {
  using world = new World();
  using pair = connected(world, { window: 20_000, scale: null });
  const { guest, server } = pair;
  serve(world, server, pattern(10_000));
  guest.window = 0; // the guest had no memory for it
  acknowledge(world, guest, guest.ack);
  for (let k = 0; k < 20; k++) {
    world.pass(1000);
    for (const { payload } of world.segments()) assertEquals(payload.length, 0);
  }
  guest.window = 20_000;
  const again = acknowledge(world, guest, guest.ack);
  assertEquals(again[0].seq, guest.ack);
  assertBytes(payload(again), pattern(10_000));
});

Deno.test("a server that keeps sending into a closed window for an hour loses nothing", () => {
  using world = new World();
  using pair = connected(world, { window: 0, rcvbuf: 8192 });
  const { guest, server } = pair;
  server.sendBuffer(8192);
  let queued = 0;
  for (let minute = 0; minute < 60; minute++) {
    const sent = server.send(pattern(3000, queued));
    if (sent > 0) queued += sent;
    world.pass(60_000);
    if (world.segments().length > 0) guest.send(ACK);
    world.settle();
  }
  guest.window = 65535;
  const got: Segment[] = [];
  for (let at = -1; at !== guest.ack;) {
    at = guest.ack;
    got.push(...acknowledge(world, guest, guest.ack));
    world.until(() => true);
    if (got.length > 0) guest.ack = end(got.at(-1)!);
  }
  assertBytes(payload(got), pattern(queued));
});

Deno.test("tiny windows are used, but no small segments are added to what is in flight", () => {
  using world = new World();
  using pair = connected(world, { window: 100, scale: null });
  const { guest, server } = pair;
  server.send(pattern(10_000));
  world.settle();
  const start = guest.ack;
  let [first, ...more] = world.segments();
  assertEquals([more, first.payload], [[], pattern(100)]);
  guest.window = 1700; // less than two segments
  [first, ...more] = acknowledge(world, guest, start + 100);
  assertEquals([more, first.payload], [[], pattern(1460, 100)]);
  guest.window = 1460 + 200;
  assertEquals(acknowledge(world, guest, start + 100), []); // 200 bytes would be silly
  guest.window = 2 * 1460;
  [first, ...more] = acknowledge(world, guest, start + 100);
  assertEquals([more, first.payload], [[], pattern(1460, 1560)]);
});

Deno.test("FIN follows the data, is sent again when lost, and its acknowledgement is noticed", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  const start = guest.ack;
  server.send(pattern(1000));
  server.shutdown();
  world.until(() => guest.word(W.EVENTS) & Ev.TAP_FIN_SENT, "FIN");
  const segments = world.segments();
  assertBytes(payload(segments), pattern(1000));
  assertEquals([segments.at(-1)!.flags, end(segments.at(-1)!)], [FIN | ACK, start + 1001]);
  assertEquals(acknowledge(world, guest, start + 1000), []); // data arrived, FIN did not
  world.pass(300);
  const again = world.one();
  assertEquals([again.flags, again.seq], [FIN | ACK, start + 1000]);
  acknowledge(world, guest, start + 1001);
  assert(guest.word(W.EVENTS) & Ev.TAP_FIN_ACKED);
  world.pass(10_000);
  assertEquals([world.segments(), world.tcp.timeoutMs()], [[], -1]);
  guest.data(pattern(10)); // the other direction goes on
  world.settle();
  assertBytes(server.receive(), pattern(10));
});

Deno.test("FIN behind a closed window waits with the data, and follows it", () => {
  using world = new World();
  using pair = connected(world, { window: 1000, scale: null });
  const { guest, server } = pair;
  const start = guest.ack;
  serve(world, server, pattern(1000));
  guest.window = 0;
  acknowledge(world, guest, start + 1000);
  server.shutdown();
  world.settle();
  assertEquals(world.segments(), []);
  world.pass(1000);
  assertEquals(world.one().payload.length, 0); // a probe
  guest.window = 500;
  const [fin] = acknowledge(world, guest, start + 1000);
  assertEquals([fin.flags, fin.seq], [FIN | ACK, start + 1000]);
});

Deno.test("an acknowledgement of a FIN that we went back from ends the direction, without more probes", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  const start = guest.ack;
  server.send(pattern(1000));
  server.shutdown();
  world.until(() => guest.word(W.EVENTS) & Ev.TAP_FIN_SENT, "FIN");
  guest.window = 0;
  for (let k = 0; k < 4; k++) guest.send(ACK);
  world.settle();
  world.segments();
  acknowledge(world, guest, start + 1001);
  assert(guest.word(W.EVENTS) & Ev.TAP_FIN_ACKED);
  world.pass(60_000);
  assertEquals([world.segments(), world.tcp.timeoutMs()], [[], -1]);
});

Deno.test("acknowledgements sent while going back carry the highest sequence number", () => {
  // one below the guest's window would be dropped with the acknowledgement in it
  using world = new World();
  using pair = connected(world, { window: 3000, scale: null });
  const { guest, server } = pair;
  serve(world, server, pattern(2920));
  guest.window = 100;
  for (let k = 0; k < 4; k++) guest.send(ACK);
  world.settle();
  assertBytes(payload(world.segments()), pattern(100)); // gone back, as far as the window allows
  guest.send(ACK, { seq: guest.seq + 10, payload: pattern(10) });
  world.settle();
  const answer = world.one();
  assertEquals([answer.seq, answer.ack], [guest.ack + 2920, guest.seq]);
});
