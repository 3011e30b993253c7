// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The instance's part of the conversation with its controller (`protocol.ts`).
 *
 * Theory of operation: the server is there before the instance, so that a start that fails can be told. Once
 * the instance is ready to serve, the server is given it ({@linkcode ControlServer.steer}), does what waits in the
 * socket, and from then on is one more event of the loop. What it has to say is written at the end of a
 * turn. Nothing here is on the way of a packet: a flow that begins or ends costs a line while the controller
 * wants to see that, and a comparison otherwise.
 *
 * @module
 */
import { EventType } from "../context.ts";
import { FlowReader } from "../flow/reader.ts";
import type { FlowTable } from "../flow/table.ts";
import type { Decider } from "../forward/decider.ts";
import type { FlowAnswer, FlowQuestion } from "../forward/question.ts";
import { monotonicMs } from "../sys/clock.ts";
import { EPOLL, type Epoll } from "../sys/epoll.ts";
import { SysError } from "../sys/errno.ts";
import { waitWritable } from "../sys/poll.ts";
import { Channel, type LineHandler } from "./channel.ts";
import { errorRecord } from "./error_record.ts";
import { type Changeable, ForwardControl, type ForwardOptions } from "./forward_control.ts";
import { type Answer, MAX_LINE, type Notice, type Ready, type Request } from "./protocol.ts";
import { NO_ID, readMessage, RequestError } from "./requests.ts";

/** Our exit code when the controller has asked for the end. */
const CLOSED = 0;
/** How long an instance that has ended waits for its controller, which may be computing, to read. */
const LAST_WORDS_MS = 30_000;

/** What a server steers. */
export interface Steered {
  readonly epoll: Epoll;
  readonly table: Pick<FlowTable, "observer">;
  /** Memory of the table. */
  readonly buffer: ArrayBufferLike;
  readonly forwarder: Changeable;
  readonly options: ForwardOptions;
  /** What asks our {@linkcode ControlServer.decider}; null: nothing does. */
  readonly policy: { answered(id: number, answer: FlowAnswer): boolean } | null;
  /** Clock of the table, in milliseconds. */
  readonly clock: () => number;
  /** Our exit code when the controller has gone. */
  gone(): number;
}

/** The server of one instance. */
export class ControlServer {
  readonly #channel: Channel;
  readonly #lines: LineHandler;
  #steered: Steered | null = null;
  #forward: ForwardControl | null = null;
  #reader: FlowReader | null = null;
  #watched: number = EPOLL.IN;
  #exit: number | null = null;
  #lost = 0;

  /** @param fd a connected stream socket, which is ours from now on */
  constructor(fd: number) {
    this.#channel = new Channel(fd);
    this.#lines = {
      line: (text) => this.#line(text),
      tooLong: () => this.#refuse(NO_ID, `A line may have ${MAX_LINE} bytes`),
    };
  }

  /** Decides on flows by asking the controller (`--policy -`), unless it has long stopped reading. */
  readonly decider: Decider = {
    decide: (flow: FlowQuestion, ask: number) => {
      if (this.#channel.stopped) return "drop";
      this.#say({ ask, flow });
      return null;
    },
  };

  /** Bytes that wait for the controller. */
  get waiting(): number {
    return this.#channel.waiting;
  }

  /** Takes over an instance, whose loop has to call {@linkcode event} and {@linkcode flush}. @throws SysError */
  steer(steered: Steered): void {
    this.#steered = steered;
    this.#forward = new ForwardControl(steered.forwarder, steered.options);
    this.#reader = new FlowReader(steered.buffer);
    const { fd } = this.#channel;
    const result = steered.epoll.add(fd, this.#watched, EventType.CONTROL, 0);
    if (result < 0) throw new SysError("epoll_ctl", "controller", -result);
  }

  /** Does what the controller has asked for before the guest runs. @returns as {@linkcode event} */
  begin(): number | null {
    const code = this.event();
    return this.flush() ?? code;
  }

  /** The guest runs. The first turn of the loop may be long in coming. */
  ready(ready: Ready): void {
    this.#say({ ready });
    this.flush();
  }

  /** There will be no instance. To be called last. */
  failed(error: unknown): void {
    this.#say({ failed: errorRecord(error) });
    this.#channel.flush();
  }

  /**
   * The instance has ended, guest and all: what its flows have come to is said, so that no byte of theirs is missing,
   * and that this was all. Waits while the controller is there and does not read, but not for ever.
   *
   * @param left called when it has to wait: what nobody needs any more can go
   * @param waitMs how long
   */
  finish(left: () => void, waitMs: number = LAST_WORDS_MS): void {
    const deadline = monotonicMs() + waitMs;
    const isWatched = this.#steered?.table.observer === this.#observer;
    const flows = isWatched ? this.#reader!.flows(this.#steered!.clock()) : [];
    for (const flow of flows) {
      if (this.#channel.full) this.#drain(left, deadline);
      if (this.#channel.full) this.#lost++;
      else this.#say({ closed: flow });
    }
    if (this.#lost > 0) this.#say({ lost: this.#lost });
    this.#say({ end: true });
    this.#drain(left, deadline);
  }

  /** Writes what waits, until some time. */
  #drain(left: () => void, deadline: number): void {
    const channel = this.#channel;
    channel.flush();
    if (channel.waiting > 0) left();
    for (; channel.waiting > 0; channel.flush()) {
      const ms = Math.ceil(deadline - monotonicMs());
      if (ms <= 0 || !waitWritable(channel.fd, ms)) return;
    }
  }

  /** Hangs up. */
  close(): void {
    this.#channel.close();
  }

  /** Does what the controller has asked for. @returns our exit code when that is the end, else null */
  event(): number | null {
    if (!this.#channel.receive(this.#lines)) this.#exit ??= this.#steered!.gone();
    return this.#exit;
  }

  /**
   * Writes what was said, and sees to it that the rest is. To be called at the end of each turn.
   *
   * @returns as {@linkcode event}
   */
  flush(): number | null {
    const channel = this.#channel;
    if (channel.waiting > 0 && channel.flush()) this.event();
    if (this.#lost > 0 && !channel.full) this.#sayLost();
    const { interest } = channel;
    if (interest === this.#watched) return this.#exit;
    this.#watched = interest;
    this.#steered!.epoll.modify(channel.fd, interest, EventType.CONTROL, 0);
    return this.#exit;
  }

  #sayLost(): void {
    this.#say({ lost: this.#lost });
    this.#lost = 0;
    this.#channel.flush();
  }

  #say(notice: Notice): void {
    this.#channel.send(JSON.stringify(notice));
  }

  #refuse(reply: number, message: string): void {
    this.#say({ reply, error: { name: "RequestError", message } });
  }

  /** Whatever a line holds: nothing that it leads to ends the instance. */
  #line(text: string): void {
    if (this.#exit !== null) return;
    try {
      const message = readMessage(text);
      if ("answer" in message) this.#answered(message);
      else this.#requested(message);
    } catch (error) {
      if (error instanceof RequestError) this.#refuse(error.id, error.message);
      else this.#refuse(NO_ID, `Cannot be read: ${errorRecord(error).message}`);
    }
  }

  /** An answer that comes too late has no effect. */
  #answered({ answer, decision }: Answer): void {
    this.#steered!.policy?.answered(answer, decision);
  }

  #requested(request: Request): void {
    const { id } = request;
    try {
      this.#say({ reply: id, result: this.#do(request) });
    } catch (error) {
      this.#say({ reply: id, error: errorRecord(error) });
    }
  }

  /** Does what is asked for. @returns the result @throws what the controller is told */
  #do(request: Request): unknown {
    const forward = this.#forward!;
    switch (request.do) {
      case "forward.add":
        forward.add(request.rule);
        return null;
      case "forward.remove":
        forward.remove(request.rule);
        return null;
      case "forward.list":
        return forward.list();
      case "events":
        this.#steered!.table.observer = request.on ? this.#observer : null;
        return null;
      case "close":
        this.#exit = CLOSED;
        return null;
    }
  }

  readonly #observer = {
    opened: (i: number): void => this.#flow(i, true),
    closed: (i: number): void => this.#flow(i, false),
  };

  /** Tells of a flow, unless the controller does not keep up. */
  #flow(i: number, isNew: boolean): void {
    if (this.#channel.full || this.#lost > 0) {
      this.#lost++;
      return;
    }
    const flow = this.#reader!.snapshot(i, this.#steered!.clock());
    if (flow) this.#say(isNew ? { opened: flow } : { closed: flow });
  }
}
