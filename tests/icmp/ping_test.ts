// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Ping between a guest and the host's loopback: with raw sockets, which need CAP_NET_RAW, or with ping
 * sockets where the host allows them.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { PING_TIMEOUT, pingEvent, pingFromTap } from "../../lib/icmp/mod.ts";
import { PingMode, pingState } from "../../lib/icmp/state.ts";
import { EventType } from "../../lib/context.ts";
import { parseIp } from "../../lib/wire/packet.ts";
import { Guest, PATHS } from "../udp/guest.ts";
import { build, decode, hex, layerOf } from "../wire/scapy.ts";

/** Echo requests of both families made by scapy, for each size of data. */
async function requests(...sizes: number[]): Promise<Uint8Array<ArrayBuffer>[]> {
  const all: Record<string, string> = {};
  for (const [n, size] of sizes.entries()) {
    const data = `(bytes(range(256))*300)[:${size}]`, echo = `id=77,seq=${n + 1}`;
    all[`a${n}`] = `Ether()/IP(src="192.0.2.2",dst="192.0.2.1",ttl=61)/ICMP(${echo})/${data}`;
    const ip = `IPv6(src="2001:db8::2",dst="2001:db8::1",hlim=61)`;
    all[`b${n}`] = `Ether()/${ip}/ICMPv6EchoRequest(${echo},data=${data})`;
  }
  return Object.values(await build(all));
}

/** Whether this host lets us ping; where it does not, there is nothing to see. */
function canPing(guest: Guest): boolean {
  const { v4, v6 } = pingState(guest.ctx);
  return v4.mode !== PingMode.NONE && v6.mode !== PingMode.NONE;
}

Deno.test("pingFromTap() gets replies with identifier, sequence number and data kept", async () => {
  const guest = new Guest();
  if (!canPing(guest)) return guest.close();
  const sizes = [0, 1, 56, 20000];
  guest.send(await requests(...sizes));
  const frames = guest.frames(2 * sizes.length);
  assertEquals(frames.length, 2 * sizes.length);
  const decoded = Object.values(await decode(Object.fromEntries(frames.entries())));
  for (const one of decoded) {
    const v4 = one.layers[1].layer === "IP";
    const ip = one.layers[1], echo = layerOf(one, v4 ? "ICMP" : "ICMPv6EchoReply");
    const { name, guest: to } = PATHS[v4 ? 0 : 1], size = sizes[echo.seq - 1];
    assertEquals([one.bad, ip.src, ip.dst], [[], name, to]);
    assertEquals([echo.id, echo.type], [77, v4 ? 0 : 129]);
    const data = v4 ? (size ? layerOf(one, "Raw").load : "") : echo.data;
    assertEquals(data, hex(Uint8Array.from({ length: size }, (_, k) => k & 255)));
  }
  assertEquals(guest.ctx.table.activeCount, 2);
  guest.close();
});

Deno.test("pingFromTap() keeps flows with the same identifier to one address apart", async () => {
  const guest = new Guest();
  if (!canPing(guest)) return guest.close();
  const frames = await build({
    one: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1")/ICMP(id=5,seq=1)/b"one"`,
    two: `Ether()/IP(src="192.0.2.3",dst="192.0.2.1")/ICMP(id=5,seq=1)/b"two"`,
    three: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1")/ICMP(id=6,seq=1)/b"three"`,
  });
  guest.send(Object.values(frames));
  const replies = guest.frames(3);
  const seen = await decode(Object.fromEntries(replies.entries()));
  const found = Object.values(seen).map((one) =>
    `${layerOf(one, "IP").dst} ${layerOf(one, "ICMP").id} ${layerOf(one, "Raw").load}`
  ).sort();
  const text = (word: string) => hex(new TextEncoder().encode(word));
  assertEquals(
    found,
    [
      `192.0.2.2 5 ${text("one")}`,
      `192.0.2.2 6 ${text("three")}`,
      `192.0.2.3 5 ${text("two")}`,
    ].sort(),
  );
  guest.close();
});

Deno.test("ping flows end after 60 s and give their identifier back", async () => {
  const guest = new Guest();
  if (!canPing(guest)) return guest.close();
  guest.send(await requests(8));
  guest.frames(2);
  guest.pass(PING_TIMEOUT - 1);
  assertEquals(guest.ctx.table.activeCount, 2);
  guest.pass(1);
  assertEquals([guest.ctx.table.activeCount, guest.ctx.table.hashCount], [0, 0]);
  for (const { ids } of [pingState(guest.ctx).v4, pingState(guest.ctx).v6]) {
    assert(ids.every((flow) => flow === 0));
  }
  pingEvent(guest.ctx, EventType.PING, 0, 1); // a late event
  guest.close();
});

Deno.test("pingFromTap() leaves groups, replies and wrong checksums alone", async () => {
  const guest = new Guest();
  const frames = await build({
    group: `Ether()/IP(src="192.0.2.2",dst="224.0.0.1")/ICMP()`,
    all: `Ether()/IP(src="192.0.2.2",dst="255.255.255.255")/ICMP()`,
    reply: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1")/ICMP(type=0)`,
    sum: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1")/ICMP(chksum=1)`,
    group6: `Ether()/IPv6(src="2001:db8::2",dst="ff02::1")/ICMPv6EchoRequest()`,
    reply6: `Ether()/IPv6(src="2001:db8::2",dst="2001:db8::1")/ICMPv6EchoReply()`,
    sum6: `Ether()/IPv6(src="2001:db8::2",dst="2001:db8::1")/ICMPv6EchoRequest(cksum=1)`,
    cross: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1",proto=58)/ICMPv6EchoRequest()`,
  });
  guest.send(Object.values(frames));
  assertEquals([guest.ctx.table.activeCount, guest.frames(1, 30).length], [0, 0]);
  guest.close();
});

Deno.test("pingFromTap() refuses truncated and altered requests without an exception", async () => {
  let seed = 4711;
  const random = (n: number) => (seed = (seed * 1103515245 + 12345) >>> 0) % n;
  for (const whole of await requests(30)) {
    const guest = new Guest({ capacity: 4096 });
    for (let n = 0; n < whole.length; n++) guest.send([whole.slice(0, n)]);
    assertEquals([guest.ctx.table.activeCount, guest.frames(1, 10).length], [0, 0]);
    for (let n = 0; n < 2000; n++) {
      const frame = whole.slice();
      frame[random(whole.length)] = random(256);
      const view = new DataView(frame.buffer); // what is sent must not leave this machine
      if (frame[12] === 8) view.setUint32(30, 0xc0000201);
      else for (let k = 0; k < 4; k++) view.setUint32(38 + 4 * k, [0x20010db8, 0, 0, 1][k]);
      guest.send([frame]);
    }
    guest.ctx.table.verify();
    guest.turn();
    guest.close();
  }
});

Deno.test("10,000 pings leave nothing on the heap", async () => {
  const guest = new Guest();
  if (!canPing(guest)) return guest.close();
  const { ctx, link, packet } = guest, { epoll } = ctx, view = link.arena.dv;
  const frames = await requests(56);
  link.record = false;
  const run = (rounds: number) => {
    for (let n = 0; n < rounds; n++) {
      link.arena.u8.set(frames[n & 1], link.rxOffset[0]);
      const length = frames[n & 1].length;
      if (parseIp(view, link.rxOffset[0], length, packet)) pingFromTap(ctx, packet);
      for (let k = epoll.wait(0) - 1; k >= 0; k--) {
        pingEvent(ctx, epoll.type(k), epoll.data(k), epoll.events(k));
      }
    }
  };
  run(2_000);
  const before = Deno.memoryUsage().heapUsed, sent = link.sentCount;
  run(10_000);
  const grown = Deno.memoryUsage().heapUsed - before;
  assert(link.sentCount - sent > 9_000, `${link.sentCount - sent} replies`);
  assert(grown < 1 << 20, `${grown} bytes`);
  guest.close();
});
