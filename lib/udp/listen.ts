// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Datagrams from listeners to their flows.
 *
 * Theory of operation: a listener's socket tells the destination of each datagram (IP_PKTINFO,
 * IPV6_RECVPKTINFO), which together with the sender makes the flow; see `inbound.ts`. One listener may
 * have datagrams of both families, for the tap and to be spliced, in any order. They are received where
 * the last one belonged: for the tap, behind room for headers of its family; else in the splice path's
 * own memory, which takes more at once. What turns out to belong elsewhere is moved once.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { SIDE_EADDR, TGT } from "../flow/side.ts";
import { SLOT_FRAME_SIZE } from "../link/link.ts";
import { EPOLL } from "../sys/epoll.ts";
import { libc } from "../sys/libc.ts";
import type { MessageVector } from "../sys/message_vector.ts";
import { MSG_DONTWAIT } from "../sys/socket.ts";
import { isV4 } from "../wire/address.ts";
import { drainErrors } from "./errors.ts";
import { flowFromListener } from "./inbound.ts";
import { peerScope, readAddresses } from "./peer.ts";
import { flushSplice, splice, SPLICE_ROUNDS } from "./splice.ts";
import { SPLICE_MESSAGES, SPLICE_SLOT } from "./splice_state.ts";
import { base, Flag, RX_MESSAGES, type UdpState, udpState, W } from "./state.ts";
import { aim, forward, HEADERS4, HEADERS6 } from "./to_tap.ts";

/** Receiving calls per event. */
const RX_ROUNDS = 4;

/** An event on the socket of listener `index`; harmless when it was closed. */
export function udpListenEvent(ctx: Context, index: number, events: number): void {
  const state = udpState(ctx);
  const listener = state.listeners[index];
  if (!listener || listener.fd < 0) return;
  if (events & EPOLL.ERR) drainErrors(state, listener.fd, -1, index);
  if ((events & EPOLL.IN) === 0) return;
  if (listener.spliced) receiveToSplice(state, index);
  else receiveToTap(state, index);
}

/** Takes datagrams into transmit slots of the tap. */
function receiveToTap(state: UdpState, index: number): void {
  const { rxNamed } = state, listener = state.listeners[index];
  for (let round = 0; round < RX_ROUNDS; round++) {
    const headers = listener.v4 ? HEADERS4 : HEADERS6;
    if (state.rxNamedHeader !== headers) {
      aim(state, rxNamed, headers);
      state.rxNamedHeader = headers;
    }
    const n = libc.recvmmsg(listener.fd, rxNamed.views[0], RX_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      take(state, index, k, headers);
      rxNamed.reset(k);
    }
    flushSplice(state);
    if (n < RX_MESSAGES) return; // also after an error, which epoll reports again
  }
}

/** Handles message `k`, received behind `headers` bytes. */
function take(state: UdpState, index: number, k: number, headers: number): void {
  const { rxNamed, hostKey, ctx: { link } } = state;
  const flow = flowOf(state, index, rxNamed, k);
  if (flow < 0) return;
  const listener = state.listeners[index], from = link.txOffset[k] + headers;
  if (state.data[base(flow) + W.FLAGS] & Flag.SPLICED) {
    listener.spliced = true;
    return splice(state, flow, TGT, rxNamed, k, link.arena, from);
  }
  const v4 = isV4(hostKey.words, SIDE_EADDR);
  listener.v4 = v4;
  const wanted = v4 ? HEADERS4 : HEADERS6;
  if (wanted !== headers) {
    const bytes = rxNamed.transferred(k);
    if (wanted + bytes > SLOT_FRAME_SIZE) return;
    link.arena.u8.copyWithin(link.txOffset[k] + wanted, from, from + bytes);
  }
  forward(state, flow, rxNamed, k, k);
}

/** Takes datagrams into the memory of the splice path. */
function receiveToSplice(state: UdpState, index: number): void {
  const { rx } = state.splice, { fd } = state.listeners[index];
  for (let round = 0; round < SPLICE_ROUNDS; round++) {
    const n = libc.recvmmsg(fd, rx.views[0], SPLICE_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      takeFromSplice(state, index, k);
      rx.reset(k);
    }
    flushSplice(state);
    if (n < SPLICE_MESSAGES) return; // also after an error, which epoll reports again
  }
}

/** Handles message `k` of the splice path's memory. */
function takeFromSplice(state: UdpState, index: number, k: number): void {
  const { rx, payload } = state.splice, { hostKey, ctx: { link } } = state;
  const flow = flowOf(state, index, rx, k);
  if (flow < 0) return;
  const start = k * SPLICE_SLOT;
  if (state.data[base(flow) + W.FLAGS] & Flag.SPLICED) {
    return splice(state, flow, TGT, rx, k, payload, start);
  }
  const listener = state.listeners[index];
  listener.spliced = false;
  listener.v4 = isV4(hostKey.words, SIDE_EADDR);
  const to = link.txOffset[0] + (listener.v4 ? HEADERS4 : HEADERS6), bytes = rx.transferred(k);
  if (to - link.txOffset[0] + bytes > SLOT_FRAME_SIZE) return;
  for (let j = 0; j < bytes; j++) link.arena.u8[to + j] = payload.u8[start + j];
  forward(state, flow, rx, k, 0);
}

/** The flow of message `k` from listener `index`, or -1. */
function flowOf(state: UdpState, index: number, messages: MessageVector, k: number): number {
  if (!readAddresses(state, messages, k, index)) return -1;
  return flowFromListener(state, index, peerScope(state, messages, k));
}
