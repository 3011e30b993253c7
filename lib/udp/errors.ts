// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the network reports about datagrams sent, as ICMP errors to their senders: to the guest through
 * the tap, or, of spliced flows, by `splice_errors.ts`.
 *
 * Theory of operation: IP_RECVERR and IPV6_RECVERR (ip(7), ipv6(7)) put each ICMP error about a
 * socket's datagrams into its error queue, with type, code, the router's address and the payload that
 * the router quoted. The guest's own packet is rebuilt from the flow and that payload, and quoted in an
 * error from the router as the guest knows it: so traceroute shows the host's routers. What is only
 * local (a datagram over the path MTU) is answered where it is sent, with the packet still at hand.
 *
 * @module
 */
import { INI, SIDE_EADDR, SIDE_WORDS, TGT } from "../flow/side.ts";
import {
  isRelayed,
  nameForGuest,
  quoteOffset,
  secondWord,
  sendQuotedError,
} from "../icmp/error.ts";
import { IP_RECVERR, IPV6_RECVERR, ORIGIN_ICMP, ORIGIN_ICMP6 } from "../sys/ip_options.ts";
import { sockExtendedErr } from "../sys/layout.ts";
import { libc } from "../sys/libc.ts";
import {
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  readSockaddr,
  SOCKADDR_IN6_SIZE,
  SOCKADDR_IN_SIZE,
  socketError,
} from "../sys/socket.ts";
import { isV4 } from "../wire/address.ts";
import { letGo } from "./flow.ts";
import { ownedBy } from "./inbound.ts";
import { readAddresses } from "./peer.ts";
import { writeQuote } from "./quote.ts";
import { relayToSender } from "./splice_errors.ts";
import { base, ERROR_PAYLOAD, Flag, hostSide, tapSide, type UdpState, W } from "./state.ts";

/** Errors taken from a queue at once. */
const MAX_ERRORS = 16;
const TTL_MASK = 0xff;

/**
 * Empties the error queue of a flow's socket, or of the listener that a flow uses, and clears the
 * pending error.
 *
 * @param flow index of the flow that owns `fd` or, without a socket of its own, sends by its listener;
 *   -1 when `listener` is given
 */
export function drainErrors(state: UdpState, fd: number, flow: number, listener = -1): void {
  const { error } = state;
  if (flow >= 0 && state.data[base(flow) + W.FD] < 0) {
    listener = state.data[base(flow) + W.LISTENER] - 1;
  }
  for (let n = 0; n < MAX_ERRORS; n++) {
    error.reset(0);
    const bytes = libc.recvmsg(fd, error.views[0], MSG_ERRQUEUE | MSG_DONTWAIT);
    if (bytes < 0) break;
    const about = listener < 0 ? flow : flowOfError(state, listener);
    if (about >= 0) relay(state, about, listener < 0 ? INI : TGT, bytes);
  }
  socketError(fd);
}

/** The flow that an error from a listener's queue is about, or -1. */
function flowOfError(state: UdpState, listener: number): number {
  const { ctx, hostKey, error } = state;
  if (!readAddresses(state, error, 0, listener)) return -1;
  const found = ctx.table.lookup(IPPROTO_UDP, hostKey);
  return found < 0 ? -1 : ownedBy(state, found >> 1, listener);
}

/** Offset of the extended error just received, whose form is that of the socket's family; or -1. */
function findError(state: UdpState): number {
  const { error } = state;
  const at = error.findControl(0, IPPROTO_IP, IP_RECVERR, sockExtendedErr.size + SOCKADDR_IN_SIZE);
  if (at >= 0) return at;
  const room = sockExtendedErr.size + SOCKADDR_IN6_SIZE;
  return error.findControl(0, IPPROTO_IPV6, IPV6_RECVERR, room);
}

/**
 * Sends the error in {@linkcode UdpState.error} to whoever sent the datagram.
 *
 * @param sender the side that did, INI or TGT
 */
function relay(state: UdpState, flow: number, sender: number, bytes: number): void {
  const { arena, sides } = state;
  const from = (2 * flow + sender) * SIDE_WORDS;
  const v4 = isV4(sides, from + SIDE_EADDR);
  const at = findError(state);
  if (at < 0 || arena.u8[at + sockExtendedErr.at.ee_origin] !== (v4 ? ORIGIN_ICMP : ORIGIN_ICMP6)) {
    return;
  }
  const type = arena.u8[at + sockExtendedErr.at.ee_type],
    code = arena.u8[at + sockExtendedErr.at.ee_code];
  bytes = Math.min(bytes, ERROR_PAYLOAD);
  if (state.data[base(flow) + W.FLAGS] & Flag.SPLICED) {
    relayToSender(state, from, type, code, bytes);
    const listener = state.data[base(flow) + W.LISTENER] - 1;
    if (sender === INI && state.listeners[listener].retired) letGo(state, flow);
  } else if (isRelayed(v4, type)) {
    const info = arena.u32[(at + sockExtendedErr.at.ee_info) >> 2];
    relayToGuest(state, flow, at, type, code, secondWord(v4, type, code, info), bytes);
  }
}

/** Sends an error, whose extended form lies at `at`, to the guest. */
function relayToGuest(
  state: UdpState,
  flow: number,
  at: number,
  type: number,
  code: number,
  word: number,
  bytes: number,
): void {
  const { arena, ctx, sides, offender } = state, tap = tapSide(state, flow);
  const v4 = isV4(sides, tap + SIDE_EADDR);
  offender.fill(0);
  readSockaddr(arena.dv, at + sockExtendedErr.size, offender, 0);
  nameForGuest(ctx, offender, sides, tap, hostSide(state, flow));
  const version = v4 ? 4 : 6, ttl = state.data[base(flow) + W.PATH] & TTL_MASK;
  const to = quoteOffset(ctx, version);
  const quote = writeQuote(state, ctx.link.arena, to, sides, tap, ttl, bytes);
  const guest = tap + SIDE_EADDR;
  sendQuotedError(ctx, version, type, code, word, offender, 0, sides, guest, quote);
}
