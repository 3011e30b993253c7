// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Ends of TCP flows: FIN in both directions, RST in both directions, and releasing what a flow holds.
 *
 * Theory of operation: each direction is closed on its own. The guest's FIN becomes shutdown(2) of the
 * socket once everything before it was sent; end of file on the socket becomes our FIN to the guest.
 * When both are done and the guest acknowledged ours, the socket is closed; what it still holds is the
 * host kernel's business. A reset on one side is a reset on the other. The descriptor and the index
 * entry go at once; the table entry itself is freed by the table's next scan.
 *
 * @module
 */
import { Phase } from "../flow/snapshot.ts";
import { TX_CONTROL } from "../link/link.ts";
import { libc } from "../sys/libc.ts";
import { closeWithReset, SHUT_WR } from "../sys/socket.ts";
import { TCP_ACK, TCP_RST } from "../wire/tcp.ts";
import { sendSegment, tapSide } from "./frame.ts";
import type { TcpState } from "./state.ts";
import { base, Ev, W } from "./words.ts";

/** Releases the socket and everything else of flow `i`. Harmless when it is closed already. */
export function closeFlow(tcp: TcpState, i: number, reset = false): void {
  const { data } = tcp;
  const d = base(i);
  if (data[d + W.EVENTS] & Ev.CLOSED) return;
  data[d + W.EVENTS] |= Ev.CLOSED;
  tcp.phases[i] = Phase.CLOSED;
  tcp.ctx.table.hashRemove(i, tapSide(tcp, i));
  tcp.overflow.release(data, i);
  if (tcp.batchFlow === i) tcp.batchFlow = -1;
  if (reset) closeWithReset(data[d + W.FD]);
  else libc.close(data[d + W.FD]);
  data[d + W.FD] = -1;
  tcp.ctx.closing++;
}

/** Resets both directions: RST to the guest, RST to the peer. */
export function resetFlow(tcp: TcpState, i: number): void {
  const d = base(i);
  if (tcp.data[d + W.EVENTS] & Ev.CLOSED) return;
  // never before the guest's window: that would be ignored. Beyond it, the guest asks (RFC 5961 §3.2)
  sendSegment(tcp, i, TX_CONTROL, TCP_RST | TCP_ACK, tcp.data[d + W.SEQ_MAX], 0);
  closeFlow(tcp, i, true);
}

/** Passes the guest's FIN on to the socket, once nothing is left to send before it. */
export function shutdownIfDrained(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  const events = data[d + W.EVENTS];
  if (!(events & Ev.TAP_FIN_RCVD) || events & Ev.SOCK_FIN_SENT) return;
  if (data[d + W.OVERFLOW_BYTES] > 0) return;
  libc.shutdown(data[d + W.FD], SHUT_WR);
  data[d + W.EVENTS] |= Ev.SOCK_FIN_SENT;
}

/** Closes the flow when both directions have ended. */
export function closeIfFinished(tcp: TcpState, i: number): void {
  const both = Ev.SOCK_FIN_SENT | Ev.TAP_FIN_ACKED;
  if ((tcp.data[base(i) + W.EVENTS] & both) === both) closeFlow(tcp, i);
}
