// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { sendRouterAdvertisement } from "../../lib/services/ndp.ts";
import {
  address,
  fakeContext,
  type FakeContextOptions,
  fakeFamily6,
  GUEST_MAC,
  mac,
  OUR_MAC,
} from "../helpers/fake_context.ts";
import { type Decoded, layerOf } from "../wire/scapy.ts";
import { ask, decodeAll, exchange, NEEDS_SCAPY } from "./exchange.ts";
import { GUEST_LL, type Question, questions } from "./questions.ts";
import { fieldsOf, wrongFrames } from "./tshark.ts";

const FULL: FakeContextOptions = {
  ip6: fakeFamily6({ dns: [address("2001:db8::53"), address("fe80::1")] }),
  announceMtu: true,
  mtu: 1400,
  search: ["corp.example.com", "example.org"],
};
const FOREVER = 0xffffffff;

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ...NEEDS_SCAPY, fn });
}

function assertHeaders(frame: Decoded, dstMac: string, dst: string): void {
  const ether = layerOf(frame, "Ether"), ip = layerOf(frame, "IPv6");
  assertEquals([ether.src, ether.dst, ether.type], [OUR_MAC, dstMac, 0x86dd]);
  assertEquals([ip.src, ip.dst, ip.hlim, ip.nh], ["fe80::1", dst, 255, 58]);
}

test("handleNdp() says that the gateway, the router and remote addresses are ours", async () => {
  const asked = await questions(), ctx = fakeContext();
  const decoded = await decodeAll({
    "2001:db8::1": ask(ctx, asked.neighbourGateway),
    "2001:db8:77::5": ask(ctx, asked.neighbourRemote),
    "fe80::1": ask(ctx, asked.neighbourRouter),
  });
  for (const [target, frame] of Object.entries(decoded)) {
    assertHeaders(frame, GUEST_MAC, GUEST_LL);
    const advert = layerOf(frame, "ICMPv6ND_NA");
    assertEquals([advert.R, advert.S, advert.O, advert.res], [1, 1, 1, 0]);
    assertEquals([advert.type, advert.code, advert.tgt], [136, 0, target]);
    assertEquals(layerOf(frame, "ICMPv6NDOptDstLLAddr").lladdr, OUR_MAC);
    assertEquals(frame.layers.length, 4);
  }
});

test("handleNdp() never claims an address of the guest", async () => {
  const asked = await questions();
  const none: Question[] = ["neighbourOwn", "neighbourOwnLinkLocal", "dadOwn", "dadOther"];
  for (const name of none) assertEquals(exchange(fakeContext(), asked[name]).length, 0, name);
  const seen = fakeContext({ ip6: fakeFamily6({ addrSeen: address("2001:db8:77::5") }) });
  assertEquals(exchange(seen, asked.neighbourRemote).length, 0);
});

test("handleNdp() keeps the router's addresses whatever source the guest uses", async () => {
  const asked = await questions();
  const ip6 = fakeFamily6({ addrSeen: address("2001:db8::1"), linkLocalSeen: address("fe80::1") });
  for (const name of ["neighbourGateway", "neighbourRouter"] as const) {
    assertEquals(exchange(fakeContext({ ip6 }), asked[name]).length, 1, name);
  }
});

test("handleNdp() advertises prefix, MTU, resolvers and search list", async () => {
  const asked = await questions();
  const answer = ask(fakeContext(FULL), asked.routerSolicit);
  const { frame } = await decodeAll({ frame: answer });
  assertHeaders(frame, GUEST_MAC, GUEST_LL);
  const advert = layerOf(frame, "ICMPv6ND_RA");
  assertEquals([advert.chlim, advert.M, advert.O, advert.prf], [64, 1, 0, 0]);
  assertEquals([advert.routerlifetime, advert.reachabletime, advert.retranstimer], [65535, 0, 0]);
  assertEquals(layerOf(frame, "ICMPv6NDOptSrcLLAddr").lladdr, OUR_MAC);
  const prefix = layerOf(frame, "ICMPv6NDOptPrefixInfo");
  assertEquals([prefix.prefix, prefix.prefixlen, prefix.L, prefix.A], ["2001:db8::", 64, 1, 1]);
  assertEquals([prefix.validlifetime, prefix.preferredlifetime], [FOREVER, FOREVER]);
  assertEquals(layerOf(frame, "ICMPv6NDOptMTU").mtu, 1400);
  const resolvers = layerOf(frame, "ICMPv6NDOptRDNSS");
  assertEquals([resolvers.lifetime, resolvers.dns], [FOREVER, ["2001:db8::53", "fe80::1"]]);
  const search = layerOf(frame, "ICMPv6NDOptDNSSL");
  assertEquals(search.lifetime, FOREVER);
  const names = ["icmpv6.opt.dnssl", "icmpv6.opt.rdnss"];
  assertEquals(await fieldsOf([answer], names), [
    ["corp.example.com,example.org", "2001:db8::53,fe80::1"],
  ]);
  assertEquals(await wrongFrames([answer]), "");
});

test("handleNdp() advertises nothing that is not configured", async () => {
  const asked = await questions();
  const features = { dhcpv6: false };
  const local = fakeFamily6({ addr: address("fe80::2"), gateway: address("fe80::1") });
  const { bare, linkLocal } = await decodeAll({
    bare: ask(fakeContext({ features }), asked.routerSolicit),
    linkLocal: ask(fakeContext({ ip6: local }), asked.routerSolicit),
  });
  assertEquals(bare.layers.map(({ layer }) => layer).slice(2), [
    "ICMPv6ND_RA",
    "ICMPv6NDOptSrcLLAddr",
    "ICMPv6NDOptPrefixInfo",
  ]);
  assertEquals([layerOf(bare, "ICMPv6ND_RA").M, layerOf(bare, "ICMPv6ND_RA").O], [0, 0]);
  assertEquals(linkLocal.layers.length, 4, "no prefix of a link-local address");
});

test("sendRouterAdvertisement() reaches all nodes, and keeps to 1280 bytes", async () => {
  const asked = await questions();
  const many = fakeContext({
    ...FULL,
    ip6: fakeFamily6({ dns: Array.from({ length: 200 }, (_, i) => address(`2001:db8::${i + 1}`)) }),
    search: Array.from({ length: 200 }, (_, i) => `n${i}.example.com`),
  });
  sendRouterAdvertisement(many, address("::"));
  const [unasked] = many.link.take();
  const anonymous = ask(fakeContext(), asked.routerSolicitAnonymous);
  const decoded = await decodeAll({ unasked, anonymous });
  for (const frame of Object.values(decoded)) {
    assertHeaders(frame, "33:33:00:00:00:01", "ff02::1");
  }
  assertEquals(unasked.length <= 14 + 1280, true);
  const [[names, servers]] = await fieldsOf([unasked], ["icmpv6.opt.dnssl", "icmpv6.opt.rdnss"]);
  assertEquals(servers.split(",").length, 32);
  assertEquals(names.split(",").every((name, i) => name === `n${i}.example.com`), true);
  assertEquals(await wrongFrames([unasked, anonymous]), "");
});

test("handleNdp() ignores advertisements, redirects and what crossed a router", async () => {
  const asked = await questions();
  const none: Question[] = ["neighbourAdvert", "routerAdvert", "redirect", "neighbourTwoHops"];
  for (const name of none) {
    const ctx = fakeContext();
    assertEquals(exchange(ctx, asked[name]).length, 0, name);
    assertEquals(ctx.guestMac, mac(GUEST_MAC));
  }
});

test("handleNdp() obeys the switches", async () => {
  const asked = await questions();
  const answers = (options: FakeContextOptions, name: Question) =>
    exchange(fakeContext(options), asked[name]).length;
  assertEquals(answers({ features: { ndp: false } }, "neighbourGateway"), 0);
  assertEquals(answers({ features: { ndp: false } }, "routerSolicit"), 0);
  assertEquals(answers({ features: { ra: false } }, "routerSolicit"), 0);
  assertEquals(answers({ features: { ra: false } }, "neighbourGateway"), 1);
  assertEquals(answers({ ip6: null }, "neighbourGateway"), 0);
});
