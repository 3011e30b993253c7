// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Local datagrams, moved socket to socket between the host and the guest's namespace.
 *
 * Theory of operation: a spliced flow has its initiating side (INI) at a listener and its target side
 * (TGT) at a connected socket of its own in the other namespace (`splice_flow.ts`). Datagrams are
 * received with as many as there are by one recvmmsg(2). Consecutive ones of one flow are a *run*,
 * which one sendmmsg(2) sends, so that order is kept: to TGT by the flow's socket, to INI by the
 * listener, from the address that the peer addressed. Payloads are not touched.
 *
 * What a program sent as one super-datagram (UDP_SEGMENT), or the kernel coalesced, arrives as one
 * (UDP_GRO) and goes on as one. Datagrams of one size that were sent singly are joined to one (the
 * last may be shorter): they cross the other network as one packet and are told apart again by the
 * receiving socket, which costs a sixth. Where the kernel or the route refuses a super-datagram, its
 * parts are sent one by one. A socket whose buffer is full loses datagrams, as any network may.
 *
 * @module
 */
import { countBytes } from "../flow/count.ts";
import {
  INI,
  Pif,
  SIDE_EADDR,
  SIDE_OADDR,
  SIDE_PIF,
  SIDE_PORTS,
  SIDE_WORDS,
  TGT,
} from "../flow/side.ts";
import type { Arena } from "../sys/arena.ts";
import { E } from "../sys/errno.ts";
import { UDP_SEGMENT } from "../sys/ip_options.ts";
import { errno, libc } from "../sys/libc.ts";
import { cmsgSpace, type MessageVector, writeCmsg } from "../sys/message_vector.ts";
import { packetInfoSpace, writePacketInfo } from "../sys/packet_info.ts";
import { IPPROTO_UDP, MSG_DONTWAIT, MSG_NOSIGNAL, writeSockaddr } from "../sys/socket.ts";
import { drainErrors } from "./errors.ts";
import { unreachable } from "./splice_errors.ts";
import { type Run, SPLICE_MESSAGES, SPLICE_SLOT } from "./splice_state.ts";
import { segmentSize, wholeBytes } from "./received.ts";
import { base, Flag, touch, type UdpState, W } from "./state.ts";

/** Receiving calls per event. */
export const SPLICE_ROUNDS = 4;

/** Most bytes and datagrams that are joined (UDP_MAX_SEGMENTS of kernels before 6.9, linux/udp.h). */
const MAX_JOINED = 65487; // RFC 8200 §3: payload length, less the UDP header; all that fits IPv4 also
const MAX_SEGMENTS = 64;
const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL;
const SEGMENT_SPACE = cmsgSpace(2);

/** Takes what the own socket of spliced flow `flow` has to where the flow came from. */
export function receiveSpliced(state: UdpState, flow: number, fd: number): void {
  const { rx, payload } = state.splice;
  for (let round = 0; round < SPLICE_ROUNDS; round++) {
    const n = libc.recvmmsg(fd, rx.views[0], SPLICE_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      splice(state, flow, INI, rx, k, payload, k * SPLICE_SLOT);
      rx.reset(k);
    }
    flushSplice(state);
    if (n < SPLICE_MESSAGES) return; // also after an error, which epoll reports again
  }
}

/**
 * Adds received message `k` to the run, sending first what does not belong to it. The memory must
 * not be used again, nor another be given, before {@linkcode flushSplice}.
 *
 * @param side where it goes: INI or TGT
 * @param offset of its data in `memory`
 */
export function splice(
  state: UdpState,
  flow: number,
  side: number,
  messages: MessageVector,
  k: number,
  memory: Arena,
  offset: number,
): void {
  let segment = segmentSize(messages, k);
  const bytes = wholeBytes(messages, k, segment);
  if (bytes < 0) return;
  if (segment >= bytes) segment = 0;
  const { run } = state.splice;
  const fits = run.flow === flow && run.side === side && run.pieces < SPLICE_MESSAGES &&
    (segment === 0 || run.segment === 0 || run.segment === segment);
  if (!fits) {
    flushSplice(state);
    begin(state, flow, side);
    run.memory = memory;
  }
  add(state, offset, bytes, segment);
}

/** Adds a piece to the run: to its last message, or as a new one. */
function add(state: UdpState, offset: number, bytes: number, segment: number): void {
  const { run, tx, arena, txName } = state.splice;
  const piece = run.pieces++;
  tx.setData(piece, run.memory.address(offset), bytes);
  run.offset[piece] = offset;
  run.pieceBytes[piece] = bytes;
  if (run.messages > 0 && joins(run, bytes, segment)) return join(state, bytes);
  const k = run.messages++;
  run.first[k] = piece;
  run.messageBytes[k] = bytes;
  run.segments[k] = segment;
  tx.setName(k, arena.address(txName), run.nameBytes);
  setPieces(state, k, 1);
}

/** Whether a piece can be the next of the run's last message, whose datagrams stay what they are. */
function joins(run: Run, bytes: number, segment: number): boolean {
  const k = run.messages - 1, before = run.messageBytes[k];
  const size = run.segments[k] || before; // all but the last datagram have the same
  if (!run.joins || size === 0 || before % size !== 0) return false;
  if (run.segment !== 0 && run.segment !== size) return false;
  const alike = segment > 0 ? segment === size : bytes > 0 && bytes <= size;
  return alike && before + bytes <= Math.min(MAX_JOINED, size * MAX_SEGMENTS);
}

/** Makes the newest piece part of the last message. */
function join(state: UdpState, bytes: number): void {
  const { run } = state.splice, k = run.messages - 1;
  run.segments[k] ||= run.messageBytes[k];
  run.messageBytes[k] += bytes;
  setPieces(state, k, run.count[k] + 1);
}

/** Sets pieces and control messages of message `k`: where it leaves from, and its segment size. */
function setPieces(state: UdpState, k: number, count: number): void {
  const { run, tx, arena, txSegment } = state.splice, segment = run.segments[k];
  if (segment > 0 && run.segment === 0) {
    const size = writeCmsg(arena, txSegment, IPPROTO_UDP, UDP_SEGMENT, 2);
    arena.dv.setUint16(size, segment, true);
    run.segment = segment;
  }
  run.count[k] = count;
  tx.setPieces(k, run.first[k], count);
  const { infoBytes } = run;
  const control = segment > 0 ? infoBytes + SEGMENT_SPACE : infoBytes;
  tx.setControl(k, arena.address(txSegment - infoBytes), control);
}

/** Starts a run; towards INI, writes whereto and wherefrom. */
function begin(state: UdpState, flow: number, side: number): void {
  const { run, arena, txName, txSegment } = state.splice, { sides } = state, at = base(flow);
  run.flow = flow;
  run.side = side;
  run.segment = 0;
  run.nameBytes = run.infoBytes = 0;
  run.joins = (state.data[at + W.FLAGS] & Flag.SINGLE) === 0;
  run.fd = state.data[at + W.FD];
  if (side === TGT) return;
  run.fd = state.listeners[state.data[at + W.LISTENER] - 1].fd;
  const ini = (2 * flow + INI) * SIDE_WORDS, port = sides[ini + SIDE_PORTS] >>> 16;
  run.nameBytes = writeSockaddr(arena.dv, txName, sides, ini + SIDE_EADDR, port);
  run.infoBytes = packetInfoSpace(sides, ini + SIDE_OADDR);
  writePacketInfo(arena, txSegment - run.infoBytes, sides, ini + SIDE_OADDR, 0);
}

/** Sends the run, if there is one. */
export function flushSplice(state: UdpState): void {
  const { run, tx } = state.splice, n = run.messages, { flow } = run;
  if (n === 0) return;
  run.messages = run.pieces = 0;
  run.flow = -1;
  note(state, flow);
  let again = true;
  for (let k = 0; k < n;) {
    const sent = libc.sendmmsg(run.fd, tx.views[k], n - k, SEND_FLAGS);
    if (sent > 0) {
      countSent(state, flow, k, sent);
      k += sent;
      again = true;
      continue;
    }
    const error = errno();
    if (isFull(error)) return;
    if (again) { // it may have been the pending error of an earlier datagram
      again = false;
      drain(state, flow);
      continue;
    }
    if (run.segments[k] > 0) split(state, flow, k);
    else refused(state, flow, error);
    again = true;
    k++;
  }
}

function isFull(error: number): boolean {
  return error === E.EAGAIN || error === E.ENOBUFS || error === E.ENOMEM;
}

/** Counts `n` messages of the run, from `first` on, which have been sent. */
function countSent(state: UdpState, flow: number, first: number, n: number): void {
  const { run } = state.splice;
  let bytes = 0;
  for (let k = first; k < first + n; k++) bytes += run.messageBytes[k];
  countBytes(state.counters, flow, 1 - run.side, bytes);
}

/** Notes the run as traffic of its flow. */
function note(state: UdpState, flow: number): void {
  const { run } = state.splice;
  const toGuest = state.sides[(2 * flow + run.side) * SIDE_WORDS + SIDE_PIF] === Pif.SPLICE;
  touch(state, flow, toGuest ? Flag.TO_GUEST : Flag.FROM_GUEST);
}

/** Empties the error queue of the socket that the run goes by. */
function drain(state: UdpState, flow: number): void {
  const { side, fd } = state.splice.run;
  if (side === TGT) drainErrors(state, fd, flow);
  else drainErrors(state, fd, -1, state.data[base(flow) + W.LISTENER] - 1);
}

/** Sends the datagrams of message `k` one by one, and joins no more of the flow. */
function split(state: UdpState, flow: number, k: number): void {
  const { run } = state.splice, segment = run.segments[k];
  if (run.count[k] > 1) state.data[base(flow) + W.FLAGS] |= Flag.SINGLE;
  for (let p = run.first[k]; p < run.first[k] + run.count[k]; p++) {
    if (!sendParts(state, flow, run.offset[p], run.pieceBytes[p], segment)) return;
  }
}

/** Sends a piece in datagrams of `segment` bytes. @returns false when the socket takes no more */
function sendParts(
  state: UdpState,
  flow: number,
  start: number,
  bytes: number,
  segment: number,
): boolean {
  const { run, parts, arena, txName, txSegment } = state.splice;
  for (let done = 0; done < bytes;) {
    let n = 0, at = done;
    for (; n < SPLICE_MESSAGES && done < bytes; done += segment) {
      parts.setData(n, run.memory.address(start + done), Math.min(segment, bytes - done));
      parts.setName(n, arena.address(txName), run.nameBytes);
      parts.setControl(n++, arena.address(txSegment - run.infoBytes), run.infoBytes);
    }
    for (let j = 0; j < n;) {
      const sent = libc.sendmmsg(run.fd, parts.views[j], n - j, SEND_FLAGS);
      if (sent > 0) {
        const to = Math.min(bytes, at + sent * segment);
        countBytes(state.counters, flow, 1 - run.side, to - at);
        at = to;
        j += sent;
      } else if (isFull(errno())) return false;
      else {
        at += segment;
        j++;
      }
    }
  }
  return true;
}

/** Tells the sender why its datagram could not be passed on. */
function refused(state: UdpState, flow: number, error: number): void {
  const sender = state.splice.run.side === TGT ? INI : TGT;
  unreachable(state, state.sides, (2 * flow + sender) * SIDE_WORDS, error);
}
