// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Life and limits of spliced UDP flows and of their listeners.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Pif } from "../../lib/flow/side.ts";
import { Policy } from "../../lib/forward/policy.ts";
import { E, SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { GuestSockets } from "../../lib/sys/guest_sockets.ts";
import {
  ONE_WAY_TIMEOUT,
  RETIRED_TIMEOUT,
  TWO_WAY_TIMEOUT,
  udpEvent,
  udpKeptPorts,
  udpListen,
  udpListenEvent,
  udpUnlisten,
} from "../../lib/udp/mod.ts";
import { LOOPBACK4 } from "../../lib/wire/address.ts";
import { bytes, HostSocket, listenOn, udpFrame } from "./guest.ts";
import { connect, FAMILIES, sendConnected, spliceTest, type SpliceWorld } from "./splice_world.ts";

const RLIMIT_NOFILE = 7; // asm-generic/resource.h
const EPOLLIN = 1;
/** A quarter of a second on an idle machine; minutes if each one looked at all others. */
const MOMENT_MS = 4000;
const { own } = FAMILIES[0];

/** Runs `body` with room for `free` more descriptors. */
function withDescriptors(free: number, body: () => void): void {
  const limits = new BigUint64Array(2);
  libc.getrlimit(RLIMIT_NOFILE, limits);
  const next = libc.dup(2); // the lowest free descriptor
  libc.close(next);
  libc.setrlimit(RLIMIT_NOFILE, BigUint64Array.of(BigInt(next + free), limits[1]));
  try {
    body();
  } finally {
    libc.setrlimit(RLIMIT_NOFILE, limits);
  }
}

/** A namespace that cannot be entered. */
function forbidden(): never {
  throw new SysError("setns", "network namespace", E.EPERM);
}

/** One request and its answer. */
function exchange(world: SpliceWorld, client: HostSocket, port: number, server: HostSocket): void {
  client.send(bytes(5), port);
  world.settle();
  server.send(bytes(6), server.receive()!.port, own);
  world.settle();
  assertEquals(client.receive()?.payload, bytes(6));
}

spliceTest("spliced flows end after 30 s one way and 120 s both ways", (world) => {
  const server = world.inside(own), client = world.host(), { guest } = world;
  const { port } = world.inbound(server.port), { table } = guest.ctx;
  client.send(bytes(5), port);
  world.settle();
  guest.pass(ONE_WAY_TIMEOUT - 1);
  assertEquals(table.activeCount, 1);
  guest.pass(1);
  assertEquals([table.activeCount, table.hashCount, world.state.splice.flows], [0, 0, 0]);
  server.receive();
  exchange(world, client, port, server);
  guest.pass(TWO_WAY_TIMEOUT - 1);
  assertEquals(table.activeCount, 1);
  client.send(bytes(5), port); // and goes on
  world.settle();
  guest.pass(TWO_WAY_TIMEOUT - 1);
  assertEquals([table.activeCount, world.state.listeners[0].flows], [1, 1]);
  guest.pass(1);
  assertEquals([table.activeCount, world.state.listeners[0].flows], [0, 0]);
});

spliceTest("late events of ended flows and closed listeners are harmless", (world) => {
  const server = world.inside(own), client = world.host(), { guest } = world;
  const { port, listener } = world.inbound(server.port);
  exchange(world, client, port, server);
  guest.pass(1000);
  udpUnlisten(guest.ctx, listener);
  udpEvent(guest.ctx, 0, EPOLLIN);
  udpListenEvent(guest.ctx, listener, EPOLLIN);
  assertEquals(guest.ctx.table.activeCount, 0);
});

spliceTest("a port that is given up keeps its flows, and is closed after the last", (world) => {
  const server = world.inside(own), client = world.host(), { guest } = world;
  const { port, listener } = world.inbound(server.port);
  exchange(world, client, port, server);
  udpUnlisten(guest.ctx, listener);
  exchange(world, client, port, server);
  const late = world.host();
  connect(late, LOOPBACK4, port);
  assertEquals(sendConnected(late, bytes(5)), 0);
  world.settle();
  assertEquals([server.receive(), sendConnected(late, bytes(5))], [null, E.ECONNREFUSED]);
  guest.pass(RETIRED_TIMEOUT);
  assertEquals([guest.ctx.table.activeCount, world.state.listeners[listener].fd], [0, -1]);
  assertEquals(udpListen(guest.ctx, listenOn(port, server.port)), listener);
  exchange(world, client, port, server);
});

spliceTest("a port that is given up is closed when its target refuses", (world) => {
  const { guest, state } = world, { ctx } = guest;
  const server = world.namespace.enter(() => new HostSocket(own)), client = world.host();
  const { port, listener } = world.inbound(server.port), other = world.host();
  exchange(world, client, port, server);
  other.send(bytes(5), port);
  world.settle();
  assertEquals(udpKeptPorts(ctx, Pif.HOST), []);
  udpUnlisten(ctx, listener);
  assertEquals([udpKeptPorts(ctx, Pif.HOST), udpKeptPorts(ctx, Pif.SPLICE)], [[port], []]);
  server.close();
  for (const socket of [client, other]) socket.send(bytes(5), port);
  world.settle();
  guest.pass(1);
  assertEquals([ctx.table.activeCount, state.listeners[listener].fd], [0, -1]);
  assertEquals(udpKeptPorts(ctx, Pif.HOST), []);
});

spliceTest("19,000 ports are opened in a moment", (world) => {
  const { ctx } = world.guest, first = 1024, count = 19_000;
  const before = performance.now();
  for (let port = first; port < first + count; port++) {
    assertEquals(udpListen(ctx, listenOn(port, port)), port - first);
  }
  const took = performance.now() - before;
  const server = world.inside(own), client = world.host();
  world.state.listeners[77].to = server.port;
  exchange(world, client, first + 77, server);
  for (let k = 0; k < count; k++) udpUnlisten(ctx, k);
  assertEquals(world.state.freeListeners.length, count - 1);
  assert(took < MOMENT_MS, `${took} ms`);
});

spliceTest("a flood from many ports leaves descriptors to others, and one warning", (world) => {
  const server = world.inside(own), { guest, state } = world, { port } = world.inbound(server.port);
  const warnings: string[] = [];
  state.warn = (message) => void warnings.push(message);
  Object.assign(state.splice, { maxFlows: 20 });
  const clients = Array.from({ length: 50 }, () => world.host());
  for (const client of clients) client.send(bytes(5), port);
  world.settle();
  assertEquals([guest.ctx.table.activeCount, server.receiveAll().length], [20, 20]);
  assertEquals(warnings, ["Local UDP datagram dropped: no socket: 20 of them are open"]);
  // the first ones go on, and so does the guest
  clients[3].send(bytes(6), port);
  const remote = world.host();
  guest.send([udpFrame(guest.ctx, "192.0.2.2", 4000, "192.0.2.1", remote.port, bytes(7))]);
  world.settle();
  assertEquals([server.receiveAll().length, remote.receive()?.payload.length], [1, 7]);
  guest.pass(ONE_WAY_TIMEOUT);
  clients[40].send(bytes(5), port);
  world.settle();
  assertEquals(server.receiveAll().length, 1);
});

/** A program that allows everything, and what it was asked about: ports of the guest's. */
function allowing(): { asked: number[]; policy: Policy } {
  const asked: number[] = [];
  const policy = new Policy([], [], undefined, {
    decide: ({ sourcePort }) => {
      asked.push(sourcePort);
      return "allow";
    },
  });
  return { asked, policy };
}

const full = allowing();
spliceTest("a program is not asked about flows that there is no room for", (world) => {
  const server = world.host(), { guest, state } = world, { port } = world.outbound(server.port);
  state.warn = () => {};
  Object.assign(state.splice, { maxFlows: 2 });
  const clients = Array.from({ length: 5 }, () => world.inside());
  for (let n = 0; n < 20; n++, guest.ctx.nowMs++) {
    for (const client of clients) client.send(bytes(5), port);
    world.settle();
  }
  assertEquals([guest.ctx.table.activeCount, full.asked.length], [2, 2]);
  assertEquals(server.receiveAll().length, 40);
}, { policy: full.policy });

const short = allowing();
spliceTest("a program is asked once about a flow that gets no socket", (world) => {
  const server = world.host(), { guest, state } = world, { ctx } = guest;
  const { port } = world.outbound(server.port);
  state.warn = () => {};
  const clients = Array.from({ length: 5 }, () => world.inside());
  const send = () => {
    for (const client of clients) client.send(bytes(5), port);
    for (let n = 0; n < 3; n++, ctx.nowMs++) guest.turn(20);
  };
  withDescriptors(0, () => {
    for (let n = 0; n < 10; n++) send();
  });
  assert(short.asked.length <= clients.length, `${short.asked.length} questions`);
  assertEquals(ctx.table.activeCount, 0);
  send();
  assertEquals([ctx.table.activeCount, short.asked.length], [5, 5]);
  assertEquals(new Set(short.asked).size, 5);
}, { policy: short.policy });

spliceTest("datagrams are dropped while there are no descriptors, and then no more", (world) => {
  const server = world.inside(own), { guest, state } = world, { ctx } = guest;
  const { port } = world.inbound(server.port), inside = world.outbound(server.port);
  const warnings: string[] = [];
  state.warn = (message) => void warnings.push(message);
  const clients = Array.from({ length: 5 }, () => world.host()), local = world.inside();
  for (const client of clients) client.send(bytes(5), port);
  local.send(bytes(5), inside.port);
  ctx.guest!.close(); // ready sockets would be given up for new ones
  withDescriptors(0, () => {
    for (let n = 0; n < 5; n++, ctx.nowMs++) guest.turn(20);
  });
  assertEquals([ctx.table.activeCount, server.receive()], [0, null]);
  assertEquals(new Set(warnings).size, 1);
  assertEquals(warnings[0], "Local UDP datagram dropped: no socket: EMFILE");
  ctx.table.verify();
  ctx.nowMs++;
  exchange(world, clients[0], port, server);
});

spliceTest("datagrams are dropped when the flow table is full", (world) => {
  const server = world.inside(own), { port } = world.inbound(server.port);
  const clients = Array.from({ length: 5 }, () => world.host());
  for (const client of clients) client.send(bytes(5), port);
  world.settle();
  assertEquals([server.receiveAll().length, world.state.splice.flows], [3, 3]);
  world.guest.ctx.table.verify();
  world.guest.pass(ONE_WAY_TIMEOUT);
  clients[4].send(bytes(5), port);
  world.settle();
  assertEquals(server.receiveAll().length, 1);
}, { capacity: 3 });

spliceTest("a namespace that gives no more sockets costs datagrams only", (world) => {
  const client = world.host(), { port } = world.inbound(1);
  client.send(bytes(5), port);
  client.send(bytes(5), port);
  world.settle();
  assertEquals(world.guest.ctx.table.activeCount, 0);
}, { guest: new GuestSockets(forbidden) });
