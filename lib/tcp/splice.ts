// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP connections between host and namespace that are local on both sides: socket to socket, never
 * through the tap.
 *
 * Theory of operation: a connection accepted on a listener gets a socket of the other namespace, which
 * connects to the target. Over loopback the other kernel has answered before connect(2) returns, so
 * asking once more tells the outcome at once; otherwise an event does. Then data is moved both ways
 * (`splice_move.ts`) until both ends have ended (`splice_close.ts`). Each connection is two descriptors,
 * one entry of the flow table (`splice_words.ts`) and nothing else; pipes are borrowed from a pool
 * while data is under way.
 *
 * Both sockets are watched edge-triggered, once and for all: an event says which side it is about, and
 * moves what comes from there, and what waits to go there. Who goes away while connect(2) is under way
 * is noticed; how long that may take is the kernel's decision.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { type Context, EventType } from "../context.ts";
import {
  type FlowSide,
  INI,
  Pif,
  SIDE_EADDR,
  SIDE_OADDR,
  SIDE_PIF,
  SIDE_WORDS,
  TGT,
} from "../flow/side.ts";
import { Phase } from "../flow/snapshot.ts";
import { FlowType } from "../flow/types.ts";
import { familyFor } from "../forward/nat.ts";
import { outboundSocket, scopeOf } from "../forward/outbound.ts";
import { admitted } from "../forward/policy.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import {
  closeWithReset,
  connectSocket,
  familyOf,
  IPPROTO_TCP,
  setOption,
  SO_KEEPALIVE,
  SO_OOBINLINE,
  SOCK_STREAM,
  socketAddress,
  socketError,
  SOL_SOCKET,
  TCP_CONGESTION,
  TCP_NODELAY,
} from "../sys/socket.ts";
import { isLoopback, isV4, LOOPBACK4, LOOPBACK6, sameAddress } from "../wire/address.ts";
import { OUT_OF_DESCRIPTORS } from "./setup.ts";
import { closeSplice } from "./splice_close.ts";
import { fail, move } from "./splice_move.ts";
import type { SpliceState } from "./splice_state.ts";
import { SpliceBit, SpliceWord } from "./splice_words.ts";
import { base } from "./words.ts";

const WATCH = EPOLL.IN | EPOLL.PRI | EPOLL.OUT | EPOLL.RDHUP | EPOLL.ET;
const ENDED = EPOLL.RDHUP | EPOLL.HUP | EPOLL.ERR;

/** Options of every spliced socket; accepted ones have them from their listener. */
export function prepareSpliced(fd: number): void {
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1); // who sends has decided when, and so do we
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1); // a peer that is gone is noticed
  setOption(fd, SOL_SOCKET, SO_OOBINLINE, 1); // else the kernel would leave a byte out
}

/** Congestion control that every kernel has, and every user may choose (tcp(7)). */
const RENO = new TextEncoder().encode("reno");

/**
 * Takes pacing away from a socket whose other end is on this machine: bbr waits by timers there, and
 * cubic leaves slow start too early, each for half the speed.
 */
function unpace(fd: number): void {
  libc.setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, RENO, RENO.length);
}

/** Whether the target is the guest's own address, which no rule has named. */
function isGuest(ctx: Context, { pif, words }: FlowSide): boolean {
  const family = familyFor(ctx, words, SIDE_EADDR);
  return pif === Pif.SPLICE && family !== null &&
    sameAddress(words, SIDE_EADDR, family.addrSeen, 0);
}

/** Warns, at most once a second, that a connection could not be made for lack of something. */
function warn(state: SpliceState, what: string): void {
  if (state.warnings.allow(state.ctx.nowMs)) getLogger().warn(what);
}

/**
 * Takes over an accepted connection and connects to the target; resets the client when that fails.
 *
 * @param fd the accepted socket, owned by the flow from now on
 * @param ini side of the client
 * @param tgt side of the target: interface SPLICE or HOST tells where the socket is made
 */
export function spliceAccepted(
  state: SpliceState,
  fd: number,
  ini: FlowSide,
  tgt: FlowSide,
): void {
  const { ctx } = state;
  if (isOurOwn(state, ini)) return closeWithReset(fd);
  const other = targetSocket(state, tgt);
  if (other < 0) {
    const limit = other === -E.EMFILE || other === -E.ENFILE;
    warn(state, limit ? OUT_OF_DESCRIPTORS : `Connection refused: no socket: ${errnoName(-other)}`);
    return closeWithReset(fd);
  }
  prepareSpliced(other);
  unpace(fd); // only local clients get here
  if (isLoopback(tgt.words, SIDE_EADDR) || isGuest(ctx, tgt)) unpace(other);
  const result = connectTarget(state, other, tgt);
  const port = socketAddress(other, tgt.words, SIDE_OADDR);
  if (result < 0 && result !== -E.EALREADY || port < 0) {
    libc.close(other);
    return closeWithReset(fd);
  }
  tgt.oport = port;
  const i = ctx.table.alloc();
  if (i < 0) {
    warn(state, `Connection refused: all ${ctx.table.capacity} flows are in use`);
    libc.close(other);
    return closeWithReset(fd);
  }
  ctx.table.initiate(i, ini);
  ctx.table.target(i, tgt);
  ctx.table.setType(i, FlowType.TCP_SPLICE, INI);
  if (result >= 0) state.phases[i] = Phase.OPEN;
  ctx.table.hashInsert(i, TGT);
  admitted(ctx, i, ini);
  ctx.table.activate(i);
  const d = base(i);
  state.data[d + SpliceWord.FD + INI] = fd;
  state.data[d + SpliceWord.FD + TGT] = other;
  state.data[d + SpliceWord.BITS] = result < 0 ? SpliceBit.CONNECTING : 0;
  watch(state, i);
}

/**
 * Whether a client is one of our own sockets: ports that are forwarded both ways, and to loopback, would
 * otherwise make a connection go round and round until no descriptor is left.
 */
function isOurOwn(state: SpliceState, { words, pif, eport, oport }: FlowSide): boolean {
  const { mirror, data, ctx } = state;
  mirror.pif = pif;
  mirror.setEndpoint(words, SIDE_OADDR, oport);
  mirror.setOur(words, SIDE_EADDR, eport);
  const found = ctx.table.lookup(IPPROTO_TCP, mirror);
  return found >= 0 && (data[base(found >> 1) + SpliceWord.BITS] & SpliceBit.CLOSED) === 0;
}

/** Makes the socket that connects to the target. @returns a descriptor or a negative errno */
function targetSocket(state: SpliceState, tgt: FlowSide): number {
  const { ctx } = state;
  const family = familyOf(tgt.words, SIDE_EADDR);
  if (tgt.pif !== Pif.SPLICE) return outboundSocket(ctx, tgt.words, SIDE_EADDR, SOCK_STREAM, 0);
  return ctx.guest?.take(family, SOCK_STREAM, 0, ctx.nowMs) ?? -E.EINVAL;
}

/** @returns 0 when connected, -EALREADY while that takes time, another negative errno when refused */
function connectTarget(state: SpliceState, fd: number, tgt: FlowSide): number {
  const scope = tgt.pif === Pif.HOST ? scopeOf(state.ctx, tgt.words, SIDE_EADDR) : 0;
  const result = connectTwice(fd, tgt, scope);
  const noAddress = result === -E.ENETUNREACH || result === -E.EHOSTUNREACH ||
    result === -E.EADDRNOTAVAIL;
  if (!noAddress || !isGuest(state.ctx, tgt)) return result;
  // the guest's interface has no address yet: what listens on all addresses is found by its loopback
  tgt.setEndpoint(isV4(tgt.words, SIDE_EADDR) ? LOOPBACK4 : LOOPBACK6, 0, tgt.eport);
  return connectTwice(fd, tgt, 0);
}

/** connect(2), and once more for what has come of it meanwhile. */
function connectTwice(fd: number, tgt: FlowSide, scope: number): number {
  const result = connectSocket(fd, tgt.words, SIDE_EADDR, tgt.eport, scope);
  if (result !== -E.EINPROGRESS) return result;
  return connectSocket(fd, tgt.words, SIDE_EADDR, tgt.eport, scope);
}

/** Watches both sockets; their first events tell what is there already. */
function watch(state: SpliceState, i: number): void {
  const { data, ctx: { epoll } } = state;
  for (let s = 0; s < 2; s++) {
    const fd = data[base(i) + SpliceWord.FD + s];
    const result = epoll.add(fd, WATCH, EventType.TCP_SPLICE, 2 * i + s);
    if (result >= 0) continue;
    warn(state, `Connection refused: epoll: ${errnoName(-result)}`);
    return closeSplice(state, i, true);
  }
}

/**
 * Events of one of a flow's sockets. Harmless when the flow is closed.
 *
 * @param reference `2 * flow + side`
 */
export function spliceEvent(state: SpliceState, reference: number, events: number): void {
  const i = reference >> 1, s = reference & 1;
  const { data } = state;
  const w = base(i) + SpliceWord.BITS;
  if (data[w] & SpliceBit.CLOSED) return;
  if (events & EPOLL.PRI) data[w] |= SpliceBit.URGENT << s;
  if (events & ENDED) data[w] |= SpliceBit.LAST << s;
  if (events & (EPOLL.IN | ENDED)) data[w] |= SpliceBit.READ << s;
  if (events & EPOLL.OUT) data[w] &= ~(SpliceBit.FULL << 1 - s);
  if (events & EPOLL.ERR && socketError(data[base(i) + SpliceWord.FD + s]) !== 0) {
    return fail(state, i, s);
  }
  if (data[w] & SpliceBit.CONNECTING) {
    if (s === INI || !(events & EPOLL.OUT)) return;
    data[w] &= ~SpliceBit.CONNECTING;
    state.phases[i] = Phase.OPEN;
    return moveBoth(state, i);
  }
  if (events & (EPOLL.IN | ENDED)) move(state, i, s);
  if (events & EPOLL.OUT) move(state, i, 1 - s);
}

/** Goes on with both directions of a flow. */
function moveBoth(state: SpliceState, i: number): void {
  move(state, i, INI);
  move(state, i, TGT);
}

/** Goes on with the flows that had used up their share of the last turn. */
export function spliceTurn(state: SpliceState): void {
  const { data, again, againCount } = state;
  if (againCount === 0) return;
  state.again = state.next;
  state.next = again;
  state.againCount = 0;
  for (let k = 0; k < againCount; k++) {
    data[base(again[k]) + SpliceWord.BITS] &= ~SpliceBit.AGAIN;
    moveBoth(state, again[k]);
  }
}

/** Whether flow `i` has ended and no list names it any more: its entry may be used for another. */
export function spliceMayBeFreed(state: SpliceState, i: number): boolean {
  const bits = state.data[base(i) + SpliceWord.BITS];
  return (bits & (SpliceBit.CLOSED | SpliceBit.AGAIN)) === SpliceBit.CLOSED;
}

/** Whether bytes that the guest has sent are, or may be, still on their way to the host. */
export function spliceUnsettled(state: SpliceState, i: number): boolean {
  const { data, ctx: { table } } = state;
  const bits = data[base(i) + SpliceWord.BITS];
  if (bits & SpliceBit.CLOSED) return false;
  const guest = table.sides[(2 * i + INI) * SIDE_WORDS + SIDE_PIF] === Pif.SPLICE ? INI : TGT;
  return !(bits & SpliceBit.END_SENT << guest);
}
