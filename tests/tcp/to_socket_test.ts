// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { BYTES_INI, COUNTERS } from "../../lib/flow/table.ts";
import { libc } from "../../lib/sys/libc.ts";
import { W } from "../../lib/tcp/words.ts";
import { counted } from "../helpers/counted.ts";
import { seeded } from "../wire/random.ts";
import { ACK, FIN, PSH } from "./segment.ts";
import {
  assertBytes,
  concat,
  connected,
  drain,
  type Guest,
  type HostSocket,
  pattern,
  World,
} from "./world.ts";

/** Counts calls of sendmsg(2) while `work` runs. */
function sendmsgCalls(work: () => void): number {
  const real = libc.sendmsg;
  let calls = 0;
  Object.defineProperty(libc, "sendmsg", {
    configurable: true,
    writable: true,
    value: (...args: Parameters<typeof real>) => (calls++, real(...args)),
  });
  try {
    work();
  } finally {
    Object.defineProperty(libc, "sendmsg", { configurable: true, writable: true, value: real });
  }
  return calls;
}

for (const v6 of [false, true]) {
  Deno.test(`payload arrives in order and is acknowledged once per batch, ${v6 ? 6 : 4}`, () => {
    using world = new World();
    using pair = connected(world, { v6 });
    const { guest, server } = pair;
    for (let k = 0; k < 16; k++) guest.data(pattern(1460, k * 1460));
    world.turn();
    const answer = world.one();
    assertEquals([answer.flags, answer.ack, answer.seq], [ACK, guest.seq, guest.ack]);
    assertEquals(answer.window << 8, 1 << 20);
    assertBytes(drain(world, server, 16 * 1460), pattern(16 * 1460));
    assertEquals(counted(world.table, guest.flow), [16 * 1460, 0]);
  });
}

Deno.test("frames of one flow in a batch go out in one sendmsg, of two flows in one each run", () => {
  using world = new World();
  using a = connected(world);
  using b = connected(world);
  for (let k = 0; k < 8; k++) a.guest.data(pattern(1000, k * 1000));
  assertEquals(sendmsgCalls(() => world.turn()), 1);
  for (let k = 0; k < 4; k++) a.guest.data(pattern(10, 8000 + k * 10));
  for (let k = 0; k < 4; k++) b.guest.data(pattern(10, k * 10));
  for (let k = 4; k < 8; k++) a.guest.data(pattern(10, 8000 + k * 10));
  assertEquals(sendmsgCalls(() => world.turn()), 3);
  assertBytes(drain(world, a.server, 8080), pattern(8080));
  assertBytes(drain(world, b.server, 40), pattern(40));
});

Deno.test("a super-frame of 64 KiB is payload like any other", () => {
  using world = new World();
  using pair = connected(world);
  pair.guest.data(pattern(65495));
  world.settle(); // the window of our SYN-ACK has no room for two
  pair.guest.data(pattern(65495, 65495));
  world.settle();
  assertBytes(drain(world, pair.server, 2 * 65495), pattern(2 * 65495));
});

Deno.test("segments that overlap, repeat or leave gaps", async (t) => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  const start = guest.seq;
  /** Sends bytes `from…to` of the stream, and gives the acknowledgements this causes. */
  const send = (from: number, to: number) => {
    guest.send(ACK | PSH, { seq: (start + from) >>> 0, payload: pattern(to - from, from) });
    world.settle();
    return world.segments().map(({ ack, flags }) => (assertEquals(flags, ACK), ack - start));
  };
  await t.step("in order", () => assertEquals(send(0, 100), [100]));
  await t.step("partly old", () => assertEquals(send(50, 150), [150]));
  await t.step("old in front and new behind", () => assertEquals(send(0, 200), [200]));
  await t.step("old as a whole: acknowledged at once", () => assertEquals(send(100, 200), [200]));
  await t.step("a gap: duplicate acknowledgement", () => assertEquals(send(300, 400), [200]));
  await t.step("far ahead of the window", () => assertEquals(send(5e6, 5e6 + 10), [200]));
  await t.step("the gap is filled, what came early was not kept", () => {
    assertEquals(send(200, 300), [300]);
  });
  await t.step("a byte that a keepalive repeats", () => assertEquals(send(299, 300), [300]));
  await t.step(
    "nothing doubled, nothing lost",
    () => assertBytes(drain(world, server), pattern(300)),
  );
});

Deno.test("a gap in a batch: what was in order before it is sent first, each frame behind it answered", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  guest.data(pattern(100));
  for (let k = 0; k < 3; k++) guest.send(ACK, { seq: guest.seq + 100, payload: pattern(9) });
  world.settle();
  assertEquals(world.segments().map(({ ack }) => ack), Array(4).fill(guest.seq).slice(0, 3));
  assertBytes(server.receive(), pattern(100));
});

Deno.test("data and FIN after FIN are ignored, a FIN behind a gap is not taken but answered", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  guest.send(FIN | ACK, { seq: guest.seq + 10 });
  world.settle();
  assertEquals(world.one().ack, guest.seq);
  guest.send(FIN | ACK, { payload: pattern(10) });
  guest.seq += 11;
  world.settle();
  assertEquals(world.one().ack, guest.seq);
  guest.data(pattern(10));
  guest.send(FIN | ACK);
  world.settle();
  assert(world.segments().every(({ ack }) => ack === guest.seq - 10));
  assertBytes(drain(world, server), pattern(10));
  assertEquals(server.receive(), 0);
});

Deno.test("a FIN that comes again is acknowledged again", () => {
  using world = new World();
  using pair = connected(world);
  const { guest } = pair;
  guest.data(pattern(10));
  guest.fin();
  world.settle();
  assertEquals(world.segments().at(-1)!.ack, guest.seq);
  for (const [seq, payload] of [[guest.seq - 1, 0], [guest.seq - 11, 10]]) {
    guest.send(FIN | ACK, { seq, payload: pattern(payload) });
    world.settle();
    assertEquals(world.segments().map(({ ack }) => ack), [guest.seq]);
  }
});

Deno.test("segments from another time change nothing and are answered with where we are", () => {
  using world = new World();
  using pair = connected(world);
  const { guest } = pair;
  const window = guest.word(W.WND_FROM_TAP);
  for (const seq of [guest.seq + 0x40000000, guest.seq - 0x40000000]) {
    guest.send(ACK, { seq: seq >>> 0, window: 0 });
    world.settle();
    assertEquals(world.one().ack, guest.seq);
  }
  assertEquals(guest.word(W.WND_FROM_TAP), window);
});

Deno.test("sequence numbers wrap at 2^32", () => {
  using world = new World();
  using pair = connected(world, { seq: 0xffffffff - 3000 });
  const { guest, server } = pair;
  for (let k = 0; k < 6; k++) guest.data(pattern(1000, k * 1000));
  world.settle();
  assertEquals(world.segments().at(-1)!.ack, guest.seq);
  assert(guest.seq < 4000);
  guest.send(ACK, { seq: (guest.seq - 5000) >>> 0, payload: pattern(6000, 1000) }); // overlaps the wrap
  world.settle();
  assertBytes(drain(world, server, 7000), pattern(7000));
});

Deno.test("more than 4 GiB: the counters go on, as do 2^31 and 2^32 of sequence numbers", () => {
  using world = new World();
  using pair = connected(world, { seq: 0x7ffffff0 });
  const { guest, server } = pair;
  let at = 0;
  for (const jump of [0x7fffff00, 0x7fffff00, 0x7fffff00]) {
    guest.data(pattern(1000, at));
    world.settle();
    assertBytes(drain(world, server, 1000), pattern(1000, at));
    assertEquals(world.segments().at(-1)!.ack, guest.seq);
    guest.seq = (guest.seq + jump) >>> 0;
    guest.poke(W.SEQ_FROM_TAP, guest.word(W.SEQ_FROM_TAP) + jump);
    guest.poke(W.WND_EDGE, guest.word(W.WND_EDGE) + jump);
    at += 1000;
  }
  world.table.counters[guest.flow * COUNTERS + BYTES_INI] += 2 ** 32;
  guest.data(pattern(1000));
  world.settle();
  assertEquals(counted(world.table, guest.flow), [2 ** 32 + 4000, 0]);
});

/** Makes the connection's host side take little: small buffers on both sockets. */
function choke(guest: Guest): void {
  const fd = guest.word(W.FD);
  libc.setsockopt(fd, 1, 7, new Int32Array([4096]), 4); // SO_SNDBUF
}

/** Fills flow and pool until nothing more is acknowledged. @returns bytes acknowledged */
function fill(world: World, guest: Guest, chunk: number, most: number): number {
  const start = guest.seq;
  let window = 1 << 20;
  while (guest.seq - start < most && window >= chunk) {
    guest.data(pattern(chunk, guest.seq - start));
    world.settle();
    const answer = world.segments().at(-1)!;
    assertEquals(answer.ack, guest.seq);
    window = answer.window << 8;
  }
  return guest.seq - start;
}

Deno.test("a server that does not read: what its socket does not take is kept, and the window shrinks", () => {
  using world = new World();
  using pair = connected(world, { rcvbuf: 4096 });
  const { guest, server } = pair;
  choke(guest);
  let edge = 0;
  const start = guest.seq;
  for (let at = 0; at < 1 << 20; at = guest.seq - start) {
    guest.data(pattern(10_000, at));
    world.settle();
    const { ack, window } = world.segments().at(-1)!;
    assertEquals(ack, guest.seq);
    // what was announced once is never taken back, but for the rounding of the shift
    assert(ack + (window << 8) >= edge - 256, "right edge moved back");
    edge = Math.max(edge, ack + (window << 8));
    if (window << 8 < 10_000) break;
  }
  const held = guest.word(W.OVERFLOW_BYTES);
  assert(held > (1 << 20) - 20_000, `${held}`);
  // beyond the window nothing is taken
  const before = guest.seq;
  for (let k = 0; k < 20; k++) {
    guest.data(pattern(60_000, guest.seq - start));
    world.settle();
  }
  assert(guest.word(W.OVERFLOW_BYTES) <= 1 << 20);
  const acked = world.segments().at(-1)!.ack;
  assert(acked >= before && acked < before + 130_000);
  guest.seq = acked;
  // the server reads again: the window is announced without the guest asking
  const total = acked - start;
  const got = drain(world, server, total);
  assertEquals(got.length, total);
  assertBytes(got, pattern(total));
  world.settle();
  const last = world.segments().at(-1)!;
  assertEquals([last.ack, last.window << 8], [guest.seq, 1 << 20]);
  assertEquals(guest.word(W.OVERFLOW_BYTES), 0);
});

Deno.test("FIN waits behind what a slow server has not taken yet", () => {
  using world = new World();
  using pair = connected(world, { rcvbuf: 4096 });
  const { guest, server } = pair;
  choke(guest);
  const total = fill(world, guest, 20_000, 400_000);
  guest.fin();
  world.settle();
  assertEquals(world.segments().at(-1)!.ack, guest.seq);
  assertBytes(drain(world, server, total), pattern(total));
  world.until(() => server.receive() === 0, "end of file");
});

Deno.test("the guest's window probe is answered with the current window", () => {
  using world = new World();
  using pair = connected(world, { rcvbuf: 4096 });
  const { guest } = pair;
  choke(guest);
  fill(world, guest, 60_000, 2 << 20);
  guest.send(ACK, { seq: guest.seq - 1 });
  world.settle();
  const answers = world.segments(); // a window probe of our own may be among them
  assert(answers.length > 0);
  for (const answer of answers) {
    assertEquals(answer.ack, guest.seq);
    assert(answer.window << 8 < 60_000);
  }
});

/** Sends from `at` what the window allows; goes back to what was acknowledged when nothing moves. */
class Sender {
  at = 0;
  acked = 0;
  window = 1 << 20;
  readonly guest: Guest;
  readonly start: number;
  readonly total: number;

  constructor(guest: Guest, total: number) {
    this.guest = guest;
    this.start = guest.seq;
    this.total = total;
  }

  hear(ack: number, window: number): void {
    this.acked = Math.max(this.acked, (ack - this.start) | 0);
    this.window = window << this.guest.theirShift;
  }
}

Deno.test("more slow flows than the pool has room for: nobody's bytes are lost, doubled or mixed up", () => {
  using world = new World();
  const flows = Array.from({ length: 130 }, () => connected(world, { rcvbuf: 4096 }));
  const total = 700_000;
  const senders = flows.map(({ guest }) => (choke(guest), new Sender(guest, total)));
  const byPort = new Map(senders.map((sender) => [sender.guest.sport, sender]));
  const listen = () => {
    for (const { dport, ack, window } of world.segments()) byPort.get(dport)!.hear(ack, window);
  };
  // 91 MB for a pool of 64 MiB
  for (let round = 0; round < 18; round++) {
    for (const sender of senders) {
      const { guest, start } = sender;
      const at = sender.acked, length = Math.min(40_000, total - at, sender.window);
      if (length > 0) guest.send(ACK, { seq: start + at, payload: pattern(length, at) });
    }
    world.settle();
    listen();
  }
  assert(senders.some(({ acked }) => acked < total));
  assert(senders.some(({ window }) => window === 0)); // the reserve is kept for others
  const got: Uint8Array[][] = flows.map(() => []);
  for (let round = 0; round < 2000; round++) {
    let done = true;
    flows.forEach(({ server, guest }, k) => {
      const piece = server.receive();
      if (typeof piece !== "number") got[k].push(piece);
      const sender = senders[k];
      if (sender.acked < total) {
        const length = Math.min(20_000, total - sender.acked);
        const seq = sender.start + sender.acked;
        // the window may be closed: then this is the probe that a guest sends
        const payload = pattern(sender.window > 0 ? length : 1, sender.acked);
        guest.send(ACK, { seq, payload });
      }
      done &&= sender.acked === total && guest.word(W.OVERFLOW_BYTES) === 0;
    });
    world.settle();
    listen();
    if (done) break;
  }
  flows.forEach(({ server }, k) => {
    got[k].push(drain(world, server));
    const bytes = concat(got[k]);
    assertEquals(bytes.length, total, `flow ${k}`);
    assertBytes(bytes, pattern(total));
  });
  for (const flow of flows) flow[Symbol.dispose]();
});

/** Reads a little, at most. */
function sip(server: HostSocket, into: Uint8Array[], most: number): void {
  const piece = server.receive(most);
  if (typeof piece !== "number") into.push(piece);
}

for (let seed = 1; seed <= 8; seed++) {
  Deno.test(`segments in any order to a slow reader: a prefix always, everything in the end (${seed})`, () => {
    using world = new World();
    using pair = connected(world, { rcvbuf: 4096, seq: seed % 2 ? 0xfffffff0 - 30_000 : 7 });
    const { guest, server } = pair;
    choke(guest);
    const random = seeded(seed), total = 300_000, start = guest.seq;
    const stream = pattern(total), got: Uint8Array[] = [];
    let acked = 0, fin = false;
    const hear = () => {
      for (const { ack } of world.segments()) {
        const next = (ack - start) | 0;
        assert(next >= acked && next <= total + 1, `acknowledged ${next} after ${acked}`);
        acked = next;
      }
    };
    for (let step = 0; acked <= total && step < 20_000; step++) {
      for (let k = random(16); k >= 0; k--) {
        // near what is expected: before it, across it, beyond it
        const from = Math.max(0, Math.min(total, acked + random(9000) - 3000));
        const to = Math.min(total, from + random(random(4) ? 1460 : 20_000));
        fin = to === total;
        guest.send(ACK | (fin ? FIN : 0), {
          seq: (start + from) >>> 0,
          payload: stream.subarray(from, to),
        });
      }
      world.turn();
      hear();
      if (random(3) === 0) sip(server, got, random(30_000) + 1);
    }
    assertEquals(acked, total + 1);
    world.settle();
    while (got.reduce((sum, { length }) => sum + length, 0) < total) {
      got.push(drain(world, server, 1));
    }
    assertBytes(concat(got), stream);
    world.until(() => server.receive() === 0);
  });
}
