// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Datagrams from a flow's own socket to the guest, and to where a spliced flow came from.
 *
 * Theory of operation: one recvmmsg(2) fills as many transmit slots as there are, straight behind the
 * headers' place. The socket is watched level-triggered, and one event takes no more than
 * {@linkcode RX_ROUNDS} calls, so that a flood on one flow does not keep the others waiting.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { SIDE_EADDR, SIDE_PORTS } from "../flow/side.ts";
import { EPOLL } from "../sys/epoll.ts";
import { libc } from "../sys/libc.ts";
import type { MessageVector } from "../sys/message_vector.ts";
import { MSG_DONTWAIT, readSockaddr } from "../sys/socket.ts";
import { isV4, sameAddress } from "../wire/address.ts";
import { drainErrors } from "./errors.ts";
import { isOpen } from "./flow.ts";
import { receiveSpliced } from "./splice.ts";
import { base, Flag, hostSide, RX_MESSAGES, tapSide, type UdpState, udpState, W } from "./state.ts";
import { aim, forward, HEADERS4, HEADERS6 } from "./to_tap.ts";

/** Receiving calls per event. */
export const RX_ROUNDS = 4;

/** An event on the socket of flow `flow`; harmless when the flow has ended. */
export function udpEvent(ctx: Context, flow: number, events: number): void {
  const state = udpState(ctx);
  if (!isOpen(state, flow)) return;
  const fd = state.data[base(flow) + W.FD];
  if (fd < 0) return;
  if (events & EPOLL.ERR) drainErrors(state, fd, flow);
  if ((events & EPOLL.IN) === 0) return;
  if (state.data[base(flow) + W.FLAGS] & Flag.SPLICED) receiveSpliced(state, flow, fd);
  else receive(state, flow, fd);
}

function receive(state: UdpState, flow: number, fd: number): void {
  if (state.data[base(flow) + W.FLAGS] & Flag.NAMES) return receiveFromResolver(state, flow, fd);
  const { rx } = state;
  const headers = isV4(state.sides, tapSide(state, flow) + SIDE_EADDR) ? HEADERS4 : HEADERS6;
  if (state.rxHeader !== headers) {
    aim(state, rx, headers);
    state.rxHeader = headers;
  }
  for (let round = 0; round < RX_ROUNDS; round++) {
    const n = libc.recvmmsg(fd, rx.views[0], RX_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      forward(state, flow, rx, k, k);
      rx.reset(k);
    }
    if (n < RX_MESSAGES) return; // also after an error, which epoll reports again
  }
}

/**
 * As {@linkcode receive}, from the resolver alone. A socket has a port a moment before connect(2) gives it
 * a peer, and what anybody sends to it in between stays in its queue.
 */
function receiveFromResolver(state: UdpState, flow: number, fd: number): void {
  const { rxNamed } = state;
  const headers = isV4(state.sides, tapSide(state, flow) + SIDE_EADDR) ? HEADERS4 : HEADERS6;
  if (state.rxNamedHeader !== headers) {
    aim(state, rxNamed, headers);
    state.rxNamedHeader = headers;
  }
  for (let round = 0; round < RX_ROUNDS; round++) {
    const n = libc.recvmmsg(fd, rxNamed.views[0], RX_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      if (isFromPeer(state, flow, rxNamed, k)) forward(state, flow, rxNamed, k, k);
      rxNamed.reset(k);
    }
    if (n < RX_MESSAGES) return;
  }
}

/** Whether message `k` has come from where flow `flow` leads to. */
function isFromPeer(state: UdpState, flow: number, messages: MessageVector, k: number): boolean {
  const { offender: sender, sides } = state, host = hostSide(state, flow);
  const port = readSockaddr(messages.arena.dv, messages.name(k), sender, 0);
  return port === sides[host + SIDE_PORTS] >>> 16 &&
    sameAddress(sender, 0, sides, host + SIDE_EADDR);
}
