// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { Ev, W } from "../../lib/tcp/words.ts";
import { ACK, FIN, RST, SYN, synOptions } from "./segment.ts";
import { assertBytes, connected, drain, type Guest, pattern, World } from "./world.ts";

/** Descriptors this process has open. */
function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** The flow must be gone: socket, index entry, and after a scan the table entry. */
function assertGone(world: World, guest: Guest): void {
  assertEquals(guest.flow, -1);
  assertEquals(world.table.hashCount, 0);
  world.pass(100); // lists that still name it are walked
  world.scan();
  assertEquals(world.table.activeCount, 0);
  assertEquals([world.tcp.timeoutMs(), world.table.firstFree], [-1, 0]);
  world.table.verify();
}

/** Acknowledges a FIN from us. */
function acknowledgeFin(world: World, guest: Guest): void {
  const fin = world.until(() => world.segments().find(({ flags }) => flags & FIN), "FIN");
  guest.ack = (fin.seq + fin.payload.length + 1) >>> 0;
  guest.send(ACK);
  world.settle();
}

for (const v6 of [false, true]) {
  Deno.test(`the guest closes first, the server goes on sending, then closes (${v6 ? 6 : 4})`, () => {
    using world = new World();
    const before = openDescriptors();
    using pair = connected(world, { v6 });
    const { guest, server } = pair;
    guest.data(pattern(1000));
    guest.fin();
    world.settle();
    assertEquals(world.segments().at(-1)!.ack, guest.seq);
    assertBytes(drain(world, server, 1000), pattern(1000));
    world.until(() => server.receive() === 0);
    server.send(pattern(50_000));
    world.until(() => world.link.sent.length > 0);
    world.settle();
    guest.ack = (guest.ack + 50_000) >>> 0;
    guest.send(ACK);
    world.settle();
    assertEquals(world.segments().reduce((sum, { payload }) => sum + payload.length, 0), 50_000);
    server.close();
    acknowledgeFin(world, guest);
    assertGone(world, guest);
    assertEquals(openDescriptors(), before + 1); // the listener's
  });
}

Deno.test("the server closes first, the guest goes on sending, then closes", () => {
  using world = new World();
  const before = openDescriptors();
  using pair = connected(world);
  const { guest, server } = pair;
  server.shutdown();
  acknowledgeFin(world, guest);
  assert(guest.word(W.EVENTS) & Ev.TAP_FIN_ACKED);
  guest.data(pattern(70_000 - 5000));
  world.settle();
  assertBytes(drain(world, server, 65_000), pattern(65_000));
  guest.fin();
  world.settle();
  assertEquals(world.segments().at(-1)!.ack, guest.seq);
  world.until(() => server.receive() === 0);
  assertGone(world, guest);
  assertEquals(openDescriptors(), before + 2);
});

Deno.test("both close at the same time", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  guest.fin();
  server.close();
  acknowledgeFin(world, guest);
  assertGone(world, guest);
});

Deno.test("data and FIN in one segment each way end in an orderly close with nothing lost", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  guest.send(FIN | ACK, { payload: pattern(100) });
  guest.seq += 101;
  server.send(pattern(100));
  server.shutdown();
  let got = 0;
  world.until(() => {
    for (const { payload, flags } of world.segments()) {
      got += payload.length;
      guest.ack += payload.length + (flags & FIN);
      guest.send(ACK);
    }
    return guest.flow < 0;
  });
  assertEquals(got, 100);
  assertBytes(drain(world, server, 100), pattern(100));
  assertEquals(server.receive(), 0);
  assertGone(world, guest);
});

Deno.test("an orderly close does not cut off what the host's kernel still has to send", () => {
  using world = new World();
  using pair = connected(world, { rcvbuf: 4096 });
  const { guest, server } = pair;
  libc.setsockopt(guest.word(W.FD), 1, 7, new Int32Array([4096]), 4); // SO_SNDBUF
  const total = 60_000; // within the first window
  for (let at = 0; at < total; at += 30_000) guest.data(pattern(30_000, at));
  guest.fin();
  world.settle();
  assert(guest.word(W.OVERFLOW_BYTES) > 0);
  server.shutdown();
  acknowledgeFin(world, guest);
  assert(guest.flow >= 0); // the flow stays for what waits
  assertBytes(drain(world, server, total), pattern(total));
  world.until(() => server.receive() === 0);
  assertGone(world, guest);
});

Deno.test("a FIN that comes again after the end gets RST, which the guest's LAST-ACK takes as one", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  server.close();
  acknowledgeFin(world, guest);
  guest.fin();
  world.settle();
  assertEquals(world.segments().at(-1)!.ack, guest.seq);
  guest.send(FIN | ACK, { seq: guest.seq - 1 });
  world.settle();
  assertEquals([world.one().flags], [RST]);
});

Deno.test("RST from the guest resets the peer", () => {
  using world = new World();
  const before = openDescriptors();
  using pair = connected(world);
  const { guest, server } = pair;
  guest.send(RST);
  world.settle();
  assertEquals(world.segments(), []);
  assertEquals(server.receive(), -E.ECONNRESET);
  assertGone(world, guest);
  assertEquals(openDescriptors(), before + 2);
});

Deno.test("data in the same batch as a RST behind it is sent before the reset", () => {
  using world = new World();
  using pair = connected(world);
  const { guest } = pair;
  guest.data(pattern(100));
  guest.send(RST | ACK);
  guest.data(pattern(100)); // of a connection that is gone
  world.turn();
  assertEquals(world.segments().map(({ flags }) => flags & RST), [RST]);
  world.settle();
  assertGone(world, guest);
});

Deno.test("RST anywhere but at the next sequence number is ignored or asked about (RFC 5961 §3.2)", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  for (const ahead of [1, 1000, (1 << 20) - 1]) {
    guest.send(RST, { seq: guest.seq + ahead });
    world.settle();
    const challenge = world.one();
    assertEquals([challenge.flags, challenge.seq, challenge.ack], [ACK, guest.ack, guest.seq]);
  }
  for (const ahead of [-1, -1000, 1 << 20, 0x7fffffff, -0x80000000]) {
    guest.send(RST, { seq: (guest.seq + ahead) >>> 0 });
    world.settle();
    assertEquals(world.segments(), []);
  }
  guest.data(pattern(10));
  world.settle();
  assertBytes(server.receive(), pattern(10));
});

Deno.test("SYN within a connection gets a challenge ACK (RFC 5961 §4.2), a guest born again its RST", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  for (const flags of [SYN, SYN | ACK]) {
    guest.send(flags, { seq: guest.seq + 12345, options: synOptions(1460) });
    world.settle();
    const challenge = world.one();
    assertEquals([challenge.flags, challenge.seq, challenge.ack], [ACK, guest.ack, guest.seq]);
  }
  // a guest that knows nothing of the connection resets it, and may then begin anew
  guest.send(RST);
  world.settle();
  assertEquals(server.receive(), -E.ECONNRESET);
  guest.send(SYN, { seq: 5 });
  world.until(() => world.link.sent.length > 0);
  assertEquals([world.one().flags, world.table.hashCount], [SYN | ACK, 1]);
});

Deno.test("RST from the server becomes RST to the guest, that the guest takes", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  server.reset();
  world.until(() => world.link.sent.length > 0);
  const reset = world.one();
  assertEquals([reset.flags & RST, reset.seq, reset.ack], [RST, guest.ack, guest.seq]);
  assertGone(world, guest);
});

Deno.test("RST from the server while data is in flight is not numbered below the guest's window", () => {
  using world = new World();
  using pair = connected(world, { window: 3000, scale: null });
  const { guest, server } = pair;
  server.send(pattern(2920));
  world.until(() => world.link.sent.length > 0);
  guest.window = 10;
  for (let k = 0; k < 4; k++) guest.send(ACK); // goes back
  world.settle();
  world.segments();
  server.reset();
  world.until(() => world.link.sent.length > 0);
  assertEquals(world.one().seq, guest.ack + 2920);
});

Deno.test("a server that resets while our data waits for it: RST, and the pool gets its blocks back", () => {
  using world = new World();
  for (let round = 0; round < 300; round++) { // more blocks than the pool has
    using pair = connected(world, { rcvbuf: 4096 });
    const { guest, server } = pair;
    libc.setsockopt(guest.word(W.FD), 1, 7, new Int32Array([4096]), 4); // SO_SNDBUF
    guest.data(pattern(60_000));
    world.settle();
    assert(guest.word(W.OVERFLOW_BYTES) > 40_000, `round ${round}`);
    world.segments();
    server.reset();
    world.until(() => world.link.sent.length > 0);
    assertEquals(world.one().flags & RST, RST);
    assertGone(world, guest);
  }
});

Deno.test("an entry is not used again while a list of the TCP code still names it", () => {
  using world = new World({ capacity: 2 });
  using listeners = connected(world);
  const { guest, server } = listeners;
  server.send(pattern(100)); // in flight: in the timer's list
  world.until(() => world.link.sent.length > 0);
  const flow = guest.flow;
  guest.send(RST);
  world.settle();
  assertEquals(guest.flow, -1);
  world.scan();
  const ping = 3; // FlowType.PING4: another protocol's words would be taken for TCP's
  const taken = world.table.alloc();
  world.table.setType(taken, ping);
  world.table.activate(taken);
  const words = world.table.data;
  words.fill(-1, taken * 48, taken * 48 + 48);
  world.pass(60_000);
  assert(words.subarray(taken * 48, taken * 48 + 48).every((word) => word === -1));
  world.scan();
  assertEquals([flow, world.table.activeCount], [0, 1]);
  words.fill(0, taken * 48, taken * 48 + 48);
});

Deno.test("three hundred connections, one after the other, leave nothing behind", () => {
  using world = new World();
  const before = openDescriptors();
  for (let k = 0; k < 300; k++) {
    using pair = connected(world, { v6: k % 2 === 0 });
    const { guest, server } = pair;
    guest.data(pattern(100));
    world.settle();
    if (k % 3 === 0) guest.send(RST);
    else if (k % 3 === 1) server.reset();
    else {
      guest.fin();
      assertBytes(drain(world, server, 100), pattern(100)); // unread, close(2) would reset
      server.close();
      acknowledgeFin(world, guest);
    }
    world.until(() => guest.flow < 0);
    world.segments();
    if (k % 7 === 0) world.pass(100);
    world.scan();
    assert(world.table.activeCount < 20);
  }
  world.pass(100);
  world.scan();
  assertEquals([world.table.activeCount, world.table.hashCount], [0, 0]);
  assertEquals(openDescriptors(), before);
});

const HOURS = 3_600_000;

/** Lets the clock run in steps of a second, with the scan, as the loop does. */
function live(world: World, ms: number): void {
  for (const end = world.ctx.nowMs + ms; world.ctx.nowMs < end;) {
    world.ctx.nowMs += 1000;
    world.turn();
    world.scan();
  }
}

Deno.test("after two hours of silence the guest is asked, and lives on when it answers", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  live(world, 2 * HOURS - 5000);
  assertEquals(world.segments(), []);
  live(world, 10_000);
  const probe = world.one();
  assertEquals([probe.flags, probe.seq, probe.payload.length], [ACK, guest.ack - 1, 0]);
  guest.send(ACK);
  live(world, 2 * HOURS - 5000);
  assertEquals(world.segments(), []);
  server.send(pattern(10));
  world.until(() => world.link.sent.length > 0);
});

Deno.test("nine probes without an answer: both sides are reset", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  live(world, 2 * HOURS - 5000);
  live(world, 8 * 75_000 + 10_000);
  assertEquals(world.segments().length, 9);
  live(world, 75_000);
  assertEquals(world.one().flags & RST, RST);
  assertEquals(server.receive(), -E.ECONNRESET);
  assertGone(world, guest);
});

Deno.test("the guest's own keepalive probes are answered, and keep us from asking", () => {
  using world = new World();
  using pair = connected(world);
  const { guest } = pair;
  for (let k = 0; k < 5; k++) {
    live(world, HOURS);
    guest.send(ACK, { seq: guest.seq - 1 });
    world.settle();
    const answer = world.one();
    assertEquals([answer.flags, answer.ack], [ACK, guest.seq]);
  }
});

Deno.test("a guest that never closes its half is asked from time to time, one that forgot it resets", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  server.shutdown();
  acknowledgeFin(world, guest);
  live(world, 2 * HOURS + 5000);
  const probe = world.one();
  guest.send(RST, { seq: probe.ack }); // as RFC 9293 §3.10.7.1 has it
  world.settle();
  assertGone(world, guest);
  assertEquals(server.receive(), -E.ECONNRESET);
});
