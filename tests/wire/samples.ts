// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Sample packets from scapy, one of each kind the parsers of `lib/wire` know, and for each kind a
 * reader that goes through all checks and accessors as the program does.
 *
 * @module
 */
import { assert } from "@std/assert";
import * as arp from "../../lib/wire/arp.ts";
import * as dhcp from "../../lib/wire/dhcp.ts";
import * as dhcpv6 from "../../lib/wire/dhcpv6.ts";
import * as icmp from "../../lib/wire/icmp.ts";
import { checkIcmpv6Echo } from "../../lib/wire/icmpv6.ts";
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from "../../lib/wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "../../lib/wire/ipv6.ts";
import * as ndp from "../../lib/wire/ndp.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import * as tcp from "../../lib/wire/tcp.ts";
import * as udp from "../../lib/wire/udp.ts";
import { build } from "./scapy.ts";

/** A view that remembers how far it was read. */
export class Tracked extends DataView<ArrayBuffer> {
  /** One past the highest byte read. */
  high = 0;
  #see(off: number, size: number): number {
    if (off + size > this.high) this.high = off + size;
    return off;
  }
  override getUint8(off: number): number {
    return super.getUint8(this.#see(off, 1));
  }
  override getUint16(off: number, little?: boolean): number {
    return super.getUint16(this.#see(off, 2), little);
  }
  override getUint32(off: number, little?: boolean): number {
    return super.getUint32(this.#see(off, 4), little);
  }
  override getInt32(off: number, little?: boolean): number {
    return super.getInt32(this.#see(off, 4), little);
  }
}

/** Goes through a frame as the program does: true when it would act on it. */
export type Reader = (view: Tracked, off: number, length: number) => boolean;

const packet = new Packet();
const words = new Int32Array(8);

/** Checks the IP headers, then calls `read` and asserts that it stayed within the packet. */
function withIp(proto: number, read: (view: Tracked) => boolean): Reader {
  return (view, off, length) => {
    if (!parseIp(view, off, length, packet) || packet.proto !== proto) return false;
    const { l3, l4, end } = packet;
    assert(off < l3 && l3 < l4 && l4 <= end && end <= off + length, "offsets in order");
    const accepted = read(view);
    assert(view.high <= end, `read ${view.high - end} bytes past the packet`);
    return accepted;
  };
}

const readTcp = withIp(IPPROTO_TCP, (view) => {
  const payload = tcp.checkTcp(view, packet);
  if (payload < 0) return false;
  const l4 = packet.l4;
  assert(payload >= l4 + 20 && payload <= packet.end);
  tcp.tcpSourcePort(view, l4), tcp.tcpDestPort(view, l4);
  tcp.tcpSeq(view, l4), tcp.tcpAck(view, l4), tcp.tcpFlags(view, l4), tcp.tcpWindow(view, l4);
  const mss = tcp.tcpMssOption(view, l4), scale = tcp.tcpWindowScaleOption(view, l4);
  assert(mss >= 0 && mss <= 0xffff && scale >= -1 && scale <= 14);
  assert(view.high <= payload, "options read within the header");
  return true;
});

/** Checks UDP, then calls `read` with the payload and its end. */
function withUdp(read: (view: Tracked, payload: number, end: number) => boolean): Reader {
  return withIp(IPPROTO_UDP, (view) => {
    const payload = udp.checkUdp(view, packet);
    if (payload < 0) return false;
    const end = payload + udp.udpPayloadSize(view, packet.l4);
    assert(payload <= end && end <= packet.end);
    udp.udpSourcePort(view, packet.l4), udp.udpDestPort(view, packet.l4);
    const accepted = read(view, payload, end);
    assert(view.high <= end, "read within the datagram");
    return accepted;
  });
}

const readEcho4 = withIp(IPPROTO_ICMP, (view) => {
  const data = icmp.checkIcmpEcho(view, packet);
  if (data < 0) return false;
  icmp.echoId(view, packet.l4), icmp.echoSeq(view, packet.l4);
  return data <= packet.end;
});

const readEcho6 = withIp(IPPROTO_ICMPV6, (view) => {
  const data = checkIcmpv6Echo(view, packet);
  if (data < 0) return false;
  icmp.echoId(view, packet.l4), icmp.echoSeq(view, packet.l4);
  return data <= packet.end;
});

const readNdp = withIp(IPPROTO_ICMPV6, (view) => {
  if (ndp.checkNdp(view, packet) < 0) return false;
  for (let option = 0; option < 32; option++) {
    const at = ndp.ndpOption(view, packet, option);
    assert(at < 0 || at + 8 * view.getUint8(at + 1) <= packet.end);
  }
  return true;
});

const readDhcp = withUdp((view, msg, end) => {
  if (!dhcp.checkDhcp(view, msg, end)) return false;
  dhcp.dhcpMessageType(view, msg);
  for (let code = 1; code < 255; code++) {
    const data = dhcp.dhcpOption(view, msg, code);
    assert(data < 0 || data + dhcp.dhcpOptionSize(view, data) <= end);
    dhcp.dhcpOptionOf(view, msg, code, 4);
  }
  return true;
});

/** Visits options between `at` and `end`, those in associations too. */
function walkDhcpv6(view: Tracked, at: number, end: number): void {
  for (const code of [1, 2, 3, 4, 5, 6, 13, 14, 23, 24, 39]) {
    for (let from = at;;) {
      const data = dhcpv6.dhcpv6Option(view, from, end, code);
      if (data < 0) break;
      from = data + dhcpv6.dhcpv6OptionSize(view, data);
      assert(from <= end);
      const fixed = FIXED[code];
      if (fixed !== undefined) walkDhcpv6Nested(view, data + fixed, from);
    }
  }
}

const FIXED: Record<number, number | undefined> = {
  [dhcpv6.DHCPV6_OPT_IA_NA]: dhcpv6.DHCPV6_IA_NA_SIZE,
  [dhcpv6.DHCPV6_OPT_IA_TA]: dhcpv6.DHCPV6_IA_TA_SIZE,
};

function walkDhcpv6Nested(view: Tracked, at: number, end: number): void {
  const data = dhcpv6.dhcpv6Option(view, at, end, dhcpv6.DHCPV6_OPT_IA_ADDR);
  if (data < 0) return;
  const stop = data + dhcpv6.dhcpv6OptionSize(view, data);
  assert(stop <= end && stop - data >= dhcpv6.DHCPV6_IA_ADDR_SIZE);
  dhcpv6.dhcpv6Option(view, data + dhcpv6.DHCPV6_IA_ADDR_SIZE, stop, dhcpv6.DHCPV6_OPT_STATUS);
}

const readDhcpv6 = withUdp((view, msg, end) => {
  if (!dhcpv6.checkDhcpv6(view, msg, end)) return false;
  dhcpv6.dhcpv6Type(view, msg), dhcpv6.dhcpv6Transaction(view, msg);
  walkDhcpv6(view, msg + dhcpv6.DHCPV6_OPTIONS, end);
  return true;
});

function readArp(view: Tracked, off: number, length: number): boolean {
  const at = arp.checkArp(view, off, length);
  if (at < 0) return false;
  arp.arpOperation(view, at);
  arp.arpSender(view, at, words, 0);
  arp.arpTarget(view, at, words, 4);
  assert(view.high <= off + length);
  return true;
}

const ETHER = `Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")`;
const IP4 = `${ETHER}/IP(src="10.0.0.2", dst="192.0.2.1")`;
const IP6 = `${ETHER}/IPv6(src="2001:db8::2", dst="2001:db8::1")`;
const ND = `${ETHER}/IPv6(src="fe80::2", dst="fe80::1", hlim=255)`;
const TCP = `TCP(sport=4000, dport=80, flags="S", options=[("MSS", 1460), ("SAckOK", b""), ` +
  `("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)])`;
const CHAIN = `IPv6ExtHdrHopByHop(options=[RouterAlert()])/IPv6ExtHdrRouting(segleft=0)/` +
  `IPv6ExtHdrDestOpt(options=[PadN(optdata=b"x"*14)])`;
const DHCP4 = `${ETHER}/IP(src="0.0.0.0", dst="255.255.255.255")/UDP(sport=68, dport=67)/` +
  `BOOTP(chaddr=b"\\x02\\0\\0\\0\\0\\1", xid=7)/DHCP(options=[("message-type", "request"), ` +
  `("requested_addr", "10.0.0.2"), ("max_dhcp_size", 1500), "pad", "pad", ("hostname", b"guest"), ` +
  `("param_req_list", [1, 3, 6, 12, 26, 119, 121]), "end"])`;
const DHCP6 = `${ETHER}/IPv6(src="fe80::2", dst="ff02::1:2")/UDP(sport=546, dport=547)/` +
  `DHCP6_Solicit(trid=7)/DHCP6OptClientId(duid=DUID_LL(lladdr="02:00:00:00:00:01"))/` +
  `DHCP6OptIA_NA(iaid=1, ianaopts=[DHCP6OptIAAddress(addr="2001:db8::2", ` +
  `iaaddropts=[DHCP6OptStatusCode(statuscode=0)]), DHCP6OptIAAddress(addr="2001:db8::3")])/` +
  `DHCP6OptOptReq(reqopts=[23, 24, 39])/DHCP6OptElapsedTime()/DHCP6OptRapidCommit()`;
const MAC_OPTION = `ICMPv6NDOptSrcLLAddr(lladdr="02:00:00:00:00:01")`;

/** Scapy expression and reader of each sample; all of them are to be accepted. */
export const SAMPLES = {
  arp: [`${ETHER}/ARP(op=1, psrc="10.0.0.2", pdst="10.0.0.1")`, readArp],
  tcp4: [`${IP4}/${TCP}/Raw(b"payload")`, readTcp],
  tcp4Options: [`${IP4.slice(0, -1)}, options=[IPOption_RR(), IPOption_NOP()])/${TCP}`, readTcp],
  tcp6: [`${IP6}/${TCP}/Raw(b"payload")`, readTcp],
  tcp6Chain: [`${IP6}/${CHAIN}/${TCP}/Raw(b"payload")`, readTcp],
  udp4: [`${IP4}/UDP(sport=1, dport=2)/Raw(b"payload")`, withUdp(() => true)],
  udp6: [`${IP6}/UDP(sport=1, dport=2)/Raw(b"payload")`, withUdp(() => true)],
  udp6Chain: [`${IP6}/${CHAIN}/UDP(sport=1, dport=2)/Raw(b"payload")`, withUdp(() => true)],
  echo4: [`${IP4}/ICMP(id=1, seq=2)/Raw(b"payload")`, readEcho4],
  echo6: [`${IP6}/ICMPv6EchoRequest(id=1, seq=2, data=b"payload")`, readEcho6],
  routerSolicit: [`${ND}/ICMPv6ND_RS()/${MAC_OPTION}`, readNdp],
  routerAdvert: [
    `${ND}/ICMPv6ND_RA()/ICMPv6NDOptPrefixInfo(prefix="2001:db8::", prefixlen=64)/` +
    `ICMPv6NDOptMTU()/ICMPv6NDOptRDNSS(dns=["2001:db8::1"])/${MAC_OPTION}`,
    readNdp,
  ],
  neighborSolicit: [`${ND}/ICMPv6ND_NS(tgt="fe80::1")/${MAC_OPTION}`, readNdp],
  neighborAdvert: [
    `${ND}/ICMPv6ND_NA(tgt="fe80::2", R=0)/ICMPv6NDOptDstLLAddr(lladdr="02:00:00:00:00:01")`,
    readNdp,
  ],
  redirect: [`${ND}/ICMPv6ND_Redirect(tgt="fe80::1", dst="2001:db8::5")`, readNdp],
  dhcp: [DHCP4, readDhcp],
  dhcpv6: [DHCP6, readDhcpv6],
} satisfies Record<string, [string, Reader]>;

/** Names of samples. */
export type SampleName = keyof typeof SAMPLES;
/** All names. */
export const SAMPLE_NAMES = Object.keys(SAMPLES) as SampleName[];
/** Beginnings of scapy expressions, for tests that build packets of their own. */
export const BASE = { ETHER, IP4, IP6, ND, TCP, CHAIN, DHCP4, DHCP6, MAC_OPTION };

/** The samples' bytes, and those of `more` expressions, from one scapy process. */
export async function buildSamples<K extends string = never>(
  more: Record<K, string> = {} as Record<K, string>,
): Promise<Record<SampleName | K, Uint8Array<ArrayBuffer>>> {
  const own = Object.fromEntries(SAMPLE_NAMES.map((name) => [name, SAMPLES[name][0]]));
  return await build({ ...own, ...more } as Record<SampleName | K, string>);
}

/** A view that ends exactly with `bytes`, which begin at `off`; reading past them throws. */
export function exactView(bytes: Uint8Array, off = 0): Tracked {
  const buffer = new ArrayBuffer(off + bytes.length);
  new Uint8Array(buffer).set(bytes, off);
  return new Tracked(buffer);
}
