// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What happens when no descriptor is left; a program of its own, for the limit is the whole process's.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { libc } from "../../lib/sys/libc.ts";
import { connectSocket, newSocket } from "../../lib/sys/socket.ts";
import { LOOPBACK4 } from "../../lib/wire/address.ts";
import { spec } from "./splice_world.ts";
import { ACK, RST, SYN, synOptions } from "./segment.ts";
import { assertBytes, connected, Guest, HostSocket, pattern, World } from "./world.ts";

const RLIMIT_NOFILE = 7; // asm-generic/resource.h
const ECONNRESET = 104; // errno(3)
const limits = new BigUint64Array(2);
libc.getrlimit(RLIMIT_NOFILE, limits);

const world = new World();
const old = connected(world);
const port = (() => {
  using socket = HostSocket.listen();
  return socket.port;
})();
world.tcp.listen(spec(port, 80));
const clients = Array.from({ length: 20 }, () => new HostSocket(newSocket(2, 1, 0)));

const held: number[] = [];
limits[0] = 200n;
libc.setrlimit(RLIMIT_NOFILE, limits);
for (let fd = libc.dup(2); fd >= 0; fd = libc.dup(2)) held.push(fd);
assert(held.length > 10);

// the guest's connections are refused, and nothing is left of them
for (let k = 0; k < 100; k++) {
  const guest = new Guest(world, old.listener.port);
  guest.send(SYN, { options: synOptions(1460) });
  world.settle();
  const answer = world.one();
  assertEquals([answer.flags, answer.ack], [RST | ACK, guest.seq + 1]);
}
assertEquals(world.table.activeCount, 1);

// clients of a listener are refused at once instead of left hanging; settle() would notice a spin
for (const client of clients.slice(0, 10)) connectSocket(client.fd, LOOPBACK4, 0, port);
world.settle();
for (const client of clients.slice(0, 10)) {
  world.until(() => client.receive() === -ECONNRESET, "refusal");
}
assertEquals([world.table.activeCount, world.segments().length], [1, 0]);
for (let k = 0; k < 100; k++) assertEquals(world.turn(), 0); // asleep

// old connections go on
old.guest.data(pattern(1000));
world.settle();
assertBytes(old.server.receive(), pattern(1000));
world.segments();

// and when descriptors are there again, so do new ones
for (const fd of held.splice(0, 4)) libc.close(fd);
connectSocket(clients[10].fd, LOOPBACK4, 0, port);
world.until(() => world.link.sent.length > 0);
assertEquals(world.one().flags, SYN);
const next = connected(world);
assert(next.guest.flow >= 0);
console.log("done");
Deno.exit(0);
