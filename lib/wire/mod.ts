// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Packet formats, to read and to write: no I/O, no allocation but where it is said.
 *
 * Packets lie in a `DataView`, which may begin anywhere in a larger buffer, at an offset in bytes. Numbers are in
 * host order on this side and big-endian in the packet; an address is four 32-bit words of an array
 * (`address.ts`). What comes from somebody else is checked first: `checkX` returns where the
 * next part begins, or -1, and `parseIp` fills a `Packet`, or returns false. Nothing throws because of what is in
 * a packet. Accessors may be used on what has been checked. `writeX` writes a header; where a checksum
 * covers what follows, it says who stores it.
 *
 * @example An ARP request is answered
 * ```ts
 * import * as wire from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const ours = wire.parseMac("02:00:00:00:00:01")!, theirs = wire.parseMac("02:00:00:00:00:02")!;
 * const address = wire.parseAddress("192.0.2.1")!, asker = wire.parseAddress("192.0.2.2")!;
 * const size = wire.ETH_HEADER_SIZE + wire.ARP_SIZE;
 * const everybody = new Uint8Array(wire.MAC_SIZE).fill(0xff), nobody = new Uint8Array(wire.MAC_SIZE);
 *
 * const frame = new DataView(new ArrayBuffer(size));
 * wire.writeEthernet(frame, 0, everybody, theirs, wire.ETH_P_ARP);
 * wire.writeArp(frame, wire.ETH_HEADER_SIZE, wire.ARP_REQUEST, theirs, asker, 0, nobody, address, 0);
 *
 * const arp = wire.checkArp(frame, 0, size); // where the ARP packet begins; -1: this is none
 * assertEquals(wire.arpOperation(frame, arp), wire.ARP_REQUEST);
 * wire.writeEthernet(frame, 0, theirs, ours, wire.ETH_P_ARP);
 * wire.writeArp(frame, arp, wire.ARP_REPLY, ours, address, 0, theirs, asker, 0);
 *
 * const words = new Int32Array(4);
 * wire.arpSender(frame, arp, words, 0);
 * assertEquals(wire.formatAddress(words), "192.0.2.1");
 * ```
 *
 * @example A UDP datagram is made and read
 * ```ts
 * import * as wire from "./mod.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const mac = wire.parseMac("02:00:00:00:00:01")!;
 * const from = wire.parseAddress("192.0.2.1")!, to = wire.parseAddress("192.0.2.2")!;
 * const text = new TextEncoder().encode("hello");
 * const length = wire.UDP_HEADER_SIZE + text.length;
 * const ip = wire.ETH_HEADER_SIZE, udp = ip + wire.IPV4_HEADER_SIZE;
 * const bytes = new Uint8Array(udp + length), frame = new DataView(bytes.buffer);
 *
 * bytes.set(text, udp + wire.UDP_HEADER_SIZE);
 * wire.writeEthernet(frame, 0, mac, mac, wire.ETH_P_IP);
 * wire.writeIpv4(frame, ip, udp - ip + length, wire.IPPROTO_UDP, 64, 0, true, from, 0, to, 0);
 * wire.writeUdpHeader(frame, udp, 4000, 53, length, 0);
 * const pseudo = wire.pseudoSum(from, 0, to, 0, wire.IPPROTO_UDP, length);
 * const checksum = wire.transportChecksum(frame, udp, length, wire.IPPROTO_UDP, pseudo);
 * frame.setUint16(udp + wire.UDP_CHECKSUM, checksum);
 *
 * const packet = new wire.Packet(); // made once, filled for each frame
 * if (!wire.parseIp(frame, 0, bytes.length, packet)) throw new Error("no IP packet");
 * const payload = wire.checkUdp(frame, packet);
 * assertEquals(wire.udpDestPort(frame, packet.l4), 53);
 * assertEquals(wire.formatAddress(packet.addresses, wire.DEST), "192.0.2.2");
 * assertEquals(new TextDecoder().decode(bytes.subarray(payload, packet.end)), "hello");
 * ```
 *
 * @module
 */
export * from "./address.ts";
export * from "./arp.ts";
export * from "./checksum.ts";
export * from "./dhcp.ts";
export * from "./dhcpv6.ts";
export * from "./dns.ts";
export * from "./dns_name.ts";
export * from "./ethernet.ts";
export * from "./icmp.ts";
export * from "./icmpv6.ts";
export * from "./ipv4.ts";
export * from "./ipv6.ts";
export * from "./ndp.ts";
export * from "./packet.ts";
export * from "./pcap.ts";
export * from "./tcp.ts";
export * from "./udp.ts";
