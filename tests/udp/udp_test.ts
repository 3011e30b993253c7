// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Datagrams between a guest and sockets on the host's loopback.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { FlowState } from "../../lib/flow/types.ts";
import { GSO } from "../../lib/link/link.ts";
import { UDP_SEGMENT } from "../../lib/sys/ip_options.ts";
import { libc } from "../../lib/sys/libc.ts";
import { IPPROTO_UDP, setOption } from "../../lib/sys/socket.ts";
import { ONE_WAY_TIMEOUT, TWO_WAY_TIMEOUT, udpEvent } from "../../lib/udp/mod.ts";
import { bytes, Guest, HostSocket, PATHS, udpFrame } from "./guest.ts";
import { decode, hex, layerOf } from "../wire/scapy.ts";

for (const { guest: from, name, host, ip } of PATHS) {
  Deno.test(`UDP over ${ip} crosses both ways with addresses and ports mapped`, async () => {
    const guest = new Guest(), server = new HostSocket(host);
    guest.send([udpFrame(guest.ctx, from, 4000, name, server.port, bytes(100))]);
    const request = server.receive()!;
    assertEquals([request.payload, request.from], [bytes(100), host]);
    assertEquals(server.send(bytes(1400, 9), request.port, host), 1400);
    const [frame] = guest.frames(1);
    const { answer } = await decode({ answer: frame });
    assertEquals(answer.bad, []);
    const { src, dst } = layerOf(answer, ip), udp = layerOf(answer, "UDP");
    assertEquals([src, dst, udp.sport, udp.dport], [name, from, server.port, 4000]);
    assertEquals(layerOf(answer, "Raw").load, hex(bytes(1400, 9)));
    server.close();
    guest.close();
  });

  Deno.test(`UDP over ${ip} sends a batch of several flows in order`, () => {
    const guest = new Guest(), server = new HostSocket(host), other = new HostSocket(host);
    const to = [server, server, server, other, other, server];
    guest.send(to.map((s, k) => udpFrame(guest.ctx, from, 4000, name, s.port, bytes(10 + k))));
    assertEquals(server.receiveAll().map((d) => d.payload.length), [10, 11, 12, 15]);
    assertEquals(other.receiveAll().map((d) => d.payload.length), [13, 14]);
    assertEquals(guest.ctx.table.activeCount, 2);
    server.close();
    other.close();
    guest.close();
  });

  Deno.test(`UDP over ${ip} passes empty and largest datagrams`, async () => {
    const guest = new Guest(), server = new HostSocket(host);
    const most = ip === "IP" ? 65507 : 65487;
    for (const size of [0, most]) {
      guest.send([udpFrame(guest.ctx, from, 4000, name, server.port, bytes(size))]);
      const request = server.receive()!;
      assertEquals(request.payload, bytes(size));
      server.send(bytes(size, 3), request.port, host);
      const [frame] = guest.frames(1);
      const { answer } = await decode({ answer: frame });
      assertEquals([answer.bad, layerOf(answer, "UDP").len], [[], 8 + size]);
    }
    server.close();
    guest.close();
  });

  Deno.test(`UDP over ${ip} forwards a super-frame from the guest as datagrams`, () => {
    const guest = new Guest(), server = new HostSocket(host);
    const payload = bytes(10 * 1000 + 77);
    guest.send([udpFrame(guest.ctx, from, 4000, name, server.port, payload)], 1000);
    const got = server.receiveAll();
    assertEquals(got.map((d) => d.payload.length), [...Array(10).fill(1000), 77]);
    assertEquals(got.flatMap((d) => [...d.payload]), [...payload]);
    guest.send([udpFrame(guest.ctx, from, 4000, name, server.port, bytes(10))], 1000);
    assertEquals(server.receiveAll().length, 1);
    guest.send([udpFrame(guest.ctx, from, 4000, name, server.port, bytes(1000))], 1);
    assertEquals(server.receiveAll().length, 0); // more than any kernel would make
    server.close();
    guest.close();
  });

  for (const uso of [true, false]) {
    const how = uso ? "one super-frame" : "single frames";
    Deno.test(`UDP over ${ip} forwards what the kernel coalesced as ${how}`, async () => {
      const guest = new Guest({ uso }), server = new HostSocket(host);
      guest.send([udpFrame(guest.ctx, from, 4000, name, server.port, bytes(1))]);
      const { port } = server.receive()!;
      assertEquals(setOption(server.fd, IPPROTO_UDP, UDP_SEGMENT, 1200), 0);
      const payload = bytes(10 * 1200 + 5);
      assertEquals(server.send(payload, port, host), payload.length);
      guest.poll(() => guest.link.sentCount >= (uso ? 1 : 11));
      const sent = guest.link.sent;
      const decoded = await decode(Object.fromEntries(sent.map((s, k) => [k, s.frame])));
      const headers = ip === "IP" ? 42 : 62;
      const got = sent.flatMap((s) => [...s.frame.subarray(headers)]);
      assertEquals(got, [...payload]);
      for (const one of Object.values(decoded)) assertEquals(one.bad, []);
      assertEquals(sent.length, uso ? 1 : 11);
      if (uso) {
        const { gsoType, gsoSize, headerLength, csumStart, csumOffset } = sent[0];
        assertEquals([gsoType, gsoSize, headerLength], [GSO.UDP_L4, 1200, headers]);
        assertEquals([csumStart, csumOffset], [headers - 8, 6]);
      }
      server.close();
      guest.close();
    });
  }
}

Deno.test("udpEvent() takes no more than its share of a flood", () => {
  const guest = new Guest(), server = new HostSocket();
  guest.send([udpFrame(guest.ctx, "192.0.2.2", 4000, "192.0.2.1", server.port, bytes(1))]);
  const { port } = server.receive()!;
  for (let k = 0; k < 60; k++) server.send(bytes(10), port);
  guest.turn(100);
  const first = guest.link.sent.length;
  assert(first > 0 && first < 60, `${first}`);
  guest.poll(() => guest.link.sent.length === 60);
  assertEquals(guest.link.sent.length, 60);
  server.close();
  guest.close();
});

Deno.test("UDP flows end after 30 s one way and 120 s both ways", () => {
  const guest = new Guest(), server = new HostSocket(), { table } = guest.ctx;
  const frame = (sport: number) =>
    udpFrame(guest.ctx, "192.0.2.2", sport, "192.0.2.1", server.port, bytes(1));
  guest.send([frame(4000), frame(4001)]);
  server.receive();
  server.send(bytes(1), server.receive()!.port);
  guest.frames(1);
  assertEquals(table.activeCount, 2);
  guest.pass(ONE_WAY_TIMEOUT - 1);
  assertEquals(table.activeCount, 2);
  guest.pass(1);
  assertEquals(table.stateOf(0), FlowState.FREE);
  assertEquals(table.activeCount, 1);
  guest.send([frame(4001)]); // traffic starts the time again
  guest.pass(TWO_WAY_TIMEOUT - 1);
  assertEquals(table.activeCount, 1);
  guest.pass(1);
  assertEquals([table.activeCount, table.hashCount], [0, 0]);
  udpEvent(guest.ctx, 1, 1); // a late event
  server.close();
  guest.close();
});

Deno.test("udpFromTap() leaves multicast, broadcast and port 0 alone", () => {
  const guest = new Guest();
  const to = [["224.0.0.251", 5353], ["255.255.255.255", 67], ["192.0.2.1", 0], ["0.0.0.0", 9]];
  guest.send(
    to.map(([dst, port]) => udpFrame(guest.ctx, "192.0.2.2", 4000, `${dst}`, +port, bytes(1))),
  );
  guest.send([udpFrame(guest.ctx, "fe80::9", 4000, "ff02::fb", 5353, bytes(1))]);
  assertEquals([guest.ctx.table.activeCount, guest.link.sentCount], [0, 0]);
  guest.close();
});

Deno.test("udpFromTap() drops datagrams when the flow table is full", () => {
  const guest = new Guest({ capacity: 2 }), server = new HostSocket();
  const frames = [1, 2, 3, 1].map((n) =>
    udpFrame(guest.ctx, "192.0.2.2", 4000 + n, "192.0.2.1", server.port, bytes(n))
  );
  guest.send(frames);
  assertEquals(server.receiveAll().map((d) => d.payload.length), [1, 2, 1]);
  assertEquals(guest.ctx.table.activeCount, 2);
  guest.ctx.table.verify();
  server.close();
  guest.close();
});

Deno.test("udpFromTap() refuses truncated and altered datagrams without an exception", () => {
  const guest = new Guest({ capacity: 4096 }), server = new HostSocket();
  for (const { guest: from, name } of PATHS) {
    const whole = udpFrame(guest.ctx, from, 4000, name, server.port, bytes(40));
    for (let n = 0; n < whole.length; n++) guest.send([whole.slice(0, n)]);
    assertEquals(server.receiveAll().length, 0);
    server.receiveAll();
    let seed = 12345;
    const random = (n: number) => (seed = (seed * 1103515245 + 12345) >>> 0) % n;
    for (let n = 0; n < 3000; n++) {
      const frame = whole.slice();
      for (let k = 0; k <= random(3); k++) frame[random(14) + random(48)] = random(256);
      // stay on the loopback: what is sent must not leave this machine
      const view = new DataView(frame.buffer);
      if (frame[12] === 8) view.setUint32(30, 0xc0000201);
      else for (let k = 0; k < 4; k++) view.setUint32(38 + 4 * k, [0x20010db8, 0, 0, 1][k]);
      guest.send([frame], random(4) === 0 ? random(2000) : 0);
    }
    server.receiveAll();
  }
  guest.ctx.table.verify();
  guest.turn();
  server.close();
  guest.close();
});

Deno.test("a port nobody listens on is told to the guest as port unreachable", async () => {
  for (const { guest: from, name, host, ip } of PATHS) {
    const guest = new Guest(), gone = new HostSocket(host);
    gone.close();
    guest.send([udpFrame(guest.ctx, from, 4000, name, gone.port, bytes(32))]);
    const [frame] = guest.frames(1);
    const { error } = await decode({ error: frame });
    assertEquals(error.bad, []);
    const outer = layerOf(error, ip);
    assertEquals([outer.src, outer.dst], [name, from]);
    if (ip === "IP") {
      const icmp = layerOf(error, "ICMP"), inner = layerOf(error, "IPerror");
      assertEquals([icmp.type, icmp.code, inner.src, inner.dst], [3, 3, from, name]);
    } else {
      const icmp = layerOf(error, "ICMPv6DestUnreach"), inner = layerOf(error, "IPerror6");
      assertEquals([icmp.type, icmp.code, inner.src, inner.dst], [1, 4, from, name]);
    }
    const udp = layerOf(error, "UDPerror");
    assertEquals([udp.sport, udp.dport, udp.len], [4000, gone.port, 40]);
    assert(hex(frame).endsWith(hex(bytes(32))));
    // the flow goes on: a server may come, and no datagram is lost to the old error
    guest.send([udpFrame(guest.ctx, from, 4000, name, gone.port, bytes(33))]);
    assertEquals(guest.frames(1).length, 1);
    guest.close();
  }
});

Deno.test("udpFromTap() drops datagrams when there are no descriptors left, and recovers", () => {
  const RLIMIT_NOFILE = 7; // sys/resource.h
  const guest = new Guest(), server = new HostSocket(), { ctx } = guest;
  const frame = (n: number) =>
    udpFrame(ctx, "192.0.2.2", 4000 + n, "192.0.2.1", server.port, bytes(n));
  const before = new BigUint64Array(2);
  libc.getrlimit(RLIMIT_NOFILE, before);
  const free = libc.dup(server.fd); // the lowest free descriptor
  libc.close(free);
  assertEquals(ctx.epoll.fd >= 0, true);
  libc.setrlimit(RLIMIT_NOFILE, BigUint64Array.of(BigInt(free + 2), before[1]));
  guest.send([1, 2, 3, 4, 1].map(frame));
  libc.setrlimit(RLIMIT_NOFILE, before);
  const arrived = server.receiveAll().map(({ payload }) => payload.length);
  assert(arrived.length < 5 && arrived.at(-1) === 1, `${arrived}`);
  ctx.table.verify();
  guest.send([frame(4)]);
  assertEquals(server.receiveAll().length, 1);
  server.close();
  guest.close();
});
