// SPDX-License-Identifier: GPL-2.0-or-later
/** What the parsers of NDP, DHCP and DHCPv6 read from scapy's packets, and what they refuse. */
import { assert, assertEquals } from "@std/assert";
import { formatMac, loadMac } from "../../lib/wire/ethernet.ts";
import * as dhcp from "../../lib/wire/dhcp.ts";
import * as dhcpv6 from "../../lib/wire/dhcpv6.ts";
import * as ndp from "../../lib/wire/ndp.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { checkUdp, udpPayloadSize } from "../../lib/wire/udp.ts";
import { BASE, buildSamples, exactView } from "./samples.ts";

const { ETHER, ND, MAC_OPTION, DHCP4, DHCP6 } = BASE;
/** A packet as neighbour discovery wants it, from `src` to `dst`. */
const nd = (src: string, dst: string) => `${ETHER}/IPv6(src="${src}", dst="${dst}", hlim=255)`;
const far = ND.replace("hlim=255", "hlim=254");
const bootp = (fields: string) => DHCP4.replace("xid=7", `xid=7, ${fields}`);
const solicit = (options: string) =>
  `${ETHER}/IPv6(src="fe80::2", dst="ff02::1:2")/` +
  `UDP(sport=546, dport=547)/DHCP6_Solicit()/${options}`;
/** A raw option, so that scapy does not put it right. */
const raw = (code: number, size: number, data = `b""`) =>
  `Raw(bytes([${code >> 8}, ${code & 255}, ${size >> 8}, ${size & 255}]) + ${data})`;
const IA = 3, IA_ADDR = 5;

const FRAMES = await buildSamples({
  nsFar: `${far}/ICMPv6ND_NS(tgt="fe80::1")`,
  nsCode: `${ND}/ICMPv6ND_NS(tgt="fe80::1", code=1)`,
  nsSum: `${ND}/ICMPv6ND_NS(tgt="fe80::1", cksum=1)`,
  nsMulticast: `${ND}/ICMPv6ND_NS(tgt="ff02::1")`,
  nsAnonymous: `${nd("::", "ff02::1:ff00:1")}/ICMPv6ND_NS(tgt="fe80::1")`,
  nsAnonymousUnicast: `${nd("::", "fe80::1")}/ICMPv6ND_NS(tgt="fe80::1")`,
  nsAnonymousMac: `${nd("::", "ff02::1:ff00:1")}/ICMPv6ND_NS(tgt="fe80::1")/${MAC_OPTION}`,
  nsEmptyOption: `${ND}/ICMPv6ND_NS(tgt="fe80::1")/ICMPv6NDOptSrcLLAddr(len=0)`,
  nsLongOption: `${ND}/ICMPv6ND_NS(tgt="fe80::1")/ICMPv6NDOptSrcLLAddr(len=2)`,
  nsNonce: `${ND}/ICMPv6ND_NS(tgt="fe80::1")/Raw(b"\\x0e\\x01abcdef")/${MAC_OPTION}`,
  nsMac16: `${ND}/ICMPv6ND_NS(tgt="fe80::1")/Raw(b"\\x01\\x02" + b"m" * 14)`,
  naSolicitedAll: `${nd("fe80::2", "ff02::1")}/ICMPv6ND_NA(tgt="fe80::2", S=1)`,
  naAll: `${nd("fe80::2", "ff02::1")}/ICMPv6ND_NA(tgt="fe80::2", S=0)`,
  naMulticast: `${ND}/ICMPv6ND_NA(tgt="ff02::2")`,
  rsAnonymous: `${nd("::", "ff02::2")}/ICMPv6ND_RS()`,
  rsAnonymousMac: `${nd("::", "ff02::2")}/ICMPv6ND_RS()/${MAC_OPTION}`,
  raGlobal: `${nd("2001:db8::2", "ff02::1")}/ICMPv6ND_RA()`,
  dhcpReply: bootp("op=2"),
  dhcpHardware: bootp("htype=6"),
  dhcpLength: bootp("hlen=16"),
  dhcpMagic: bootp(`options=b"c\\x82Sd"`),
  dhcpNoEnd: DHCP4.replace(`, "end"`, ""),
  dhcpPast: DHCP4.replace(/DHCP\(options.*/, `Raw(b"\\x35\\x01\\x01\\x0c\\x03ab")`),
  dhcpCutCode: DHCP4.replace(/DHCP\(options.*/, `Raw(b"\\x35\\x01\\x01\\x0c")`),
  bootp: DHCP4.replace(/DHCP\(options.*/, `DHCP(options=["end"])`),
  v6Reply: DHCP6.replace("DHCP6_Solicit", "DHCP6_Reply"),
  v6Relay: DHCP6.replace("DHCP6_Solicit(trid=7)", "DHCP6_RelayForward()"),
  v6InfoRequest: DHCP6.replace("DHCP6_Solicit", "DHCP6_InfoRequest"),
  v6Past: solicit(raw(99, 3, `b"ab"`)),
  v6CutHeader: solicit(`Raw(b"\\0\\x0e\\0")`),
  v6Unknown: solicit(raw(99, 2, `b"ab"`)),
  v6ShortIa: solicit(raw(IA, 11, `b"x" * 11`)),
  v6IaPast: solicit(raw(IA, 16, `b"x" * 12 + b"\\0\\x63\\0\\x01"`)),
  v6ShortAddr: solicit(
    raw(IA, 12 + 4 + 23, `b"x" * 12 + bytes([0, ${IA_ADDR}, 0, 23]) + b"x" * 23`),
  ),
  v6AddrPast: solicit(
    raw(
      IA,
      12 + 4 + 28,
      `b"x" * 12 + bytes([0, ${IA_ADDR}, 0, 28]) + b"x" * 24 + b"\\0\\x63\\0\\x01"`,
    ),
  ),
  v6EmptyDuid: solicit(raw(1, 2, `b"\\0\\x03"`)),
  v6LongDuid: solicit(raw(1, 131, `b"x" * 131`)),
  v6MaxDuid: solicit(raw(1, 130, `b"x" * 130`)),
  v6OddRequest: solicit(raw(6, 3, `b"abc"`)),
  v6RapidData: solicit(raw(14, 1, `b"a"`)),
});
type Name = keyof typeof FRAMES;

const packet = new Packet();

function parse(name: Name): DataView {
  const view = exactView(FRAMES[name], 5);
  assert(parseIp(view, 5, FRAMES[name].length, packet), name);
  return view;
}

function checkNdp(name: Name): number {
  return ndp.checkNdp(parse(name), packet);
}

Deno.test("checkNdp() gives the type of valid messages", () => {
  assertEquals(checkNdp("routerSolicit"), ndp.NDP_ROUTER_SOLICIT);
  assertEquals(checkNdp("routerAdvert"), ndp.NDP_ROUTER_ADVERT);
  assertEquals(checkNdp("neighborSolicit"), ndp.NDP_NEIGHBOR_SOLICIT);
  assertEquals(checkNdp("neighborAdvert"), ndp.NDP_NEIGHBOR_ADVERT);
  assertEquals(checkNdp("redirect"), ndp.NDP_REDIRECT);
  assertEquals(checkNdp("nsAnonymous"), ndp.NDP_NEIGHBOR_SOLICIT);
  assertEquals(checkNdp("rsAnonymous"), ndp.NDP_ROUTER_SOLICIT);
  assertEquals(checkNdp("naAll"), ndp.NDP_NEIGHBOR_ADVERT);
});

Deno.test("checkNdp() refuses a wrong hop limit, code, checksum or other message", () => {
  for (const name of ["nsFar", "nsCode", "nsSum", "echo6", "udp6"] as const) {
    assertEquals(checkNdp(name), -1, name);
  }
});

Deno.test("checkNdp() refuses multicast targets and solicited multicast advertisements", () => {
  for (const name of ["nsMulticast", "naMulticast", "naSolicitedAll"] as const) {
    assertEquals(checkNdp(name), -1, name);
  }
});

Deno.test("checkNdp() holds the unspecified and global source against RFC 4861", () => {
  for (
    const name of ["nsAnonymousUnicast", "nsAnonymousMac", "rsAnonymousMac", "raGlobal"] as const
  ) {
    assertEquals(checkNdp(name), -1, name);
  }
});

Deno.test("checkNdp() refuses empty options and options past the message", () => {
  for (const name of ["nsEmptyOption", "nsLongOption"] as const) {
    assertEquals(checkNdp(name), -1, name);
  }
});

Deno.test("ndpOption() finds an address among other options", () => {
  const mac = new Uint8Array(6);
  for (const name of ["neighborSolicit", "nsNonce"] as const) {
    const view = parse(name);
    loadMac(view, ndp.ndpOption(view, packet, ndp.NDP_OPT_SOURCE_MAC) + 2, mac);
    assertEquals(formatMac(mac), "02:00:00:00:00:01");
  }
  const view = parse("nsMac16");
  assertEquals(ndp.checkNdp(view, packet), ndp.NDP_NEIGHBOR_SOLICIT);
  assert(ndp.ndpOption(view, packet, ndp.NDP_OPT_SOURCE_MAC) > 0);
  assertEquals(ndp.ndpOption(view, packet, ndp.NDP_OPT_TARGET_MAC), -1);
});

/** View, start and end of a UDP payload. */
function payload(name: Name): [DataView, number, number] {
  const view = parse(name);
  const at = checkUdp(view, packet);
  assert(at > 0, name);
  return [view, at, at + udpPayloadSize(view, packet.l4)];
}

Deno.test("checkDhcp() refuses what is no request over Ethernet with whole options", () => {
  assert(dhcp.checkDhcp(...payload("dhcp")));
  const names: Name[] = ["dhcpReply", "dhcpHardware", "dhcpLength", "dhcpMagic", "dhcpNoEnd"];
  for (const name of [...names, "dhcpPast", "dhcpCutCode", "udp4"] as Name[]) {
    assert(!dhcp.checkDhcp(...payload(name)), name);
  }
});

Deno.test("DHCP accessors read what scapy wrote", () => {
  const [view, msg] = payload("dhcp");
  assertEquals(dhcp.dhcpMessageType(view, msg), dhcp.DHCP_REQUEST);
  assertEquals(view.getUint32(dhcp.dhcpOptionOf(view, msg, 50, 4)), 0x0a000002);
  assertEquals(view.getUint16(dhcp.dhcpOptionOf(view, msg, 57, 2)), 1500);
  assertEquals(dhcp.dhcpOptionSize(view, dhcp.dhcpOption(view, msg, dhcp.DHCP_OPT_HOSTNAME)), 5);
  assertEquals(dhcp.dhcpOptionOf(view, msg, dhcp.DHCP_OPT_HOSTNAME, 4), -1);
  assertEquals(dhcp.dhcpOption(view, msg, dhcp.DHCP_OPT_FQDN), -1);
});

Deno.test("dhcpMessageType() is 0 for BOOTP", () => {
  const [view, msg, end] = payload("bootp");
  assert(dhcp.checkDhcp(view, msg, end));
  assertEquals(dhcp.dhcpMessageType(view, msg), 0);
});

Deno.test("checkDhcpv6() accepts client messages with whole options only", () => {
  for (const name of ["dhcpv6", "v6InfoRequest", "v6Unknown", "v6MaxDuid"] as const) {
    assert(dhcpv6.checkDhcpv6(...payload(name)), name);
  }
  for (const name of ["v6Reply", "v6Relay", "v6Past", "v6CutHeader", "udp6"] as const) {
    assert(!dhcpv6.checkDhcpv6(...payload(name)), name);
  }
});

Deno.test("checkDhcpv6() looks into associations and addresses", () => {
  for (const name of ["v6ShortIa", "v6IaPast", "v6ShortAddr", "v6AddrPast"] as const) {
    assert(!dhcpv6.checkDhcpv6(...payload(name)), name);
  }
});

Deno.test("checkDhcpv6() holds identifiers, request lists and rapid commit to their sizes", () => {
  for (const name of ["v6EmptyDuid", "v6LongDuid", "v6OddRequest", "v6RapidData"] as const) {
    assert(!dhcpv6.checkDhcpv6(...payload(name)), name);
  }
});

Deno.test("DHCPv6 accessors read what scapy wrote, nested options too", () => {
  const [view, msg, end] = payload("dhcpv6");
  const { dhcpv6Option: find, dhcpv6OptionSize: size } = dhcpv6;
  assertEquals([dhcpv6.dhcpv6Type(view, msg), dhcpv6.dhcpv6Transaction(view, msg)], [1, 7]);
  const options = msg + dhcpv6.DHCPV6_OPTIONS;
  assertEquals(size(view, find(view, options, end, dhcpv6.DHCPV6_OPT_CLIENT_ID)), 10);
  const ia = find(view, options, end, dhcpv6.DHCPV6_OPT_IA_NA), iaEnd = ia + size(view, ia);
  assertEquals(view.getUint32(ia), 1);
  const first = find(view, ia + 12, iaEnd, dhcpv6.DHCPV6_OPT_IA_ADDR);
  assertEquals(view.getUint32(first + 12), 2);
  const second = find(view, first + size(view, first), iaEnd, dhcpv6.DHCPV6_OPT_IA_ADDR);
  assertEquals(view.getUint32(second + 12), 3);
  assertEquals(find(view, second + 24, iaEnd, dhcpv6.DHCPV6_OPT_IA_ADDR), -1);
  assert(find(view, options, end, dhcpv6.DHCPV6_OPT_RAPID_COMMIT) > 0);
  assertEquals(find(view, options, end, dhcpv6.DHCPV6_OPT_SERVER_ID), -1);
});
