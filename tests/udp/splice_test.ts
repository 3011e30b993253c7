// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Spliced UDP between two namespaces: addresses, sizes, order, batches.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Pif, SIDE_PIF, SIDE_WORDS, TGT } from "../../lib/flow/side.ts";
import { UDP_GRO, UDP_SEGMENT } from "../../lib/sys/ip_options.ts";
import { IPPROTO_UDP, setOption } from "../../lib/sys/socket.ts";
import { SPLICE_MESSAGES } from "../../lib/udp/splice_state.ts";
import { base, Flag, W } from "../../lib/udp/state.ts";
import { ANY4, LOOPBACK4 } from "../../lib/wire/address.ts";
import { counted } from "../helpers/counted.ts";
import { address } from "../helpers/fake_context.ts";
import { bytes, udpFrame } from "./guest.ts";
import { connect, FAMILIES, sendConnected, spliceTest } from "./splice_world.ts";

/** A number in the first four bytes, and its like in the others. */
function numbered(n: number, size: number): Uint8Array<ArrayBuffer> {
  const payload = new Uint8Array(size).fill(n);
  new DataView(payload.buffer).setUint32(0, n);
  return payload;
}

function numberOf(payload: Uint8Array): number {
  return new DataView(payload.buffer, payload.byteOffset).getUint32(0);
}

for (const { ip, own, loopback, most } of FAMILIES) {
  spliceTest(
    `a local ${ip} datagram reaches the guest's own address, and its answer the sender`,
    (world) => {
      const server = world.inside(own), client = world.host(loopback);
      const { port } = world.inbound(server.port);
      client.send(bytes(50), port, loopback);
      world.settle();
      const request = server.receive()!;
      assertEquals([request.payload, request.from], [bytes(50), own]);
      server.send(bytes(60, 3), request.port, own);
      world.settle();
      const answer = client.receive()!;
      assertEquals([answer.payload, answer.from, answer.port], [bytes(60, 3), loopback, port]);
      assertEquals([world.guest.link.sentCount, world.guest.ctx.table.activeCount], [0, 1]);
      assertEquals(counted(world.guest.ctx.table), [50, 60]);
      world.guest.ctx.table.verify();
    },
  );

  spliceTest(
    `a ${ip} datagram in the namespace reaches the host's loopback, and its answer the sender`,
    (world) => {
      const server = world.host(loopback), client = world.inside(loopback);
      const { port } = world.outbound(server.port);
      client.send(bytes(50), port, loopback);
      world.settle();
      const request = server.receive()!;
      assertEquals([request.payload, request.from], [bytes(50), loopback]);
      server.send(bytes(60, 3), request.port, loopback);
      world.settle();
      const answer = client.receive()!;
      assertEquals([answer.payload, answer.from, answer.port], [bytes(60, 3), loopback, port]);
      assertEquals(counted(world.guest.ctx.table), [50, 60]);
    },
  );

  spliceTest(`spliced ${ip} datagrams may have any size`, (world) => {
    const server = world.inside(own), client = world.host(loopback);
    const { port } = world.inbound(server.port);
    connect(client, loopback, port);
    for (const size of [0, 1, 1472, 9000, 65000, most]) {
      assertEquals(sendConnected(client, bytes(size)), 0);
      world.settle();
      const request = server.receive()!;
      assertEquals(request.payload, bytes(size));
      server.send(bytes(size, 5), request.port, own);
      world.settle();
      assertEquals(client.receive()?.payload, bytes(size, 5));
    }
  });

  spliceTest(`10,000 ${ip} datagrams of three flows, both ways, keep their order`, (world) => {
    const server = world.inside(own), clients = [0, 1, 2].map(() => world.host(loopback));
    const { port } = world.inbound(server.port);
    for (const client of clients) connect(client, loopback, port);
    const got: Record<number, number[]> = {}, back: number[][] = [[], [], []];
    for (let n = 0; n < 10_000; n++) {
      assertEquals(sendConnected(clients[n % 7 % 3], numbered(n, 4 + n % 300)), 0);
      if (n % 500 !== 499) continue;
      world.settle();
      for (const { payload, port } of server.receiveAll()) {
        assertEquals(payload, numbered(numberOf(payload), 4 + numberOf(payload) % 300));
        (got[port] ??= []).push(numberOf(payload));
        server.send(payload as Uint8Array<ArrayBuffer>, port, own);
      }
      world.settle();
      clients.forEach((client, k) =>
        back[k].push(...client.receiveAll().map(({ payload }) => numberOf(payload)))
      );
    }
    const sorted = (list: number[]) => list.every((n, k) => k === 0 || n > list[k - 1]);
    const lists = [...Object.values(got), ...back];
    assertEquals([lists.length, lists.every(sorted)], [6, true]);
    assertEquals(lists.map((list) => list.length).reduce((a, b) => a + b), 20_000);
  });

  spliceTest(`a super-datagram of ${ip} crosses as one`, (world) => {
    const server = world.inside(own), client = world.host(loopback);
    const { port } = world.inbound(server.port);
    connect(client, loopback, port);
    setOption(client.fd, IPPROTO_UDP, UDP_SEGMENT, 1000);
    assertEquals(sendConnected(client, bytes(40_500)), 0);
    world.settle();
    const parts = server.receiveAll(), all = parts.flatMap(({ payload }) => [...payload]);
    assertEquals([parts.length, parts[40].payload.length], [41, 500]);
    assertEquals(Uint8Array.from(all), bytes(40_500));
    assertEquals(counted(world.guest.ctx.table), [40_500, 0]);
    setOption(server.fd, IPPROTO_UDP, UDP_GRO, 1);
    assertEquals(sendConnected(client, bytes(40_500)), 0);
    world.settle();
    assertEquals(server.receiveAll().map(({ payload }) => payload.length), [40_500]);
    setOption(server.fd, IPPROTO_UDP, UDP_SEGMENT, 700);
    server.send(bytes(2000), parts[0].port, own);
    world.settle();
    assertEquals(client.receiveAll().map(({ payload }) => payload.length), [700, 700, 600]);
  });
}

spliceTest("super-datagrams of different sizes and single datagrams mix in any order", (world) => {
  const server = world.inside(FAMILIES[0].own), client = world.host();
  const { port } = world.inbound(server.port);
  connect(client, LOOPBACK4, port);
  const expected: number[] = [];
  for (let n = 0; n < 3 * SPLICE_MESSAGES; n++) {
    const segment = [0, 500, 500, 900, 0][n % 5], size = 100 + 13 * n % 2000;
    setOption(client.fd, IPPROTO_UDP, UDP_SEGMENT, segment);
    assertEquals(sendConnected(client, bytes(size)), 0);
    for (let left = size; left > 0; left -= segment || size) {
      expected.push(Math.min(left, segment || size));
    }
  }
  world.settle();
  assertEquals(server.receiveAll().map(({ payload }) => payload.length), expected);
});

spliceTest("datagrams of one size cross as one and are told apart again", (world) => {
  const server = world.inside(FAMILIES[0].own), client = world.host();
  const { port } = world.inbound(server.port);
  connect(client, LOOPBACK4, port);
  const sizes = [...Array(30).fill(1400), 900, ...Array(5).fill(1400), 0, 1, 1, 2, 0, 0, 65507, 1];
  const send = () => {
    for (const [n, size] of sizes.entries()) assertEquals(sendConnected(client, bytes(size, n)), 0);
    world.settle();
    return server.receiveAll();
  };
  const got = send(), peer = got[0].port;
  assertEquals(got.map(({ payload }) => payload), sizes.map((size, n) => bytes(size, n)));
  assertEquals(counted(world.guest.ctx.table), [sizes.reduce((a, b) => a + b), 0]);
  setOption(server.fd, IPPROTO_UDP, UDP_GRO, 1); // sees what has crossed
  const crossed = send().map(({ payload }) => payload.length);
  assert(crossed.length < sizes.length && crossed.includes(30 * 1400 + 900), `${crossed}`);
  setOption(server.fd, IPPROTO_UDP, UDP_GRO, 0);
  for (const size of [700, 700, 700, 10, 20]) server.send(bytes(size), peer, FAMILIES[0].own);
  world.settle();
  assertEquals(client.receiveAll().map(({ payload }) => payload.length), [700, 700, 700, 10, 20]);
});

spliceTest("a super-datagram that the way on refuses is sent in parts", (world) => {
  const server = world.inside(FAMILIES[0].own), client = world.host();
  const { port } = world.inbound(server.port);
  connect(client, LOOPBACK4, port);
  setOption(client.fd, IPPROTO_UDP, UDP_SEGMENT, 300);
  sendConnected(client, bytes(300 * 100));
  setOption(client.fd, IPPROTO_UDP, UDP_SEGMENT, 1000);
  sendConnected(client, bytes(60_500));
  world.settle();
  const sizes = server.receiveAll().map(({ payload }) => payload.length);
  assertEquals(sizes, [...Array(100).fill(300), ...Array(60).fill(1000), 500]);
  setOption(client.fd, IPPROTO_UDP, UDP_SEGMENT, 0);
  for (let n = 0; n < 100; n++) sendConnected(client, bytes(1000, n));
  world.settle();
  const single = server.receiveAll().map(({ payload }) => payload);
  assertEquals(single, Array.from({ length: 100 }, (_, n) => bytes(1000, n)));
  assert(world.state.data[base(0) + W.FLAGS] & Flag.SINGLE, "was not refused");
  assertEquals(counted(world.guest.ctx.table), [300 * 100 + 60_500 + 100 * 1000, 0]);
}, {
  // the way to the guest's own address has an MTU too small for the segments
  commands: "link set lo up\nlink set lo mtu 800\naddr add 192.0.2.2/24 dev lo",
});

spliceTest("the sender is answered from the address it has used", (world) => {
  const server = world.inside(ANY4), client = world.host(), second = address("127.1.2.3");
  const { port } = world.inbound(server.port);
  for (const to of [second, LOOPBACK4]) {
    client.send(bytes(5), port, to);
    world.settle();
    const request = server.receive()!;
    server.send(bytes(6), request.port, request.from);
    world.settle();
    assertEquals(client.receive()?.from, to);
  }
  assertEquals(world.guest.ctx.table.activeCount, 2);
});

spliceTest("many ports and many peers are kept apart", (world) => {
  const { own } = FAMILIES[0];
  const servers = Array.from({ length: 40 }, () => world.inside(own));
  const ports = servers.map((server) => world.inbound(server.port).port);
  const clients = Array.from({ length: 40 }, () => world.host());
  for (let c = 0; c < clients.length; c++) {
    for (let s = 0; s < servers.length; s++) clients[c].send(numbered(c << 8 | s, 8), ports[s]);
  }
  world.settle();
  servers.forEach((server, s) => {
    const all = server.receiveAll();
    assertEquals(all.map(({ payload }) => numberOf(payload) & 0xff), Array(40).fill(s));
    assertEquals(new Set(all.map(({ port }) => port)).size, 40);
    for (const { payload, port } of all) {
      server.send(payload as Uint8Array<ArrayBuffer>, port, own);
    }
  });
  world.settle();
  clients.forEach((client, c) => {
    const all = client.receiveAll();
    assertEquals(all.map(({ payload }) => numberOf(payload) >> 8), Array(40).fill(c));
    for (const { payload, port } of all) assertEquals(port, ports[numberOf(payload) & 0xff]);
  });
  assertEquals(world.guest.ctx.table.activeCount, 1600);
  world.guest.ctx.table.verify();
});

spliceTest("a guest without an address is reached by its loopback", (world) => {
  for (const { loopback } of FAMILIES) {
    const server = world.inside(loopback), client = world.host(loopback);
    const { port } = world.inbound(server.port);
    client.send(bytes(5), port, loopback);
    world.settle();
    assertEquals(server.receive()?.from, loopback);
  }
}, { commands: "link set lo up" });

spliceTest("--host-lo-to-ns-lo and a rule's target say where the guest is reached", (world) => {
  const [server, other] = [world.inside(), world.inside(address("127.0.0.9"))];
  const client = world.host();
  client.send(bytes(5), world.inbound(server.port).port);
  const target = address("127.0.0.9");
  client.send(bytes(6), world.inbound(other.port, { target }).port);
  world.settle();
  assertEquals([server.receive()?.payload.length, other.receive()?.payload.length], [5, 6]);
  const host = world.host(target), inside = world.inside();
  inside.send(bytes(7), world.outbound(host.port, { target }).port);
  world.settle();
  assertEquals(host.receive()?.payload.length, 7);
}, { features: { hostLoToNsLo: true } });

spliceTest("one listener serves the tap and the splice path in any order", (world) => {
  const { own } = FAMILIES[0], { guest } = world;
  const server = world.inside(own), local = world.host(), remote = world.host(address("0.0.0.0"));
  // another address of this host stands for another host
  const there = address("198.51.100.77");
  const { port } = world.inbound(server.port);
  const turns = [0, 1, 1, 0, 1, 0, 0, 1];
  turns.forEach((tap, n) =>
    (tap ? remote : local).send(bytes(100 + n), port, tap ? there : LOOPBACK4)
  );
  world.settle();
  const from = guest.link.take();
  assertEquals(from.map((frame) => frame.length - 42), [101, 102, 104, 107]);
  for (const [k, n] of [1, 2, 4, 7].entries()) assertEquals(from[k].slice(42), bytes(100 + n));
  const spliced = server.receiveAll().map(({ payload }) => payload);
  assertEquals(spliced, [100, 103, 105, 106].map((size) => bytes(size)));
  guest.send([
    udpFrame(guest.ctx, "192.0.2.2", server.port, "198.51.100.77", remote.port, bytes(9)),
  ]);
  assertEquals(guest.ctx.table.activeCount, 2);
  world.state.listeners.forEach(({ flows }) => assertEquals(flows, 2));
}, { hostCommands: "addr add 198.51.100.77/32 dev lo" });

spliceTest(
  "what did not come from the namespace's loopback is not let through to the host",
  (world) => {
    const server = world.host(), { own } = FAMILIES[0];
    const { port } = world.outbound(server.port);
    const [outsider, client] = [world.inside(own), world.inside()];
    outsider.send(bytes(5), port, own);
    outsider.send(bytes(5), port);
    client.send(bytes(6), port, own);
    world.settle();
    assertEquals([server.receiveAll().length, world.guest.ctx.table.activeCount], [0, 0]);
  },
);

spliceTest("ports that are forwarded to each other do not feed each other for ever", (world) => {
  const inward = world.inbound(1), outward = world.outbound(inward.port);
  world.state.listeners[inward.listener].to = outward.port;
  world.host().send(bytes(5), inward.port);
  for (let n = 0; n < 50 && world.guest.turn(20) > 0; n++);
  assertEquals(world.guest.turn(20), 0);
  assertEquals(world.guest.ctx.table.activeCount, 1);
  const { sides } = world.state;
  assertEquals(sides[TGT * SIDE_WORDS + SIDE_PIF], Pif.SPLICE);
}, { features: { hostLoToNsLo: true } });
