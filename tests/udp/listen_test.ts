// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Forwarded UDP ports, over the host's loopback.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { E } from "../../lib/sys/errno.ts";
import { RETIRED_TIMEOUT, udpListen, udpListenEvent, udpUnlisten } from "../../lib/udp/mod.ts";
import { address } from "../helpers/fake_context.ts";
import { decode, hex, layerOf } from "../wire/scapy.ts";
import { bytes, freePort, Guest, HostSocket, listenOn, PATHS, udpFrame } from "./guest.ts";

const GUEST_PORT = 5300;

for (const { guest: to, name, host, ip } of PATHS) {
  Deno.test(`udpListen() carries datagrams over ${ip} to the guest and back`, async () => {
    const guest = new Guest(), client = new HostSocket(host), port = freePort();
    const listener = udpListen(guest.ctx, listenOn(port, GUEST_PORT));
    assert(listener >= 0);
    client.send(bytes(50), port, host);
    client.send(bytes(60), port, host);
    const frames = guest.frames(2);
    const { first } = await decode({ first: frames[0] });
    const { src, dst } = layerOf(first, ip), udp = layerOf(first, "UDP");
    assertEquals([first.bad, src, dst], [[], name, to]);
    assertEquals([udp.sport, udp.dport], [client.port, GUEST_PORT]);
    assertEquals(layerOf(first, "Raw").load, hex(bytes(50)));
    assertEquals([frames.length, guest.ctx.table.activeCount], [2, 1]);
    const answer = udpFrame(guest.ctx, to, GUEST_PORT, name, client.port, bytes(70, 3));
    guest.send([answer, answer]);
    const got = client.receiveAll();
    assertEquals(got.map(({ payload }) => payload), [bytes(70, 3), bytes(70, 3)]);
    assertEquals([got[0].port, got[0].from], [port, host]);
    guest.send([udpFrame(guest.ctx, to, GUEST_PORT, name, client.port, bytes(3000))], 1000);
    assertEquals(client.receiveAll().map(({ payload }) => payload.length), [1000, 1000, 1000]);
    client.close();
    guest.close();
  });
}

Deno.test("udpListen() answers from the address that was addressed", () => {
  const guest = new Guest(), client = new HostSocket(), port = freePort();
  const second = address("127.0.0.2");
  udpListen(guest.ctx, listenOn(port, GUEST_PORT));
  client.send(bytes(5), port, second);
  assertEquals(guest.frames(1).length, 1);
  guest.send([udpFrame(guest.ctx, "192.0.2.2", GUEST_PORT, "192.0.2.1", client.port, bytes(1))]);
  assertEquals(client.receive()?.from, second);
  // the same peer by another address would be the same to the guest: it is not let in
  client.send(bytes(5), port);
  assertEquals([guest.frames(1, 50).length, guest.ctx.table.activeCount], [0, 1]);
  client.close();
  guest.close();
});

Deno.test("udpListen() takes datagrams of both families in any order", () => {
  const guest = new Guest(), port = freePort();
  const clients = [...PATHS, ...PATHS].map(({ host }) => ({ socket: new HostSocket(host), host }));
  udpListen(guest.ctx, listenOn(port, GUEST_PORT));
  for (const [k, { socket, host }] of clients.entries()) socket.send(bytes(100 + k), port, host);
  const frames = guest.frames(4);
  const sizes = frames.map((f) => [f[12] << 8 | f[13], f.length - (f[12] === 8 ? 42 : 62)]);
  assertEquals(sizes, [[0x0800, 100], [0x86dd, 101], [0x0800, 102], [0x86dd, 103]]);
  for (const [k, frame] of frames.entries()) {
    assertEquals(frame.slice(k % 2 ? 62 : 42), bytes(100 + k));
  }
  for (const { socket } of clients) socket.close();
  guest.close();
});

Deno.test("udpListen() tells the guest when its peer is gone", async () => {
  for (const { guest: to, name, host, ip } of PATHS) {
    const guest = new Guest(), client = new HostSocket(host), port = freePort();
    udpListen(guest.ctx, listenOn(port, GUEST_PORT));
    client.send(bytes(5), port, host);
    guest.frames(1);
    client.close();
    guest.send([udpFrame(guest.ctx, to, GUEST_PORT, name, client.port, bytes(20))]);
    const [frame] = guest.frames(1);
    const { error } = await decode({ error: frame });
    const { src, dst } = layerOf(error, ip), inner = layerOf(error, "UDPerror");
    assertEquals([error.bad, src, dst], [[], name, to]);
    assertEquals([inner.sport, inner.dport], [GUEST_PORT, client.port]);
    guest.close();
  }
});

Deno.test("udpListen() says why it cannot listen", () => {
  const guest = new Guest(), taken = new HostSocket();
  const at = listenOn(taken.port, GUEST_PORT, { address: address("127.0.0.1") });
  assertEquals(udpListen(guest.ctx, at), -E.EADDRINUSE);
  assertEquals(udpListen(guest.ctx, { ...at, address: address("192.0.2.9") }), -E.EADDRNOTAVAIL);
  assertEquals(udpListen(guest.ctx, { ...at, device: "none0" }), -E.ENODEV);
  taken.close();
  guest.close();
});

Deno.test("udpUnlisten() frees the port of a listener without flows at once", () => {
  const guest = new Guest(), port = freePort(), rule = listenOn(port, GUEST_PORT);
  const listener = udpListen(guest.ctx, rule);
  assertEquals(udpListen(guest.ctx, rule), -E.EADDRINUSE);
  udpUnlisten(guest.ctx, listener);
  udpUnlisten(guest.ctx, listener); // harmless
  udpListenEvent(guest.ctx, listener, 1); // a late event
  assertEquals(udpListen(guest.ctx, rule), listener);
  guest.close();
});

Deno.test("udpUnlisten() keeps the flows of a listener, and lets no others in", () => {
  const guest = new Guest(), [client, late] = [new HostSocket(), new HostSocket()];
  const port = freePort(), rule = listenOn(port, GUEST_PORT), { ctx } = guest;
  const listener = udpListen(ctx, rule);
  client.send(bytes(5), port);
  guest.frames(1);
  udpUnlisten(ctx, listener);
  late.send(bytes(5), port);
  client.send(bytes(6), port);
  assertEquals(guest.frames(1).map((frame) => frame.length), [14 + 28 + 6]);
  guest.send([udpFrame(ctx, "192.0.2.2", GUEST_PORT, "192.0.2.1", client.port, bytes(1))]);
  assertEquals([client.receive()?.payload, ctx.table.activeCount], [bytes(1), 1]);
  guest.pass(RETIRED_TIMEOUT - 1);
  assertEquals(udpListen(ctx, { ...rule, device: "lo" }), -E.EADDRINUSE);
  guest.pass(1);
  assertEquals(ctx.table.activeCount, 0);
  assertEquals(udpListen(ctx, { ...rule, to: 1 }), listener); // bound anew
  client.close();
  late.close();
  guest.close();
});

Deno.test("udpListen() takes over a socket that is kept for its flows", () => {
  const guest = new Guest(), [client, other] = [new HostSocket(), new HostSocket()];
  const port = freePort(), { ctx } = guest;
  const listener = udpListen(ctx, listenOn(port, GUEST_PORT));
  client.send(bytes(5), port);
  guest.frames(1);
  udpUnlisten(ctx, listener);
  assertEquals(udpListen(ctx, listenOn(port, GUEST_PORT + 1)), listener);
  client.send(bytes(5), port);
  other.send(bytes(5), port);
  const ports = guest.frames(2).map((frame) => frame[36] << 8 | frame[37]);
  assertEquals(ports, [GUEST_PORT, GUEST_PORT + 1]);
  guest.pass(1000);
  assertEquals([ctx.table.activeCount, udpListen(ctx, listenOn(port, 1))], [0, -E.EADDRINUSE]);
  client.close();
  other.close();
  guest.close();
});
