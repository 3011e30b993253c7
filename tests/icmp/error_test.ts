// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * ICMP errors to the guest: those made for local reasons, and those that the raw sockets of ping
 * receive from the host's network.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  MAX_QUOTE4,
  MAX_QUOTE6,
  nameForGuest,
  sendTooBig,
  sendUnreachable,
} from "../../lib/icmp/error.ts";
import { PingMode, pingState } from "../../lib/icmp/state.ts";
import { SIDE_EADDR, SIDE_OADDR, SIDE_WORDS } from "../../lib/flow/side.ts";
import { E } from "../../lib/sys/errno.ts";
import { SOCK_RAW } from "../../lib/sys/socket.ts";
import { parseIp } from "../../lib/wire/packet.ts";
import { formatAddress, LOOPBACK4, LOOPBACK6 } from "../../lib/wire/address.ts";
import { address } from "../helpers/fake_context.ts";
import { Guest, HostSocket, udpFrame } from "../udp/guest.ts";
import { wrongFrames } from "../services/tshark.ts";
import { build, decode, hex, layerOf } from "../wire/scapy.ts";

/** Has a packet from the guest lie in slot 0, parsed. */
function load(guest: Guest, frame: Uint8Array): Uint8Array {
  const off = guest.link.load(frame);
  assert(parseIp(guest.link.arena.dv, off, frame.length, guest.packet));
  return frame;
}

const TO4 = "198.51.100.7", TO6 = "2001:db8:9::7";

Deno.test("sendUnreachable() quotes the packet and says what the errno says", async () => {
  const guest = new Guest(), { ctx, packet, link } = guest;
  const errors = [E.ENETUNREACH, E.EHOSTUNREACH, E.ECONNREFUSED, E.EACCES];
  const four = load(guest, udpFrame(ctx, "192.0.2.2", 4000, TO4, 53, new Uint8Array(2000)));
  for (const error of errors) assert(sendUnreachable(ctx, packet, error));
  assert(!sendUnreachable(ctx, packet, E.EINVAL));
  const six = load(guest, udpFrame(ctx, "2001:db8::2", 4000, TO6, 53, new Uint8Array(2000)));
  for (const error of errors) assert(sendUnreachable(ctx, packet, error));
  const frames = link.take();
  const seen = Object.values(await decode(Object.fromEntries(frames.entries())));
  assertEquals(await wrongFrames(frames), "");
  const codes = seen.map((one, k) => layerOf(one, k < 4 ? "ICMP" : "ICMPv6DestUnreach").code);
  assertEquals(codes, [0, 1, 3, 13, 0, 3, 4, 1]); // RFC 792, RFC 1812 §5.2.7.1; RFC 4443 §3.1
  const sources = seen.map((one) => one.layers[1].src);
  assertEquals(sources.slice(0, 4), ["192.0.2.1", "192.0.2.1", TO4, "192.0.2.1"]);
  assertEquals(sources.slice(4), ["2001:db8::1", "2001:db8::1", TO6, "2001:db8::1"]);
  for (const frame of frames.slice(0, 4)) {
    assertEquals([frame.length, hex(frame.slice(42))], [590, hex(four.slice(14, 14 + MAX_QUOTE4))]);
  }
  for (const frame of frames.slice(4)) {
    assertEquals([frame.length, hex(frame.slice(62))], [1294, hex(six.slice(14, 14 + MAX_QUOTE6))]);
  }
  guest.close();
});

Deno.test("sendTooBig() tells the MTU, never less than the protocol allows", async () => {
  const guest = new Guest(), { ctx, packet, link } = guest;
  load(guest, udpFrame(ctx, "192.0.2.2", 4000, TO4, 53, new Uint8Array(2000)));
  for (const mtu of [1400, 20]) sendTooBig(ctx, packet, mtu);
  load(guest, udpFrame(ctx, "fe80::2", 4000, TO6, 53, new Uint8Array(2000)));
  for (const mtu of [1400, 20]) sendTooBig(ctx, packet, mtu);
  const frames = link.take();
  assertEquals(await wrongFrames(frames), "");
  const seen = Object.values(await decode(Object.fromEntries(frames.entries())));
  assertEquals(seen.slice(0, 2).map((one) => layerOf(one, "ICMP").nexthopmtu), [1400, 68]);
  const six = seen.slice(2).map((one) => layerOf(one, "ICMPv6PacketTooBig").mtu);
  assertEquals([six, seen[2].layers[1].src], [[1400, 1280], "fe80::1"]);
  guest.close();
});

Deno.test("sendUnreachable() is silent about groups and limits itself", () => {
  const guest = new Guest(), { ctx, packet, link } = guest;
  ctx.nowMs = 1e7; // a window of its own
  load(guest, udpFrame(ctx, "192.0.2.2", 4000, "224.0.0.9", 53, new Uint8Array(8)));
  assertEquals(sendUnreachable(ctx, packet, E.ENETUNREACH), false);
  assertEquals(link.sentCount, 0);
  load(guest, udpFrame(ctx, "192.0.2.2", 4000, TO4, 53, new Uint8Array(8)));
  link.record = false;
  for (let n = 0; n < 3000; n++) sendUnreachable(ctx, packet, E.ENETUNREACH);
  assertEquals(link.sentCount, 1000);
  guest.close();
});

Deno.test("nameForGuest() gives names that the guest can take", () => {
  const guest = new Guest();
  const sides = new Int32Array(2 * SIDE_WORDS), host = SIDE_WORDS;
  sides.set(address("192.0.2.2"), SIDE_EADDR);
  sides.set(address("192.0.2.1"), SIDE_OADDR);
  sides.set(LOOPBACK4, host + SIDE_EADDR);
  const named = (text: string) => {
    const words = address(text);
    nameForGuest(guest.ctx, words, sides, 0, host);
    return formatAddress(words);
  };
  assertEquals(named("127.0.0.1"), "192.0.2.1"); // the destination, by the guest's name
  assertEquals(named("198.51.100.1"), "198.51.100.1"); // a router
  assertEquals(named("192.0.2.2"), "192.0.2.1"); // the host, which has the guest's address
  assertEquals(named("127.0.0.9"), "192.0.2.1");
  assertEquals(named("::"), "192.0.2.1"); // unknown
  guest.close();
});

Deno.test("errors about requests that left by a raw socket reach the guest", async () => {
  const guest = new Guest(), state = pingState(guest.ctx);
  if (state.v4.mode !== PingMode.RAW || state.v6.mode !== PingMode.RAW) return guest.close();
  guest.send(Object.values(
    await build({
      a: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1")/ICMP(id=77,seq=9)/b"12345678"`,
      b: `Ether()/IPv6(src="2001:db8::2",dst="2001:db8::1")/ICMPv6EchoRequest(id=77,seq=9)`,
    }),
  ));
  guest.frames(2);
  const id = (ids: Int32Array) => ids.findIndex((flow) => flow !== 0);
  const [id4, id6] = [id(state.v4.ids), id(state.v6.ids)];
  const other = (n: number) => (n + 1) & 0xffff;
  const four = (n: number, dst = "127.0.0.1") =>
    `ICMP(type=11,code=0)/IP(src="127.0.0.1",dst="${dst}")/ICMP(id=${n},seq=9)/b"12345678"`;
  const six = (n: number, dst = "::1") =>
    `IPv6(src="::1",dst="::1")/ICMPv6TimeExceeded()/IPv6(src="::1",dst="${dst}")/` +
    `ICMPv6EchoRequest(id=${n},seq=9)`;
  const built = await build({
    four: four(id4),
    id: four(other(id4)),
    dst: four(id4, "127.0.0.2"),
    six: six(id6),
    id6: six(other(id6)),
    dst6: six(id6, "::2"),
  });
  const raw4 = new HostSocket(LOOPBACK4, SOCK_RAW, 1),
    raw6 = new HostSocket(LOOPBACK6, SOCK_RAW, 58);
  for (const message of [built.id, built.dst, built.four]) raw4.send(message, 0, LOOPBACK4);
  const noIp = (message: Uint8Array<ArrayBuffer>) => message.slice(40);
  for (const m of [built.id6, built.dst6, built.six]) raw6.send(noIp(m), 0, LOOPBACK6);
  const frames = guest.frames(2);
  guest.poll(() => false, 50);
  assertEquals([frames.length, guest.link.sent.length], [2, 0]);
  assertEquals(await wrongFrames(frames), "");
  const seen = Object.values(await decode(Object.fromEntries(frames.entries())));
  for (const one of seen) {
    const v4 = one.layers[1].layer === "IP", outer = one.layers[1];
    const inner = layerOf(one, v4 ? "IPerror" : "IPerror6");
    const [guestAddr, name] = v4 ? ["192.0.2.2", "192.0.2.1"] : ["2001:db8::2", "2001:db8::1"];
    assertEquals([outer.src, outer.dst], [name, guestAddr]);
    assertEquals([inner.src, inner.dst], [guestAddr, name]);
    const echo = layerOf(one, v4 ? "ICMPerror" : "ICMPv6EchoRequest");
    assertEquals([echo.id, echo.seq], [77, 9]);
  }
  mutate(guest, raw4, built.four, LOOPBACK4);
  mutate(guest, raw6, noIp(built.six), LOOPBACK6);
  raw4.close();
  raw6.close();
  guest.close();
});

/** Sends truncated and altered messages with the right checksum to the host's loopback. */
function mutate(
  guest: Guest,
  raw: HostSocket,
  whole: Uint8Array<ArrayBuffer>,
  to: Int32Array,
): void {
  let seed = 99;
  const random = (n: number) => (seed = (seed * 1103515245 + 12345) >>> 0) % n;
  for (let n = 0; n < 1500; n++) {
    const message = n < whole.length ? whole.slice(0, n) : whole.slice();
    if (n >= whole.length) message[4 + random(whole.length - 4)] = random(256);
    if (message.length >= 4) fixChecksum(message);
    raw.send(message, 0, to);
    guest.turn();
  }
  guest.link.take();
}

function fixChecksum(message: Uint8Array): void {
  message[2] = message[3] = 0;
  let sum = 0;
  for (let i = 0; i < message.length; i += 2) sum += message[i] << 8 | (message[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  message[2] = ~sum >> 8 & 255;
  message[3] = ~sum & 255;
}
