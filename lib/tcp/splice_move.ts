// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Data of spliced TCP flows, from one socket to the other.
 *
 * Theory of operation: one direction is moved until its source is empty, its destination full, or its
 * share of this turn used up; then an event for the source, one for the destination, or the next turn
 * continues. Events are edge-triggered, so each of the three must be known for sure: empty and full
 * mean that a call has said EAGAIN (or read less than was asked for, with nothing behind it), and a bit
 * of the flow remembers what no event will tell again.
 *
 * There are three ways, and all leave what cannot be delivered where it cannot be lost:
 *
 * - {@linkcode copyOnce}: recv(2) and send(2) through one static buffer. For requests and answers this
 *   takes the fewest system calls: a short read already says that the source is empty. What a full
 *   destination does not take goes into a pipe of the pool, which the flow keeps until it is taken.
 * - {@linkcode spliceOnce}: socket, pipe, socket, without copying, for bulk data. The pipe stays with
 *   the flow in the same case.
 * - {@linkcode peekOnce}: peek, send, and drop from the source what was taken. Needs no pipe, so it is
 *   what remains when none is to be had. Data then stays in the source.
 *
 * Urgent data is carried in line and its mark is lost. splice(2) never gets past such a mark, so a
 * direction that has seen one is copied from then on; and an end of file from splice(2) is believed
 * only when recv(2) says so, too.
 *
 * @module
 */
import { countBytes } from "../flow/count.ts";
import { E } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL, MSG_PEEK, MSG_TRUNC } from "../sys/socket.ts";
import { splice } from "../sys/splice.ts";
import { closeSplice, passEndOn } from "./splice_close.ts";
import { COPY_BYTES, type SpliceState } from "./splice_state.ts";
import { SpliceBit, SpliceWord } from "./splice_words.ts";
import { base } from "./words.ts";

/** Bytes one direction of a flow may move before others have their turn. */
const TURN_BYTES = 2 << 20;

/** What comes of a step: bytes moved (more may be there), or one of these. */
const EMPTY = 0, FULL = -1, END = -2, FAILED_SOURCE = -3, FAILED_SINK = -4;

/**
 * Moves what comes from side `s` of flow `i`.
 *
 * A socket that fails makes the flow end: what the failed one has still received is delivered first,
 * as it would have been without us, and then the other one is reset.
 */
export function move(state: SpliceState, i: number, s: number): void {
  const result = moveUntil(state, i, s);
  if (result === FAILED_SOURCE) closeSplice(state, i, true); // it has been read to the end
  else if (result === FAILED_SINK) fail(state, i, 1 - s);
}

/** The socket of side `s` of flow `i` has failed: delivers what came from it, and resets both. */
export function fail(state: SpliceState, i: number, s: number): void {
  state.data[base(i) + SpliceWord.BITS] |= SpliceBit.ENDING |
    (SpliceBit.READ | SpliceBit.LAST) << s;
  moveUntil(state, i, s);
  closeSplice(state, i, true);
}

/** Moves in one direction until there is a reason to stop. @returns that reason */
function moveUntil(state: SpliceState, i: number, s: number): number {
  const { data } = state;
  const d = base(i), w = d + SpliceWord.BITS;
  if (data[w] & (SpliceBit.CLOSED | (SpliceBit.FULL | SpliceBit.END_SENT) << s)) return EMPTY;
  let result = data[d + SpliceWord.STUCK + s] > 0 ? pushStuck(state, i, s) : EMPTY;
  let moved = 0;
  while (result >= 0 && data[w] & SpliceBit.READ << s) {
    // a connection that ends has no next turn, and no more to give than its socket holds
    if (moved >= TURN_BYTES && !(data[w] & SpliceBit.ENDING)) {
      state.queue(i);
      return EMPTY;
    }
    result = moveOnce(state, i, s);
    if (result === EMPTY) data[w] &= ~(SpliceBit.READ << s);
    else moved += result;
  }
  if (result === END && !(data[w] & SpliceBit.ENDING)) passEndOn(state, i, s);
  if (result >= 0 && moved < COPY_BYTES) data[w] &= ~(SpliceBit.BULK << s);
  return result;
}

/** One step, by the way that suits the direction now. */
function moveOnce(state: SpliceState, i: number, s: number): number {
  const { pipes, data } = state;
  const bits = data[base(i) + SpliceWord.BITS] >> s;
  if (bits & SpliceBit.URGENT) return peekOnce(state, i, s);
  const pipe = pipes.ready();
  if (pipe < 0) return peekOnce(state, i, s);
  return bits & SpliceBit.BULK ? spliceOnce(state, i, s, pipe) : copyOnce(state, i, s, pipe);
}

/** What a read that returned -1 means. */
function readError(): number {
  return errno() === E.EAGAIN ? EMPTY : FAILED_SOURCE; // what does not block is not interrupted
}

/** Reads into the static buffer and sends that on; `pipe` takes what the destination does not. */
function copyOnce(state: SpliceState, i: number, s: number, pipe: number): number {
  const { data, copy, pipes } = state;
  const d = base(i), w = d + SpliceWord.BITS;
  const room = Math.min(COPY_BYTES, pipes.size[pipe]);
  const bytes = libc.recv(data[d + SpliceWord.FD + s], copy.bytes, room, MSG_DONTWAIT);
  if (bytes === 0) return END;
  if (bytes < 0) return readError();
  const to = data[d + SpliceWord.FD + 1 - s];
  let sent = libc.send(to, copy.bytes, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) {
    if (errno() !== E.EAGAIN) return FAILED_SINK;
    sent = 0;
  }
  countBytes(state.counters, i, s, sent);
  if (sent < bytes) {
    pipes.take();
    const left = copy.write(pipes.input[pipe], sent, bytes); // it is empty and has the room
    if (left === bytes - sent) return keep(state, i, s, pipe, left, bytes);
    pipes.discard(pipe); // there was no memory for it: what is lost must not go unnoticed
    return FAILED_SINK;
  }
  if (bytes === room) data[w] |= SpliceBit.BULK << s;
  else if (!(data[w] & (SpliceBit.LAST | SpliceBit.URGENT) << s)) data[w] &= ~(SpliceBit.READ << s);
  return bytes;
}

/** Moves up to a pipe full. */
function spliceOnce(state: SpliceState, i: number, s: number, pipe: number): number {
  const { data, pipes } = state;
  const d = base(i);
  const bytes = splice(data[d + SpliceWord.FD + s], pipes.input[pipe], pipes.size[pipe]);
  if (bytes === 0) {
    data[d + SpliceWord.BITS] &= ~(SpliceBit.BULK << s); // recv(2) decides whether it is the end
    return copyOnce(state, i, s, pipe);
  }
  if (bytes < 0) return bytes === -E.EAGAIN ? EMPTY : FAILED_SOURCE;
  const full = bytes === pipes.size[pipe];
  const sent = Math.max(0, splice(pipes.output[pipe], data[d + SpliceWord.FD + 1 - s], bytes));
  countBytes(state.counters, i, s, sent);
  if (sent === bytes) {
    if (full) pipes.enlarge(pipe);
    return bytes;
  }
  pipes.take();
  return keep(state, i, s, pipe, bytes - sent, bytes);
}

/** Peeks, sends what was seen, and drops what was taken. */
function peekOnce(state: SpliceState, i: number, s: number): number {
  const { data, copy } = state;
  const d = base(i);
  const from = data[d + SpliceWord.FD + s];
  const seen = libc.recv(from, copy.bytes, COPY_BYTES, MSG_PEEK | MSG_DONTWAIT);
  if (seen === 0) return END;
  if (seen < 0) return readError();
  const to = data[d + SpliceWord.FD + 1 - s];
  const sent = libc.send(to, copy.bytes, seen, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) {
    if (errno() !== E.EAGAIN) return FAILED_SINK;
    data[d + SpliceWord.BITS] |= SpliceBit.FULL << s;
    return FULL;
  }
  countBytes(state.counters, i, s, sent);
  if (libc.recv(from, copy.bytes, sent, MSG_TRUNC | MSG_DONTWAIT) !== sent) return FAILED_SOURCE;
  return sent;
}

/**
 * The flow keeps `pipe`, which was taken out of the pool, with the last `left` bytes of `bytes`.
 *
 * @returns `bytes` if the other side takes them after all, else FULL or FAILED_SINK
 */
function keep(
  state: SpliceState,
  i: number,
  s: number,
  pipe: number,
  left: number,
  bytes: number,
): number {
  const d = base(i);
  state.data[d + SpliceWord.PIPE + s] = pipe;
  state.data[d + SpliceWord.STUCK + s] = left;
  const result = pushStuck(state, i, s);
  return result < 0 ? result : bytes;
}

/** Delivers what lies in the flow's own pipe. @returns EMPTY when all is gone, FULL or FAILED_SINK */
function pushStuck(state: SpliceState, i: number, s: number): number {
  const { data, pipes } = state;
  const d = base(i);
  const pipe = data[d + SpliceWord.PIPE + s];
  const to = data[d + SpliceWord.FD + 1 - s];
  while (data[d + SpliceWord.STUCK + s] > 0) {
    const sent = splice(pipes.output[pipe], to, data[d + SpliceWord.STUCK + s]);
    if (sent === -E.EAGAIN) {
      data[d + SpliceWord.BITS] |= SpliceBit.FULL << s;
      return FULL;
    }
    if (sent <= 0) return FAILED_SINK;
    data[d + SpliceWord.STUCK + s] -= sent;
    countBytes(state.counters, i, s, sent);
  }
  pipes.give(pipe);
  return EMPTY;
}
