// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Bytes and phases of TCP connections over the tap.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { libc } from "../../lib/sys/libc.ts";
import { W } from "../../lib/tcp/words.ts";
import { counted, phase } from "../helpers/counted.ts";
import { ACK, FIN, PSH, RST, SYN, synOptions } from "./segment.ts";
import { freePort, spec } from "./splice_world.ts";
import { connected, drain, Guest, HostSocket, pattern, World } from "./world.ts";

for (const v6 of [false, true]) {
  Deno.test(`a connection of the guest is counted both ways, with half-close (${v6 ? 6 : 4})`, () => {
    using world = new World();
    using pair = connected(world, { v6 });
    const { guest, server } = pair, { flow } = guest;
    assertEquals([counted(world.table, flow), phase(world.table, flow)], [[0, 0], "open"]);
    guest.data(pattern(1000));
    guest.data(pattern(234));
    guest.fin();
    world.settle();
    assertEquals([counted(world.table, flow), phase(world.table, flow)], [[1234, 0], "closing"]);
    server.send(pattern(50_000));
    world.until(() => world.link.sent.length > 0);
    world.settle();
    assertEquals(counted(world.table, flow), [1234, 0]); // sent, not arrived yet
    guest.ack = (guest.ack + 49_000) >>> 0;
    guest.send(ACK);
    world.settle();
    assertEquals(counted(world.table, flow), [1234, 49_000]);
    drain(world, server, 1234);
    server.close();
    world.until(() => world.segments().find(({ flags }) => flags & FIN), "FIN");
    guest.ack = (guest.ack + 1001) >>> 0; // FIN has a number, and is no byte
    guest.send(ACK);
    world.settle();
    assertEquals([counted(world.table, flow), phase(world.table, flow)], [
      [1234, 50_000],
      "closed",
    ]);
  });

  Deno.test(`a connection to the guest has the host's side as its first (${v6 ? 6 : 4})`, () => {
    using world = new World();
    const port = freePort();
    world.tcp.listen(spec(port, 80));
    using client = HostSocket.connect(port, v6);
    world.until(() => world.link.sent.length > 0);
    const offer = world.one(), guest = new Guest(world, offer.sport, { v6 });
    const answer = { sport: 80, dport: offer.sport };
    assertEquals([counted(world.table), phase(world.table)], [[0, 0], "opening"]);
    guest.ack = (offer.seq + 1) >>> 0;
    guest.send(SYN | ACK, { ...answer, options: synOptions(1460, 7) });
    guest.seq++;
    world.settle();
    assertEquals(phase(world.table), "open");
    client.send(pattern(3000));
    world.until(() => world.segments().some(({ payload }) => payload.length > 0), "data");
    guest.ack = (guest.ack + 3000) >>> 0;
    guest.send(ACK | PSH, { ...answer, payload: pattern(77) });
    world.settle();
    assertEquals(counted(world.table), [3000, 77]);
    guest.seq += 77;
    guest.send(RST, answer);
    world.settle();
    assertEquals([counted(world.table), phase(world.table)], [[3000, 77], "closed"]);
  });
}

Deno.test("what the guest sends twice, overlapping, early or beyond the window counts once", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair, start = guest.seq;
  const send = (from: number, to: number) => {
    guest.send(ACK | PSH, { seq: start + from, payload: pattern(to - from, from) });
    world.settle();
    return counted(world.table, guest.flow)[0];
  };
  assertEquals(send(0, 1000), 1000);
  assertEquals(send(0, 1000), 1000);
  assertEquals(send(500, 1500), 1500);
  assertEquals(send(2000, 3000), 1500);
  assertEquals(send(200, 1200), 1500);
  assertEquals(send(1500, 2500), 2500);
  const edge = guest.word(W.WND_EDGE) - start | 0;
  assertEquals(send(edge, edge + 1000), 2500);
  assertEquals(drain(world, server, 2500).length, 2500);
});

Deno.test("what the server sends twice counts once, when the guest has it", () => {
  using world = new World();
  using pair = connected(world);
  const { guest, server } = pair;
  server.send(pattern(1000));
  world.until(() => world.link.sent.length > 0);
  for (let k = 0; k < 3; k++) world.pass(5000);
  assert(world.segments().length >= 3);
  assertEquals(counted(world.table, guest.flow), [0, 0]);
  guest.ack += 1000;
  for (let k = 0; k < 3; k++) guest.send(ACK);
  world.settle();
  assertEquals(counted(world.table, guest.flow), [0, 1000]);
  guest.send(ACK, { ack: guest.ack + 5 }); // of what was never sent
  guest.send(ACK, { ack: guest.ack - 500 });
  world.settle();
  assertEquals(counted(world.table, guest.flow), [0, 1000]);
});

Deno.test("what waits for room in the socket counts when it is taken from the guest, and once", () => {
  using world = new World();
  using pair = connected(world, { rcvbuf: 4096 });
  const { guest, server } = pair;
  libc.setsockopt(guest.word(W.FD), 1, 7, new Int32Array([4096]), 4); // SO_SNDBUF
  const start = guest.seq;
  let acked = 0;
  for (let k = 0; k < 40; k++) {
    guest.seq = (start + acked) >>> 0;
    guest.data(pattern(20_000, acked));
    world.settle();
    acked = Math.max(acked, ...world.segments().map(({ ack }) => (ack - start) | 0));
    assertEquals(counted(world.table, guest.flow), [acked, 0]);
  }
  assert(guest.word(W.OVERFLOW_BYTES) > 0);
  assertEquals(drain(world, server, acked).length, acked);
  assertEquals(counted(world.table, guest.flow), [acked, 0]);
});

Deno.test("a connection that is refused or given up goes from opening to closed", () => {
  using world = new World();
  const port = freePort();
  const guest = new Guest(world, port);
  world.table.observer = {
    opened: (i) => assertEquals(phase(world.table, i), "opening"),
    closed: (i) =>
      assertEquals([counted(world.table, i), phase(world.table, i)], [[0, 0], "closed"]),
  };
  guest.send(SYN, { options: synOptions(1460, 7) });
  world.until(() => world.link.sent.length > 0);
  assert(world.one().flags & RST);
  world.pass(100);
  world.scan();
  assertEquals(world.table.activeCount, 0);
});
