// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a script has of an instance that it has started.
 *
 * @module
 */
import type { FlowSnapshot } from "../flow/snapshot.ts";
import type { EventOptions, FlowEvent } from "./event_stream.ts";
import type { ForwardEntry, ForwardRule, Ready } from "./protocol.ts";

/** The instance has ended, or is not there yet and will never be. */
export class InstanceClosedError extends Error {
  /** The class's name. */
  override readonly name = "InstanceClosedError";
  /** How it ended. */
  readonly status: Deno.CommandStatus;

  /**
   * Says how it ended.
   *
   * @param status how it ended
   * @param options `cause`: why, where that is known
   */
  constructor(status: Deno.CommandStatus, options?: ErrorOptions) {
    const how = status.signal ? `by ${status.signal}` : `with exit code ${status.code}`;
    super(`The instance has ended ${how}`, options);
    this.status = status;
  }
}

/** Ports that are forwarded while the instance runs. */
export interface Forwarding {
  /**
   * Forwards ports, from when the promise is fulfilled. Ports named here come before `auto` rules. The instance
   * moves no packets while it opens or closes ports, about 20 µs for each: thousands are better split up.
   *
   * @throws ConfigError when the rule cannot be had, or is none; its `code` is the kernel's reason where there is
   *   one, such as `EADDRINUSE`. PortSpecError for a text that names no ports, or ports that have a rule already.
   *   Nothing has changed then
   */
  add(rule: ForwardRule): Promise<void>;
  /**
   * Ends a rule, or part of one, of {@linkcode add} or of the start. What is connected stays connected.
   *
   * It is named with all it maps: with `127.0.0.1/8000-8010:9000-9010` in force, `127.0.0.1/8002:9002` is a part
   * of it, and `8002` is not.
   *
   * @throws ConfigError when there is no such rule: it says which one has these ports. PortSpecError for a text that
   *   names no ports
   */
  remove(rule: ForwardRule): Promise<void>;
  /**
   * The rules in force, written as short as can be: what was added one by one can be one text here, separated by
   * commas.
   */
  list(): Promise<ForwardEntry[]>;
}

/**
 * A running instance. It ends with its command, with the script, or by {@linkcode Instance.close}; a script goes
 * on until its instances have ended. One that is stopped, or whose policy's module does not return, cannot see
 * that its script has ended, and does so when it goes on.
 *
 * Whatever is asked of an instance that has ended is rejected with an {@linkcode InstanceClosedError}.
 */
export interface Instance extends AsyncDisposable {
  /** Number of the process that was started. */
  readonly pid: number;
  /**
   * All is in place, and the command has begun. Rejected with a ConfigError, SysError or CommandError that says
   * why the start failed, or with an {@linkcode InstanceClosedError}. It need not be awaited.
   */
  readonly ready: Promise<Ready>;
  /**
   * How it ended: with the command's exit code, 0 after {@linkcode Instance.close}, 1, 126 or 127 when it
   * could not be started. Never rejected.
   */
  readonly status: Promise<Deno.CommandStatus>;
  /** What the command reads. @throws TypeError unless `stdin` is `piped` */
  readonly stdin: WritableStream<Uint8Array>;
  /** What the command writes. @throws TypeError unless `stdout` is `piped` */
  readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Errors of the command, and messages of the instance. @throws TypeError unless `stderr` is `piped` */
  readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Ports of the host for the guest, and the other way. */
  readonly forward: Forwarding;
  /**
   * The flows of this moment, read from memory while they are iterated: the data path does not notice. None
   * before {@linkcode Instance.ready} and after the end.
   */
  flows(): Generator<FlowSnapshot, void>;
  /**
   * What happens to flows from now on; called right after the start, nothing is missed. Each call gives one more
   * consumer all events. When the instance ends, the flows that are left are said to be closed, and the
   * iteration ends. An instance that has ended waits up to half a minute for a script that does not read.
   */
  events(
    options?: EventOptions,
  ): AsyncIterableIterator<FlowEvent, undefined> & AsyncDisposable;
  /** Sends a signal, SIGTERM unless given; none when it has ended. */
  kill(signal?: Deno.Signal): void;
  /**
   * Ends it, and its command with it, and waits for that. What does not end by itself within 3 seconds gets
   * SIGTERM, and SIGKILL after 3 more.
   */
  close(): Promise<Deno.CommandStatus>;
  /** Has the script wait for this instance, as it does from the start. */
  ref(): void;
  /** Lets the script end while this instance runs, which ends it. */
  unref(): void;
}
