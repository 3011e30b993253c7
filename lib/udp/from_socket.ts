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
import { SIDE_EADDR } from "../flow/side.ts";
import { EPOLL } from "../sys/epoll.ts";
import { libc } from "../sys/libc.ts";
import { MSG_DONTWAIT } from "../sys/socket.ts";
import { isV4 } from "../wire/address.ts";
import { drainErrors } from "./errors.ts";
import { isOpen } from "./flow.ts";
import { receiveSpliced } from "./splice.ts";
import { base, Flag, RX_MESSAGES, tapSide, type UdpState, udpState, W } from "./state.ts";
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
