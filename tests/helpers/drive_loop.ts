// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Drives the real event loop over a fake link, turn by turn: beside what sockets have to say, the epoll
 * instance reports frames where the test has some, and always a signal that ends the loop. It never
 * blocks, and notes for how long the loop would have.
 *
 * @module
 */
import { EventType } from "../../lib/context.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { pingState } from "../../lib/icmp/state.ts";
import { RX_SLOTS } from "./fake_link.ts";
import { Loop } from "../../lib/loop.ts";
import { Epoll } from "../../lib/sys/epoll.ts";
import { libc } from "../../lib/sys/libc.ts";
import { type FakeContext, fakeContext, type FakeContextOptions } from "./fake_context.ts";
import type { SentFrame } from "./fake_link.ts";

/** No timer of any protocol is longer: a day. */
const LONG_MS = 86_400_000;
/** Turns of the loop in which every flow has given up, if each is that long. */
const LAST_TURNS = 64;

/** Number of descriptors this process has open. */
export function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** An epoll instance that ends each turn, and says when there are frames. */
export class ScriptedEpoll extends Epoll {
  /** Whether the next wait finds frames on the link. */
  frames = false;
  /** Timeout of the last wait, in milliseconds; -1: for ever. */
  timeoutMs = 0;
  #sockets = 0;
  #link = false;

  override wait(timeoutMs: number): number {
    this.timeoutMs = timeoutMs;
    this.#sockets = super.wait(0);
    this.#link = this.frames;
    this.frames = false;
    return this.#sockets + (this.#link ? 2 : 1);
  }

  override type(k: number): number {
    if (k < this.#sockets) return super.type(k);
    return k === this.#sockets ? EventType.SIGNAL : EventType.LINK;
  }

  override data(k: number): number {
    return k < this.#sockets ? super.data(k) : 0;
  }

  override events(k: number): number {
    return k < this.#sockets ? super.events(k) : 0;
  }
}

/** A loop and what it runs on. */
export class LoopDriver {
  readonly ctx: FakeContext;
  readonly epoll: ScriptedEpoll = new ScriptedEpoll();
  readonly loop: Loop;
  /** How far the flows' clock is ahead of the real one, in milliseconds. */
  ahead = 0;
  readonly #started: number[] = [];

  constructor(options: FakeContextOptions & { capacity?: number } = {}) {
    const table = new FlowTable({ capacity: options.capacity ?? 64 });
    this.ctx = fakeContext({ ...options, epoll: this.epoll, table });
    const activate = table.activate.bind(table);
    table.activate = (i) => {
      this.#started.push(table.typeOf(i));
      activate(i);
    };
    let nowMs = this.ctx.nowMs;
    Object.defineProperty(this.ctx, "nowMs", {
      get: () => nowMs + this.ahead,
      set: (value: number) => nowMs = value,
    });
    this.loop = new Loop(this.ctx, {
      signal: () => 0,
      childFd: -1,
      child: () => null,
      linkLost: () => 1,
    });
  }

  /** One turn of the loop. */
  turn(frames = false): void {
    this.epoll.frames = frames;
    this.loop.run();
  }

  /** Hands the loop frames, in as many batches as it takes. @returns the frames it sent */
  serve(...frames: Uint8Array[]): SentFrame[] {
    const { link } = this.ctx;
    for (const frame of frames) link.inject(frame);
    for (let left = frames.length; left > 0; left -= RX_SLOTS) this.turn(true);
    return this.takeSent();
  }

  /** Runs a few turns without frames: sockets have their say. @returns the frames the loop sent */
  settle(turns = 3): SentFrame[] {
    while (turns-- > 0) this.turn();
    return this.takeSent();
  }

  /** The frames sent since the last call. */
  takeSent(): SentFrame[] {
    const { link } = this.ctx, { sent } = link;
    link.sent = [];
    return sent;
  }

  /** Types of the flows begun since the last call. */
  takeStarted(): number[] {
    return this.#started.splice(0);
  }

  /** Lets all flows time out: their descriptors are closed, the entries free. */
  expire(): void {
    const { table } = this.ctx;
    for (let turn = 0; turn < LAST_TURNS && table.activeCount > 0; turn++) {
      this.ahead += LONG_MS;
      this.turn();
    }
    if (table.activeCount > 0) throw new Error(`${table.activeCount} flows do not end`);
  }

  /** Closes what it opened. */
  close(): void {
    this.expire();
    this.loop.tcp.close();
    for (const { raw } of [pingState(this.ctx).v4, pingState(this.ctx).v6]) {
      if (raw >= 0) libc.close(raw);
    }
    this.epoll.close();
  }
}
