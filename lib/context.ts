// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What every part of a running instance shares: addresses, link, flow table, epoll instance, clock.
 *
 * `main.ts` builds one {@linkcode Context} and passes it first to everything else.
 *
 * @module
 */
import type { FlowTable } from "./flow/table.ts";
import type { Policy } from "./forward/policy.ts";
import type { Link } from "./link/link.ts";
import type { Epoll } from "./sys/epoll.ts";
import type { GuestSockets } from "./sys/guest_sockets.ts";
import type { Address } from "./wire/address.ts";

/** Types of epoll references; the data word's meaning stands beside each. */
export const EventType = {
  /** a descriptor of the link; which one, as the link has it */
  LINK: 1,
  /** a TCP flow's socket; flow index */
  TCP: 2,
  /** a TCP listener; index of the listener */
  TCP_LISTEN: 3,
  /** a UDP flow's socket; flow index */
  UDP: 4,
  /** a UDP listener; index of the listener */
  UDP_LISTEN: 5,
  /** a ping flow's socket; flow index */
  PING: 6,
  /** the signal pipe; no data */
  SIGNAL: 7,
  /** pidfd of the command; no data */
  CHILD: 8,
  /** a raw ICMP socket shared by ping flows; 4 or 6 */
  PING_RAW: 9,
  /** a spliced TCP flow's socket; 2 * flow index + side */
  TCP_SPLICE: 10,
  /** the socket of a controller; no data */
  CONTROL: 11,
} as const;

/** One address family as configured; addresses are v4-mapped for IPv4. */
export interface Family {
  /** Interface of the host that addresses and routes come from; 0 in local mode. */
  ifindex: number;
  /** Address assigned to the guest. */
  addr: Address;
  /** Prefix length of {@linkcode addr}: 0–32 or 0–128. */
  prefixLength: number;
  /** Default gateway as the guest knows it; null: none. */
  gateway: Address | null;
  /** Our own address on the tap, source of what has no address the guest could answer to. */
  ourAddr: Address;
  /** Source address last seen from the guest; begins as {@linkcode addr}. */
  addrSeen: Address;
  /** IPv6: link-local address last seen from the guest (begins as ::); IPv4: same as addrSeen. */
  linkLocalSeen: Address;
  /** IPv6: our link-local address (source of RA, DHCPv6, NDP); IPv4: same as ourAddr. */
  ourLinkLocal: Address;
  /** `--map-host-loopback`: guest's name for the host's loopback. */
  mapHostLoopback: Address | null;
  /** `--map-guest-addr`: guest's name for the host's own address. */
  mapGuestAddr: Address | null;
  /** Resolvers to hand to the guest. */
  dns: Address[];
  /** `--dns-forward`: guest's name for the resolver, port 53 only. */
  dnsForward: Address | null;
  /** `--dns-host`: where such queries go. */
  dnsHost: Address | null;
  /** `-o`: source address of outbound sockets. */
  outboundAddr: Address | null;
  /** `--outbound-if4/6`: NUL-terminated name of the interface to bind outbound sockets to. */
  outboundInterface: Uint8Array<ArrayBuffer> | null;
}

/** Which protocols are served. */
export interface Features {
  tcp: boolean;
  udp: boolean;
  icmp: boolean;
  dhcp: boolean;
  dhcpv6: boolean;
  ndp: boolean;
  ra: boolean;
  /** Local traffic of the host to the guest goes socket to socket (not `--no-splice`). */
  spliceInbound: boolean;
  /** It comes to the guest's loopback (`--host-lo-to-ns-lo`), not to its own address. */
  hostLoToNsLo: boolean;
}

/** One running instance. */
export interface Context {
  readonly features: Features;
  /** IPv4 as configured; null when disabled. */
  readonly ip4: Family | null;
  /** IPv6 as configured; null when disabled. */
  readonly ip6: Family | null;
  /** MTU of the guest's interface: 1280–65520. */
  readonly mtu: number;
  /** Whether the MTU is announced by DHCP and RA (it was given with -m, or by default). */
  readonly announceMtu: boolean;
  /** Domain search list handed to the guest. */
  readonly search: readonly string[];
  /** Host name and fully qualified domain name for DHCP; empty: none. */
  readonly hostname: string;
  readonly fqdn: string;
  /** Our MAC address on the tap (6 bytes). */
  readonly ourMac: Uint8Array<ArrayBuffer>;
  /** The guest's MAC address: known from the tap, or learnt from its frames. */
  readonly guestMac: Uint8Array<ArrayBuffer>;
  readonly link: Link;
  /** Sockets in the guest's namespace; null: the guest is a virtual machine. */
  readonly guest: GuestSockets | null;
  readonly table: FlowTable;
  readonly epoll: Epoll;
  /** Which flows the guest may start; null: all. */
  readonly policy: Policy | null;
  /** CLOCK_MONOTONIC in milliseconds (a float), taken once per turn of the loop. */
  nowMs: number;
  /** Flows that closed since the last scan of the table; the loop uses it to schedule one. */
  closing: number;
}
