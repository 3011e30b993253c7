// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How UDP flows begin and end.
 *
 * Theory of operation: a flow that the guest starts gets a socket of its own, connected to the mapped
 * destination, and its initiating side is in the index. A flow that somebody on the host's side
 * starts has both sides in the index and uses the listener's socket: the answer leaves from the
 * address and port that the peer addressed, which is told with each datagram (IP_PKTINFO), and no
 * other program can share the port. Its target side must be unique too, or the guest could not tell
 * two peers apart.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import { EventType } from "../context.ts";
import { INI, Pif, SIDE_EADDR, SIDE_OADDR, SIDE_PIF, SIDE_PORTS, TGT } from "../flow/side.ts";
import { FlowState, FlowType } from "../flow/types.ts";
import { natFromHost, natFromTap } from "../forward/nat.ts";
import { outboundSocket, scopeOf } from "../forward/outbound.ts";
import { sendUnreachable } from "../icmp/error.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName } from "../sys/errno.ts";
import { IP_RECVERR, IPV6_RECVERR, UDP_GRO } from "../sys/ip_options.ts";
import { libc } from "../sys/libc.ts";
import {
  connectSocket,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  setOption,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SOCK_DGRAM,
  SOL_SOCKET,
} from "../sys/socket.ts";
import { isBroadcast, isMulticast, isUnspecified, isV4 } from "../wire/address.ts";
import type { Packet } from "../wire/packet.ts";
import { base, Flag, touch, type UdpState, W } from "./state.ts";

/** Seconds without traffic after which a flow ends: seen in one direction only, and in both. */
export const ONE_WAY_TIMEOUT = 30; // RFC 4787 §4.3 knows NATs with 30 s for unanswered mappings
export const TWO_WAY_TIMEOUT = 120; // RFC 4787 §4.3, REQ-5: not less than two minutes
const BOTH_WAYS = Flag.FROM_TAP | Flag.TO_TAP;
/** Receive buffer asked for; without CAP_NET_ADMIN the kernel gives what rmem_max allows (socket(7)). */
const RECEIVE_BUFFER = 4 << 20;

/** Whether both ends of {@linkcode UdpState.key} or `hostKey` are single nodes with ports. */
function unicast(words: Int32Array): boolean {
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
  const flow = found >= 0 ? usable(state, found >> 1) : startFromTap(state, packet);
  return state.lastFlow = flow;
}

/** `i`, or -1 when the flow is about to end. */
function usable(state: UdpState, i: number): number {
  return state.data[base(i) + W.FLAGS] & Flag.CLOSED ? -1 : i;
}

function startFromTap(state: UdpState, packet: Packet): number {
  const { ctx, key, tgt } = state;
  if (!unicast(key.words) || !natFromTap(ctx, IPPROTO_UDP, key, tgt)) return -1;
  const scope = scopeOf(ctx, tgt.words, SIDE_EADDR);
  const fd = connectedSocket(state, scope);
  if (fd < 0) return refuse(state, packet, -fd);
  const i = newFlow(state);
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
  start(state, i, key.words);
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

/** Options of every UDP socket; what the kernel does not know is done without. */
export function prepareSocket(fd: number, v4: boolean): void {
  setOption(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVERR : IPV6_RECVERR, 1);
  setOption(fd, IPPROTO_UDP, UDP_GRO, 1);
  if (setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER) < 0) {
    setOption(fd, SOL_SOCKET, SO_RCVBUF, RECEIVE_BUFFER);
  }
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

/** An entry with `ini` (the key in use) and target recorded, typed, not active. @returns -1: none */
function newFlow(state: UdpState, inbound = false): number {
  const { ctx, tgt } = state;
  const i = ctx.table.alloc();
  if (i < 0) {
    state.warn(`UDP datagram dropped: all ${ctx.table.capacity} flows are in use`);
    return -1;
  }
  ctx.table.initiate(i, inbound ? state.hostKey : state.key);
  ctx.table.target(i, tgt);
  ctx.table.setType(i, FlowType.UDP, INI);
  return i;
}

function start(state: UdpState, i: number, ini: Int32Array): void {
  const { table } = state.ctx;
  touch(state, i, 0);
  table.activate(i);
  if (getLogger().level > LogLevels.DEBUG) return;
  const from = ini === state.key.words ? state.key : state.hostKey;
  getLogger().debug(table.logLine(i, `${from} => ${state.tgt}`));
}

/**
 * The flow of a datagram that listener `index` has received and whose addresses are in
 * {@linkcode UdpState.hostKey}; a new one if there is none.
 *
 * @param scope interface index of a link-local peer, else 0
 * @returns index, or -1 when the datagram is to be dropped
 */
export function flowFromHost(state: UdpState, index: number, scope: number): number {
  const { ctx, hostKey, tgt } = state;
  const found = ctx.table.lookup(IPPROTO_UDP, hostKey);
  if (found >= 0) return ownedBy(state, found >> 1, index);
  const { guestPort } = state.listeners[index];
  if (!unicast(hostKey.words) || !natFromHost(ctx, hostKey, tgt, guestPort)) return -1;
  if (ctx.table.lookup(IPPROTO_UDP, tgt) >= 0) return -1;
  const i = newFlow(state, true);
  if (i < 0) return -1;
  ctx.table.hashInsert(i, INI);
  ctx.table.hashInsert(i, TGT);
  const at = base(i);
  state.data[at + W.FD] = -1;
  state.data[at + W.LISTENER] = index + 1;
  state.data[at + W.SCOPE] = scope;
  start(state, i, hostKey.words);
  return i;
}

/** `i` when it is open and uses listener `index`, else -1. */
export function ownedBy(state: UdpState, i: number, index: number): number {
  return state.data[base(i) + W.LISTENER] === index + 1 ? usable(state, i) : -1;
}

/** Whether `i` is a UDP flow in operation: an event may be late. */
export function isOpen(state: UdpState, i: number): boolean {
  const { table } = state.ctx;
  return table.stateOf(i) === FlowState.ACTIVE && table.typeOf(i) === FlowType.UDP &&
    (state.data[base(i) + W.FLAGS] & Flag.CLOSED) === 0;
}

/** Timer of the flow table: closes flow `i` and says so when it has been idle for too long. */
export function expire(state: UdpState, i: number, nowMs: number): boolean {
  const at = base(i);
  const both = (state.data[at + W.FLAGS] & BOTH_WAYS) === BOTH_WAYS;
  const idle = Math.floor(nowMs / 1000) - state.data[at + W.ACTIVE_AT];
  if (idle < (both ? TWO_WAY_TIMEOUT : ONE_WAY_TIMEOUT)) return false;
  closeFlow(state, i, "idle");
  return true;
}

/** Deferred work of the flow table: closes flow `i` and says so when that was asked for. */
export function closeIfAsked(state: UdpState, i: number): boolean {
  if ((state.data[base(i) + W.FLAGS] & Flag.CLOSED) === 0) return false;
  closeFlow(state, i, "listener closed");
  return true;
}

function closeFlow(state: UdpState, i: number, why: string): void {
  const fd = state.data[base(i) + W.FD];
  if (fd >= 0) libc.close(fd);
  if (getLogger().level <= LogLevels.DEBUG) {
    getLogger().debug(state.ctx.table.logLine(i, `closed: ${why}`));
  }
}
