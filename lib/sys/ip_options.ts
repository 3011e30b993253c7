// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Socket options and control messages of UDP and ping sockets: ip(7), ipv6(7), udp(7), icmp(7).
 *
 * @module
 */

/** Options of level IPPROTO_IP (linux/in.h). */
export const IP_TTL = 2;
export const IP_PKTINFO = 8;
export const IP_MTU_DISCOVER = 10;
export const IP_RECVERR = 11;
export const IP_RECVTTL = 12;
export const IP_MTU = 14;
export const IP_FREEBIND = 15;
/** Options of level IPPROTO_IPV6 (linux/in6.h). */
export const IPV6_UNICAST_HOPS = 16;
export const IPV6_MTU_DISCOVER = 23;
export const IPV6_MTU = 24;
export const IPV6_RECVERR = 25;
export const IPV6_RECVPKTINFO = 49;
export const IPV6_PKTINFO = 50;
export const IPV6_RECVHOPLIMIT = 51;
export const IPV6_HOPLIMIT = 52;
export const IPV6_FREEBIND = 78;
/** Values of the MTU_DISCOVER options, the same for both: fragment as needed, or never. */
export const PMTUDISC_WANT = 1;
export const PMTUDISC_DO = 2;
/** Options of level IPPROTO_UDP (linux/udp.h). */
export const UDP_SEGMENT = 103;
export const UDP_GRO = 104;

/** `ee_origin` (linux/errqueue.h). */
export const ORIGIN_ICMP = 2;
export const ORIGIN_ICMP6 = 3;
