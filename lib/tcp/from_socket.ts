// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Data from host sockets to the guest.
 *
 * Theory of operation: data is peeked, never taken, straight into the payload areas of transmit
 * slots; the kernel keeps the offset of the next peek (SO_PEEK_OFF), or, where it cannot, the part in
 * flight is read into a block that is thrown away. What the guest acknowledges is dropped from the
 * socket by recv(2) with MSG_TRUNC, which copies nothing, once per turn of the loop. So the socket's
 * own buffer is the retransmission queue, and its window closes when the guest's does.
 *
 * Sockets are watched edge-triggered. A flow that may have data is remembered by its READ bit until a
 * peek comes back short, so an edge is never needed twice, and a flow whose guest does not read costs
 * nothing.
 *
 * @module
 */
import { Phase } from "../flow/snapshot.ts";
import { EPOLL } from "../sys/epoll.ts";
import { Arena } from "../sys/arena.ts";
import { E } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import {
  MSG_DONTWAIT,
  MSG_PEEK,
  MSG_TRUNC,
  sendSpace,
  setOption,
  SO_PEEK_OFF,
  socketError,
  SOL_SOCKET,
} from "../sys/socket.ts";
import { MAX_PIECES, TX_CONTROL, TX_SLOTS } from "../link/link.ts";
import { TCP_ACK, TCP_FIN, TCP_PSH } from "../wire/tcp.ts";
import { closeIfFinished, resetFlow, shutdownIfDrained } from "./close.ts";
import { headerBytes, MAX_WINDOW, sendAck, sendSegment } from "./frame.ts";
import { DUPLICATE_ACKS } from "./retransmit.ts";
import { finishConnect } from "./setup.ts";
import { MAX_PEEK_IOVECS, type TcpState } from "./state.ts";
import { base, Do, Ev, W } from "./words.ts";

/** Frames per peek: more super-frames do not fit the processor's cache with the socket's pages. */
const SUPER_FRAMES_PER_PEEK = 2;
/** Where frames are single packets: as many as there are slots for bulk data. */
const FRAMES_PER_PEEK = TX_SLOTS - 1;
/** Peeks per flow and turn of the loop, so that flows share the link. */
const PEEKS_PER_TURN = 8;
/** Where data in flight is peeked to without SO_PEEK_OFF, and how many times over at most. */
const DISCARD_SIZE = 1 << 20;
const DISCARD_PIECES = 16;

const discard = new Arena(DISCARD_SIZE);
const nothing = new Uint8Array(64);

/** Handles events of flow `i`'s socket. */
export function socketEvent(tcp: TcpState, i: number, events: number): void {
  const { data } = tcp;
  const d = base(i);
  const state = data[d + W.EVENTS];
  if (state & Ev.CLOSED) return;
  // edges come once: also that of a peer that sends and closes before the handshake is over
  if (events & (EPOLL.RDHUP | EPOLL.HUP)) data[d + W.DO] |= Do.RDHUP;
  if (events & EPOLL.PRI) data[d + W.DO] |= Do.URGENT;
  if (state & Ev.TAP_SYN_RCVD && !(state & Ev.TAP_SYN_ACK_SENT)) {
    if (events & (EPOLL.OUT | EPOLL.ERR | EPOLL.HUP)) finishConnect(tcp, i);
    return;
  }
  if (events & EPOLL.ERR && socketError(data[d + W.FD]) !== 0) return resetFlow(tcp, i);
  if (events & (EPOLL.IN | EPOLL.RDHUP | EPOLL.HUP)) {
    data[d + W.DO] |= Do.READ;
    tcp.queue(i);
  }
  if (events & EPOLL.OUT && (data[d + W.OVERFLOW_BYTES] > 0 || data[d + W.DO] & Do.FULL)) {
    drainOverflow(tcp, i);
  }
}

/** The socket has room again: sends what waited, and announces the window that this opens. */
function drainOverflow(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  if (tcp.overflow.drain(data, i, data[d + W.FD]) < 0) return resetFlow(tcp, i);
  data[d + W.SEND_SPACE] = sendSpace(data[d + W.FD], MAX_WINDOW);
  shutdownIfDrained(tcp, i);
  if (data[d + W.DO] & Do.FULL && data[d + W.OVERFLOW_BYTES] === 0) askAgain(tcp, i);
  data[d + W.DO] |= Do.ACK;
  tcp.queue(i);
}

/** There is room for what was not kept: opens the window, and has the guest send it again at once. */
function askAgain(tcp: TcpState, i: number): void {
  tcp.data[base(i) + W.DO] &= ~Do.FULL;
  for (let k = 0; k < DUPLICATE_ACKS; k++) sendAck(tcp, i);
}

/** End of a turn: for every queued flow, drops what was acknowledged, sends data, acknowledges. */
export function turn(tcp: TcpState): void {
  const flows = tcp.turn, n = tcp.turnCount;
  tcp.turn = tcp.next;
  tcp.next = flows;
  tcp.turnCount = 0;
  for (let k = 0; k < n; k++) turnFlow(tcp, flows[k]);
}

function turnFlow(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  data[d + W.DO] &= ~Do.TURN;
  if (data[d + W.EVENTS] & Ev.CLOSED) return;
  if (data[d + W.EVENTS] & Ev.ESTABLISHED) {
    dropAcknowledged(tcp, d);
    if (data[d + W.DO] & Do.REWIND) goBack(tcp, d);
    if (data[d + W.DO] & Do.READ) pump(tcp, i);
    if (data[d + W.EVENTS] & Ev.CLOSED) return;
  }
  if (data[d + W.DO] & Do.ACK) sendAck(tcp, i);
  closeIfFinished(tcp, i);
}

/** Takes what the guest acknowledged out of the socket. */
function dropAcknowledged(tcp: TcpState, d: number): void {
  const { data } = tcp;
  while (data[d + W.ACKED] > 0) {
    const flags = MSG_TRUNC | MSG_DONTWAIT;
    const dropped = libc.recv(data[d + W.FD], nothing, data[d + W.ACKED], flags);
    if (dropped <= 0) break; // reset by the peer: its event follows
    data[d + W.ACKED] -= dropped;
  }
  data[d + W.ACKED] = 0;
}

/** Makes the next peek begin at the lowest unacknowledged byte. */
function goBack(tcp: TcpState, d: number): void {
  const { data } = tcp;
  data[d + W.DO] &= ~Do.REWIND;
  data[d + W.SEQ_TO_TAP] = data[d + W.SEQ_UNACKED];
  if (data[d + W.DO] & Do.PEEK_OFF) setOption(data[d + W.FD], SOL_SOCKET, SO_PEEK_OFF, 0);
}

/** Sends what the socket has and the guest's window takes. */
function pump(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  for (let round = 0; round < PEEKS_PER_TURN; round++) {
    if (data[d + W.EVENTS] & Ev.TAP_FIN_SENT) return;
    if (!tcp.ctx.link.writable) return tcp.park(i);
    const wanted = sendable(tcp, i);
    if (wanted === 0) return;
    const got = peek(tcp, i, wanted);
    if (got < 0) {
      if (got === -E.ENOBUFS) return tcp.park(i);
      if (got !== -E.EAGAIN) return resetFlow(tcp, i);
      if (!(data[d + W.DO] & Do.URGENT)) data[d + W.DO] &= ~Do.READ;
      return;
    }
    if (got === 0) return sendFin(tcp, i);
    sendFrames(tcp, i, got);
    if (got < tcp.peekWanted && !(data[d + W.DO] & (Do.RDHUP | Do.URGENT))) {
      data[d + W.DO] &= ~Do.READ; // the next edge tells; after RDHUP none comes, so go on until 0
      return;
    }
  }
  tcp.queue(i);
}

/** Payload bytes per frame. A guest that begins anew may have a driver that takes no super-frames. */
function framePayload({ data, ctx }: TcpState, d: number): number {
  return data[d + (ctx.link.tso ? W.MAX_PAYLOAD : W.MSS)];
}

/** Bytes to peek for flow `i` now: whole segments where the window allows, 0: wait. */
function sendable(tcp: TcpState, i: number): number {
  const { data } = tcp;
  const d = base(i);
  const inFlight = data[d + W.SEQ_TO_TAP] - data[d + W.SEQ_UNACKED] | 0;
  let room = data[d + W.WND_FROM_TAP] - inFlight;
  if (!(data[d + W.DO] & Do.PEEK_OFF)) {
    room = Math.min(room, DISCARD_SIZE * DISCARD_PIECES - inFlight);
  }
  const mss = data[d + W.MSS];
  if (room <= 0 || inFlight > 0 && room < mss) { // no silly small segments (RFC 9293 §3.8.6.2.1)
    if (inFlight === 0) startProbing(tcp, i); // nothing else would tell when the window opens
    return 0;
  }
  const frames = tcp.ctx.link.tso ? SUPER_FRAMES_PER_PEEK : FRAMES_PER_PEEK;
  const most = framePayload(tcp, d) * frames;
  if (room >= most) return most;
  return room > mss ? room - room % mss : room;
}

/** Has the closed window probed, beginning one timeout from now. */
function startProbing(tcp: TcpState, i: number): void {
  const d = base(i);
  if (!(tcp.data[d + W.DO] & Do.TIMED)) tcp.data[d + W.PROGRESS_AT] = tcp.ctx.nowMs;
  tcp.time(i);
}

/** Starts the retransmission timer, unless it runs for what is in flight already. */
function startTimer(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  if (data[d + W.SEQ_UNACKED] === data[d + W.SEQ_TO_TAP]) data[d + W.PROGRESS_AT] = tcp.ctx.nowMs;
  tcp.time(i);
}

/**
 * Peeks up to `wanted` bytes after those in flight into the first transmit slots.
 *
 * @returns bytes, 0 at the end of the stream, or a negative errno: ENOBUFS when the link has no room
 */
function peek(tcp: TcpState, i: number, wanted: number): number {
  const { data, peeking } = tcp;
  const { link } = tcp.ctx;
  const d = base(i);
  const kernelOffset = (data[d + W.DO] & Do.PEEK_OFF) !== 0;
  const skip = kernelOffset ? 0 : data[d + W.SEQ_TO_TAP] - data[d + W.SEQ_UNACKED] | 0;
  let pieces = 0;
  for (let left = skip; left > 0; left -= DISCARD_SIZE) {
    peeking.set(pieces++, discard, 0, Math.min(left, DISCARD_SIZE));
  }
  const headers = headerBytes(tcp, i), most = framePayload(tcp, d);
  let placed = 0;
  for (let slot = 0; placed < wanted && pieces <= MAX_PEEK_IOVECS - MAX_PIECES; slot++) {
    const bytes = Math.min(wanted - placed, most);
    const taken = link.place(peeking, pieces, slot, headers, bytes);
    if (taken === 0) break;
    pieces += taken;
    placed += bytes;
  }
  if (placed === 0) return -E.ENOBUFS;
  tcp.peekWanted = placed;
  peeking.setCount(pieces);
  const got = libc.recvmsg(data[d + W.FD], peeking.header, MSG_PEEK | MSG_DONTWAIT);
  if (got < 0) return -errno();
  if (got > skip) return got - skip;
  return skip === 0 || data[d + W.DO] & Do.RDHUP ? 0 : -E.EAGAIN;
}

/** Sends `bytes` that were peeked into the first transmit slots. */
function sendFrames(tcp: TcpState, i: number, bytes: number): void {
  const { data } = tcp;
  const d = base(i), most = framePayload(tcp, d);
  startTimer(tcp, i);
  for (let left = bytes, slot = 0; left > 0; left -= most, slot++) {
    const length = Math.min(left, most);
    const seq = data[d + W.SEQ_TO_TAP];
    sendSegment(tcp, i, slot, TCP_ACK | TCP_PSH, seq, length); // a frame lost is sent again in time
    data[d + W.SEQ_TO_TAP] = seq + length;
    if (data[d + W.RTT_AT] === -1 && seq === data[d + W.SEQ_MAX]) {
      data[d + W.RTT_AT] = tcp.ctx.nowMs;
      data[d + W.RTT_SEQ] = seq + length;
    }
  }
  raiseMax(data, d);
}

/** The peer has closed: FIN to the guest. */
function sendFin(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  const seq = data[d + W.SEQ_TO_TAP];
  data[d + W.EVENTS] |= Ev.SOCK_FIN_RCVD | Ev.TAP_FIN_SENT;
  tcp.phases[i] = Phase.CLOSING;
  data[d + W.FIN_SEQ] = seq;
  data[d + W.DO] &= ~Do.READ;
  startTimer(tcp, i);
  sendSegment(tcp, i, TX_CONTROL, TCP_FIN | TCP_ACK, seq, 0);
  data[d + W.SEQ_TO_TAP] = seq + 1;
  raiseMax(data, d);
}

/** Records the highest sequence number sent. */
function raiseMax(data: Int32Array, d: number): void {
  if ((data[d + W.SEQ_TO_TAP] - data[d + W.SEQ_MAX] | 0) > 0) {
    data[d + W.SEQ_MAX] = data[d + W.SEQ_TO_TAP];
  }
}
