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
import { counted } from "../helpers/counted.ts";
import { bytes, type HostSocket } from "./guest.ts";
import { connect, FAMILIES, sendConnected, spliceTest, type SpliceWorld } from "./splice_world.ts";

const BATCH = 16, SIZE = 64;
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
    for (let n = 0; n < BATCH; n++) libc.send(client.fd, buffer, SIZE, 0);
    turn();
    for (let n = 0; n < BATCH; n++) libc.recv(server.fd, buffer, SIZE, 0);
    for (let n = 0; n < BATCH; n++) libc.send(server.fd, buffer, SIZE, 0);
    turn();
    for (let n = 0; n < BATCH; n++) libc.recv(client.fd, buffer, SIZE, 0);
  }
}

for (const { ip, own, loopback } of FAMILIES) {
  spliceTest(`100,000 spliced ${ip} datagrams each way leave nothing on the heap`, (world) => {
    const server = world.inside(own), client = world.host(loopback);
    const { port } = world.inbound(server.port), buffer = new Uint8Array(SIZE);
    connect(client, loopback, port);
    sendConnected(client, bytes(1));
    world.settle();
    connect(server, own, server.receive()!.port);
    const { table } = world.guest.ctx;
    run(world, client, server, buffer, 1_000); // until it is compiled
    const before = Deno.memoryUsage().heapUsed, [asked, answered] = counted(table);
    run(world, client, server, buffer, ROUNDS);
    const grown = Deno.memoryUsage().heapUsed - before;
    const bytesEach = ROUNDS * BATCH * SIZE;
    assertEquals(counted(table), [asked + bytesEach, answered + bytesEach]);
    assert(grown < LIMIT, `${grown} bytes`);
  });
}
