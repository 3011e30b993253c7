// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A {@linkcode Context} with documentation addresses (RFC 5737, RFC 3849) over a
 * {@linkcode FakeLink}; every part can be replaced.
 *
 * @module
 */
import type { Context, Family, Features } from "../../lib/context.ts";
import type { FlowTable } from "../../lib/flow/table.ts";
import { Epoll } from "../../lib/sys/epoll.ts";
import { type Address, parseAddress } from "../../lib/wire/address.ts";
import { FakeLink } from "./fake_link.ts";

/** Numeric address; the text must be right. */
export function address(text: string): Address {
  const words = parseAddress(text);
  if (!words) throw new Error(`Not an address: ${text}`);
  return words;
}

/** MAC address from colon-separated hexadecimal text. */
export function mac(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text.split(":"), (byte) => parseInt(byte, 16));
}

/** Our MAC address on the fake tap. */
export const OUR_MAC = "9a:55:9a:55:9a:55";
/** The guest's MAC address on the fake tap. */
export const GUEST_MAC = "02:00:5e:10:00:01";

/** IPv4: guest 192.0.2.2/24, gateway (and our address) 192.0.2.1. */
export function fakeFamily4(options: Partial<Family> = {}): Family {
  const addr = options.addr ?? address("192.0.2.2");
  const ourAddr = options.ourAddr ?? options.gateway ?? address("192.0.2.1");
  const addrSeen = options.addrSeen ?? addr.slice();
  return {
    ifindex: 2,
    addr,
    prefixLength: 24,
    gateway: address("192.0.2.1"),
    ourAddr,
    addrSeen,
    linkLocalSeen: addrSeen,
    ourLinkLocal: ourAddr,
    mapHostLoopback: address("192.0.2.1"),
    mapGuestAddr: null,
    dns: [],
    dnsForward: null,
    dnsHost: null,
    outboundAddr: null,
    outboundInterface: null,
    ...options,
  };
}

/** IPv6: guest 2001:db8::2/64, gateway 2001:db8::1, our link-local address fe80::1. */
export function fakeFamily6(options: Partial<Family> = {}): Family {
  const addr = options.addr ?? address("2001:db8::2");
  return {
    ifindex: 2,
    addr,
    prefixLength: 64,
    gateway: address("2001:db8::1"),
    ourAddr: address("2001:db8::1"),
    addrSeen: addr.slice(),
    linkLocalSeen: address("::"),
    ourLinkLocal: address("fe80::1"),
    mapHostLoopback: address("2001:db8::1"),
    mapGuestAddr: null,
    dns: [],
    dnsForward: null,
    dnsHost: null,
    outboundAddr: null,
    outboundInterface: null,
    ...options,
  };
}

/** A context whose link is a {@linkcode FakeLink}. */
export interface FakeContext extends Context {
  readonly link: FakeLink;
}

/** What {@linkcode fakeContext} may be told; the rest has defaults. */
export type FakeContextOptions = Partial<Omit<FakeContext, "features">> & {
  features?: Partial<Features>;
};

/**
 * Builds a context. IPv4 and IPv6 are on, MTU is 1500 and not announced, no resolvers, no search
 * list. `table` is what the caller passes: give it one when the code under test uses flows. The
 * epoll instance is made when it is first asked for; close it then.
 */
export function fakeContext(options: FakeContextOptions = {}): FakeContext {
  let epoll: Epoll | null = options.epoll ?? null;
  return {
    features: {
      tcp: true,
      udp: true,
      icmp: true,
      dhcp: true,
      dhcpv6: true,
      ndp: true,
      ra: true,
      spliceInbound: false,
      hostLoToNsLo: false,
      ...options.features,
    },
    ip4: options.ip4 === undefined ? fakeFamily4() : options.ip4,
    ip6: options.ip6 === undefined ? fakeFamily6() : options.ip6,
    mtu: options.mtu ?? 1500,
    announceMtu: options.announceMtu ?? false,
    search: options.search ?? [],
    hostname: options.hostname ?? "",
    fqdn: options.fqdn ?? "",
    ourMac: options.ourMac ?? mac(OUR_MAC),
    guestMac: options.guestMac ?? mac(GUEST_MAC),
    link: options.link ?? new FakeLink(),
    guest: options.guest ?? null,
    table: options.table ?? undefined as unknown as FlowTable,
    get epoll() {
      return epoll ??= new Epoll();
    },
    policy: options.policy ?? null,
    nowMs: options.nowMs ?? 1000,
    closing: options.closing ?? 0,
  };
}
