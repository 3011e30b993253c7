// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Bytes and phases of UDP flows and pings over the tap.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { PING_TIMEOUT } from "../../lib/icmp/mod.ts";
import { PingMode, pingState } from "../../lib/icmp/state.ts";
import { UDP_SEGMENT } from "../../lib/sys/ip_options.ts";
import { libc } from "../../lib/sys/libc.ts";
import { IPPROTO_UDP, setOption } from "../../lib/sys/socket.ts";
import { ONE_WAY_TIMEOUT, udpListen } from "../../lib/udp/mod.ts";
import { counted, phase } from "../helpers/counted.ts";
import { build } from "../wire/scapy.ts";
import { bytes, freePort, Guest, HostSocket, listenOn, PATHS, udpFrame } from "./guest.ts";

for (const { guest: from, name, host, ip } of PATHS) {
  for (const uso of [true, false]) {
    Deno.test(`${ip} datagrams are counted both ways, joined ones too (USO ${uso})`, () => {
      const guest = new Guest({ uso }), server = new HostSocket(host), { table } = guest.ctx;
      const frame = (size: number) =>
        udpFrame(guest.ctx, from, 4000, name, server.port, bytes(size));
      guest.send([frame(100), frame(0), frame(3)]);
      assertEquals([counted(table), phase(table)], [[103, 0], "opening"]);
      guest.send([frame(10_077)], 1000);
      assertEquals(counted(table), [10_180, 0]);
      const { port } = server.receive()!;
      server.send(bytes(50), port, host);
      server.send(bytes(0), port, host);
      guest.poll(() => guest.link.sentCount >= 2);
      assertEquals([counted(table), phase(table)], [[10_180, 50], "open"]);
      setOption(server.fd, IPPROTO_UDP, UDP_SEGMENT, 1200);
      server.send(bytes(12_005), port, host);
      guest.poll(() => counted(table)[1] > 10_000 + 50);
      assertEquals(counted(table), [10_180, 12_055]);
      server.close();
      guest.close();
    });
  }

  Deno.test(`${ip} datagrams to a forwarded port: the first side is the host's`, () => {
    const guest = new Guest(), client = new HostSocket(host), port = freePort();
    const { table } = guest.ctx;
    udpListen(guest.ctx, listenOn(port, 53));
    client.send(bytes(40), port, host);
    client.send(bytes(2), port, host);
    guest.poll(() => guest.link.sentCount >= 2);
    assertEquals([counted(table), phase(table)], [[42, 0], "opening"]);
    guest.send([udpFrame(guest.ctx, from, 53, name, client.port, bytes(500))]);
    assertEquals([counted(table), phase(table)], [[42, 500], "open"]);
    client.close();
    guest.close();
  });
}

Deno.test("a batch of several flows is counted flow by flow", () => {
  const guest = new Guest(), servers = [new HostSocket(), new HostSocket()];
  const frame = (k: number, size: number) =>
    udpFrame(guest.ctx, "192.0.2.2", 4000, "192.0.2.1", servers[k].port, bytes(size));
  guest.send([frame(0, 1), frame(0, 10), frame(1, 100), frame(0, 1000), frame(1, 10_000)]);
  assertEquals([0, 1].map((i) => counted(guest.ctx.table, i)), [[1011, 0], [10_100, 0]]);
  for (const server of servers) server.close();
  guest.close();
});

Deno.test("what a socket or the link refuses is not counted", () => {
  const guest = new Guest(), server = new HostSocket(), { table } = guest.ctx;
  const { port } = server;
  const frame = (size: number) =>
    udpFrame(guest.ctx, "192.0.2.2", 4000, "192.0.2.1", port, bytes(size));
  guest.send([frame(10)]);
  const peer = server.receive()!.port;
  guest.link.send = () => -105; // ENOBUFS
  server.send(bytes(20), peer);
  guest.turn(1000);
  assertEquals(counted(table), [10, 0]);
  const real = libc.sendmmsg; // takes two, then has no room
  let calls = 0;
  Object.defineProperty(libc, "sendmmsg", {
    configurable: true,
    writable: true,
    value: (...[fd, vector, n, flags]: Parameters<typeof real>) =>
      calls++ === 0 ? real(fd, vector, Math.min(n, 2), flags) : real(-1, vector, n, flags),
  });
  try {
    guest.send([frame(1), frame(2), frame(4), frame(8)]);
  } finally {
    Object.defineProperty(libc, "sendmmsg", { configurable: true, writable: true, value: real });
  }
  assertEquals(counted(table), [13, 0]);
  server.close();
  guest.close();
});

Deno.test("a flow that ends is closed", () => {
  const guest = new Guest(), server = new HostSocket(), { table } = guest.ctx, seen: string[] = [];
  table.observer = {
    opened: (i) => seen.push(`${phase(table, i)} ${counted(table, i)}`),
    closed: (i) => seen.push(`${phase(table, i)} ${counted(table, i)}`),
  };
  guest.send([udpFrame(guest.ctx, "192.0.2.2", 4000, "192.0.2.1", server.port, bytes(7))]);
  guest.pass(ONE_WAY_TIMEOUT);
  assertEquals(seen, ["opening 0,0", "closed 7,0"]);
  server.close();
  guest.close();
});

Deno.test("the data of echo requests and replies is counted, and the reply opens the flow", async () => {
  const guest = new Guest(), { table } = guest.ctx, { v4, v6 } = pingState(guest.ctx);
  if (v4.mode === PingMode.NONE || v6.mode === PingMode.NONE) return guest.close();
  const echo = (seq: number, size: number) => ({
    [`a${seq}`]: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1")/ICMP(id=7,seq=${seq})/bytes(${size})`,
    [`b${seq}`]: `Ether()/IPv6(src="2001:db8::2",dst="2001:db8::1")/` +
      `ICMPv6EchoRequest(id=7,seq=${seq},data=bytes(${size}))`,
  });
  const frames = await build({ ...echo(1, 0), ...echo(2, 56), ...echo(3, 20_000) });
  guest.send(Object.values(frames));
  assertEquals([0, 1].map((i) => phase(table, i)), ["opening", "opening"]);
  assertEquals([0, 1].map((i) => counted(table, i)), [[20_056, 0], [20_056, 0]]);
  assertEquals(guest.frames(6).length, 6);
  assertEquals([0, 1].map((i) => phase(table, i)), ["open", "open"]);
  assertEquals([0, 1].map((i) => counted(table, i)), [[20_056, 20_056], [20_056, 20_056]]);
  const ended: string[] = [];
  table.observer = { opened: () => {}, closed: (i) => ended.push(phase(table, i)) };
  guest.pass(PING_TIMEOUT + 1);
  assertEquals(ended, ["closed", "closed"]);
  guest.close();
});
