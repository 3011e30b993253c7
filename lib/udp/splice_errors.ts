// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Telling the sender of a spliced datagram that it did not arrive.
 *
 * Theory of operation: a program learns from its kernel that nobody listens (ECONNREFUSED), and the
 * kernel learns it from an ICMP message that quotes the datagram. The socket that passed the datagram
 * on has learnt it in the other namespace; so the message is made once more, in the terms of the
 * sender's side, and sent to the sender's own address through a raw socket (raw(7)) there. In the guest's
 * namespace we may have one as its owner; on the host only with CAP_NET_RAW, and without it senders
 * there have to rely on their timeouts. The raw sockets are of IPPROTO_RAW: they send whole packets and
 * receive nothing. Only "unreachable" is passed on: other errors speak of the path, and there is none
 * between two local sockets. Their rate is limited, as the kernel's own is.
 *
 * @module
 */
import { Pif, SIDE_EADDR, SIDE_OADDR, SIDE_PIF } from "../flow/side.ts";
import { unreachableCode } from "../icmp/error.ts";
import { E } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import {
  AF_INET,
  AF_INET6,
  newSocket,
  setOption,
  SO_RCVBUF,
  SOCK_RAW,
  sockaddr,
  sockaddrView,
  SOL_SOCKET,
  writeSockaddr,
} from "../sys/socket.ts";
import { isLoopback, isV4, sameAddress } from "../wire/address.ts";
import {
  finishIcmp,
  ICMP_FRAGMENTATION_NEEDED,
  ICMP_HEADER_SIZE,
  ICMP_UNREACHABLE,
  writeIcmpError,
} from "../wire/icmp.ts";
import { finishIcmpv6, ICMPV6_UNREACHABLE } from "../wire/icmpv6.ts";
import { IPPROTO_ICMP, IPV4_HEADER_SIZE, writeIpv4 } from "../wire/ipv4.ts";
import { IPPROTO_ICMPV6, IPV6_HEADER_SIZE, writeIpv6 } from "../wire/ipv6.ts";
import { writeQuote } from "./quote.ts";
import { Raw } from "./splice_state.ts";
import type { UdpState } from "./state.ts";

const IPPROTO_RAW = 255; // linux/in.h; the packet's own header tells the protocol, raw(7)
const TTL = 64; // RFC 1700, default TTL

/**
 * Passes on an error that a socket of a spliced flow has received.
 *
 * @param side where the words of the side that sent the datagram start in `UdpState.sides`
 * @param bytes how much of its payload lies at `UdpState.errorPayload`
 */
export function relayToSender(
  state: UdpState,
  side: number,
  type: number,
  code: number,
  bytes: number,
): void {
  const v4 = isV4(state.sides, side + SIDE_EADDR);
  const gone = v4
    ? type === ICMP_UNREACHABLE && code !== ICMP_FRAGMENTATION_NEEDED
    : type === ICMPV6_UNREACHABLE;
  if (gone) tell(state, state.sides, side, code, bytes);
}

/**
 * Tells a sender that its datagram could not be passed on, where ICMP has a code for it.
 *
 * @param words the sender's side: `words[at…]`
 * @param error positive errno of the call that failed: ECONNREFUSED, ENETUNREACH …
 */
export function unreachable(
  state: UdpState,
  words: Int32Array,
  at: number,
  error: number,
): void {
  const code = unreachableCode(isV4(words, at + SIDE_EADDR), error);
  if (code >= 0) tell(state, words, at, code, 0);
}

/** Sends "unreachable" to the endpoint of a side, about a datagram it has sent to our address there. */
function tell(
  state: UdpState,
  words: Int32Array,
  at: number,
  code: number,
  bytes: number,
): void {
  const { ctx, splice } = state;
  // never out into a network: what we say there is for the network to say
  const local = isLoopback(words, at + SIDE_EADDR) ||
    sameAddress(words, at + SIDE_EADDR, words, at + SIDE_OADDR);
  if (!local || !splice.errors.allow(ctx.nowMs)) return;
  const v4 = isV4(words, at + SIDE_EADDR);
  const fd = rawSocket(state, words[at + SIDE_PIF], v4);
  if (fd < 0) return;
  const length = build(state, words, at, v4, code, bytes);
  const nameBytes = writeSockaddr(sockaddrView, 0, words, at + SIDE_EADDR, 0);
  libc.sendto(fd, splice.errorView, length, 0, sockaddr, nameBytes);
}

/** The raw socket of a family on one side, made at first need. @returns negative: there is none */
function rawSocket(state: UdpState, pif: number, v4: boolean): number {
  const { ctx, splice } = state;
  const which = (pif === Pif.SPLICE ? 2 : 0) + (v4 ? 0 : 1);
  const known = splice.raw[which];
  if (known !== Raw.UNKNOWN) return known;
  const family = v4 ? AF_INET : AF_INET6;
  const fd = pif === Pif.SPLICE
    ? ctx.guest?.take(family, SOCK_RAW, IPPROTO_RAW, ctx.nowMs) ?? -E.EPERM
    : newSocket(family, SOCK_RAW, IPPROTO_RAW);
  if (fd >= 0) setOption(fd, SOL_SOCKET, SO_RCVBUF, 0); // nobody reads it
  const passing = fd === -E.EMFILE || fd === -E.ENFILE || fd === -E.ENOBUFS || fd === -E.ENOMEM;
  return splice.raw[which] = fd >= 0 ? fd : passing ? Raw.UNKNOWN : Raw.NONE;
}

/** Writes the packet. @returns its bytes */
function build(
  state: UdpState,
  words: Int32Array,
  at: number,
  v4: boolean,
  code: number,
  bytes: number,
): number {
  const { arena, error } = state.splice, view = arena.dv;
  const peer = at + SIDE_EADDR, our = at + SIDE_OADDR;
  const ip = v4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE, icmp = error + ip;
  const quote = icmp + ICMP_HEADER_SIZE;
  const length = ICMP_HEADER_SIZE + writeQuote(state, arena, quote, words, at, TTL, bytes);
  if (v4) {
    writeIpv4(view, error, ip + length, IPPROTO_ICMP, TTL, 0, true, words, our, words, peer);
    writeIcmpError(view, icmp, ICMP_UNREACHABLE, code, 0);
    finishIcmp(view, icmp, length);
  } else {
    writeIpv6(view, error, length, IPPROTO_ICMPV6, TTL, 0, words, our, words, peer);
    writeIcmpError(view, icmp, ICMPV6_UNREACHABLE, code, 0);
    finishIcmpv6(view, icmp, length, words, our, words, peer);
  }
  return ip + length;
}
