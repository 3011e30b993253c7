// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * One frame made by each emitter of `lib/wire`, for independent decoders to judge.
 *
 * @module
 */
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import { ARP_REPLY, ARP_SIZE, writeArp } from "../../lib/wire/arp.ts";
import { pseudoSum, transportChecksum } from "../../lib/wire/checksum.ts";
import * as dhcp from "../../lib/wire/dhcp.ts";
import * as dhcpv6 from "../../lib/wire/dhcpv6.ts";
import { encodeDomainName, encodeSearchList } from "../../lib/wire/dns_name.ts";
import * as eth from "../../lib/wire/ethernet.ts";
import * as icmp from "../../lib/wire/icmp.ts";
import * as icmpv6 from "../../lib/wire/icmpv6.ts";
import * as ipv4 from "../../lib/wire/ipv4.ts";
import * as ipv6 from "../../lib/wire/ipv6.ts";
import * as ndp from "../../lib/wire/ndp.ts";
import * as tcp from "../../lib/wire/tcp.ts";
import * as udp from "../../lib/wire/udp.ts";

export const DST_MAC = Uint8Array.of(0x02, 0x00, 0x00, 0xaa, 0xbb, 0xcc);
export const SRC_MAC = Uint8Array.of(0x52, 0x55, 0x0a, 0x00, 0x02, 0x02);
export const SRC4 = parseAddress("192.0.2.1")!, DST4 = parseAddress("198.51.100.254")!;
export const SRC6 = parseAddress("2001:db8::1")!, DST6 = parseAddress("2001:db8:ffff::fe")!;
const LL6 = parseAddress("fe80::1")!, ALL_NODES = parseAddress("ff02::1")!;
const L3 = eth.ETH_HEADER_SIZE;
const PAYLOAD = new TextEncoder().encode("odd");

/** A frame of IP with `body` writing the transport part at an offset and returning its end. */
function ip(
  src: Address,
  dst: Address,
  proto: number,
  body: (view: DataView, at: number) => number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(2048).fill(0xee); // what an emitter leaves out shows
  const view = new DataView(bytes.buffer);
  const v4 = src[2] === 0xffff;
  const l4 = L3 + (v4 ? ipv4.IPV4_HEADER_SIZE : ipv6.IPV6_HEADER_SIZE);
  const end = body(view, l4);
  eth.writeEthernet(view, 0, DST_MAC, SRC_MAC, v4 ? eth.ETH_P_IP : eth.ETH_P_IPV6);
  if (v4) ipv4.writeIpv4(view, L3, end - L3, proto, 63, 0xb8, true, src, 0, dst, 0);
  else ipv6.writeIpv6(view, L3, end - l4, proto, 255, 0xb9, src, 0, dst, 0);
  return bytes.slice(0, end);
}

function put(view: DataView, at: number, bytes: Uint8Array): number {
  bytes.forEach((byte, i) => view.setUint8(at + i, byte));
  return at + bytes.length;
}

/** Stores the checksum of a TCP or UDP packet at `at` + `field`. */
function seal(
  view: DataView,
  at: number,
  end: number,
  field: number,
  proto: number,
  src: Address,
  dst: Address,
): number {
  const pseudo = pseudoSum(src, 0, dst, 0, proto, end - at);
  view.setUint16(at + field, transportChecksum(view, at, end - at, proto, pseudo));
  return end;
}

function tcpSyn(src: Address, dst: Address): Uint8Array<ArrayBuffer> {
  return ip(src, dst, ipv4.IPPROTO_TCP, (view, at) => {
    const flags = tcp.TCP_SYN | tcp.TCP_ACK;
    tcp.writeTcpHeader(view, at, 4000, 80, 0xfffffffe | 0, 0x80000001 | 0, flags, 0xfffe, 28);
    tcp.writeTcpMss(view, at + 20, 1460);
    tcp.writeTcpWindowScale(view, at + 24, 9);
    const end = put(view, at + 28, PAYLOAD);
    return seal(view, at, end, tcp.TCP_CHECKSUM, ipv4.IPPROTO_TCP, src, dst);
  });
}

function udpIn(
  src: Address,
  dst: Address,
  sport: number,
  dport: number,
  body: (view: DataView, at: number) => number,
): Uint8Array<ArrayBuffer> {
  return ip(src, dst, ipv4.IPPROTO_UDP, (view, at) => {
    const end = body(view, at + udp.UDP_HEADER_SIZE);
    udp.writeUdpHeader(view, at, sport, dport, end - at, 0);
    return seal(view, at, end, udp.UDP_CHECKSUM, ipv4.IPPROTO_UDP, src, dst);
  });
}

function icmp4(body: (view: DataView, at: number) => number): Uint8Array<ArrayBuffer> {
  return ip(SRC4, DST4, ipv4.IPPROTO_ICMP, (view, at) => {
    const end = body(view, at);
    icmp.finishIcmp(view, at, end - at);
    return end;
  });
}

function icmp6(
  src: Address,
  dst: Address,
  body: (view: DataView, at: number) => number,
): Uint8Array<ArrayBuffer> {
  return ip(src, dst, ipv6.IPPROTO_ICMPV6, (view, at) => {
    const end = body(view, at);
    icmpv6.finishIcmpv6(view, at, end - at, src, 0, dst, 0);
    return end;
  });
}

function arpReply(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(L3 + ARP_SIZE).fill(0xee);
  const view = new DataView(bytes.buffer);
  eth.writeEthernet(view, 0, DST_MAC, SRC_MAC, eth.ETH_P_ARP);
  writeArp(view, L3, ARP_REPLY, SRC_MAC, SRC4, 0, DST_MAC, DST4, 0);
  return bytes;
}

export const SEARCH = ["corp.example.com", "example.com", "eng.Example.com."];

function routerAdvert(): Uint8Array<ArrayBuffer> {
  return icmp6(LL6, ALL_NODES, (view, off) => {
    const limit = view.byteLength;
    const prefix = parseAddress("2001:db8:1:2::")!;
    let at = ndp.writeRouterAdvert(view, off, 64, ndp.NDP_RA_OTHER, 70000);
    at = ndp.putPrefix(
      view,
      at,
      limit,
      prefix,
      0,
      64,
      ndp.NDP_PREFIX_ON_LINK | ndp.NDP_PREFIX_AUTONOMOUS,
      ndp.NDP_INFINITY,
      7200,
    );
    at = ndp.putMtu(view, at, limit, 65520);
    at = ndp.putRdnss(view, at, limit, 3600, [SRC6, DST6]);
    at = ndp.putDnssl(view, at, limit, 3600, encodeSearchList(SEARCH)!);
    return ndp.putLinkLayer(view, at, limit, ndp.NDP_OPT_SOURCE_MAC, SRC_MAC);
  });
}

/** A request whose copied fields can be told from zeros. */
function dhcpRequest(): DataView {
  const view = new DataView(new ArrayBuffer(dhcp.DHCP_OPTIONS));
  view.setUint32(dhcp.DHCP_XID, 0xdeadbeef);
  view.setUint16(dhcp.DHCP_FLAGS, dhcp.DHCP_FLAG_BROADCAST);
  eth.storeMac(view, dhcp.DHCP_CHADDR, DST_MAC);
  return view;
}

/** More than 255 bytes of search list, so that the option is split (RFC 3396). */
export const LONG_SEARCH = Array.from({ length: 9 }, (_, i) => `${"x".repeat(40)}.n${i}.example`);

/** Option 121 by hand (RFC 3442): 192.0.2.1/32 on the link; 10.128.0.0/9 and all the rest via it. */
const GATEWAY = [192, 0, 2, 1];
const ROUTES = Uint8Array.from(
  [[32, ...GATEWAY, 0, 0, 0, 0], [9, 10, 128, ...GATEWAY], [0, ...GATEWAY]].flat(),
);

function dhcpOffer(search: Uint8Array): Uint8Array<ArrayBuffer> {
  return udpIn(SRC4, DST4, dhcp.DHCP_SERVER_PORT, dhcp.DHCP_CLIENT_PORT, (view, at) => {
    dhcp.writeDhcpReply(view, at, dhcpRequest(), 0, DST4, SRC4);
    const writer = new dhcp.DhcpWriter();
    writer.reset(view, at + dhcp.DHCP_OPTIONS, at + 1200);
    writer.u8(dhcp.DHCP_OPT_TYPE, dhcp.DHCP_OFFER);
    writer.u32(dhcp.DHCP_OPT_MASK, 0xffffff00);
    writer.addresses(dhcp.DHCP_OPT_ROUTER, [SRC4]);
    writer.addresses(dhcp.DHCP_OPT_DNS, [SRC4, DST4]);
    writer.addresses(dhcp.DHCP_OPT_SERVER_ID, [SRC4]);
    writer.bytes(dhcp.DHCP_OPT_HOSTNAME, new TextEncoder().encode("guest"));
    writer.u16(dhcp.DHCP_OPT_MTU, 1500);
    writer.u32(dhcp.DHCP_OPT_LEASE, dhcp.DHCP_INFINITY);
    writer.empty(dhcp.DHCP_OPT_RAPID_COMMIT);
    writer.bytes(dhcp.DHCP_OPT_SEARCH, search);
    writer.bytes(dhcp.DHCP_OPT_ROUTES, ROUTES);
    return at + writer.finish(at);
  });
}

/** A DUID-LLT by hand (RFC 8415 §11.2): type, hardware type, 1_700_000_000 in seconds from 2000. */
const DUID_LLT = Uint8Array.of(0, 1, 0, 1, 0x2c, 0xe6, 0xad, 0x80, ...SRC_MAC);

function dhcpv6Reply(): Uint8Array<ArrayBuffer> {
  return udpIn(LL6, DST6, dhcpv6.DHCPV6_SERVER_PORT, dhcpv6.DHCPV6_CLIENT_PORT, (view, at) => {
    const writer = new dhcpv6.Dhcpv6Writer();
    const clientId = new DataView(Uint8Array.of(0, 3, 0, 1, ...DST_MAC).buffer);
    writer.reset(view, at, at + 1200, dhcpv6.DHCPV6_REPLY, 0xabcdef);
    writer.copy(dhcpv6.DHCPV6_OPT_CLIENT_ID, clientId, 0, clientId.byteLength);
    writer.bytes(dhcpv6.DHCPV6_OPT_SERVER_ID, DUID_LLT);
    const ia = writer.openIaNa(0x12345678, 100, 200);
    writer.iaAddr(DST6, 0, 3600, dhcpv6.DHCPV6_INFINITY);
    writer.status(dhcpv6.DHCPV6_STATUS_NOT_ON_LINK, new TextEncoder().encode("no"));
    writer.close(ia);
    writer.addresses(dhcpv6.DHCPV6_OPT_DNS, [SRC6, DST6]);
    writer.bytes(dhcpv6.DHCPV6_OPT_SEARCH, encodeSearchList(SEARCH)!);
    writer.empty(dhcpv6.DHCPV6_OPT_RAPID_COMMIT);
    writer.fqdn(dhcpv6.DHCPV6_FQDN_S, encodeDomainName("guest.example.com")!);
    return at + writer.finish();
  });
}

/** A small UDP packet to quote in errors, from its IP header on. */
function quoted(src: Address, dst: Address): Uint8Array {
  return udpIn(dst, src, 6000, 9, (view, at) => put(view, at, PAYLOAD)).slice(L3);
}

/** All frames, by name. */
export const FRAMES = {
  arp: arpReply(),
  tcp4: tcpSyn(SRC4, DST4),
  tcp6: tcpSyn(SRC6, DST6),
  udp4: udpIn(SRC4, DST4, 6001, 65535, (view, at) => put(view, at, PAYLOAD)),
  udp6: udpIn(SRC6, DST6, 6001, 65535, (view, at) => put(view, at, PAYLOAD)),
  echo4: icmp4((view, at) => {
    icmp.writeEcho(view, at, icmp.ICMP_ECHO_REPLY, 0xfffe, 3);
    return put(view, at + icmp.ICMP_HEADER_SIZE, PAYLOAD);
  }),
  echo6: icmp6(SRC6, DST6, (view, at) => {
    icmp.writeEcho(view, at, icmpv6.ICMPV6_ECHO_REPLY, 0xfffe, 3);
    return put(view, at + icmp.ICMP_HEADER_SIZE, PAYLOAD);
  }),
  error4: icmp4((view, at) => {
    const code = icmp.ICMP_FRAGMENTATION_NEEDED;
    icmp.writeIcmpError(view, at, icmp.ICMP_UNREACHABLE, code, 1280);
    return put(view, at + icmp.ICMP_HEADER_SIZE, quoted(SRC4, DST4));
  }),
  error6: icmp6(SRC6, DST6, (view, at) => {
    icmp.writeIcmpError(view, at, icmpv6.ICMPV6_PACKET_TOO_BIG, 0, 1400);
    return put(view, at + icmp.ICMP_HEADER_SIZE, quoted(SRC6, DST6));
  }),
  neighborAdvert: icmp6(SRC6, DST6, (view, off) => {
    const flags = ndp.NDP_NA_ROUTER | ndp.NDP_NA_SOLICITED | ndp.NDP_NA_OVERRIDE;
    const at = ndp.writeNeighborAdvert(view, off, flags, SRC6, 0);
    return ndp.putLinkLayer(view, at, view.byteLength, ndp.NDP_OPT_TARGET_MAC, SRC_MAC);
  }),
  routerAdvert: routerAdvert(),
  dhcp: dhcpOffer(encodeSearchList(SEARCH, { compress: true })!),
  dhcpLong: dhcpOffer(encodeSearchList(LONG_SEARCH)!),
  dhcpv6: dhcpv6Reply(),
};
