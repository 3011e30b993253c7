// SPDX-License-Identifier: GPL-2.0-or-later
/** What IP and transport parsers read from scapy's packets, and what they refuse. */
import { assert, assertEquals } from "@std/assert";
import { formatAddress } from "../../lib/wire/address.ts";
import { arpOperation, arpSender, arpTarget, checkArp } from "../../lib/wire/arp.ts";
import { checkIcmpEcho, echoId, echoSeq } from "../../lib/wire/icmp.ts";
import { checkIcmpv6Echo } from "../../lib/wire/icmpv6.ts";
import { ipv4DontFragment } from "../../lib/wire/ipv4.ts";
import { DEST, Packet, parseIp, SOURCE } from "../../lib/wire/packet.ts";
import * as tcp from "../../lib/wire/tcp.ts";
import * as udp from "../../lib/wire/udp.ts";
import { BASE, buildSamples, exactView } from "./samples.ts";

const { ETHER, IP4, IP6, CHAIN } = BASE;
const UDP = `UDP(sport=1, dport=2)/Raw(b"payload")`;
/** IPv4 with fields replaced or added. */
const ip4 = (fields: string) => `${IP4.slice(0, -1)}, ${fields})/${UDP}`;
const ip6 = (fields: string) => `${IP6.slice(0, -1)}, ${fields})/${UDP}`;
const tcpWith = (fields: string) => `${IP4}/TCP(sport=4000, dport=80, ${fields})/Raw(b"payload")`;

const FRAMES = await buildSamples({
  plain4: `${ETHER}/IP(src="10.0.0.2", dst="192.0.2.1", ttl=9, tos=0xb9, flags="DF")/${UDP}`,
  plain6: `${ETHER}/IPv6(src="2001:db8::2", dst="2001:db8::1", hlim=9, tc=0xb9, fl=0xfffff)/${UDP}`,
  maxOptions4: ip4(`options=[IPOption_NOP()] * 40`),
  first4: ip4(`flags="MF"`),
  middle4: ip4(`flags="MF", frag=10`),
  last4: ip4(`frag=1`),
  short4: ip4(`len=19`),
  justHeader4: ip4(`len=20`),
  shorter4: ip4(`len=30`),
  longer4: ip4(`len=36`),
  longest4: ip4(`len=65535`),
  ihl4: ip4(`ihl=4`),
  ihlLong4: ip4(`ihl=15`),
  version4: ip4(`version=6`),
  version6: ip6(`version=4`),
  longer6: ip6(`plen=16`),
  longest6: ip6(`plen=65535`),
  shorter6: ip6(`plen=10`),
  empty6: ip6(`plen=0`),
  mapped6: `${ETHER}/IPv6(src="::ffff:10.0.0.1", dst="2001:db8::1")/${UDP}`,
  mappedDest6: `${ETHER}/IPv6(src="2001:db8::2", dst="::ffff:127.0.0.1")/${UDP}`,
  vlan: `${ETHER}/Dot1Q(vlan=1)/IP()/${UDP}`,
  hopByHop: `${IP6}/IPv6ExtHdrHopByHop(options=[PadN(optdata=b"x"*100)])/${UDP}`,
  hopByHopLate: `${IP6}/IPv6ExtHdrDestOpt()/IPv6ExtHdrHopByHop()/${UDP}`,
  destTwice: `${IP6}/IPv6ExtHdrDestOpt()/IPv6ExtHdrRouting(segleft=0)/IPv6ExtHdrDestOpt()/${UDP}`,
  route: `${IP6}/IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=0)/${UDP}`,
  routeLeft: `${IP6}/IPv6ExtHdrRouting(addresses=["2001:db8::9"], segleft=1)/${UDP}`,
  fragment: `${IP6}/IPv6ExtHdrFragment(offset=0, m=1)/${UDP}`,
  fragmentLast: `${IP6}/IPv6ExtHdrFragment(offset=8, m=0)/${UDP}`,
  fragmentAtomic: `${IP6}/IPv6ExtHdrFragment(offset=0, m=0)/${UDP}`,
  fragmentDeep: `${IP6}/${CHAIN}/IPv6ExtHdrFragment(offset=0, m=1)/${UDP}`,
  eight: `${IP6}/${Array(8).fill("IPv6ExtHdrDestOpt()").join("/")}/${UDP}`,
  nine: `${IP6}/${Array(9).fill("IPv6ExtHdrDestOpt()").join("/")}/${UDP}`,
  chainPast: `${IP6}/IPv6ExtHdrDestOpt(len=2)/${UDP}`,
  chainToEnd: `${IP6}/IPv6ExtHdrDestOpt(nh=17)`,
  noNext: `${IP6}/IPv6ExtHdrDestOpt(nh=59)`,
  unknownNext: `${ETHER}/IPv6(src="2001:db8::2", dst="2001:db8::1", nh=200)/Raw(b"payload")`,
  tcpPlain: tcpWith(`seq=0xfffffffe, ack=0x80000000, flags="FPA", window=0xfedc`),
  tcpScale15: tcpWith(`options=[("WScale", 15)]`),
  tcpNoLength: tcpWith(`dataofs=6, options=[("NOP", None)] * 3 + [(2, b"")]`),
  tcpOffset4: tcpWith(`dataofs=4`),
  tcpOffset15: tcpWith(`dataofs=15`),
  udpShort: `${IP4}/UDP(len=7)/Raw(b"payload")`,
  udpZero: `${IP6}/UDP(len=0)/Raw(b"payload")`,
  udpShorter: `${IP4}/UDP(len=10)/Raw(b"payload")`,
  udpLonger: `${IP4}/UDP(len=16)/Raw(b"payload")`,
  udpEmpty: `${IP4}/UDP()`,
  echoCode: `${IP4}/ICMP(id=1, seq=2, code=1)`,
  echoReply: `${IP4}/ICMP(type=0, id=1, seq=2)`,
  echoSum: `${IP4}/ICMP(id=1, seq=2, chksum=1)`,
  echoShort:
    `${ETHER}/IP(src="10.0.0.2", dst="10.0.0.1", proto=1)/Raw(b"\\x08\\0\\xf7\\xff\\0\\0\\0")`,
  echo6Code: `${IP6}/ICMPv6EchoRequest(code=1)`,
  echo6Reply: `${IP6}/ICMPv6EchoReply()`,
  echo6Sum: `${IP6}/ICMPv6EchoRequest(cksum=1)`,
  arpIpv6: `${ETHER}/ARP(ptype=0x86dd)`,
  arpHardware: `${ETHER}/ARP(hwtype=6)`,
  arpLengths: `${ETHER}/ARP(plen=5)`,
});
type Name = keyof typeof FRAMES;

const packet = new Packet();

/** Parses a frame; its view ends with it. */
function parse(name: Name): DataView | null {
  const view = exactView(FRAMES[name], 3);
  return parseIp(view, 3, FRAMES[name].length, packet) ? view : null;
}

function accepted(name: Name): DataView {
  const view = parse(name);
  assert(view !== null, name);
  return view;
}

function refused(...names: Name[]): void {
  for (const name of names) assert(parse(name) === null, name);
}

Deno.test("parseIp() fills every field, IPv4", () => {
  const view = accepted("plain4");
  const { version, proto, l3, l4, end, ttl, tos, addresses } = packet;
  assertEquals({ version, proto, ttl, tos }, { version: 4, proto: 17, ttl: 9, tos: 0xb9 });
  assertEquals([l3, l4, end], [17, 37, 52]);
  assertEquals(formatAddress(addresses, SOURCE), "10.0.0.2");
  assertEquals(formatAddress(addresses, DEST), "192.0.2.1");
  assert(ipv4DontFragment(view, l3));
  assert(!ipv4DontFragment(accepted("udp4"), l3));
});

Deno.test("parseIp() fills every field, IPv6", () => {
  accepted("plain6");
  const { version, proto, l3, l4, end, ttl, tos, addresses } = packet;
  assertEquals({ version, proto, ttl, tos }, { version: 6, proto: 17, ttl: 9, tos: 0xb9 });
  assertEquals([l3, l4, end], [17, 57, 72]);
  assertEquals(formatAddress(addresses, SOURCE), "2001:db8::2");
  assertEquals(formatAddress(addresses, DEST), "2001:db8::1");
});

Deno.test("parseIp() skips IPv4 options", () => {
  const view = accepted("maxOptions4");
  assertEquals(packet.l4 - packet.l3, 60);
  assertEquals(udp.udpDestPort(view, packet.l4), 2);
});

Deno.test("parseIp() refuses IPv4 fragments", () => refused("first4", "middle4", "last4"));

Deno.test("parseIp() takes the total length, not the frame's, as the packet's end", () => {
  for (const [name, bytes] of [["justHeader4", 20], ["shorter4", 30], ["shorter6", 50]] as const) {
    accepted(name);
    assertEquals(packet.end - packet.l3, bytes);
  }
  accepted("empty6");
  assertEquals(packet.l4, packet.end);
});

Deno.test("parseIp() refuses a length field that says more than the frame has", () => {
  refused("longer4", "longest4", "longer6", "longest6");
});

Deno.test("parseIp() refuses impossible header lengths and versions", () => {
  refused("short4", "ihl4", "ihlLong4", "version4", "version6");
});

Deno.test("parseIp() refuses v4-mapped addresses in IPv6, VLAN tags and ARP", () => {
  refused("mapped6", "mappedDest6", "vlan", "arp");
});

Deno.test("parseIp() skips IPv6 extension headers", () => {
  const chains = {
    udp6Chain: 8 + 8 + 24,
    hopByHop: 104,
    destTwice: 24,
    route: 24,
    eight: 64,
  };
  for (const [name, bytes] of Object.entries(chains) as [Name, number][]) {
    const view = accepted(name);
    assertEquals(packet.l4 - packet.l3 - 40, bytes, name);
    assertEquals(packet.proto, 17);
    assertEquals(udp.udpDestPort(view, packet.l4), 2);
  }
});

Deno.test("parseIp() refuses extension chains that are too long, misplaced or leave the packet", () => {
  refused("nine", "hopByHopLate", "chainPast");
});

Deno.test("parseIp() refuses IPv6 fragments and routes with segments left", () => {
  refused("fragment", "fragmentLast", "fragmentAtomic", "fragmentDeep", "routeLeft");
});

Deno.test("parseIp() gives the first protocol it does not skip, even with nothing behind", () => {
  accepted("noNext");
  assertEquals([packet.proto, packet.l4], [59, packet.end]);
  accepted("unknownNext");
  assertEquals(packet.proto, 200);
  const view = accepted("chainToEnd");
  assertEquals([packet.proto, udp.checkUdp(view, packet)], [17, -1]);
});

Deno.test("TCP accessors read what scapy wrote", () => {
  const view = accepted("tcpPlain"), l4 = packet.l4;
  assertEquals(tcp.checkTcp(view, packet), l4 + 20);
  assertEquals([tcp.tcpSourcePort(view, l4), tcp.tcpDestPort(view, l4)], [4000, 80]);
  assertEquals([tcp.tcpSeq(view, l4), tcp.tcpAck(view, l4)], [-2, -0x80000000]);
  assertEquals(tcp.tcpFlags(view, l4), tcp.TCP_FIN | tcp.TCP_PSH | tcp.TCP_ACK);
  assertEquals(tcp.tcpWindow(view, l4), 0xfedc);
  assertEquals([tcp.tcpMssOption(view, l4), tcp.tcpWindowScaleOption(view, l4)], [0, -1]);
});

Deno.test("TCP option accessors find options among others and cap the scale", () => {
  for (const name of ["tcp4", "tcp6", "tcp6Chain", "tcp4Options"] as const) {
    const view = accepted(name), l4 = packet.l4;
    assertEquals([tcp.tcpMssOption(view, l4), tcp.tcpWindowScaleOption(view, l4)], [1460, 7], name);
  }
  const view = accepted("tcpScale15");
  assertEquals(tcp.tcpWindowScaleOption(view, packet.l4), tcp.TCP_MAX_WINDOW_SCALE);
});

Deno.test("TCP option accessors stop at options that are cut, empty or ended", () => {
  const cases: [number[], number][] = [
    [[2, 4, 5, 180], 1460],
    [[1, 1, 1, 2], 0], // no length byte
    [[2, 0, 5, 180], 0],
    [[2, 1, 5, 180], 0],
    [[2, 1, 2, 4, 5, 180, 0, 0], 0],
    [[2, 5, 5, 180], 0], // past the header
    [[0, 0, 0, 0, 2, 4, 5, 180], 0], // behind the end
    [[2, 2, 1, 1, 2, 4, 5, 180], 1460], // wrong length: not this one
    [[253, 255, 0, 0], 0],
  ];
  for (const [options, mss] of cases) {
    const view = exactView(new Uint8Array(20 + options.length));
    options.forEach((byte, i) => view.setUint8(20 + i, byte));
    view.setUint8(12, (20 + options.length) << 2);
    assertEquals(tcp.tcpMssOption(view, 0), mss, options.join());
    assert(view.high <= view.byteLength);
  }
});

Deno.test("checkTcp() refuses data offsets below the header and past the packet", () => {
  for (const name of ["tcpOffset4", "tcpOffset15"] as const) {
    assertEquals(tcp.checkTcp(accepted(name), packet), -1);
  }
});

Deno.test("checkUdp() holds the length field against header and packet", () => {
  for (const name of ["udpShort", "udpZero", "udpLonger"] as const) {
    assertEquals(udp.checkUdp(accepted(name), packet), -1, name);
  }
  for (const [name, size] of [["udpShorter", 2], ["udpEmpty", 0], ["udp4", 7]] as const) {
    const view = accepted(name);
    assertEquals(udp.checkUdp(view, packet), packet.l4 + 8);
    assertEquals(udp.udpPayloadSize(view, packet.l4), size);
  }
});

Deno.test("checkIcmpEcho() accepts a request only, with code 0 and a right checksum", () => {
  const view = accepted("echo4");
  assertEquals(checkIcmpEcho(view, packet), packet.l4 + 8);
  assertEquals([echoId(view, packet.l4), echoSeq(view, packet.l4)], [1, 2]);
  for (const name of ["echoCode", "echoReply", "echoSum", "echoShort"] as const) {
    assertEquals(checkIcmpEcho(accepted(name), packet), -1, name);
  }
});

Deno.test("checkIcmpv6Echo() accepts a request only, with code 0 and a right checksum", () => {
  const view = accepted("echo6");
  assertEquals(checkIcmpv6Echo(view, packet), packet.l4 + 8);
  assertEquals([echoId(view, packet.l4), echoSeq(view, packet.l4)], [1, 2]);
  for (const name of ["echo6Code", "echo6Reply", "echo6Sum"] as const) {
    assertEquals(checkIcmpv6Echo(accepted(name), packet), -1, name);
  }
});

Deno.test("checkArp() accepts Ethernet and IPv4 only", () => {
  const view = exactView(FRAMES.arp);
  const at = checkArp(view, 0, view.byteLength);
  const words = new Int32Array(8);
  arpSender(view, at, words, 0);
  arpTarget(view, at, words, 4);
  assertEquals([at, arpOperation(view, at)], [14, 1]);
  assertEquals([formatAddress(words), formatAddress(words, 4)], ["10.0.0.2", "10.0.0.1"]);
  for (const name of ["arpIpv6", "arpHardware", "arpLengths", "udp4"] as const) {
    assertEquals(checkArp(exactView(FRAMES[name]), 0, FRAMES[name].length), -1, name);
  }
});

Deno.test("parsing does not allocate", () => {
  const view = accepted("tcp6Chain");
  const length = FRAMES.tcp6Chain.length;
  const run = (times: number) => {
    let total = 0;
    for (let i = 0; i < times; i++) {
      if (parseIp(view, 3, length, packet)) total += tcp.checkTcp(view, packet);
      total += tcp.tcpMssOption(view, packet.l4) + tcp.tcpWindowScaleOption(view, packet.l4);
    }
    return total;
  };
  run(200_000); // let it be compiled
  const before = Deno.memoryUsage().heapUsed;
  run(1_000_000);
  assert(Deno.memoryUsage().heapUsed - before < 1 << 20);
});
