// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import {
  address,
  type FakeContext,
  fakeContext,
  type FakeContextOptions,
  fakeFamily4,
  GUEST_MAC,
  OUR_MAC,
} from "../helpers/fake_context.ts";
import type { Decoded } from "../wire/scapy.ts";
import { layerOf } from "../wire/scapy.ts";
import { ask, decodeAll, exchange, NEEDS_SCAPY } from "./exchange.ts";
import { type Question, questions } from "./questions.ts";
import { fieldsOf, wrongFrames } from "./tshark.ts";

const OFFER = 2, ACK = 5, NAK = 6;
const FOREVER = 0xffffffff;
const SEARCH = ["corp.example.com", "example.com", "example.org"];

/** Everything that DHCP can announce. */
const FULL: FakeContextOptions = {
  ip4: fakeFamily4({ dns: [address("192.0.2.53"), address("198.51.100.53")] }),
  announceMtu: true,
  mtu: 1400,
  search: SEARCH,
  hostname: "guest",
  fqdn: "guest.example.com",
};

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, ...NEEDS_SCAPY, fn });
}

/** Options in the order in which they came, by scapy's names; pads are left out. */
function optionsOf(frame: Decoded): Map<string, unknown> {
  // deno-lint-ignore no-explicit-any
  const options = layerOf(frame, "DHCP").options as any[];
  const given = options.filter((option) => Array.isArray(option));
  return new Map(given.map(([name, ...values]) => [name, values.length > 1 ? values : values[0]]));
}

/** Asks one context several questions. */
async function askAll<K extends Question>(ctx: FakeContext, names: readonly K[]) {
  const asked = await questions();
  const entries = names.map((name) => [name, ask(ctx, asked[name])] as const);
  return await decodeAll(Object.fromEntries(entries) as Record<K, Uint8Array>);
}

function assertHeaders(frame: Decoded, dstMac: string, dst: string): void {
  const ether = layerOf(frame, "Ether"), ip = layerOf(frame, "IP"), udp = layerOf(frame, "UDP");
  assertEquals([ether.src, ether.dst], [OUR_MAC, dstMac]);
  assertEquals([ip.src, ip.dst, ip.ttl], ["192.0.2.1", dst, 64]);
  assertEquals([udp.sport, udp.dport], [67, 68]);
}

test("handleDhcp() offers the one address with everything that is configured", async () => {
  const { discover } = await askAll(fakeContext(FULL), ["discover"]);
  assertHeaders(discover, GUEST_MAC, "192.0.2.2");
  const bootp = layerOf(discover, "BOOTP");
  assertEquals([bootp.op, bootp.htype, bootp.hlen, bootp.hops], [2, 1, 6, 0]);
  assertEquals([bootp.xid, bootp.secs, bootp.flags], [0x3903f326, 0, 0]);
  assertEquals([bootp.ciaddr, bootp.yiaddr], ["0.0.0.0", "192.0.2.2"]);
  assertEquals([bootp.siaddr, bootp.giaddr], ["0.0.0.0", "0.0.0.0"]);
  assertEquals(bootp.chaddr, GUEST_MAC.replaceAll(":", "") + "0".repeat(20));
  assertEquals([...optionsOf(discover)].slice(0, -1), [
    ["message-type", OFFER],
    ["server_id", "192.0.2.1"],
    ["lease_time", FOREVER],
    ["subnet_mask", "255.255.255.0"],
    ["router", "192.0.2.1"],
    ["name_server", ["192.0.2.53", "198.51.100.53"]],
    ["interface-mtu", 1400],
    ["hostname", "6775657374"],
  ]);
});

test("handleDhcp() announces nothing that is not configured", async () => {
  const bare = fakeContext({ ip4: fakeFamily4({ gateway: null, ourAddr: address("192.0.2.1") }) });
  const { discoverListed } = await askAll(bare, ["discoverListed"]);
  assertEquals([...optionsOf(discoverListed)], [
    ["message-type", OFFER],
    ["server_id", "192.0.2.1"],
    ["lease_time", FOREVER],
    ["subnet_mask", "255.255.255.0"],
  ]);
});

test("handleDhcp() puts what the client lists first, in the client's order", async () => {
  const { discoverListed } = await askAll(fakeContext(FULL), ["discoverListed"]);
  const names = [...optionsOf(discoverListed).keys()];
  assertEquals(names.slice(3, 8).map(String), [
    "119",
    "domain",
    "interface-mtu",
    "router",
    "subnet_mask",
  ]);
  assertEquals(names.slice(8), ["name_server", "hostname"]);
});

test("handleDhcp() acknowledges at once with rapid commit", async () => {
  const { discoverRapid } = await askAll(fakeContext(FULL), ["discoverRapid"]);
  const options = optionsOf(discoverRapid);
  assertEquals(options.get("message-type"), ACK);
  assertEquals(options.get("lease_time"), FOREVER);
  assert([...options.keys()].map(String).some((name) => /80|rapid/.test(name)));
  assertEquals(layerOf(discoverRapid, "BOOTP").yiaddr, "192.0.2.2");
});

test("handleDhcp() acknowledges requests for its address, selecting, rebooting, renewing", async () => {
  const frames = await askAll(fakeContext(FULL), ["request", "requestReboot", "renew"]);
  for (const frame of Object.values(frames)) {
    assertHeaders(frame, GUEST_MAC, "192.0.2.2");
    assertEquals(optionsOf(frame).get("message-type"), ACK);
    assertEquals(optionsOf(frame).get("lease_time"), FOREVER);
    assertEquals(layerOf(frame, "BOOTP").yiaddr, "192.0.2.2");
  }
  assertEquals(layerOf(frames.renew, "BOOTP").ciaddr, "192.0.2.2");
});

test("handleDhcp() refuses other addresses by broadcast, and leaves other servers alone", async () => {
  const ctx = fakeContext(FULL);
  const frames = await askAll(ctx, ["requestOther", "renewOther"]);
  for (const frame of Object.values(frames)) {
    assertHeaders(frame, "ff:ff:ff:ff:ff:ff", "255.255.255.255");
    const bootp = layerOf(frame, "BOOTP");
    assertEquals([bootp.yiaddr, bootp.ciaddr], ["0.0.0.0", "0.0.0.0"]);
    assertEquals([...optionsOf(frame)], [["message-type", NAK], ["server_id", "192.0.2.1"]]);
  }
  assertEquals(exchange(ctx, (await questions()).requestOtherServer).length, 0);
});

test("handleDhcp() answers INFORM without an address or a lease", async () => {
  const { inform } = await askAll(fakeContext(FULL), ["inform"]);
  assertHeaders(inform, GUEST_MAC, "192.0.2.2");
  const bootp = layerOf(inform, "BOOTP"), options = optionsOf(inform);
  assertEquals([bootp.yiaddr, bootp.ciaddr], ["0.0.0.0", "192.0.2.2"]);
  assertEquals(options.get("message-type"), ACK);
  assertEquals(options.has("lease_time"), false);
  assertEquals(options.get("name_server"), ["192.0.2.53", "198.51.100.53"]);
});

test("handleDhcp() answers BOOTP with 300 bytes and no option of DHCP's own", async () => {
  const { bootp } = await askAll(fakeContext(FULL), ["bootp"]);
  assertEquals(layerOf(bootp, "BOOTP").yiaddr, "192.0.2.2");
  assertEquals([...optionsOf(bootp).keys()].slice(0, 3), ["subnet_mask", "router", "name_server"]);
  for (const name of ["message-type", "server_id", "lease_time"]) {
    assertEquals(optionsOf(bootp).has(name), false, name);
  }
  assertEquals(layerOf(bootp, "UDP").len, 308);
});

test("handleDhcp() broadcasts when the client asks for that", async () => {
  const { discoverBroadcast } = await askAll(fakeContext(), ["discoverBroadcast"]);
  assertHeaders(discoverBroadcast, "ff:ff:ff:ff:ff:ff", "255.255.255.255");
  assertEquals(layerOf(discoverBroadcast, "BOOTP").flags, 0x8000);
  assertEquals(layerOf(discoverBroadcast, "UDP").len, 308, "padded to 300 bytes");
});

test("handleDhcp() returns the client identifier and answers a name with ours", async () => {
  const frames = await askAll(fakeContext(FULL), ["discoverFqdn", "discoverFqdnText"]);
  const options = optionsOf(frames.discoverFqdn);
  assertEquals(options.get("client_id"), "00616263");
  const asked = await questions(), ctx = fakeContext(FULL);
  const fields = ["n", "e", "o", "s", "rcode1", "name"].map((name) => `dhcp.fqdn.${name}`);
  const answers = [ask(ctx, asked.discoverFqdn), ask(ctx, asked.discoverFqdnText)];
  assertEquals(await fieldsOf(answers, fields), [
    ["1", "1", "1", "0", "255", "guest.example.com"],
    ["1", "0", "0", "0", "255", "guest.example.com"],
  ]);
});

test("handleDhcp() sends the search list compressed, and cuts it between names", async () => {
  const asked = await questions();
  const field = ["dhcp.option.dhcp_dns_domain_search_list_fqdn", "udp.length"];
  const long = Array.from({ length: 40 }, (_, i) => `${"x".repeat(30)}.n${i}.example`);
  const short = ask(fakeContext(FULL), asked.discover);
  const frames = [
    short,
    ask(fakeContext({ search: long }), asked.discover),
    ask(fakeContext({ search: long }), asked.discoverLarge),
    ask(fakeContext({ search: long }), asked.discoverTiny),
    ask(fakeContext({ search: long }), asked.bootp),
  ];
  const lines = await fieldsOf(frames, field);
  assertEquals(lines[0][0], SEARCH.join(","));
  for (const [names, length] of lines.slice(1)) {
    const got = names.split(",");
    assert(got.length > 0 && got.every((name, i) => name === long[i]), names);
    assert(Number(length) <= 1380);
  }
  const sizes = lines.map(([, length]) => Number(length) - 8);
  assert(sizes[1] <= 548 && sizes[3] <= 548 && sizes[4] <= 300, sizes.join());
  assert(sizes[2] > 1000 && sizes[2] <= 1372, "option 57 is used");
  assertEquals(await wrongFrames(frames), "");
});

test("handleDhcp() routes to a gateway outside the subnet", async () => {
  const asked = await questions();
  const cases: [number, string, string][] = [
    [32, "192.0.2.1", "255.255.255.255"],
    [31, "198.51.100.1", "255.255.255.254"],
    [24, "192.0.2.1", "255.255.255.0"],
    [0, "203.0.113.1", "0.0.0.0"],
  ];
  const frames = cases.map(([prefixLength, gateway]) => {
    const ip4 = fakeFamily4({ prefixLength, gateway: address(gateway) });
    return ask(fakeContext({ ip4 }), asked.discover);
  });
  const decoded = await decodeAll(Object.fromEntries(frames.map((frame, i) => [i, frame])));
  const routes = await fieldsOf(frames, ["dhcp.option.classless_static_route"]);
  cases.forEach(([prefixLength, gateway, mask], i) => {
    assertEquals(optionsOf(decoded[i]).get("subnet_mask"), mask);
    assertEquals(routes[i][0] !== "", prefixLength > 24, `routes to ${gateway}/${prefixLength}`);
  });
  // 20 c0000201 00000000, 00 c0000201
  const bytes = [0x20, 192, 0, 2, 1, 0, 0, 0, 0, 0, 192, 0, 2, 1];
  const text = Array.from(frames[0], (byte) => String.fromCharCode(byte)).join("");
  assert(text.includes(String.fromCharCode(121, 14, ...bytes)), "RFC 3442 encoding");
});

test("handleDhcp() takes the datagram but does not answer what is not a request to it", async () => {
  const asked = await questions();
  const ignored = [
    "release",
    "decline",
    "dhcpReply",
    "dhcpNoEnd",
    "dhcpBadType",
    "discoverRelayed",
    "discoverTokenRing",
    "informMulticast",
  ] as const;
  for (const name of ignored) assertEquals(exchange(fakeContext(), asked[name]).length, 0, name);
  const off = [fakeContext({ features: { dhcp: false } }), fakeContext({ ip4: null })];
  for (const ctx of off) assertEquals(exchange(ctx, asked.discover).length, 0);
});

test("handleDhcp() makes no frame that tshark finds malformed", async () => {
  const asked = await questions(), ctx = fakeContext(FULL);
  const frames = (Object.keys(asked) as Question[]).filter((name) =>
    /^(discover|request|renew|inform|bootp)/.test(name) && !/6/.test(name)
  ).flatMap((name) => exchange(ctx, asked[name]));
  assert(frames.length > 12);
  assertEquals(await wrongFrames(frames), "");
});
