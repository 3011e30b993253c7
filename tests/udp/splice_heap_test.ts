// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the splice path leaves on the heap: nothing.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { EventType } from "../../lib/context.ts";
import { libc } from "../../lib/sys/libc.ts";
import { udpEvent, udpListenEvent } from "../../lib/udp/mod.ts";
import { base, W } from "../../lib/udp/state.ts";
import { bytes, type HostSocket } from "./guest.ts";
import { connect, FAMILIES, sendConnected, spliceTest, type SpliceWorld } from "./splice_world.ts";

const BATCH = 16;
const LIMIT = 1 << 20;
const ROUNDS = 100_000 / BATCH;

/** Sends `rounds` batches and answers each datagram; allocates nothing itself. */
function run(
  world: SpliceWorld,
  client: HostSocket,
  server: HostSocket,
  buffer: Uint8Array<ArrayBuffer>,
  rounds: number,
): void {
  const { ctx } = world.guest, { epoll } = ctx;
  const turn = () => {
    for (let n = epoll.wait(0); n > 0; n = epoll.wait(0)) {
      for (let k = 0; k < n; k++) {
        const type = epoll.type(k), data = epoll.data(k), events = epoll.events(k);
        if (type === EventType.UDP) udpEvent(ctx, data, events);
        else udpListenEvent(ctx, data, events);
      }
    }
  };
  for (let round = 0; round < rounds; round++) {
    for (let n = 0; n < BATCH; n++) libc.send(client.fd, buffer, 64, 0);
    turn();
    for (let n = 0; n < BATCH; n++) libc.recv(server.fd, buffer, 64, 0);
    for (let n = 0; n < BATCH; n++) libc.send(server.fd, buffer, 64, 0);
    turn();
    for (let n = 0; n < BATCH; n++) libc.recv(client.fd, buffer, 64, 0);
  }
}

for (const { ip, own, loopback } of FAMILIES) {
  spliceTest(`100,000 spliced ${ip} datagrams each way leave nothing on the heap`, (world) => {
    const server = world.inside(own), client = world.host(loopback);
    const { port } = world.inbound(server.port), buffer = new Uint8Array(64);
    connect(client, loopback, port);
    sendConnected(client, bytes(1));
    world.settle();
    connect(server, own, server.receive()!.port);
    const { data } = world.state, counter = base(0) + W.DATAGRAMS_FROM_GUEST;
    run(world, client, server, buffer, 1_000); // until it is compiled
    const before = Deno.memoryUsage().heapUsed, count = data[counter];
    run(world, client, server, buffer, ROUNDS);
    const grown = Deno.memoryUsage().heapUsed - before;
    assertEquals(data[counter] - count, ROUNDS * BATCH);
    assert(grown < LIMIT, `${grown} bytes`);
  });
}
