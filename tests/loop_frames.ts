// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Frames of a guest for tests of the loop: one function for each kind that is not made elsewhere.
 *
 * @module
 */
import type { Context } from "../lib/context.ts";
import { ARP_REQUEST, ARP_SIZE, writeArp } from "../lib/wire/arp.ts";
import { ETH_HEADER_SIZE, ETH_P_ARP, writeEthernet } from "../lib/wire/ethernet.ts";
import { finishIcmp, ICMP_ECHO_REQUEST, ICMP_HEADER_SIZE, writeEcho } from "../lib/wire/icmp.ts";
import { finishIcmpv6, ICMPV6_ECHO_REQUEST } from "../lib/wire/icmpv6.ts";
import { address, GUEST_MAC, mac, OUR_MAC } from "./helpers/fake_context.ts";
import { ipFrame } from "./udp/guest.ts";

const ICMP = 1, ICMPV6 = 58;
const NEIGHBOR_SOLICIT = 135, NDP_TTL = 255; // RFC 4861 §4.3

/** What the builders of frames need to know of a context: the MAC addresses. */
export const ENDS = { ourMac: mac(OUR_MAC), guestMac: mac(GUEST_MAC) } as unknown as Context;

/** An echo request of 8 bytes, ICMP or ICMPv6. */
export function echo(source: string, dest: string): Uint8Array<ArrayBuffer> {
  const l4 = new Uint8Array(ICMP_HEADER_SIZE + 8), view = new DataView(l4.buffer);
  const v6 = source.includes(":");
  writeEcho(view, 0, v6 ? ICMPV6_ECHO_REQUEST : ICMP_ECHO_REQUEST, 7, 1);
  if (!v6) finishIcmp(view, 0, l4.length);
  else finishIcmpv6(view, 0, l4.length, address(source), 0, address(dest), 0);
  return ipFrame(ENDS, source, dest, v6 ? ICMPV6 : ICMP, l4);
}

/** An ARP request for the gateway of the fake context. */
export function arpRequest(source: string = GUEST_MAC): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(ETH_HEADER_SIZE + ARP_SIZE), view = new DataView(frame.buffer);
  const sender = mac(source), none = new Uint8Array(6);
  writeEthernet(view, 0, mac("ff:ff:ff:ff:ff:ff"), sender, ETH_P_ARP);
  const [from, to] = [address("192.0.2.2"), address("192.0.2.1")];
  writeArp(view, ETH_HEADER_SIZE, ARP_REQUEST, sender, from, 0, none, to, 0);
  return frame;
}

/** A neighbour solicitation for the gateway of the fake context. */
export function neighborSolicit(): Uint8Array<ArrayBuffer> {
  const source = "2001:db8::2", dest = "ff02::1:ff00:1";
  const l4 = new Uint8Array(32), view = new DataView(l4.buffer);
  l4.set([NEIGHBOR_SOLICIT]);
  l4.set([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, ...mac(GUEST_MAC)], 8);
  finishIcmpv6(view, 0, l4.length, address(source), 0, address(dest), 0);
  return ipFrame(ENDS, source, dest, ICMPV6, l4, { ttl: NDP_TTL });
}
