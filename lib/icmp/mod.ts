// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Ping: ICMP and ICMPv6 echo between the guest and the host's network, and ICMP errors to the guest.
 *
 * Theory of operation
 *
 * A series of echo requests with one identifier from the guest to one address is a flow. Requests
 * leave through a ping socket (icmp(7): `SOCK_DGRAM`, no privilege needed) bound to the same identifier
 * where that is free, one per flow, so that the kernel sorts replies. Where `net.ipv4.ping_group_range`
 * forbids ping sockets and we hold CAP_NET_RAW, one raw socket per family serves all flows: each is
 * allotted an identifier that no other flow has, and a reply counts only if it comes from the address
 * that flow pings. Sequence numbers and data are never changed. Without either, requests are dropped and
 * one warning says why.
 *
 * A flow ends {@linkcode PING_TIMEOUT} seconds after its last message. Errors that routers send about
 * requests are relayed (`errors.ts`); `error.ts` builds errors for all protocols.
 *
 * Limits: requests to groups are not forwarded, nor is anything but echo requests; requests that the
 * guest has fragmented are dropped. Pings from the host's side do not reach the guest.
 *
 * @module
 */
import { type Context, EventType } from "../context.ts";
import { FlowType } from "../flow/types.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E } from "../sys/errno.ts";
import { IPV6_RECVHOPLIMIT } from "../sys/ip_options.ts";
import { libc } from "../sys/libc.ts";
import {
  AF_INET,
  AF_INET6,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IPV6,
  newSocket,
  setOption,
  SOCK_DGRAM,
  SOCK_RAW,
} from "../sys/socket.ts";
import {
  ICMP_ECHO_REPLY,
  ICMP_PARAMETER_PROBLEM,
  ICMP_TIME_EXCEEDED,
  ICMP_UNREACHABLE,
} from "../wire/icmp.ts";
import {
  ICMPV6_ECHO_REPLY,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_PARAMETER_PROBLEM,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_UNREACHABLE,
} from "../wire/icmpv6.ts";
import { expire } from "./flow.ts";
import { IDS, type PingFamily, PingMode, type PingState, pingState } from "./state.ts";

export { sendIcmpError, sendTooBig, sendUnreachable } from "./error.ts";
export { PING_TIMEOUT } from "./flow.ts";
export { pingEvent } from "./from_socket.ts";
export { pingFromTap } from "./from_tap.ts";

const SOL_RAW = 255; // linux/socket.h
const ICMP_FILTER = 1; // linux/icmp.h: bits of the types to block
const ICMPV6_FILTER = 1; // linux/icmpv6.h, likewise
const FILTER6_WORDS = 8; // 256 types
const PASS4 = [
  ICMP_ECHO_REPLY,
  ICMP_UNREACHABLE,
  ICMP_TIME_EXCEEDED,
  ICMP_PARAMETER_PROBLEM,
];
const PASS6 = [
  ICMPV6_UNREACHABLE,
  ICMPV6_PACKET_TOO_BIG,
  ICMPV6_TIME_EXCEEDED,
  ICMPV6_PARAMETER_PROBLEM,
  ICMPV6_ECHO_REPLY,
];

/**
 * Prepares ping for this instance: finds out which sockets the host allows, and opens raw ones where
 * needed. Call it once, before the loop runs and before privileges are dropped.
 */
export function pingInit(ctx: Context): void {
  const state = pingState(ctx);
  if (ctx.features.icmp && ctx.ip4) open(state, state.v4);
  if (ctx.features.icmp && ctx.ip6) open(state, state.v6);
  const timer = (i: number, nowMs: number) => expire(state, i, nowMs);
  ctx.table.on(FlowType.PING4, { timer });
  ctx.table.on(FlowType.PING6, { timer });
}

function open(state: PingState, family: PingFamily): void {
  const v4 = family.version === 4;
  const protocol = v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6;
  const probe = newSocket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM, protocol);
  if (probe >= 0) {
    libc.close(probe);
    family.mode = PingMode.SOCKET;
    return;
  }
  if (probe !== -E.EACCES && probe !== -E.EPERM && probe !== -E.EPROTONOSUPPORT) return;
  openRaw(state, family, protocol);
}

function openRaw(state: PingState, family: PingFamily, protocol: number): void {
  const { ctx } = state, v4 = family.version === 4;
  const fd = newSocket(v4 ? AF_INET : AF_INET6, SOCK_RAW, protocol);
  if (fd < 0) return;
  block(fd, v4);
  if (!v4) setOption(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
  if (ctx.epoll.add(fd, EPOLL.IN, EventType.PING_RAW, family.version) < 0) {
    libc.close(fd);
    return;
  }
  const name = (v4 ? ctx.ip4 : ctx.ip6)!.outboundInterface;
  family.ifindex = name ? libc.if_nametoindex(name) : 0;
  family.mode = PingMode.RAW;
  family.raw = fd;
  family.ids = new Int32Array(IDS);
  family.nextId = crypto.getRandomValues(new Uint16Array(1))[0];
}

/** Has the kernel drop all types but those that may concern us. */
function block(fd: number, v4: boolean): void {
  const blocked = new Uint32Array(v4 ? 1 : FILTER6_WORDS).fill(~0);
  for (const type of v4 ? PASS4 : PASS6) blocked[type >> 5] &= ~(1 << (type & 31));
  const level = v4 ? SOL_RAW : IPPROTO_ICMPV6;
  libc.setsockopt(fd, level, v4 ? ICMP_FILTER : ICMPV6_FILTER, blocked, blocked.byteLength);
}
