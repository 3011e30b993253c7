// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { ANY4 } from "../../lib/wire/address.ts";
import { checkDhcp, DHCP_OPTIONS, DhcpWriter, writeDhcpReply } from "../../lib/wire/dhcp.ts";
import { checkDhcpv6, DHCPV6_SOLICIT, Dhcpv6Writer } from "../../lib/wire/dhcpv6.ts";
import { formatMac, parseMac } from "../../lib/wire/ethernet.ts";
import * as ndp from "../../lib/wire/ndp.ts";
import { DST6, DST_MAC, FRAMES, LONG_SEARCH, SEARCH, SRC4, SRC6 } from "./frames.ts";
import { encodeSearchList } from "../../lib/wire/dns_name.ts";
import { decode, hex, type Layer, layerOf } from "./scapy.ts";

const corrupted = FRAMES.tcp6.slice();
corrupted[corrupted.length - 1] ^= 1;
const DECODED = await decode({ ...FRAMES, corrupted });

/** Asserts that a layer has these fields. */
function has(name: keyof typeof DECODED, layer: string, fields: Record<string, unknown>): Layer {
  const found = layerOf(DECODED[name], layer);
  for (const [field, want] of Object.entries(fields)) {
    assertEquals(found[field], want, `${name}: ${layer}.${field}`);
  }
  return found;
}

Deno.test("emitters make checksums that scapy computes too", () => {
  for (const [name, { bad }] of Object.entries(DECODED)) {
    assertEquals(bad, name === "corrupted" ? ["TCP"] : [], name);
  }
});

Deno.test("writeEthernet(), writeIpv4() and writeIpv6() write each field", () => {
  has("udp4", "Ether", { dst: "02:00:00:aa:bb:cc", src: "52:55:0a:00:02:02", type: 0x0800 });
  has("udp4", "IP", { ihl: 5, tos: 0xb8, len: 31, id: 0, flags: 2, frag: 0, ttl: 63, proto: 17 });
  has("udp4", "IP", { src: "192.0.2.1", dst: "198.51.100.254", options: [] });
  has("udp6", "Ether", { type: 0x86dd });
  has("udp6", "IPv6", { tc: 0xb9, fl: 0, plen: 11, nh: 17, hlim: 255 });
  has("udp6", "IPv6", { src: "2001:db8::1", dst: "2001:db8:ffff::fe" });
});

Deno.test("writeArp() writes each field", () => {
  has("arp", "ARP", { hwtype: 1, ptype: 0x0800, hwlen: 6, plen: 4, op: 2 });
  has("arp", "ARP", { hwsrc: "52:55:0a:00:02:02", psrc: "192.0.2.1" });
  has("arp", "ARP", { hwdst: "02:00:00:aa:bb:cc", pdst: "198.51.100.254" });
});

Deno.test("writeTcpHeader() and option writers write each field", () => {
  for (const name of ["tcp4", "tcp6"] as const) {
    has(name, "TCP", { sport: 4000, dport: 80, seq: 0xfffffffe, ack: 0x80000001, dataofs: 7 });
    has(name, "TCP", { reserved: 0, flags: 0x12, window: 0xfffe, urgptr: 0 });
    has(name, "TCP", { options: [["MSS", 1460], ["NOP", null], ["WScale", 9]] });
    has(name, "Raw", { load: hex(new TextEncoder().encode("odd")) });
  }
});

Deno.test("writeUdpHeader() writes each field", () => {
  for (const name of ["udp4", "udp6"] as const) {
    has(name, "UDP", { sport: 6001, dport: 65535, len: 11 });
  }
});

Deno.test("writeEcho() and writeIcmpError() write each field, ICMP and ICMPv6", () => {
  has("echo4", "ICMP", { type: 0, code: 0, id: 0xfffe, seq: 3 });
  has("echo6", "ICMPv6EchoReply", { type: 129, code: 0, id: 0xfffe, seq: 3 });
  has("error4", "ICMP", { type: 3, code: 4, nexthopmtu: 1280 });
  has("error4", "UDPerror", { sport: 6000, dport: 9 });
  has("error6", "ICMPv6PacketTooBig", { type: 2, code: 0, mtu: 1400 });
  has("error6", "UDPerror", { sport: 6000, dport: 9 });
});

Deno.test("writeNeighborAdvert() writes flags, target and link-layer address", () => {
  has("neighborAdvert", "ICMPv6ND_NA", { code: 0, R: 1, S: 1, O: 1, res: 0, tgt: "2001:db8::1" });
  has("neighborAdvert", "ICMPv6NDOptDstLLAddr", { len: 1, lladdr: "52:55:0a:00:02:02" });
});

Deno.test("writeRouterAdvert() and option writers write each field", () => {
  const name = "routerAdvert";
  has(name, "ICMPv6ND_RA", { chlim: 64, M: 0, O: 1, routerlifetime: 65535, reachabletime: 0 });
  has(name, "ICMPv6NDOptPrefixInfo", { prefixlen: 64, L: 1, A: 1, prefix: "2001:db8:1:2::" });
  has(name, "ICMPv6NDOptPrefixInfo", { validlifetime: 0xffffffff, preferredlifetime: 7200 });
  has(name, "ICMPv6NDOptMTU", { mtu: 65520 });
  has(name, "ICMPv6NDOptRDNSS", { lifetime: 3600, dns: ["2001:db8::1", "2001:db8:ffff::fe"] });
  const searchlist = SEARCH.map((domain) => domain.replace(/\.?$/, "."));
  has(name, "ICMPv6NDOptDNSSL", { lifetime: 3600, searchlist });
  has(name, "ICMPv6NDOptSrcLLAddr", { lladdr: "52:55:0a:00:02:02" });
});

Deno.test("writeDhcpReply() copies the request and DhcpWriter appends each option", () => {
  const chaddr = "020000aabbcc".padEnd(32, "0");
  has("dhcp", "BOOTP", { op: 2, htype: 1, hlen: 6, hops: 0, xid: 0xdeadbeef, secs: 0 });
  has("dhcp", "BOOTP", { flags: 0x8000, ciaddr: "0.0.0.0", giaddr: "0.0.0.0", chaddr });
  has("dhcp", "BOOTP", { yiaddr: "198.51.100.254", siaddr: "192.0.2.1" });
  const options = has("dhcp", "DHCP", {}).options;
  const routes = ["192.0.2.1/32:0.0.0.0", "10.128.0.0/9:192.0.2.1", "0.0.0.0/0:192.0.2.1"];
  assertEquals(options.filter(([code]: [unknown]) => code !== 119), [
    ["message-type", 2],
    ["subnet_mask", "255.255.255.0"],
    ["router", "192.0.2.1"],
    ["name_server", "192.0.2.1", "198.51.100.254"],
    ["server_id", "192.0.2.1"],
    ["hostname", hex(new TextEncoder().encode("guest"))],
    ["interface-mtu", 1500],
    ["lease_time", 0xffffffff],
    [80, ""],
    ["classless_static_routes", routes],
    "end",
  ]);
});

Deno.test("DhcpWriter splits an option longer than 255 bytes", () => {
  const parts = has("dhcpLong", "DHCP", {}).options
    .filter(([code]: [unknown]) => code === 119).map(([, data]: string[]) => data);
  assertEquals(parts.length, 2);
  assertEquals(parts[0].length, 2 * 255);
  assertEquals(parts.join(""), hex(encodeSearchList(LONG_SEARCH)!));
});

Deno.test("Dhcpv6Writer appends each option, nested ones too", () => {
  has("dhcpv6", "DHCP6_Reply", { msgtype: 7, trid: 0xabcdef });
  assertEquals(has("dhcpv6", "DHCP6OptClientId", {}).duid.lladdr, formatMac(DST_MAC));
  const { duid } = has("dhcpv6", "DHCP6OptServerId", {});
  assertEquals([duid.type, duid.hwtype, duid.timeval], [1, 1, 1_700_000_000 - 946_684_800]);
  const { ianaopts } = has("dhcpv6", "DHCP6OptIA_NA", { iaid: 0x12345678, T1: 100, T2: 200 });
  assertEquals(ianaopts.length, 2);
  assertEquals(ianaopts[0].addr, "2001:db8:ffff::fe");
  assertEquals([ianaopts[0].preflft, ianaopts[0].validlft], [3600, 0xffffffff]);
  assertEquals([ianaopts[1].statuscode, ianaopts[1].statusmsg], [4, hex(utf8("no"))]);
  has("dhcpv6", "DHCP6OptDNSServers", { dnsservers: ["2001:db8::1", "2001:db8:ffff::fe"] });
  const dnsdomains = SEARCH.map((domain) => domain.replace(/\.?$/, "."));
  has("dhcpv6", "DHCP6OptDNSDomains", { dnsdomains });
  has("dhcpv6", "DHCP6OptRapidCommit", { optlen: 0 });
  has("dhcpv6", "DHCP6OptClientFQDN", { flags: 1, fqdn: hex(utf8("guest.example.com.")) });
});

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

const GUARD = 0xa5;

/** A view of `size` bytes followed by guard bytes, and a check that these are untouched. */
function guarded(size: number): { view: DataView; intact: () => boolean } {
  const bytes = new Uint8Array(size + 64).fill(GUARD);
  return {
    view: new DataView(bytes.buffer),
    intact: () => bytes.subarray(size).every((byte) => byte === GUARD),
  };
}

Deno.test("DhcpWriter writes nothing past any limit and always ends the options", () => {
  const request = new DataView(new ArrayBuffer(DHCP_OPTIONS));
  const writer = new DhcpWriter();
  for (let limit = DHCP_OPTIONS + 1; limit < 1000; limit++) {
    const { view, intact } = guarded(limit);
    writeDhcpReply(view, 0, request, 0, ANY4, ANY4);
    writer.reset(view, DHCP_OPTIONS, limit);
    const fits = [
      writer.u8(53, 2),
      writer.u16(26, 1500),
      writer.u32(51, 1),
      writer.empty(80),
      writer.addresses(6, [SRC4, SRC4, SRC4]),
      writer.bytes(119, new Uint8Array(600)),
    ];
    const size = writer.finish(0);
    assert(size <= limit && intact(), `limit ${limit}`);
    view.setUint8(0, 1); // only requests are checked
    assert(checkDhcp(view, 0, size), `limit ${limit}`);
    if (limit > 900) assertEquals(fits, [true, true, true, true, true, true]);
  }
});

Deno.test("DhcpWriter refuses empty lists", () => {
  const writer = new DhcpWriter();
  writer.reset(new DataView(new ArrayBuffer(100)), 0, 100);
  assert(!writer.addresses(6, []));
  assert(!writer.bytes(119, new Uint8Array(0)));
});

Deno.test("Dhcpv6Writer writes nothing past any limit and leaves a whole message", () => {
  const writer = new Dhcpv6Writer();
  for (let limit = 4; limit < 260; limit++) {
    const { view, intact } = guarded(limit);
    writer.reset(view, 0, limit, DHCPV6_SOLICIT, 1);
    const ia = writer.openIaNa(1, 0, 0);
    if (ia >= 0) writer.iaAddr(SRC6, 0, 1, 1);
    if (ia >= 0) writer.status(0, utf8("fine"));
    writer.close(ia);
    writer.copy(1, new DataView(new ArrayBuffer(10)), 0, 10);
    writer.bytes(2, new Uint8Array(14));
    writer.addresses(23, [SRC6, DST6]);
    writer.fqdn(1, utf8("\x01a\0"));
    writer.empty(14);
    const size = writer.finish();
    assert(size <= limit && intact(), `limit ${limit}`);
    assert(checkDhcpv6(view, 0, size), `limit ${limit}`);
    if (limit > 200) assertEquals(size, 4 + 16 + 28 + 10 + 14 + 18 + 36 + 8 + 4);
  }
});

Deno.test("option writers of router advertisements write nothing past any limit", () => {
  for (let limit = 16; limit < 260; limit++) {
    const { view, intact } = guarded(limit);
    let at = ndp.writeRouterAdvert(view, 0, 64, 0, 1800);
    at = ndp.putPrefix(view, at, limit, SRC6, 0, 64, 0, 1, 1);
    at = ndp.putMtu(view, at, limit, 1500);
    at = ndp.putRdnss(view, at, limit, 1, [SRC6, SRC6]);
    at = ndp.putDnssl(view, at, limit, 1, new Uint8Array(50));
    at = ndp.putLinkLayer(view, at, limit, 1, DST_MAC);
    assert(intact(), `limit ${limit}`);
    assertEquals(at, limit < 16 + 32 + 8 + 40 + 64 + 8 ? -1 : 168);
  }
});

Deno.test("option writers of router advertisements refuse empty and overlong lists", () => {
  const { view, intact } = guarded(8192);
  assertEquals(ndp.putRdnss(view, 0, 8192, 1, []), -1);
  assertEquals(ndp.putDnssl(view, 0, 8192, 1, new Uint8Array(0)), -1);
  assertEquals(ndp.putRdnss(view, 0, 8192, 1, Array(128).fill(SRC6)), -1);
  assertEquals(ndp.putRdnss(view, 0, 8192, 1, Array(127).fill(SRC6)), 8 * 255);
  assert(intact());
});

Deno.test("parseMac() reads what formatMac() writes and refuses the rest", () => {
  assertEquals(parseMac("52:55:0A:00:02:ff"), Uint8Array.of(0x52, 0x55, 0x0a, 0, 2, 0xff));
  assertEquals(formatMac(parseMac("52-55-0a-00-02-ff")!), "52:55:0a:00:02:ff");
  for (const text of ["", "52:55:0a:00:02", "52:55:0a:00:02:0", "52:55:0a:00:02:gg", "525:5:0a"]) {
    assertEquals(parseMac(text), null);
  }
});
