// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Spliced TCP of one instance: what its flows share.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { FlowSide } from "../flow/side.ts";
import { CopyBuffer, type PipePool } from "../sys/splice.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { SpliceBit, SpliceWord } from "./splice_words.ts";
import { base } from "./words.ts";

/** Bytes copied at once: up to about this size that is faster than splice(2). */
export const COPY_BYTES = 32 << 10;

/** Spliced TCP of one instance. */
export class SpliceState {
  readonly ctx: Context;
  /** `ctx.table.data`, at hand. */
  readonly data: Int32Array;
  /** `ctx.table.counters` and `ctx.table.phases`, likewise. */
  readonly counters: Float64Array;
  readonly phases: Uint8Array;
  readonly pipes: PipePool;
  readonly copy: CopyBuffer = new CopyBuffer(COPY_BYTES);
  /** Flows to go on with in the next turn; `next` takes its place meanwhile. */
  again: Int32Array<ArrayBuffer>;
  againCount = 0;
  next: Int32Array<ArrayBuffer>;
  /** Scratch: how one of our own sockets would be recorded. */
  readonly mirror: FlowSide = new FlowSide();
  /** Messages that either side can provoke. */
  readonly warnings: RateLimit;

  /** @param pipes where pipes come from */
  constructor(ctx: Context, warnings: RateLimit, pipes: PipePool) {
    this.ctx = ctx;
    this.warnings = warnings;
    this.data = ctx.table.data;
    this.counters = ctx.table.counters;
    this.phases = ctx.table.phases;
    this.pipes = pipes;
    this.again = new Int32Array(ctx.table.capacity);
    this.next = new Int32Array(ctx.table.capacity);
  }

  /** Has flow `i` gone on with in the next turn. */
  queue(i: number): void {
    const w = base(i) + SpliceWord.BITS;
    if (this.data[w] & SpliceBit.AGAIN) return;
    this.data[w] |= SpliceBit.AGAIN;
    this.again[this.againCount++] = i;
  }
}
