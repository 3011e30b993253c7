// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How spliced UDP flows begin.
 *
 * Theory of operation: the flow gets a socket of its own on the other side, in the guest's namespace or on
 * the host, connected to the target. So the kernel sorts the answers to flows, and the target sees a
 * peer of its own for each. The target side is recorded with the source that the kernel chose, and both
 * sides are in the index: so a datagram that one of our own sockets has sent to one of our own
 * listeners (as when a port is forwarded both ways) is recognized, and its circle broken.
 *
 * Spliced flows may not take all descriptors (`SpliceState.maxFlows`): others need some, too.
 *
 * @module
 */
import { EventType } from "../context.ts";
import { INI, Pif, SIDE_EADDR, SIDE_OADDR, TGT } from "../flow/side.ts";
import { familyFor } from "../forward/nat.ts";
import { outboundSocket, scopeOf } from "../forward/outbound.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import { connectSocket, familyOf, IPPROTO_UDP, SOCK_DGRAM, socketAddress } from "../sys/socket.ts";
import { isV4, LOOPBACK4, LOOPBACK6, sameAddress } from "../wire/address.ts";
import { newFlow, start } from "./flow.ts";
import { prepareSocket } from "./socket.ts";
import { unreachable } from "./splice_errors.ts";
import { base, Flag, type UdpState, W } from "./state.ts";

/**
 * Whether a spliced flow from {@linkcode UdpState.hostKey} can be started, as far as that is known: nobody need
 * decide on one that cannot.
 */
export function mayStartSpliced(state: UdpState): boolean {
  const { ctx, splice } = state;
  if (ctx.nowMs === splice.shortAt || isOurOwn(state)) return false;
  if (splice.flows < splice.maxFlows) return true;
  short(state, `${splice.flows} of them are open`);
  return false;
}

/**
 * Starts a spliced flow from {@linkcode UdpState.hostKey} to {@linkcode UdpState.tgt}, which
 * {@linkcode mayStartSpliced}.
 *
 * @param index of the listener it came by
 * @returns index of the flow, or -1 when the datagram is to be dropped
 */
export function startSpliced(state: UdpState, index: number): number {
  const { ctx, hostKey, splice } = state;
  const fd = targetSocket(state);
  if (fd < 0) return refuse(state, -fd);
  const i = newFlow(state, hostKey);
  if (i < 0 || ctx.epoll.add(fd, EPOLL.IN | EPOLL.ERR, EventType.UDP, i) < 0) {
    libc.close(fd);
    if (i >= 0) ctx.table.allocCancel(i);
    splice.shortAt = ctx.nowMs;
    return -1;
  }
  ctx.table.hashInsert(i, INI);
  ctx.table.hashInsert(i, TGT);
  const at = base(i);
  state.data[at + W.FD] = fd;
  state.data[at + W.LISTENER] = index + 1;
  state.data[at + W.FLAGS] = Flag.SPLICED;
  state.listeners[index].flows++;
  splice.flows++;
  start(state, i, hostKey);
  return i;
}

/** Whether the peer in `hostKey` is the socket of one of our own flows. */
function isOurOwn(state: UdpState): boolean {
  const { hostKey, splice: { mirror } } = state;
  mirror.pif = hostKey.pif;
  mirror.setEndpoint(hostKey.words, SIDE_OADDR, hostKey.oport);
  mirror.setOur(hostKey.words, SIDE_EADDR, hostKey.eport);
  return state.ctx.table.lookup(IPPROTO_UDP, mirror) >= 0;
}

/** A socket connected to `tgt`, whose source is filled in. @returns descriptor or negative errno */
function targetSocket(state: UdpState): number {
  const { ctx, tgt } = state, words = tgt.words;
  const inside = tgt.pif === Pif.SPLICE;
  const fd = inside
    ? ctx.guest?.take(familyOf(words, SIDE_EADDR), SOCK_DGRAM, 0, ctx.nowMs) ?? -E.EINVAL
    : outboundSocket(ctx, words, SIDE_EADDR, SOCK_DGRAM, IPPROTO_UDP);
  if (fd < 0) return fd;
  prepareSocket(fd, isV4(words, SIDE_EADDR));
  const scope = inside ? 0 : scopeOf(ctx, words, SIDE_EADDR);
  let result = connectSocket(fd, words, SIDE_EADDR, tgt.eport, scope);
  if (result < 0 && toLoopback(state, result)) {
    result = connectSocket(fd, words, SIDE_EADDR, tgt.eport);
  }
  if (result >= 0) result = socketAddress(fd, words, SIDE_OADDR);
  if (result >= 0) {
    tgt.oport = result;
    return fd;
  }
  libc.close(fd);
  return result;
}

/** Points `tgt` to the guest's loopback when its interface has no address yet. */
function toLoopback(state: UdpState, error: number): boolean {
  const { ctx, tgt } = state;
  if (error !== -E.ENETUNREACH && error !== -E.EHOSTUNREACH && error !== -E.EADDRNOTAVAIL) {
    return false;
  }
  const family = familyFor(ctx, tgt.words, SIDE_EADDR);
  if (tgt.pif !== Pif.SPLICE || !family) return false;
  if (!sameAddress(tgt.words, SIDE_EADDR, family.addrSeen, 0)) return false;
  tgt.setEndpoint(isV4(tgt.words, SIDE_EADDR) ? LOOPBACK4 : LOOPBACK6, 0, tgt.eport);
  return true;
}

/** No socket for a datagram: the sender is told where we can say why. */
function refuse(state: UdpState, error: number): number {
  if (error === E.EMFILE || error === E.ENFILE || error === E.ENOBUFS || error === E.ENOMEM) {
    return short(state, errnoName(error));
  }
  unreachable(state, state.hostKey.words, 0, error);
  return -1;
}

/** Something has run out; the rest of this turn's datagrams need not find out, too. */
function short(state: UdpState, why: string): number {
  state.splice.shortAt = state.ctx.nowMs;
  state.warn(`Local UDP datagram dropped: no socket: ${why}`);
  return -1;
}
