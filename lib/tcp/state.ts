// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP of one instance: what its flows share.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { Message } from "../sys/message.ts";
import { RX_SLOTS } from "../link/link.ts";
import { FlowSide } from "../flow/side.ts";
import { DATA_WORDS } from "../flow/table.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { Packet } from "../wire/packet.ts";
import { InitialSequence } from "./isn.ts";
import { OverflowPool } from "./overflow.ts";
import { Do, W } from "./words.ts";

/** iovecs of one peek: discarded data in blocks, then the frames. */
const MAX_PEEK_IOVECS = 32;

/** TCP of one instance. */
export class TcpState {
  readonly ctx: Context;
  /** `ctx.table.data` and `ctx.table.sides`, at hand. */
  readonly data: Int32Array;
  readonly sides: Int32Array;
  readonly view: DataView;
  readonly overflow: OverflowPool = new OverflowPool();
  readonly isn: InitialSequence = new InitialSequence();
  /** Flows to look after at the end of this turn; `next` takes its place for the next one. */
  turn: Int32Array<ArrayBuffer>;
  turnCount = 0;
  next: Int32Array<ArrayBuffer>;
  /** Flows with something in flight, in no order. */
  readonly timed: Int32Array<ArrayBuffer>;
  timedCount = 0;
  /** Payload of one flow collected from a batch of frames: the flow (-1: none) … */
  batchFlow = -1;
  batchCount = 0;
  batchBytes = 0;
  /** … and the offset of each piece; lengths lie in the iovecs. */
  readonly batchOffset: Int32Array<ArrayBuffer> = new Int32Array(RX_SLOTS);
  /** Prepared `struct msghdr`s and their iovecs, for sendmsg(2) and recvmsg(2). */
  readonly sending: Message = new Message(RX_SLOTS);
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
    this.view = ctx.link.arena.dv;
    const capacity = ctx.table.capacity;
    this.turn = new Int32Array(capacity);
    this.next = new Int32Array(capacity);
    this.timed = new Int32Array(capacity);
  }

  /** Has flow `i` looked after at the end of this turn. */
  queue(i: number): void {
    const w = i * DATA_WORDS + W.DO;
    if (this.data[w] & Do.TURN) return;
    this.data[w] |= Do.TURN;
    this.turn[this.turnCount++] = i;
  }

  /** Has flow `i` watched by the retransmission timer. */
  time(i: number): void {
    const w = i * DATA_WORDS + W.DO;
    if (this.data[w] & Do.TIMED) return;
    this.data[w] |= Do.TIMED;
    this.timed[this.timedCount++] = i;
  }
}
