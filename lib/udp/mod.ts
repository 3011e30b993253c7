// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * UDP between the guest and sockets of the host.
 *
 * Theory of operation
 *
 * UDP has no connections, but its conversations are kept as *flows* all the same, so that an answer
 * finds its way back through the same address mapping. One flow is one pair of addresses and ports on
 * the tap. It ends after {@linkcode ONE_WAY_TIMEOUT} seconds without traffic, or
 * {@linkcode TWO_WAY_TIMEOUT} once both ends have sent something; the flow table's timer looks.
 *
 * - guest → host (`from_tap.ts`): the flow is looked up by the tap side; a new one (`flow.ts`) gets a
 *   connected socket, so that the kernel sorts answers to flows, and reports errors per flow.
 *   Payloads go from the received frames straight to sendmmsg(2), super-frames with UDP_SEGMENT.
 * - host → guest (`from_socket.ts`, `to_tap.ts`): recvmmsg(2) puts payloads where frames are built;
 *   with UDP_GRO several datagrams become one super-frame.
 * - forwarded ports (`listeners.ts`, `listen.ts`, `inbound.ts`): a listener's datagrams are sorted to
 *   flows by us, and answers leave through the listener, from the address that was addressed.
 * - local traffic between forwarded ports and sockets of the other side (`splice.ts`,
 *   `splice_flow.ts`) goes socket to socket, never through the tap.
 * - errors (`errors.ts`, `splice_errors.ts`): ICMP errors come from sockets' error queues and go to
 *   the sender as ICMP.
 *
 * Limits: multicast and broadcast are not forwarded. Fragments from the guest are dropped, so its
 * datagrams cannot be larger than its MTU (the default, 65520, leaves it no reason to make any).
 * Fragments from the network arrive reassembled; what is larger than the guest's MTU is sent as one
 * oversized frame, which a Linux guest accepts. ICMP errors from the guest are not passed on.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { FlowType } from "../flow/types.ts";
import { IP_TTL, IPV6_UNICAST_HOPS } from "../sys/ip_options.ts";
import { libc } from "../sys/libc.ts";
import {
  AF_INET,
  AF_INET6,
  getOption,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  newSocket,
  SOCK_DGRAM,
} from "../sys/socket.ts";
import { expire } from "./flow.ts";
import { spliceShare } from "./splice_state.ts";
import { udpState } from "./state.ts";

export { ONE_WAY_TIMEOUT, RETIRED_TIMEOUT, TWO_WAY_TIMEOUT } from "./flow.ts";
export { udpFlush, udpFromTap } from "./from_tap.ts";
export { udpEvent } from "./from_socket.ts";
export { udpListenEvent } from "./listen.ts";
export { udpKeptPorts, udpListen, udpUnlisten } from "./listeners.ts";

/** Says how many descriptors are left for flows of all kinds, once the listeners have theirs. */
export function udpDescriptors(ctx: Context, left: number): void {
  udpState(ctx).splice.maxFlows = spliceShare(left);
}

const USUAL_TTL = 64; // RFC 1700, default TTL

/** The value of a socket option that the host sets by default; `USUAL_TTL` when it has none. */
function hostDefault(family: number, level: number, name: number): number {
  const fd = newSocket(family, SOCK_DGRAM, IPPROTO_UDP);
  if (fd < 0) return USUAL_TTL;
  const value = getOption(fd, level, name);
  libc.close(fd);
  return value > 0 ? value : USUAL_TTL;
}

/** Prepares UDP for this instance. Call it once, before the loop runs. */
export function udpInit(ctx: Context): void {
  const state = udpState(ctx);
  state.defaultTtl4 = hostDefault(AF_INET, IPPROTO_IP, IP_TTL);
  state.defaultTtl6 = hostDefault(AF_INET6, IPPROTO_IPV6, IPV6_UNICAST_HOPS);
  ctx.table.on(FlowType.UDP, { timer: (i, nowMs) => expire(state, i, nowMs) });
}
