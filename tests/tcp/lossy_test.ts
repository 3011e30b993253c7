// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { Ev, W } from "../../lib/tcp/words.ts";
import { counted } from "../helpers/counted.ts";
import { seeded } from "../wire/random.ts";
import { ACK, FIN, PSH, RST, type Segment } from "./segment.ts";
import {
  assertBytes,
  concat,
  connected,
  type Guest,
  type HostSocket,
  pattern,
  withoutPeekOffset,
  World,
} from "./world.ts";

/** A guest that loses frames, is late, repeats itself, and must get every byte nevertheless. */
class LossyGuest {
  readonly guest: Guest;
  readonly stream: Uint8Array;
  readonly start: number;
  /** Bytes received in order. */
  received = 0;
  fin = false;
  /** Segments that came early and were kept, as [from, to). */
  early: [number, number][] = [];
  readonly random: (n: number) => number;
  readonly keepsEarly: boolean;

  constructor(guest: Guest, stream: Uint8Array, random: (n: number) => number) {
    this.guest = guest;
    this.stream = stream;
    this.start = guest.ack;
    this.random = random;
    this.keepsEarly = random(2) === 0;
  }

  hear(segment: Segment, lossPercent: number): void {
    assert(!(segment.flags & RST), "reset");
    const from = (segment.seq - this.start) | 0, to = from + segment.payload.length;
    const past = to === from ? 1 : 0; // acknowledgements after FIN are numbered behind it
    assert(to <= this.stream.length + past, "more than the server sent");
    assertEquals(segment.payload, this.stream.subarray(from, to));
    if (segment.flags & FIN) assertEquals(to, this.stream.length);
    if (this.random(100) < lossPercent) return;
    if (to === from && !(segment.flags & FIN)) return this.#probe(from);
    if (from <= this.received) {
      this.received = Math.max(this.received, to);
      while (this.early.some(([a, b]) => a <= this.received && b > this.received)) {
        this.early = this.early.filter(([a, b]) => {
          if (a <= this.received) this.received = Math.max(this.received, b);
          return a > this.received;
        });
      }
      if (segment.flags & FIN && this.received >= to) this.fin = true;
      if (this.random(3) === 0) this.speak();
    } else {
      if (this.keepsEarly && to > from) this.early.push([from, to]);
      this.speak(); // a duplicate acknowledgement, at once
    }
  }

  #probe(at: number): void {
    if (at < this.received) this.speak();
  }

  speak(): void {
    this.guest.ack = (this.start + this.received + (this.fin ? 1 : 0)) >>> 0;
    if (this.random(20) > 0) this.guest.send(ACK); // and sometimes that is lost, too
  }
}

for (let seed = 1; seed <= 40; seed++) {
  Deno.test(`a guest that loses frames gets every byte and the FIN (${seed})`, () => {
    const random = seeded(seed * 7919), total = 400_000 + random(400_000);
    using world = new World({ tso: seed % 3 !== 0 });
    const scale = [null, 0, 2, 7][random(4)], mss = [536, 1460][random(2)];
    using pair = connected(world, { window: 65535, scale, mss, v6: seed % 4 === 0 });
    const { server, guest } = pair;
    if (seed % 2) withoutPeekOffset(guest);
    const wrap = (0x100000000 - random(total)) >>> 0;
    for (const w of [W.SEQ_TO_TAP, W.SEQ_UNACKED, W.SEQ_MAX, W.SEQ_RECOVER]) guest.poke(w, wrap);
    guest.ack = wrap;
    const stream = pattern(total), lossy = new LossyGuest(guest, stream, random);
    const loss = [1, 5, 30][random(3)];
    let queued = 0;
    for (let step = 0; !lossy.fin; step++) {
      assert(step < 60_000, `stuck at ${lossy.received} of ${total}`);
      if (queued < total && random(2)) {
        const sent = server.send(stream.slice(queued, queued + random(50_000) + 1));
        if (sent > 0) queued += sent;
        if (queued === total) server.shutdown();
      }
      world.turn();
      world.ctx.nowMs += random(40);
      for (const segment of world.segments()) lossy.hear(segment, loss);
      if (random(10) === 0) guest.window = random(3) ? random(random(2) ? 65535 : 5000) : 0;
      if (random(4) === 0) lossy.speak();
    }
    assertEquals(lossy.received, total);
    const { flow } = guest;
    lossy.speak();
    lossy.speak();
    world.settle();
    while (!(guest.word(W.EVENTS) & Ev.TAP_FIN_ACKED)) {
      world.pass(100);
      world.segments();
      lossy.speak();
      world.settle();
    }
    guest.fin();
    world.settle();
    assertEquals(guest.flow, -1);
    assertEquals(counted(world.table, flow), [0, total]); // not what was sent again, and no FIN
    assertEquals(server.receive(), 0);
  });
}

/** Both directions at once through one lossy guest. */
for (let seed = 1; seed <= 8; seed++) {
  Deno.test(`both directions at once, with loss (${seed})`, () => {
    const random = seeded(seed), total = 300_000;
    using world = new World();
    using pair = connected(world, { rcvbuf: 8192 });
    const { server, guest } = pair;
    const down = pattern(total), up = pattern(total, 99), got: Uint8Array[] = [];
    const lossy = new LossyGuest(guest, down, random);
    const start = guest.seq;
    let queued = 0, acked = 0, arrived = 0;
    for (let step = 0; !lossy.fin || arrived < total; step++) {
      assert(step < 60_000, `stuck: down ${lossy.received}, up ${arrived} of ${total}`);
      if (queued < total) {
        const sent = server.send(down.slice(queued, queued + random(20_000) + 1));
        if (sent > 0) queued += sent;
        if (queued === total) server.shutdown();
      }
      for (let k = 0, at = acked; k < 5 && at < total; k++) {
        const length = Math.min(1460, total - at);
        if (random(5)) {
          guest.send(ACK | PSH, { seq: start + at, payload: up.subarray(at, at + length) });
        }
        at += length;
      }
      world.turn();
      world.ctx.nowMs += random(30);
      for (const segment of world.segments()) {
        acked = Math.max(acked, (segment.ack - start) | 0);
        lossy.hear(segment, 10);
      }
      guest.seq = (start + acked) >>> 0;
      lossy.speak();
      arrived += receive(server, got);
    }
    assertBytes(concat(got), up);
    for (let k = 0; k < 20; k++) lossy.speak(); // one of them is not lost
    world.settle();
    assertEquals(counted(world.table, guest.flow), [total, total]);
  });
}

function receive(server: HostSocket, into: Uint8Array[]): number {
  const piece = server.receive(10_000);
  if (typeof piece === "number") return 0;
  into.push(piece);
  return piece.length;
}
