// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What one consumer of events has not read yet.
 *
 * Theory of operation: events come as fast as a guest can open connections, and a consumer reads as it
 * likes. So the queue has a limit. What comes while it is full is left out, and where that
 * happened the consumer finds the number of them.
 *
 * @module
 */
import type { FlowSnapshot } from "../flow/snapshot.ts";

/**
 * Something that has happened to a flow; or how many such events were left out, where they are missing. The count is
 * `Infinity` when nobody can say: the instance was ended by force, and what it had not said is gone.
 */
export type FlowEvent =
  | { readonly kind: "opened"; readonly flow: FlowSnapshot }
  | { readonly kind: "closed"; readonly flow: FlowSnapshot }
  | { readonly kind: "lost"; readonly count: number };

/** How events are read. */
export interface EventOptions {
  /** How many wait for a slow consumer before further ones are left out; 4096 unless given. */
  readonly limit?: number;
  /** Ends the iteration, which then throws the signal's reason. */
  readonly signal?: AbortSignal;
}

/** Events that wait at most, unless the consumer says otherwise: some megabytes. */
const DEFAULT_LIMIT = 4096;

type Result = IteratorResult<FlowEvent, undefined>;

/** Whoever waits in `next()`. */
interface Waiting {
  resolve(result: Result): void;
  reject(reason: unknown): void;
}

/**
 * The events of one consumer, an iterator that can be left at any time.
 *
 * @example
 * ```ts
 * import { EventStream } from "./event_stream.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const stream = new EventStream({ limit: 1 });
 * stream.lose(2);
 * stream.lose(1);
 * stream.finish();
 * assertEquals(await Array.fromAsync(stream), [{ kind: "lost", count: 3 }]);
 * ```
 */
export class EventStream implements AsyncIterableIterator<FlowEvent, undefined> {
  readonly #limit: number;
  readonly #signal: AbortSignal | undefined;
  readonly #left: () => void;
  #events: FlowEvent[] = [];
  /** Left out since the last event in the queue. */
  #lost = 0;
  #waiting: Waiting[] = [];
  #open = true;
  #failure: { readonly reason: unknown } | null = null;

  /**
   * @param left called once, when the consumer does not want more
   * @throws RangeError for a limit that is none
   */
  constructor({ limit = DEFAULT_LIMIT, signal }: EventOptions = {}, left: () => void = () => {}) {
    if (!Number.isInteger(limit) || limit < 1) {
      throw new RangeError(`Limit ${limit}: must be a whole number from 1 on`);
    }
    this.#limit = limit;
    this.#signal = signal;
    this.#left = left;
    if (signal?.aborted) this.#abort();
    else signal?.addEventListener("abort", this.#abort);
  }

  readonly #abort = (): void => {
    this.#failure = { reason: this.#signal!.reason };
    this.#stop();
  };

  /** Ends the queue from the consumer's side. */
  #stop(): void {
    this.#events = [];
    this.#lost = 0;
    if (this.#open) this.#left();
    this.finish();
  }

  /** One more event. */
  push(event: FlowEvent): void {
    if (!this.#open) return;
    const first = this.#waiting.shift();
    if (first) return first.resolve({ value: event, done: false });
    if (this.#events.length >= this.#limit) return this.lose(1);
    this.#tellLost();
    this.#events.push(event);
  }

  /** Events that others have left out. */
  lose(count: number): void {
    if (!this.#open) return;
    this.#lost += count;
    if (this.#waiting.length === 0) return;
    this.#waiting.shift()!.resolve({ value: this.#takeLost(), done: false });
  }

  /** Puts what was lost before what comes next. */
  #tellLost(): void {
    if (this.#lost > 0) this.#events.push(this.#takeLost());
  }

  #takeLost(): FlowEvent {
    const count = this.#lost;
    this.#lost = 0;
    return { kind: "lost", count };
  }

  /** No more events come: what is in the queue can still be read. */
  finish(): void {
    this.#open = false;
    this.#signal?.removeEventListener("abort", this.#abort);
    for (const { resolve, reject } of this.#waiting.splice(0)) {
      this.#failure ? reject(this.#takeFailure()) : resolve({ value: undefined, done: true });
    }
  }

  /** The reason is thrown once, and the iteration is over then. */
  #takeFailure(): unknown {
    const { reason } = this.#failure!;
    this.#failure = null;
    return reason;
  }

  /** The next event, as soon as there is one. */
  next(): Promise<Result> {
    if (this.#failure) return Promise.reject(this.#takeFailure());
    const event = this.#events.shift() ?? (this.#lost > 0 ? this.#takeLost() : undefined);
    if (event) return Promise.resolve({ value: event, done: false });
    if (!this.#open) return Promise.resolve({ value: undefined, done: true });
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  /** Leaves: `break` in a loop. */
  return(): Promise<Result> {
    this.#stop();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }
}
