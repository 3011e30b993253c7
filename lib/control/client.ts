// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The controller's side of `protocol.ts`: requests and their replies, events, and questions to a policy.
 *
 * It knows lines only; whose process and socket they come from is `instance_handle.ts`'s business.
 *
 * @module
 */
import { checkAnswer, checkFamily } from "../forward/decider.ts";
import type { FlowAnswer, FlowQuestion } from "../forward/question.ts";
import { MAX_QUESTIONS } from "../forward/questions.ts";
import { reviveError } from "./error_record.ts";
import { type EventOptions, EventStream, type FlowEvent } from "./event_stream.ts";
import { Lines } from "./lines.ts";
import {
  type Answer,
  type Ask,
  type ErrorRecord,
  MAX_LINE,
  type Notice,
  type Ready,
  type Request,
} from "./protocol.ts";

/** Longest line of an instance, far beyond what it says. */
const MAX_NOTICE = 1 << 24;

/** A policy as a function: what becomes of a flow that a guest wants to begin. */
export type PolicyFunction = (flow: FlowQuestion) => FlowAnswer | Promise<FlowAnswer>;

/** Whom a client works for. */
export interface ClientOwner {
  /** Sends bytes to the instance; what cannot be sent any more is left out. */
  send(bytes: Uint8Array<ArrayBuffer>): void;
  ready(ready: Ready): void;
  /** The start has failed. */
  failed(error: Error): void;
  /** Decides on flows; absent: the instance asks nothing. */
  readonly policy?: PolicyFunction | undefined;
  /** The policy has thrown, or given an answer that is none; the flow was rejected. */
  policyFailed(error: unknown, flow: FlowQuestion): void;
}

/** A request without its number. */
export type Asked<R = Request> = R extends Request ? Omit<R, "id"> : never;

interface Pending {
  resolve(result: unknown): void;
  reject(error: ErrorRecord | Error): void;
}

const encoder = new TextEncoder();

/** Speaks with one instance. */
export class ControlClient {
  readonly #owner: ClientOwner;
  readonly #lines = new Lines(MAX_NOTICE);
  readonly #pending = new Map<number, Pending>();
  readonly #streams = new Set<EventStream>();
  /** Questions that the policy has not answered, oldest first. */
  readonly #asked = new Map<number, FlowQuestion>();
  #lastId = 0;
  #isReady = false;
  /** Whether nothing was said that we have not heard. */
  #isComplete = false;
  /** Why nothing can be asked any more. */
  #ended: Error | null = null;

  constructor(owner: ClientOwner) {
    this.#owner = owner;
  }

  /**
   * What the instance has sent.
   *
   * @throws Error when that is not what an instance says
   */
  take(bytes: Uint8Array): void {
    for (const line of this.#lines.take(bytes)) this.#hear(JSON.parse(line));
  }

  #hear(notice: Notice): void {
    if ("reply" in notice) this.#settle(notice);
    else if ("opened" in notice) this.#tell({ kind: "opened", flow: notice.opened });
    else if ("closed" in notice) this.#tell({ kind: "closed", flow: notice.closed });
    else if ("lost" in notice) { for (const stream of this.#streams) stream.lose(notice.lost); }
    else if ("end" in notice) this.#isComplete = true;
    else if ("ask" in notice) this.#decide(notice);
    else if ("ready" in notice) this.#begin(notice.ready);
    else if ("failed" in notice) this.#owner.failed(reviveError(notice.failed));
  }

  /** Whether the instance has said that it is, and has not ended. */
  get isReady(): boolean {
    return this.#isReady;
  }

  #begin(ready: Ready): void {
    this.#isReady = true;
    this.#owner.ready(ready);
  }

  #tell(event: FlowEvent): void {
    for (const stream of this.#streams) stream.push(event);
  }

  #settle(notice: Extract<Notice, { reply: number }>): void {
    const pending = this.#pending.get(notice.reply);
    this.#pending.delete(notice.reply);
    if ("error" in notice) pending?.reject(notice.error);
    else pending?.resolve(notice.result);
  }

  /**
   * Asks the policy, and sends what it says; a flow that it fails for is rejected.
   *
   * A policy need not ever answer, and the instance forgets such questions. So do we, oldest first: whatever the
   * policy keeps for itself, only the question's number hangs on it.
   */
  #decide({ ask, flow }: Ask): void {
    const asked = this.#asked;
    asked.set(ask, flow);
    if (asked.size > MAX_QUESTIONS) asked.delete(asked.keys().next().value!);
    Promise.try(this.#owner.policy!, flow).then(
      (answer) => this.#answer(ask, answer),
      (error) => this.#reject(ask, error),
    );
  }

  #answer(ask: number, answer: FlowAnswer): void {
    const flow = this.#asked.get(ask);
    if (flow === undefined) return; // too late
    try {
      checkFamily(checkAnswer(answer), !flow.address.includes(":"));
      this.#send({ answer: ask, decision: answer });
      this.#asked.delete(ask);
    } catch (error) {
      this.#reject(ask, error);
    }
  }

  #reject(ask: number, error: unknown): void {
    const flow = this.#asked.get(ask);
    if (flow === undefined) return;
    this.#asked.delete(ask);
    this.#send({ answer: ask, decision: "reject" });
    this.#owner.policyFailed(error, flow);
  }

  /** @throws RangeError for what is longer than an instance takes */
  #send(message: Request | Answer): void {
    if (this.#ended) return;
    const bytes = encoder.encode(`${JSON.stringify(message)}\n`);
    if (bytes.length > MAX_LINE) {
      throw new RangeError(`${bytes.length} bytes are more than the ${MAX_LINE} of a message`);
    }
    this.#owner.send(bytes);
  }

  /**
   * Asks the instance for something.
   *
   * @returns the reply's result
   * @throws the error of the reply; RangeError; what {@linkcode end} was given
   */
  async request(asked: Asked): Promise<unknown> {
    if (this.#ended) throw this.#ended;
    const id = ++this.#lastId;
    this.#send({ id, ...asked } as Request);
    try {
      return await new Promise((resolve, reject) => this.#pending.set(id, { resolve, reject }));
    } catch (error) {
      // made here, so that it tells who has asked
      throw error instanceof Error ? error : reviveError(error as ErrorRecord);
    }
  }

  /** Events from now on; several can read them, each all of them. */
  events(options?: EventOptions): EventStream {
    const stream = new EventStream(options, () => {
      this.#streams.delete(stream);
      if (this.#streams.size === 0) this.#switchEvents(false);
    });
    if (this.#ended || options?.signal?.aborted) {
      stream.finish();
      return stream;
    }
    this.#streams.add(stream);
    if (this.#streams.size === 1) this.#switchEvents(true);
    return stream;
  }

  #switchEvents(on: boolean): void {
    this.request({ do: "events", on }).catch(() => {}); // the instance is gone: so are its events
  }

  /** Nothing comes any more. Streams can be read to their end. */
  end(error: Error): void {
    const isTorn = this.#isReady && !this.#isComplete;
    this.#ended = error;
    this.#isReady = false;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#asked.clear();
    for (const stream of this.#streams) {
      if (isTorn) stream.lose(Infinity);
      stream.finish();
    }
    this.#streams.clear();
  }
}
