// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Datagrams from the guest to sockets.
 *
 * Theory of operation: payloads stay where the frames were received. Consecutive datagrams of one flow
 * are collected, and go out by one sendmmsg(2) when a datagram of another flow, or the end of the batch
 * of frames, is reached. A super-frame (USO) becomes one sendmsg(2) with UDP_SEGMENT; a device or
 * kernel that refuses it gets the datagrams one by one. A socket whose buffer is full loses
 * datagrams, as any network may.
 *
 * The guest's TTL is set on the socket when it changes, so that traceroute sees the hosts' routers.
 * Datagrams are fragmented by the host as needed, for the guest knows its own MTU only; but with a
 * TTL as low as those of path probes ({@linkcode PROBE_TTL}), "don't fragment" (which IPv6 always
 * means) is enforced, and the guest is told the path's MTU: so tracepath works.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { countBytes } from "../flow/count.ts";
import { SIDE_EADDR, SIDE_OADDR, SIDE_PORTS } from "../flow/side.ts";
import { sendTooBig, sendUnreachable } from "../icmp/error.ts";
import { ETH_HEADER_SIZE } from "../link/link.ts";
import { E } from "../sys/errno.ts";
import {
  IP_MTU,
  IP_MTU_DISCOVER,
  IP_TTL,
  IPV6_MTU,
  IPV6_MTU_DISCOVER,
  IPV6_UNICAST_HOPS,
  PMTUDISC_DO,
  PMTUDISC_WANT,
  UDP_SEGMENT,
} from "../sys/ip_options.ts";
import { errno, libc } from "../sys/libc.ts";
import { cmsgSpace, writeCmsg } from "../sys/message_vector.ts";
import { packetInfoSpace, writePacketInfo } from "../sys/packet_info.ts";
import {
  getOption,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  setOption,
  writeSockaddr,
} from "../sys/socket.ts";
import { ipv4DontFragment } from "../wire/ipv4.ts";
import { type Packet, parseIp } from "../wire/packet.ts";
import { checkUdp, udpPayloadSize } from "../wire/udp.ts";
import { drainErrors } from "./errors.ts";
import { flowFromTap } from "./flow.ts";
import { noteQuery } from "./names.ts";
import {
  base,
  Flag,
  hostSide,
  PROBING,
  sideOnTap,
  touch,
  TX_MESSAGES,
  type UdpState,
  udpState,
  W,
} from "./state.ts";

/** Highest TTL of a path probe: where tracepath(8) and traceroute(8) end unless told otherwise. */
export const PROBE_TTL = 30;
/** Most datagrams in a super-frame (UDP_MAX_SEGMENTS, linux/udp.h). */
const MAX_SEGMENTS = 128;
const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL;
const SEGMENT_SPACE = cmsgSpace(2);

/**
 * Takes a UDP datagram from the guest. Its payload is sent by {@linkcode udpFlush} at the latest,
 * which has to be called before the frame's memory is used again.
 *
 * @param packet parsed packet in the link's arena; neither multicast nor broadcast is forwarded
 * @param gsoSize payload bytes per datagram of a super-frame, else 0
 */
export function udpFromTap(ctx: Context, packet: Packet, gsoSize: number): void {
  const view = ctx.link.arena.dv;
  const payload = checkUdp(view, packet);
  if (payload < 0 || packet.ttl === 0) return;
  const state = udpState(ctx);
  const flow = flowFromTap(state, packet, view.getInt32(packet.l4));
  if (flow < 0) return;
  const bytes = udpPayloadSize(view, packet.l4);
  const split = gsoSize > 0 && gsoSize < bytes;
  if (split && bytes > gsoSize * MAX_SEGMENTS) return;
  if (state.data[base(flow) + W.FLAGS] & Flag.NAMES) noteQuery(state, flow, payload, bytes);
  follow(state, flow, packet);
  if (split) sendSuper(state, flow, packet.l3, payload, bytes, gsoSize);
  else queue(state, flow, packet.l3, payload, bytes);
  touch(state, flow, Flag.FROM_GUEST);
}

/** Sends what {@linkcode udpFromTap} has collected. */
export function udpFlush(ctx: Context): void {
  const state = udpState(ctx);
  flush(state);
  state.batch.flow = -1;
  state.lastFlow = -1;
}

/** Sets the guest's TTL and its wish not to fragment on the flow's socket, where they changed. */
function follow(state: UdpState, flow: number, packet: Packet): void {
  const at = base(flow), fd = state.data[at + W.FD];
  if (fd < 0) return; // answers of a listener leave with the host's own TTL
  const v4 = packet.version === 4, ttl = packet.ttl;
  const whole = !v4 || ipv4DontFragment(state.ctx.link.arena.dv, packet.l3);
  const path = ttl | (whole && ttl <= PROBE_TTL ? PROBING : 0), before = state.data[at + W.PATH];
  if (path === before) return;
  flush(state);
  const level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  setOption(fd, level, v4 ? IP_TTL : IPV6_UNICAST_HOPS, ttl);
  if ((path ^ before) & PROBING) {
    const value = path & PROBING ? PMTUDISC_DO : PMTUDISC_WANT;
    setOption(fd, level, v4 ? IP_MTU_DISCOVER : IPV6_MTU_DISCOVER, value);
  }
  state.data[at + W.PATH] = path;
}

/** Adds one datagram to the batch, sending first what belongs to another flow or is too much. */
function queue(state: UdpState, flow: number, l3: number, payload: number, bytes: number): void {
  const { batch, tx, arena } = state;
  if (batch.flow !== flow || batch.count === TX_MESSAGES) {
    flush(state);
    begin(state, flow);
  }
  const k = batch.count++;
  tx.setData(k, state.ctx.link.arena.address(payload), bytes);
  tx.setName(k, arena.address(state.txName), batch.nameBytes);
  tx.setControl(k, arena.address(state.txSegment - batch.infoBytes), batch.infoBytes);
  state.batchL3[k] = l3;
  state.batchBytes[k] = bytes;
}

/** Starts a batch; for a flow without a socket of its own, writes whereto and wherefrom. */
function begin(state: UdpState, flow: number): void {
  const { batch, arena, sides, txSegment } = state;
  batch.flow = flow;
  batch.nameBytes = batch.infoBytes = 0;
  if (state.data[base(flow) + W.FD] >= 0) return;
  const host = hostSide(state, flow), scope = state.data[base(flow) + W.SCOPE];
  const port = sides[host + SIDE_PORTS] >>> 16;
  batch.nameBytes = writeSockaddr(arena.dv, state.txName, sides, host + SIDE_EADDR, port, scope);
  batch.infoBytes = packetInfoSpace(sides, host + SIDE_OADDR);
  writePacketInfo(arena, txSegment - batch.infoBytes, sides, host + SIDE_OADDR, scope);
}

/** The socket that flow `i` sends by. */
function socketOf(state: UdpState, i: number): number {
  const at = base(i), fd = state.data[at + W.FD];
  return fd >= 0 ? fd : state.listeners[state.data[at + W.LISTENER] - 1].fd;
}

/** Sends the batch. An error that was pending on the socket is taken out, then tried once more. */
function flush(state: UdpState): void {
  const { batch, tx } = state;
  const n = batch.count, flow = batch.flow;
  if (n === 0) return;
  batch.count = 0;
  batch.flow = -1;
  const fd = socketOf(state, flow);
  let again = true;
  for (let k = 0; k < n;) {
    const sent = libc.sendmmsg(fd, tx.views[k], n - k, SEND_FLAGS);
    if (sent > 0) {
      countSent(state, flow, k, sent);
      k += sent;
      again = true;
      continue;
    }
    const error = errno();
    if (error === E.EAGAIN || error === E.ENOBUFS || error === E.ENOMEM) return;
    if (again) {
      again = false;
      drainErrors(state, fd, flow);
      continue;
    }
    refused(state, fd, state.batchL3[k], error);
    again = true;
    k++;
  }
}

/** Counts `n` messages of the batch, from `first` on, which have been sent. */
function countSent(state: UdpState, flow: number, first: number, n: number): void {
  let bytes = 0;
  for (let k = first; k < first + n; k++) bytes += state.batchBytes[k];
  countBytes(state.counters, flow, sideOnTap(state, flow), bytes);
}

/** Tells the guest why the datagram in its packet at `l3` could not be sent. */
function refused(state: UdpState, fd: number, l3: number, error: number): void {
  const { ctx, packet } = state;
  const start = l3 - ETH_HEADER_SIZE;
  const view = ctx.link.arena.dv;
  const slots = ctx.link.rxOffset, lengths = ctx.link.rxLength;
  let k = 0;
  while (k < slots.length && slots[k] !== start) k++;
  if (k === slots.length || !parseIp(view, start, lengths[k], packet)) return;
  if (error !== E.EMSGSIZE) {
    if (error === E.ENETUNREACH || error === E.EHOSTUNREACH) sendUnreachable(ctx, packet, error);
    return;
  }
  const v4 = packet.version === 4;
  const mtu = getOption(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_MTU : IPV6_MTU);
  if (mtu > 0 && mtu < packet.end - packet.l3) sendTooBig(ctx, packet, mtu);
}

/** Sends a super-frame's payload in one call, or in parts where that is refused. */
function sendSuper(
  state: UdpState,
  flow: number,
  l3: number,
  payload: number,
  bytes: number,
  gsoSize: number,
): void {
  const { arena, txSuper, txSegment, batch } = state;
  flush(state);
  begin(state, flow);
  const size = writeCmsg(arena, txSegment, IPPROTO_UDP, UDP_SEGMENT, 2);
  arena.dv.setUint16(size, gsoSize, true);
  txSuper.setData(0, state.ctx.link.arena.address(payload), bytes);
  txSuper.setName(0, arena.address(state.txName), batch.nameBytes);
  const control = batch.infoBytes + SEGMENT_SPACE;
  txSuper.setControl(0, arena.address(txSegment - batch.infoBytes), control);
  if (libc.sendmsg(socketOf(state, flow), txSuper.views[0], SEND_FLAGS) >= 0) {
    return countBytes(state.counters, flow, sideOnTap(state, flow), bytes);
  }
  if (errno() === E.EAGAIN) return;
  for (let done = 0; done < bytes; done += gsoSize) {
    queue(state, flow, l3, payload + done, Math.min(gsoSize, bytes - done));
  }
}
