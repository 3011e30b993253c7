// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP segments from the guest: handshake, acknowledgements, payload, FIN and RST.
 *
 * Theory of operation: payload is not copied. In-order segments of one flow that arrive in one batch of
 * frames are collected as iovecs over where they were received and go out in one sendmsg(2) when the batch, or
 * the run, ends. What the socket does not take goes to the overflow pool. Out-of-order segments are
 * answered with a duplicate acknowledgement and forgotten: the guest sends them again. Sequence
 * numbers of RST and SYN are checked as RFC 5961 asks, so that nobody in the guest's network can end
 * a connection blindly.
 *
 * @module
 */
import { countBytes } from "../flow/count.ts";
import { INI, Pif, SIDE_EADDR, SIDE_OADDR, SIDE_PORTS } from "../flow/side.ts";
import { Phase } from "../flow/snapshot.ts";
import { E } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import { IPPROTO_TCP, MSG_DONTWAIT, MSG_NOSIGNAL, sendSpace } from "../sys/socket.ts";
import { copyAddress } from "../wire/address.ts";
import { DEST, type Packet, SOURCE } from "../wire/packet.ts";
import {
  checkTcp,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
  tcpAck,
  tcpDestPort,
  tcpFlags,
  tcpSeq,
  tcpSourcePort,
  tcpWindow,
} from "../wire/tcp.ts";
import { closeFlow, resetFlow, shutdownIfDrained } from "./close.ts";
import { MAX_WINDOW, sendAck, sendResetTo, sendSyn, tapSide } from "./frame.ts";
import { acknowledged, duplicateAck, windowOpened } from "./retransmit.ts";
import { connectable, connectFromTap, takeOptions } from "./setup.ts";
import { FULL_BATCH_IOVECS, type TcpState } from "./state.ts";
import { base, Do, Ev, W } from "./words.ts";

/** Bytes between two looks at a socket's send buffer. */
const MEASURE_EVERY = 32768;

/** Handles one TCP packet from the guest, which lies in a receive slot until the next batch. */
export function segmentFromTap(tcp: TcpState, packet: Packet): void {
  const { view } = tcp;
  const payload = checkTcp(view, packet);
  if (payload < 0) return;
  const l4 = packet.l4;
  const words = tcp.ini.words;
  copyAddress(words, SIDE_EADDR, packet.addresses, SOURCE);
  copyAddress(words, SIDE_OADDR, packet.addresses, DEST);
  words[SIDE_PORTS] = tcpSourcePort(view, l4) << 16 | tcpDestPort(view, l4);
  tcp.ini.pif = Pif.TAP;
  const sidx = tcp.ctx.table.lookup(IPPROTO_TCP, tcp.ini);
  const flags = tcpFlags(view, l4);
  if (sidx < 0) {
    if (!connectable(packet.addresses)) return;
    if ((flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)) === TCP_SYN) {
      connectFromTap(tcp, packet, payload);
    } else sendResetTo(tcp, packet, payload);
    return;
  }
  const i = sidx >> 1;
  const d = base(i);
  tcp.data[d + W.ACTIVE_AT] = tcp.ctx.nowMs;
  tcp.data[d + W.PROBES] = 0;
  if (tcp.data[d + W.EVENTS] & Ev.ESTABLISHED) established(tcp, i, packet, payload, flags);
  else handshake(tcp, i, packet, payload, flags, (sidx & 1) === INI);
}

/** A segment of a flow that is not established yet. */
function handshake(
  tcp: TcpState,
  i: number,
  packet: Packet,
  payload: number,
  flags: number,
  outbound: boolean,
): void {
  const { data, view } = tcp;
  const d = base(i), l4 = packet.l4;
  const seq = tcpSeq(view, l4);
  const acksOurSyn = (flags & TCP_ACK) !== 0 && tcpAck(view, l4) === data[d + W.SEQ_TO_TAP];
  if (flags & TCP_RST) {
    const valid = outbound ? seq === data[d + W.SEQ_FROM_TAP] : acksOurSyn;
    if (valid) closeFlow(tcp, i, true);
    return;
  }
  if (!outbound) return handshakeInbound(tcp, i, packet, payload, flags, acksOurSyn);
  if (flags & TCP_SYN) {
    // the guest's SYN again; without an answer yet, connect(2) is still under way
    if (data[d + W.EVENTS] & Ev.TAP_SYN_ACK_SENT && (seq + 1 | 0) === data[d + W.SEQ_FROM_TAP]) {
      sendSyn(tcp, i, TCP_SYN | TCP_ACK, data[d + W.OUR_SHIFT] > 0);
    }
    return;
  }
  if (!(data[d + W.EVENTS] & Ev.TAP_SYN_ACK_SENT) || !(flags & TCP_ACK)) return;
  if (!acksOurSyn) return sendResetTo(tcp, packet, payload);
  establish(tcp, i);
  established(tcp, i, packet, payload, flags);
}

/** The guest's answer to our SYN. */
function handshakeInbound(
  tcp: TcpState,
  i: number,
  packet: Packet,
  payload: number,
  flags: number,
  acksOurSyn: boolean,
): void {
  if (!acksOurSyn) {
    if (flags & TCP_ACK) sendResetTo(tcp, packet, payload);
    return;
  }
  if (!(flags & TCP_SYN)) return;
  takeOptions(tcp, i, packet.l4);
  establish(tcp, i);
  sendAck(tcp, i);
}

/** Both sides are there: data may flow. */
function establish(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  data[d + W.EVENTS] |= Ev.ESTABLISHED;
  tcp.phases[i] = Phase.OPEN;
  data[d + W.SEQ_UNACKED] = data[d + W.SEQ_TO_TAP];
  data[d + W.RETRIES] = 0;
  data[d + W.DO] |= Do.READ;
  tcp.queue(i);
}

/** A segment of an established flow (RFC 9293 §3.10.7.4). */
function established(
  tcp: TcpState,
  i: number,
  packet: Packet,
  payload: number,
  flags: number,
): void {
  const { data, view } = tcp;
  const d = base(i), l4 = packet.l4;
  const seq = tcpSeq(view, l4);
  const ahead = seq - data[d + W.SEQ_FROM_TAP] | 0;
  if (flags & (TCP_RST | TCP_SYN)) return unexpected(tcp, i, flags, ahead);
  if (!(flags & TCP_ACK)) return;
  if (ahead > MAX_WINDOW || ahead < -MAX_WINDOW) return acknowledge(tcp, i); // not of our time
  const length = packet.end - payload;
  if (!takeAck(tcp, i, tcpAck(view, l4), tcpWindow(view, l4), length + (flags & TCP_FIN))) return;
  if (length > 0) takePayload(tcp, i, ahead, payload, length);
  else if (ahead < 0 || ahead > 0 && flags & TCP_FIN) {
    acknowledge(tcp, i); // keepalive or window probe (RFC 9293 §3.8.4, §3.8.6.1), FIN after a gap
  }
  if (flags & TCP_FIN) takeFin(tcp, i, seq + length | 0);
}

/** RST and SYN within a connection (RFC 5961 §3.2, §4.2). */
function unexpected(tcp: TcpState, i: number, flags: number, ahead: number): void {
  if (flags & TCP_RST && ahead === 0) {
    flushBatch(tcp);
    return closeFlow(tcp, i, true);
  }
  const inWindow = ahead >= 0 && ahead < tcp.data[base(i) + W.WND_TO_TAP];
  if (!(flags & TCP_RST) || inWindow) acknowledge(tcp, i); // "challenge ACK"
}

/** Has flow `i` acknowledge at the end of the turn. */
function acknowledge(tcp: TcpState, i: number): void {
  tcp.data[base(i) + W.DO] |= Do.ACK;
  tcp.queue(i);
}

/** Acknowledgement number and window. @returns false when the segment is not acceptable */
function takeAck(
  tcp: TcpState,
  i: number,
  ack: number,
  window: number,
  occupies: number,
): boolean {
  const { data } = tcp;
  const d = base(i);
  const advance = ack - data[d + W.SEQ_UNACKED] | 0;
  if ((ack - data[d + W.SEQ_MAX] | 0) > 0) {
    acknowledge(tcp, i); // of something never sent
    return false;
  }
  if (advance < 0) return true; // old, but its payload may be new
  const scaled = window << data[d + W.WND_SHIFT];
  const moved = scaled !== data[d + W.WND_FROM_TAP];
  const opened = moved && data[d + W.WND_FROM_TAP] === 0;
  data[d + W.WND_FROM_TAP] = scaled;
  if (advance > 0) acknowledged(tcp, i, ack, advance);
  else if (!moved && occupies === 0) duplicateAck(tcp, i);
  if (opened) windowOpened(tcp, i);
  if (advance > 0 || moved) tcp.queue(i);
  return true;
}

/** Payload of `length` bytes at `off`, which starts `ahead` bytes after what is expected. */
function takePayload(tcp: TcpState, i: number, ahead: number, off: number, length: number): void {
  const { data } = tcp;
  const d = base(i);
  if (ahead > 0 || ahead + length <= 0) {
    // a gap, or nothing new: a duplicate acknowledgement, now
    flushBatch(tcp);
    if (!(data[d + W.EVENTS] & Ev.CLOSED)) sendAck(tcp, i);
    return;
  }
  off -= ahead;
  length += ahead;
  if (data[d + W.EVENTS] & Ev.TAP_FIN_RCVD) return;
  acknowledge(tcp, i);
  length = Math.min(length, data[d + W.WND_EDGE] - data[d + W.SEQ_FROM_TAP] | 0);
  if (length <= 0) return; // beyond the window
  if (data[d + W.OVERFLOW_BYTES] > 0) {
    flushBatch(tcp);
    return hold(tcp, i, off, length);
  }
  if (tcp.batchFlow !== i || tcp.batchPieces >= FULL_BATCH_IOVECS) flushBatch(tcp);
  tcp.batchFlow = i;
  tcp.batchOffset[tcp.batchCount] = off;
  tcp.batchLength[tcp.batchCount++] = length;
  tcp.batchPieces += tcp.ctx.link.gather(tcp.sending, tcp.batchPieces, off, length);
  tcp.batchBytes += length;
  data[d + W.SEQ_FROM_TAP] += length;
}

/** Keeps payload in the overflow pool; what does not fit was never received. */
function hold(tcp: TcpState, i: number, off: number, length: number): void {
  const { data } = tcp;
  const d = base(i);
  const { link } = tcp.ctx;
  link.fetch(off, length);
  const taken = tcp.overflow.append(data, i, link.arena.u8, off, length);
  if (taken < length) data[d + W.DO] |= Do.FULL;
  data[d + W.SEQ_FROM_TAP] += taken;
  countBytes(tcp.counters, i, tapSide(tcp, i), taken);
}

/** Sends the payload collected from the current batch. Called when the batch ends, too. */
export function flushBatch(tcp: TcpState): void {
  const i = tcp.batchFlow, segments = tcp.batchCount, bytes = tcp.batchBytes;
  if (i >= 0) tcp.sending.setCount(tcp.batchPieces);
  tcp.batchFlow = -1;
  tcp.batchCount = tcp.batchPieces = tcp.batchBytes = 0;
  if (i < 0) return; // nothing, or its flow was closed
  const d = base(i);
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  let sent = libc.sendmsg(tcp.data[d + W.FD], tcp.sending.header, flags);
  if (sent < 0) {
    if (errno() !== E.EAGAIN) return resetFlow(tcp, i);
    sent = 0;
  }
  countBytes(tcp.counters, i, tapSide(tcp, i), sent);
  if (sent < bytes) holdRest(tcp, i, segments, sent, bytes);
  measureSpace(tcp, i, sent);
}

/** Looks, now and then, how much room the socket has left after `sent` more bytes. */
function measureSpace(tcp: TcpState, i: number, sent: number): void {
  const { data } = tcp;
  const d = base(i), waits = data[d + W.OVERFLOW_BYTES] > 0;
  data[d + W.UNMEASURED] += sent;
  if (!waits && tcp.overflow.share >= MAX_WINDOW) return; // the socket's room does not matter then
  if (!waits && data[d + W.UNMEASURED] < MEASURE_EVERY) return;
  data[d + W.UNMEASURED] = 0;
  data[d + W.SEND_SPACE] = sendSpace(data[d + W.FD], MAX_WINDOW);
}

/** Keeps what sendmsg(2) did not take of the current batch's segments. */
function holdRest(tcp: TcpState, i: number, segments: number, sent: number, bytes: number): void {
  // it was counted as received when it was collected; hold() counts it again
  tcp.data[base(i) + W.SEQ_FROM_TAP] -= bytes - sent;
  for (let k = 0; k < segments; k++) {
    const length = tcp.batchLength[k];
    if (sent < length) {
      const before = tcp.data[base(i) + W.SEQ_FROM_TAP];
      hold(tcp, i, tcp.batchOffset[k] + sent, length - sent);
      const kept = tcp.data[base(i) + W.SEQ_FROM_TAP] - before | 0;
      if (kept < length - sent) return; // the pool is used up: later segments would leave a hole
      sent = 0;
    } else sent -= length;
  }
}

/** The guest's FIN at `seq`: it counts only when everything before it was received. */
function takeFin(tcp: TcpState, i: number, seq: number): void {
  const { data } = tcp;
  const d = base(i);
  flushBatch(tcp);
  if (seq !== data[d + W.SEQ_FROM_TAP] || data[d + W.EVENTS] & (Ev.TAP_FIN_RCVD | Ev.CLOSED)) {
    return;
  }
  data[d + W.SEQ_FROM_TAP]++;
  data[d + W.EVENTS] |= Ev.TAP_FIN_RCVD;
  tcp.phases[i] = Phase.CLOSING;
  acknowledge(tcp, i);
  shutdownIfDrained(tcp, i);
}
