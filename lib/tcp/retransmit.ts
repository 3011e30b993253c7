// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Towards the guest: what it acknowledged, what was lost, and when to send again.
 *
 * Theory of operation: everything unacknowledged still lies in the host socket's receive queue, so
 * sending again is going back: the next sequence number returns to the lowest unacknowledged one and
 * the peek offset to the start. That is done after three duplicate acknowledgements (RFC 5681 §3.2),
 * once per loss (until what was sent before is acknowledged), or when the retransmission timeout has
 * passed (RFC 6298). Frames on a tap are lost only when the guest's kernel runs out of memory or
 * backlog, so no more refined recovery is tried.
 *
 * There is no timer per flow: flows with something in flight, or a closed window to probe, are in one
 * list that {@linkcode tick} walks every {@linkcode TICK_MS}; an empty list needs no wake-up. Idle flows
 * are looked at once a second by the flow table's scan.
 *
 * @module
 */
import { countBytes } from "../flow/count.ts";
import { TX_CONTROL } from "../link/link.ts";
import { TCP_ACK, TCP_SYN } from "../wire/tcp.ts";
import { resetFlow } from "./close.ts";
import { sendSegment, sendSyn, tapSide } from "./frame.ts";
import type { TcpState } from "./state.ts";
import { base, Do, Ev, W } from "./words.ts";

/** Time between two walks over the flows in flight. */
export const TICK_MS = 50;

/** Duplicate acknowledgements that mean a loss (RFC 5681 §3.2). */
export const DUPLICATE_ACKS = 3;

const MIN_RTO_MS = 200; // as Linux, TCP_RTO_MIN
const MAX_RTO_MS = 60_000; // RFC 6298 §2.5
const MAX_RETRIES = 15; // as Linux, tcp_retries2 in tcp(7)
const MAX_SYN_RETRIES = 6; // as Linux, tcp_syn_retries in tcp(7)
const KEEPALIVE_AFTER_MS = 7_200_000; // tcp_keepalive_time, tcp(7)
const KEEPALIVE_INTERVAL_MS = 75_000; // tcp_keepalive_intvl, tcp(7)
const KEEPALIVE_PROBES = 9; // tcp_keepalive_probes, tcp(7)

/** The guest acknowledged `advance` more sequence numbers of flow `i`, up to `ack`. */
export function acknowledged(tcp: TcpState, i: number, ack: number, advance: number): void {
  const { data } = tcp;
  const d = base(i);
  data[d + W.SEQ_UNACKED] = ack;
  let bytes = advance;
  if (data[d + W.EVENTS] & Ev.SOCK_FIN_RCVD && ack === (data[d + W.FIN_SEQ] + 1 | 0)) {
    data[d + W.EVENTS] |= Ev.TAP_FIN_SENT | Ev.TAP_FIN_ACKED;
    bytes--;
  }
  data[d + W.ACKED] += bytes;
  countBytes(tcp.counters, i, 1 - tapSide(tcp, i), bytes);
  if ((ack - data[d + W.SEQ_TO_TAP] | 0) > 0) {
    // the guest had more than we went back to: go on from there
    data[d + W.SEQ_TO_TAP] = ack;
    data[d + W.DO] |= Do.REWIND;
  }
  if ((ack - data[d + W.SEQ_RECOVER] | 0) > 0) data[d + W.SEQ_RECOVER] = ack;
  data[d + W.DUP_ACKS] = data[d + W.RETRIES] = 0;
  data[d + W.PROGRESS_AT] = tcp.ctx.nowMs;
  if (data[d + W.RTT_AT] !== -1 && (ack - data[d + W.RTT_SEQ] | 0) >= 0) measured(tcp, d);
}

/** A round trip was measured: RFC 6298 §2, in milliseconds, smoothed time × 8 and variation × 4. */
function measured(tcp: TcpState, d: number): void {
  const { data } = tcp;
  const rtt = Math.max(1, tcp.ctx.nowMs - data[d + W.RTT_AT] | 0);
  data[d + W.RTT_AT] = -1;
  if (data[d + W.SRTT8] === 0) {
    data[d + W.SRTT8] = rtt << 3;
    data[d + W.RTTVAR4] = rtt << 1;
  } else {
    const error = rtt - (data[d + W.SRTT8] >> 3);
    data[d + W.SRTT8] += error;
    data[d + W.RTTVAR4] += Math.abs(error) - (data[d + W.RTTVAR4] >> 2);
  }
  const rto = (data[d + W.SRTT8] >> 3) + data[d + W.RTTVAR4];
  data[d + W.RTO] = Math.max(MIN_RTO_MS, Math.min(rto, MAX_RTO_MS));
}

/** An acknowledgement that says nothing new while data is in flight. */
export function duplicateAck(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  if (data[d + W.SEQ_UNACKED] === data[d + W.SEQ_TO_TAP]) return;
  if ((data[d + W.SEQ_UNACKED] - data[d + W.SEQ_RECOVER] | 0) < 0) return;
  if (++data[d + W.DUP_ACKS] === DUPLICATE_ACKS) rewind(tcp, i);
}

/** Goes back to the lowest sequence number that was not acknowledged. */
function rewind(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  data[d + W.SEQ_RECOVER] = data[d + W.SEQ_MAX];
  data[d + W.EVENTS] &= ~Ev.TAP_FIN_SENT;
  data[d + W.DO] |= Do.REWIND | Do.READ;
  data[d + W.RTT_AT] = -1; // Karn's algorithm, RFC 6298 §3
  data[d + W.DUP_ACKS] = 0;
  data[d + W.PROGRESS_AT] = tcp.ctx.nowMs;
  tcp.queue(i);
}

/** The guest's window was closed and is open again: what it had no room for is sent again at once. */
export function windowOpened(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  data[d + W.RETRIES] = 0;
  data[d + W.PROGRESS_AT] = tcp.ctx.nowMs;
  if (data[d + W.SEQ_UNACKED] !== data[d + W.SEQ_TO_TAP]) rewind(tcp, i);
}

/** A segment the guest must answer with an acknowledgement of where it is. */
function probe(tcp: TcpState, i: number): void {
  sendSegment(tcp, i, TX_CONTROL, TCP_ACK, tcp.data[base(i) + W.SEQ_UNACKED] - 1, 0);
}

/** Looks after every flow with something in flight; forgets those that have nothing. */
export function tick(tcp: TcpState): void {
  const { data, timed } = tcp;
  for (let k = 0; k < tcp.timedCount;) {
    const i = timed[k];
    if (tickFlow(tcp, i)) {
      k++;
    } else {
      data[base(i) + W.DO] &= ~Do.TIMED;
      timed[k] = timed[--tcp.timedCount];
    }
  }
}

/** @returns whether flow `i` still needs the timer */
function tickFlow(tcp: TcpState, i: number): boolean {
  const { data } = tcp;
  const d = base(i);
  const events = data[d + W.EVENTS];
  if (events & Ev.CLOSED) return false;
  const waiting = data[d + W.SEQ_UNACKED] !== data[d + W.SEQ_TO_TAP];
  if (!waiting && !blocked(data, d)) return false;
  const since = tcp.ctx.nowMs - data[d + W.PROGRESS_AT] | 0;
  const retries = data[d + W.RETRIES];
  if (since < Math.min(data[d + W.RTO] * 2 ** retries, MAX_RTO_MS)) return true;
  if (retries < (events & Ev.ESTABLISHED ? MAX_RETRIES : MAX_SYN_RETRIES)) data[d + W.RETRIES]++;
  else if (!heardOf(tcp, d)) {
    resetFlow(tcp, i);
    return false;
  }
  data[d + W.PROGRESS_AT] = tcp.ctx.nowMs;
  if (!(events & Ev.ESTABLISHED)) {
    sendSyn(
      tcp,
      i,
      events & Ev.SOCK_ACCEPTED ? TCP_SYN : TCP_SYN | TCP_ACK,
      scales(data, d, events),
    );
  } else if (!waiting || data[d + W.WND_FROM_TAP] === 0) probe(tcp, i);
  else rewind(tcp, i);
  return true;
}

/** Whether the guest sent anything since the last but one probe: then it is slow, not gone. */
function heardOf(tcp: TcpState, d: number): boolean {
  return (tcp.ctx.nowMs - tcp.data[d + W.ACTIVE_AT] | 0) < 2 * MAX_RTO_MS &&
    (tcp.data[d + W.EVENTS] & Ev.ESTABLISHED) !== 0;
}

/** Whether our SYN offers window scaling: always when we begin, else when the guest does. */
function scales(data: Int32Array, d: number, events: number): boolean {
  return (events & Ev.SOCK_ACCEPTED) !== 0 || data[d + W.OUR_SHIFT] > 0;
}

/** Whether there is data for the guest that its window does not let through. */
function blocked(data: Int32Array, d: number): boolean {
  return (data[d + W.DO] & Do.READ) !== 0 && data[d + W.WND_FROM_TAP] === 0 &&
    (data[d + W.EVENTS] & Ev.TAP_FIN_SENT) === 0;
}

/**
 * Once a second, for every flow: a guest that was silent for hours is asked whether it is still there,
 * and the connection reset when it does not answer (RFC 9293 §3.8.4).
 */
export function keepAlive(tcp: TcpState, i: number, nowMs: number): void {
  const { data } = tcp;
  const d = base(i);
  if ((data[d + W.EVENTS] & (Ev.ESTABLISHED | Ev.CLOSED)) !== Ev.ESTABLISHED) return;
  const idle = nowMs - data[d + W.ACTIVE_AT] | 0;
  if (idle < KEEPALIVE_AFTER_MS + data[d + W.PROBES] * KEEPALIVE_INTERVAL_MS) return;
  if (data[d + W.PROBES] >= KEEPALIVE_PROBES) return resetFlow(tcp, i);
  data[d + W.PROBES]++;
  probe(tcp, i);
}
