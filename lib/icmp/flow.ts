// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How ping flows begin and end: one per guest address, identifier and destination.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import { EventType } from "../context.ts";
import { INI, Pif, SIDE_EADDR, SIDE_OADDR } from "../flow/side.ts";
import { Phase } from "../flow/snapshot.ts";
import { FlowState, FlowType } from "../flow/types.ts";
import { natFromTap } from "../forward/nat.ts";
import { outboundSocket, scopeOf } from "../forward/outbound.ts";
import { admit, admitted, Verdict } from "../forward/policy.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName } from "../sys/errno.ts";
import { IP_RECVERR, IP_RECVTTL, IPV6_RECVERR, IPV6_RECVHOPLIMIT } from "../sys/ip_options.ts";
import { libc } from "../sys/libc.ts";
import {
  bindSocket,
  connectSocket,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  setOption,
  SOCK_DGRAM,
  socketAddress,
} from "../sys/socket.ts";
import { isBroadcast, isMulticast, isUnspecified, isV4 } from "../wire/address.ts";
import { DEST, type Packet, SOURCE } from "../wire/packet.ts";
import { deny } from "./deny.ts";
import { sendUnreachable } from "./error.ts";
import { base, IDS, type PingFamily, PingMode, type PingState, W } from "./state.ts";

/** Seconds without a message after which a flow ends (RFC 5508 §3.2, REQ-2: at least 60). */
export const PING_TIMEOUT = 60;

/**
 * The flow of an echo request; a new one if there is none.
 *
 * @param id the guest's identifier
 * @returns index, or -1 when the request is to be dropped
 */
export function pingFlow(
  state: PingState,
  family: PingFamily,
  packet: Packet,
  id: number,
): number {
  const { ctx, ini, tgt } = state, words = packet.addresses;
  ini.pif = Pif.TAP;
  ini.setEndpoint(words, SOURCE, id);
  ini.setOur(words, DEST, id);
  const found = ctx.table.lookup(packet.proto, ini);
  if (found >= 0) return found >> 1;
  if (
    !forwardable(words) ||
    !natFromTap(ctx, family.version === 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6, ini, tgt)
  ) return -1;
  const verdict = admit(ctx, packet.proto, ini, tgt);
  if (verdict !== Verdict.ALLOW) {
    deny(ctx, packet, verdict);
    return -1;
  }
  const i = ctx.table.alloc();
  if (i < 0) {
    warn(state, `all ${ctx.table.capacity} flows are in use`);
    return -1;
  }
  ctx.table.initiate(i, ini);
  ctx.table.target(i, tgt);
  ctx.table.setType(i, family.version === 4 ? FlowType.PING4 : FlowType.PING6, INI);
  const error = family.mode === PingMode.RAW ? takeId(state, family, i) : takeSocket(state, i, id);
  if (error < 0) {
    ctx.table.allocCancel(i);
    refuse(state, packet, -error);
    return -1;
  }
  ctx.table.hashInsert(i, INI);
  admitted(ctx, i, ini);
  ctx.table.activate(i);
  if (getLogger().level <= LogLevels.DEBUG) {
    getLogger().debug(ctx.table.logLine(i, `${ini} => ${tgt}`));
  }
  return i;
}

/** Whether both ends are single nodes. */
function forwardable(words: Int32Array): boolean {
  return !isMulticast(words, DEST) && !isBroadcast(words, DEST) && !isUnspecified(words, DEST) &&
    !isMulticast(words, SOURCE) && !isBroadcast(words, SOURCE) && !isUnspecified(words, SOURCE);
}

/** Warns, at most once a second, that a request was dropped for lack of something. */
function warn(state: PingState, why: string): void {
  if (state.warnings.allow(state.ctx.nowMs)) getLogger().warn(`Echo request dropped: ${why}`);
}

function refuse(state: PingState, packet: Packet, error: number): void {
  if (error === E.ENETUNREACH || error === E.EHOSTUNREACH) {
    sendUnreachable(state.ctx, packet, error);
  } else if (error !== E.EACCES) { // a directed broadcast
    warn(state, errnoName(error));
  }
}

/** Gives flow `i` an identifier of its own on the raw socket. @returns 0 or a negative errno */
function takeId(state: PingState, family: PingFamily, i: number): number {
  const { ids } = family;
  for (let n = 0; n < IDS; n++) {
    const id = family.nextId;
    family.nextId = (id + 1) % IDS;
    if (ids[id] !== 0) continue;
    ids[id] = i + 1;
    state.data[base(i) + W.FD] = -1;
    state.data[base(i) + W.ID] = id;
    return 0;
  }
  return -E.EADDRINUSE;
}

/**
 * Gives flow `i` a ping socket, connected, with the guest's identifier where that is free.
 *
 * @returns 0 or a negative errno
 */
function takeSocket(state: PingState, i: number, id: number): number {
  const { ctx, tgt, address } = state, to = tgt.words;
  const v4 = isV4(to, SIDE_EADDR);
  const fd = outboundSocket(ctx, to, SIDE_EADDR, SOCK_DGRAM, v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
  if (fd < 0) return fd;
  const level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  setOption(fd, level, v4 ? IP_RECVERR : IPV6_RECVERR, 1);
  setOption(fd, level, v4 ? IP_RECVTTL : IPV6_RECVHOPLIMIT, 1);
  bindSocket(fd, to, SIDE_OADDR, id); // fails where it is taken, or bound: any other will do
  let result = connectSocket(fd, to, SIDE_EADDR, 0, scopeOf(state.ctx, to, SIDE_EADDR));
  const used = socketAddress(fd, address, 0);
  if (result >= 0) result = used;
  if (result >= 0) result = ctx.epoll.add(fd, EPOLL.IN | EPOLL.ERR, EventType.PING, i);
  if (result < 0) {
    libc.close(fd);
    return result;
  }
  state.data[base(i) + W.FD] = fd;
  state.data[base(i) + W.ID] = used;
  return 0;
}

/** Whether `i` is a ping flow in operation: an event may be late. */
export function isOpen(state: PingState, i: number): boolean {
  const { table } = state.ctx, type = table.typeOf(i);
  return table.stateOf(i) === FlowState.ACTIVE &&
    (type === FlowType.PING4 || type === FlowType.PING6);
}

/** Timer of the flow table: closes flow `i` and says so when it has been idle for too long. */
export function expire(state: PingState, i: number, nowMs: number): boolean {
  const at = base(i);
  if (Math.floor(nowMs / 1000) - state.data[at + W.ACTIVE_AT] < PING_TIMEOUT) return false;
  const fd = state.data[at + W.FD];
  state.phases[i] = Phase.CLOSED;
  if (fd >= 0) libc.close(fd);
  else familyOf(state, i).ids[state.data[at + W.ID]] = 0;
  if (getLogger().level <= LogLevels.DEBUG) {
    getLogger().debug(state.ctx.table.logLine(i, "closed: idle"));
  }
  return true;
}

function familyOf(state: PingState, i: number): PingFamily {
  return state.ctx.table.typeOf(i) === FlowType.PING4 ? state.v4 : state.v6;
}
