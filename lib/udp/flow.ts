// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How UDP flows that the guest starts begin, and how all UDP flows end.
 *
 * Theory of operation: a flow that the guest starts through the tap gets a socket of its own, connected to
 * the mapped destination, and its initiating side is in the index. For others see `inbound.ts`.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import { EventType } from "../context.ts";
import {
  type FlowSide,
  INI,
  Pif,
  SIDE_EADDR,
  SIDE_OADDR,
  SIDE_PIF,
  SIDE_PORTS,
} from "../flow/side.ts";
import { Phase } from "../flow/snapshot.ts";
import { FlowState, FlowType } from "../flow/types.ts";
import { natFromTap } from "../forward/nat.ts";
import { outboundSocket, scopeOf } from "../forward/outbound.ts";
import { admit, admitted, Verdict } from "../forward/policy.ts";
import { deny } from "../icmp/deny.ts";
import { sendUnreachable } from "../icmp/error.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import { connectSocket, IPPROTO_UDP, SOCK_DGRAM } from "../sys/socket.ts";
import { isBroadcast, isMulticast, isUnspecified, isV4 } from "../wire/address.ts";
import type { Packet } from "../wire/packet.ts";
import { releaseListener } from "./listeners.ts";
import { markNames } from "./names.ts";
import { prepareSocket } from "./socket.ts";
import { base, Flag, touch, type UdpState, W } from "./state.ts";

/** Seconds without traffic after which a flow ends: seen in one direction only, and in both. */
export const ONE_WAY_TIMEOUT = 30; // RFC 4787 §4.3 knows NATs with 30 s for unanswered mappings
export const TWO_WAY_TIMEOUT = 120; // RFC 4787 §4.3, REQ-5: not less than two minutes
/** Likewise, once its port was given up: others wait for the port. */
export const RETIRED_TIMEOUT = 5;
const BOTH_WAYS = Flag.FROM_GUEST | Flag.TO_GUEST;

/** Whether both ends of a side are single nodes with ports. */
export function unicast(words: Int32Array): boolean {
  return (words[SIDE_PORTS] & 0xffff) !== 0 && words[SIDE_PORTS] >>> 16 !== 0 &&
    !isMulticast(words, SIDE_OADDR) && !isBroadcast(words, SIDE_OADDR) &&
    !isUnspecified(words, SIDE_OADDR) && !isMulticast(words, SIDE_EADDR) &&
    !isBroadcast(words, SIDE_EADDR) && !isUnspecified(words, SIDE_EADDR);
}

/** Whether the last datagram from the guest had the same addresses and ports. */
function sameAsLast(words: Int32Array, addresses: Int32Array, ports: number): boolean {
  for (let k = 0; k < 8; k++) if (words[k] !== addresses[k]) return false;
  return words[SIDE_PORTS] === ports;
}

/**
 * The flow of a datagram from the guest; a new one if there is none.
 *
 * @param ports source port in the upper 16 bits, destination port in the lower
 * @returns index, or -1 when the datagram is to be dropped
 */
export function flowFromTap(state: UdpState, packet: Packet, ports: number): number {
  const words = state.key.words, addresses = packet.addresses;
  if (state.lastFlow >= 0 && sameAsLast(words, addresses, ports)) return state.lastFlow;
  for (let k = 0; k < 8; k++) words[k] = addresses[k]; // source and destination, as in a side
  words[SIDE_PORTS] = ports;
  words[SIDE_PIF] = Pif.TAP;
  const found = state.ctx.table.lookup(IPPROTO_UDP, state.key);
  const flow = found >= 0 ? found >> 1 : startFromTap(state, packet);
  return state.lastFlow = flow;
}

function startFromTap(state: UdpState, packet: Packet): number {
  const { ctx, key, tgt } = state;
  if (!unicast(key.words) || !natFromTap(ctx, IPPROTO_UDP, key, tgt)) return -1;
  const verdict = admit(ctx, IPPROTO_UDP, key, tgt);
  if (verdict !== Verdict.ALLOW) {
    deny(ctx, packet, verdict);
    return -1;
  }
  const scope = scopeOf(ctx, tgt.words, SIDE_EADDR);
  const fd = connectedSocket(state, scope);
  if (fd < 0) return refuse(state, packet, -fd);
  const i = newFlow(state, key);
  if (i < 0 || ctx.epoll.add(fd, EPOLL.IN | EPOLL.ERR, EventType.UDP, i) < 0) {
    libc.close(fd);
    if (i >= 0) ctx.table.allocCancel(i);
    return -1;
  }
  ctx.table.hashInsert(i, INI);
  const at = base(i);
  state.data[at + W.FD] = fd;
  state.data[at + W.SCOPE] = scope;
  state.data[at + W.PATH] = packet.version === 4 ? state.defaultTtl4 : state.defaultTtl6;
  markNames(state, i, key);
  start(state, i, key);
  return i;
}

/** A socket connected to the target side. @returns descriptor or negative errno */
function connectedSocket(state: UdpState, scope: number): number {
  const { ctx, tgt } = state;
  const fd = outboundSocket(ctx, tgt.words, SIDE_EADDR, SOCK_DGRAM, IPPROTO_UDP);
  if (fd < 0) return fd;
  prepareSocket(fd, isV4(tgt.words, SIDE_EADDR));
  const result = connectSocket(fd, tgt.words, SIDE_EADDR, tgt.eport, scope);
  if (result >= 0) return fd;
  libc.close(fd);
  return result;
}

/** No flow for a guest's datagram: ICMP where the network says so, a warning where we are short. */
function refuse(state: UdpState, packet: Packet, error: number): number {
  if (error === E.ENETUNREACH || error === E.EHOSTUNREACH) {
    sendUnreachable(state.ctx, packet, error);
  } else if (error === E.EMFILE || error === E.ENFILE || error === E.ENOBUFS) {
    state.warn(`UDP datagram dropped: no socket: ${errnoName(error)}`);
  }
  return -1;
}

/** An entry with sides `ini` and {@linkcode UdpState.tgt}, typed, not active. @returns -1: none */
export function newFlow(state: UdpState, ini: FlowSide): number {
  const { ctx, tgt } = state;
  const i = ctx.table.alloc();
  if (i < 0) {
    state.warn(`UDP datagram dropped: all ${ctx.table.capacity} flows are in use`);
    return -1;
  }
  ctx.table.initiate(i, ini);
  ctx.table.target(i, tgt);
  ctx.table.setType(i, FlowType.UDP, INI);
  return i;
}

/** Puts flow `i` into operation. */
export function start(state: UdpState, i: number, ini: FlowSide): void {
  const { table } = state.ctx;
  touch(state, i, 0);
  admitted(state.ctx, i, ini);
  table.activate(i);
  if (getLogger().level > LogLevels.DEBUG) return;
  getLogger().debug(table.logLine(i, `${ini} => ${state.tgt}`));
}

/** Whether `i` is a UDP flow in operation: an event may be late. */
export function isOpen(state: UdpState, i: number): boolean {
  const { table } = state.ctx;
  return table.stateOf(i) === FlowState.ACTIVE && table.typeOf(i) === FlowType.UDP;
}

/** Timer of the flow table: closes flow `i` and says so when it has been idle for too long. */
export function expire(state: UdpState, i: number, nowMs: number): boolean {
  const at = base(i);
  const idle = Math.floor(nowMs / 1000) - state.data[at + W.ACTIVE_AT];
  if (idle < timeoutOf(state, at)) return false;
  closeFlow(state, i, "idle");
  return true;
}

/** Seconds that a flow whose data start at `at` may be idle. */
function timeoutOf(state: UdpState, at: number): number {
  const listener = state.data[at + W.LISTENER] - 1;
  if (listener >= 0 && state.listeners[listener].retired) return RETIRED_TIMEOUT;
  const both = (state.data[at + W.FLAGS] & BOTH_WAYS) === BOTH_WAYS;
  return both ? TWO_WAY_TIMEOUT : ONE_WAY_TIMEOUT;
}

/** Has flow `i` end by the next timer, as if it had been idle. */
export function letGo(state: UdpState, i: number): void {
  state.data[base(i) + W.ACTIVE_AT] = Math.floor(state.ctx.nowMs / 1000) - TWO_WAY_TIMEOUT;
}

function closeFlow(state: UdpState, i: number, why: string): void {
  const at = base(i), fd = state.data[at + W.FD], listener = state.data[at + W.LISTENER] - 1;
  state.phases[i] = Phase.CLOSED;
  if (fd >= 0) libc.close(fd);
  if (listener >= 0) releaseListener(state, listener);
  if (state.data[at + W.FLAGS] & Flag.SPLICED) state.splice.flows--;
  if (getLogger().level <= LogLevels.DEBUG) {
    getLogger().debug(state.ctx.table.logLine(i, `closed: ${why}`));
  }
}
