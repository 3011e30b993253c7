// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import {
  address,
  fakeContext,
  type FakeContextOptions,
  fakeFamily6,
  GUEST_MAC,
  OUR_MAC,
} from "../helpers/fake_context.ts";
import { type Decoded, type Layer, layerOf, unhex } from "../wire/scapy.ts";
import { ask, decodeAll, exchange, NEEDS_SCAPY } from "./exchange.ts";
import { GUEST_LL, type Question, questions } from "./questions.ts";
import { wrongFrames } from "./tshark.ts";

const FULL: FakeContextOptions = {
  ip6: fakeFamily6({ dns: [address("2001:db8::53"), address("2001:db8::54")] }),
  search: ["corp.example.com", "example.org"],
  fqdn: "guest.example.com",
};
const FOREVER = 0xffffffff;
const SUCCESS = 0, NO_ADDRS_AVAIL = 2, NOT_ON_LINK = 4, NO_PREFIX_AVAIL = 6;

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ...NEEDS_SCAPY, fn });
}

async function askAll<K extends Question>(options: FakeContextOptions, ...names: K[]) {
  const asked = await questions();
  const entries = names.map((name) => [name, ask(fakeContext(options), asked[name])] as const);
  return await decodeAll(Object.fromEntries(entries) as Record<K, Uint8Array>);
}

/** Addresses, in order, with their lifetimes, of an IA. */
function addressesOf(ia: Layer): unknown[] {
  return ia.ianaopts.map((option: Layer) => [option.addr, option.preflft, option.validlft]);
}

function assertEnvelope(frame: Decoded, message: string, transaction: number): void {
  const ether = layerOf(frame, "Ether"), ip = layerOf(frame, "IPv6"), udp = layerOf(frame, "UDP");
  assertEquals([ether.src, ether.dst], [OUR_MAC, GUEST_MAC]);
  assertEquals([ip.src, ip.dst], ["fe80::1", GUEST_LL]);
  assertEquals([udp.sport, udp.dport], [547, 546]);
  assertEquals(layerOf(frame, message).trid, transaction);
  const server = layerOf(frame, "DHCP6OptServerId").duid;
  assertEquals([server.type, server.hwtype, server.lladdr], [3, 1, OUR_MAC]);
}

const OURS = [["2001:db8::2", FOREVER, FOREVER]];

test("handleDhcpv6() advertises the one address, resolvers and search list", async () => {
  const { solicit } = await askAll(FULL, "solicit");
  assertEnvelope(solicit, "DHCP6_Advertise", 0xabcdef);
  assertEquals(layerOf(solicit, "DHCP6OptClientId").duid.lladdr, GUEST_MAC);
  assertEquals(layerOf(solicit, "DHCP6OptPref").prefval, 255);
  const ia = layerOf(solicit, "DHCP6OptIA_NA");
  assertEquals([ia.iaid, ia.T1, ia.T2], [7, FOREVER, FOREVER]);
  assertEquals(addressesOf(ia), OURS);
  assertEquals(layerOf(solicit, "DHCP6OptDNSServers").dnsservers, ["2001:db8::53", "2001:db8::54"]);
  assertEquals(layerOf(solicit, "DHCP6OptDNSDomains").dnsdomains, [
    "corp.example.com.",
    "example.org.",
  ]);
});

test("handleDhcpv6() announces nothing that is not configured", async () => {
  const { solicit } = await askAll({}, "solicit");
  assertEquals(solicit.layers.map(({ layer }) => layer).slice(4), [
    "DHCP6OptClientId",
    "DHCP6OptServerId",
    "DHCP6OptPref",
    "DHCP6OptIA_NA",
  ]);
});

test("handleDhcpv6() replies at once with rapid commit", async () => {
  const { solicitRapid } = await askAll(FULL, "solicitRapid");
  assertEnvelope(solicitRapid, "DHCP6_Reply", 1);
  assertEquals(layerOf(solicitRapid, "DHCP6OptRapidCommit").optlen, 0);
  assertEquals(addressesOf(layerOf(solicitRapid, "DHCP6OptIA_NA")), OURS);
});

test("handleDhcpv6() refuses further associations, temporary addresses and prefixes", async () => {
  const asked = await questions();
  const answer = ask(fakeContext(FULL), asked.solicitMany);
  const { frame } = await decodeAll({ frame: answer });
  const many = frame.layers.filter(({ layer }) => layer === "DHCP6OptIA_NA");
  assertEquals(many.map(({ iaid }) => iaid), [7, 8]);
  assertEquals(addressesOf(many[0]), OURS);
  assertEquals(many[1].ianaopts[0].statuscode, NO_ADDRS_AVAIL);
  const temporary = layerOf(frame, "DHCP6OptIA_TA"), prefix = layerOf(frame, "DHCP6OptIA_PD");
  assertEquals([temporary.iaid, temporary.iataopts[0].statuscode], [9, NO_ADDRS_AVAIL]);
  assertEquals([prefix.iaid, prefix.iapdopt[0].statuscode], [10, NO_PREFIX_AVAIL]);
  assertEquals(await wrongFrames([answer]), "");
});

test("handleDhcpv6() grants requests, renewals and rebinds for its address", async () => {
  const frames = await askAll(FULL, "request6", "rebind6");
  for (const frame of Object.values(frames)) {
    assertEnvelope(frame, "DHCP6_Reply", 1);
    assertEquals(addressesOf(layerOf(frame, "DHCP6OptIA_NA")), OURS);
    assertEquals(layerOf(frame, "DHCP6OptDNSServers").dnsservers.length, 2);
  }
});

test("handleDhcpv6() says NotOnLink to a request for another address", async () => {
  const { request6Other } = await askAll(FULL, "request6Other");
  assertEnvelope(request6Other, "DHCP6_Reply", 1);
  const ia = layerOf(request6Other, "DHCP6OptIA_NA");
  assertEquals([ia.iaid, ia.T1, ia.T2, ia.ianaopts.length], [7, 0, 0, 1]);
  assertEquals(ia.ianaopts[0].statuscode, NOT_ON_LINK);
});

test("handleDhcpv6() ends the life of other addresses in a renewal", async () => {
  const { renew6 } = await askAll(FULL, "renew6");
  assertEquals(addressesOf(layerOf(renew6, "DHCP6OptIA_NA")), [
    ...OURS,
    ["2001:db8:9::9", 0, 0],
  ]);
});

test("handleDhcpv6() confirms its address only", async () => {
  const frames = await askAll(FULL, "confirm", "confirmOther", "confirmBoth");
  const status = (frame: Decoded) => layerOf(frame, "DHCP6OptStatusCode").statuscode;
  assertEquals(Object.values(frames).map(status), [SUCCESS, NOT_ON_LINK, NOT_ON_LINK]);
  for (const frame of Object.values(frames)) {
    assertEnvelope(frame, "DHCP6_Reply", 1);
    assertEquals(frame.layers.length, 7, "identifiers and status, no association");
  }
  assertEquals(exchange(fakeContext(FULL), (await questions()).confirmNone).length, 0);
});

test("handleDhcpv6() acknowledges release and decline", async () => {
  const frames = await askAll(FULL, "release6", "decline6");
  for (const frame of Object.values(frames)) {
    assertEnvelope(frame, "DHCP6_Reply", 1);
    assertEquals(layerOf(frame, "DHCP6OptStatusCode").statuscode, SUCCESS);
  }
});

test("handleDhcpv6() informs clients with and without an identifier", async () => {
  const { information, informationClient } = await askAll(
    FULL,
    "information",
    "informationClient",
  );
  const names = (frame: Decoded) => frame.layers.slice(4).map(({ layer }) => layer);
  const rest = ["DHCP6OptServerId", "DHCP6OptDNSServers", "DHCP6OptDNSDomains"];
  assertEquals(names(information), rest);
  assertEquals(names(informationClient), ["DHCP6OptClientId", ...rest]);
});

test("handleDhcpv6() answers a name with ours, and updates nothing", async () => {
  const asked = await questions();
  const answer = ask(fakeContext(FULL), asked.solicitFqdn);
  const { frame } = await decodeAll({ frame: answer });
  const name = layerOf(frame, "DHCP6OptClientFQDN");
  assertEquals(name.flags, 0x06, "N and O, not S");
  assertEquals(new TextDecoder().decode(unhex(name.fqdn)), "guest.example.com.");
  assertEquals(await wrongFrames([answer]), "");
});

test("handleDhcpv6() discards messages without the right identifiers", async () => {
  const asked = await questions();
  const none: Question[] = [
    "solicitNobody",
    "solicitServer",
    "request6OtherServer",
    "request6NoServer",
    "informationOther",
    "informationAddress",
    "advertise6",
    "solicitUnicast",
    "solicitSite",
  ];
  for (const name of none) assertEquals(exchange(fakeContext(FULL), asked[name]).length, 0, name);
});

test("handleDhcpv6() obeys its switch", async () => {
  const asked = await questions();
  for (const options of [{ features: { dhcpv6: false } }, { ip6: null }]) {
    assertEquals(exchange(fakeContext(options), asked.solicit).length, 0);
  }
});
