// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Forwarded UDP ports, over the host's loopback.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { E } from "../../lib/sys/errno.ts";
import { udpListen, udpListenEvent, udpUnlisten } from "../../lib/udp/mod.ts";
import { address } from "../helpers/fake_context.ts";
import { decode, hex, layerOf } from "../wire/scapy.ts";
import { Guest, HostSocket, PATHS, udpFrame } from "./guest.ts";

const GUEST_PORT = 5300;

/** A free port of the host: taken and given back. */
function freePort(): number {
  const socket = new HostSocket(address("::"));
  socket.close();
  return socket.port;
}

function bytes(n: number, seed = 1): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: n }, (_, i) => (i * 7 + seed) & 0xff);
}

for (const { guest: to, name, host, ip } of PATHS) {
  Deno.test(`udpListen() carries datagrams over ${ip} to the guest and back`, async () => {
    const guest = new Guest(), client = new HostSocket(host), port = freePort();
    const listener = udpListen(guest.ctx, { address: null, port, guestPort: GUEST_PORT });
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
  udpListen(guest.ctx, { address: null, port, guestPort: GUEST_PORT });
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
  udpListen(guest.ctx, { address: null, port, guestPort: GUEST_PORT });
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
    udpListen(guest.ctx, { address: null, port, guestPort: GUEST_PORT });
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
  const at = { address: address("127.0.0.1"), port: taken.port, guestPort: GUEST_PORT };
  assertEquals(udpListen(guest.ctx, at), -E.EADDRINUSE);
  assertEquals(udpListen(guest.ctx, { ...at, address: address("192.0.2.9") }), -E.EADDRNOTAVAIL);
  assertEquals(udpListen(guest.ctx, { ...at, device: "none0" }), -E.ENODEV);
  taken.close();
  guest.close();
});

Deno.test("udpUnlisten() ends the listener's flows and frees the port", () => {
  const guest = new Guest(), client = new HostSocket(), port = freePort();
  const rule = { address: null, port, guestPort: GUEST_PORT };
  const listener = udpListen(guest.ctx, rule);
  client.send(bytes(5), port);
  guest.frames(1);
  udpUnlisten(guest.ctx, listener);
  udpListenEvent(guest.ctx, listener, 1); // a late event
  const answer = udpFrame(guest.ctx, "192.0.2.2", GUEST_PORT, "192.0.2.1", client.port, bytes(1));
  guest.send([answer]);
  assertEquals([client.receive(), guest.ctx.closing], [null, 1]);
  guest.pass(0);
  assertEquals(guest.ctx.table.activeCount, 0);
  assertEquals(udpListen(guest.ctx, rule), listener);
  client.close();
  guest.close();
});
