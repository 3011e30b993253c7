// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP of one instance: what its flows share.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { Message } from "../sys/message.ts";
import { MAX_PIECES, RX_FRAMES } from "../link/link.ts";
import { FlowSide } from "../flow/side.ts";
import { DATA_WORDS } from "../flow/table.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { Packet } from "../wire/packet.ts";
import { InitialSequence } from "./isn.ts";
import { OverflowPool } from "./overflow.ts";
import { Do, W } from "./words.ts";

/** iovecs of one peek: discarded data in blocks, then the frames. */
export const MAX_PEEK_IOVECS = 256;
/** iovecs of one batch of payload; below IOV_MAX, 1024 (sendmsg(2)). */
const MAX_SEND_IOVECS = 512;
/** Where a batch is full: one more segment would need more. */
export const FULL_BATCH_IOVECS: number = MAX_SEND_IOVECS - MAX_PIECES;

/** TCP of one instance. */
export class TcpState {
  readonly ctx: Context;
  /** `ctx.table.data` and `ctx.table.sides`, at hand. */
  readonly data: Int32Array;
  readonly sides: Int32Array;
  /** `ctx.table.counters` and `ctx.table.phases`, likewise. */
  readonly counters: Float64Array;
  readonly phases: Uint8Array;
  readonly view: DataView;
  readonly overflow: OverflowPool = new OverflowPool();
  readonly isn: InitialSequence = new InitialSequence();
  /** Flows to look after at the end of this turn; `next` takes its place for the next one. */
  turn: Int32Array<ArrayBuffer>;
  turnCount = 0;
  next: Int32Array<ArrayBuffer>;
  /** Flows whose data waits for room on the link. */
  readonly parked: Int32Array<ArrayBuffer>;
  parkedCount = 0;
  /** Bytes that the last peek asked for. */
  peekWanted = 0;
  /** Flows with something in flight, in no order. */
  readonly timed: Int32Array<ArrayBuffer>;
  timedCount = 0;
  /** Payload of one flow collected from a batch of frames: the flow (-1: none) … */
  batchFlow = -1;
  batchCount = 0;
  batchBytes = 0;
  /** … and the iovecs it takes; offset and length of each segment's payload. */
  batchPieces = 0;
  readonly batchOffset: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  readonly batchLength: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  /** Prepared `struct msghdr`s and their iovecs, for sendmsg(2) and recvmsg(2). */
  readonly sending: Message = new Message(MAX_SEND_IOVECS);
  readonly peeking: Message = new Message(MAX_PEEK_IOVECS);
  /** Messages that a guest can provoke. */
  readonly warnings: RateLimit = new RateLimit(1);
  /** Scratch for a packet rebuilt for ICMP. */
  readonly packet: Packet = new Packet();
  /** Scratch sides for new flows and lookups. */
  readonly ini: FlowSide = new FlowSide();
  readonly tgt: FlowSide = new FlowSide();

  constructor(ctx: Context) {
    this.ctx = ctx;
    this.data = ctx.table.data;
    this.sides = ctx.table.sides;
    this.counters = ctx.table.counters;
    this.phases = ctx.table.phases;
    this.view = ctx.link.arena.dv;
    const capacity = ctx.table.capacity;
    this.turn = new Int32Array(capacity);
    this.next = new Int32Array(capacity);
    this.timed = new Int32Array(capacity);
    this.parked = new Int32Array(capacity);
  }

  /** Has flow `i` looked after at the end of this turn. */
  queue(i: number): void {
    const w = i * DATA_WORDS + W.DO;
    if (this.data[w] & Do.TURN) return;
    this.data[w] |= Do.TURN;
    this.turn[this.turnCount++] = i;
  }

  /** Has flow `i` looked after when the link has room again. */
  park(i: number): void {
    const w = i * DATA_WORDS + W.DO;
    if (this.data[w] & Do.PARKED) return;
    this.data[w] |= Do.PARKED;
    this.parked[this.parkedCount++] = i;
  }

  /** The link has room: has all flows looked after that waited for it. */
  unpark(): void {
    for (let k = 0; k < this.parkedCount; k++) {
      this.data[this.parked[k] * DATA_WORDS + W.DO] &= ~Do.PARKED;
      this.queue(this.parked[k]);
    }
    this.parkedCount = 0;
  }

  /** Has flow `i` watched by the retransmission timer. */
  time(i: number): void {
    const w = i * DATA_WORDS + W.DO;
    if (this.data[w] & Do.TIMED) return;
    this.data[w] |= Do.TIMED;
    this.timed[this.timedCount++] = i;
  }
}
