// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * An instance as a script holds it.
 *
 * Theory of operation: the instance is a process of its own (`child.ts`), so neither waits for the other: the
 * script reads flows in memory that both have mapped, and everything else goes over the socket, in which
 * the instance never waits. When the script ends, however that happens, the socket closes, and the instance
 * ends itself. When the instance ends, everything that waits for it is told, and the memory is given back:
 * from then on nothing may look at the table.
 *
 * @module
 */
import type { ChildProcess } from "node:child_process";
import type { Socket } from "node:net";
import { FlowReader } from "../flow/reader.ts";
import type { FlowSnapshot } from "../flow/snapshot.ts";
import { DEFAULT_CAPACITY, FlowTable } from "../flow/table.ts";
import type { FlowQuestion } from "../forward/question.ts";
import { monotonicMs } from "../sys/clock_rare.ts";
import { libc } from "../sys/libc_rare.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { createMemory, SharedMapping } from "../sys/shared_memory.ts";
import type { InstanceOptions } from "./arguments.ts";
import { CONTROL_FD, exitStatus, type PipedStreams, pipedStreams, startProcess } from "./child.ts";
import { ControlClient } from "./client.ts";
import type { EventOptions, EventStream } from "./event_stream.ts";
import { type Forwarding, type Instance, InstanceClosedError } from "./instance.ts";
import type { ForwardEntry, Ready } from "./protocol.ts";

/** How long an instance may take to close before it gets SIGTERM, and from then until SIGKILL. */
const TERM_AFTER_MS = 3000, KILL_AFTER_MS = 3000;
/** How long a process that has ended may have others that keep its control socket open. */
const LAST_WORDS_MS = 1000;

/** Where a script has started an instance. */
interface Started {
  readonly stack: string;
}

/** An error of the start, as if it had been thrown there. */
function startedAt({ stack }: Started, error: Error): Error {
  error.stack = `${error.name}: ${error.message}${stack.slice(stack.indexOf("\n"))}`;
  return error;
}

/** The instance of one process. */
class InstanceHandle implements Instance {
  readonly pid: number;
  readonly ready: Promise<Ready>;
  readonly status: Promise<Deno.CommandStatus>;
  readonly forward: Forwarding;
  readonly #child: ChildProcess;
  readonly #started: Started;
  readonly #control: Socket;
  readonly #client: ControlClient;
  readonly #options: InstanceOptions;
  readonly #ready = Promise.withResolvers<Ready>();
  readonly #streams: PipedStreams;
  /** The flow table; null: it must not be touched any more. */
  #table: SharedMapping | null;
  #reader: FlowReader | null = null;
  /** Why we have ended it. */
  #cause: unknown;
  #closing: Promise<Deno.CommandStatus> | null = null;
  /** Sends the next signal to what does not end. */
  #escalation: ReturnType<typeof setTimeout> | undefined;
  /** Its number may be somebody else's. */
  #hasEnded = false;

  constructor(
    child: ChildProcess & { readonly pid: number },
    options: InstanceOptions,
    table: SharedMapping,
    started: Started,
  ) {
    this.#child = child;
    this.#started = started;
    this.#control = child.stdio[CONTROL_FD] as Socket;
    this.#options = options;
    this.#table = table;
    this.pid = child.pid;
    this.#streams = pipedStreams(child);
    this.#client = this.#makeClient();
    this.forward = forwarding(this.#client);
    this.ready = this.#ready.promise;
    this.ready.catch(() => {}); // whoever awaits it hears of it
    this.#listen();
    options.signal?.addEventListener("abort", this.#abort);
    this.status = this.#watch();
  }

  #makeClient(): ControlClient {
    const { policy, onPolicyError } = this.#options;
    return new ControlClient({
      send: (bytes) => void (this.#control.writable && this.#control.write(bytes)),
      ready: (ready) => this.#ready.resolve(ready),
      failed: (error) => this.#ready.reject(startedAt(this.#started, error)),
      policy: typeof policy === "function" ? policy : undefined,
      policyFailed: onPolicyError ?? policyErrors(),
    });
  }

  #listen(): void {
    this.#control.on("error", () => {}); // "close" follows
    this.#control.on("data", (bytes: Uint8Array) => {
      try {
        this.#client.take(bytes);
      } catch (error) {
        this.#cause ??= error;
        this.#control.destroy();
        this.kill("SIGKILL");
      }
    });
  }

  readonly #abort = (): void => {
    this.#cause ??= this.#options.signal!.reason;
    this.#terminate();
  };

  /** SIGTERM, and SIGKILL for what does not end by it. */
  #terminate(): void {
    clearTimeout(this.#escalation);
    this.kill("SIGTERM");
    this.#escalation = setTimeout(() => this.kill("SIGKILL"), KILL_AFTER_MS);
  }

  /** Waits for the end, and tells everybody. */
  async #watch(): Promise<Deno.CommandStatus> {
    const closed = new Promise<void>((resolve) => this.#control.on("close", () => resolve()));
    const status = await exitStatus(this.#child);
    this.#hasEnded = true;
    clearTimeout(this.#escalation);
    const late = setTimeout(() => this.#control.destroy(), LAST_WORDS_MS);
    await closed;
    clearTimeout(late);
    this.#end(status);
    return status;
  }

  #end(status: Deno.CommandStatus): void {
    const table = this.#table;
    this.#table = this.#reader = null;
    table?.unmap();
    this.#options.signal?.removeEventListener("abort", this.#abort);
    const why = this.#cause === undefined ? {} : { cause: this.#cause };
    const error = new InstanceClosedError(status, why);
    this.#ready.reject(startedAt(this.#started, error));
    this.#client.end(error);
  }

  #stream<N extends keyof PipedStreams>(name: N): NonNullable<PipedStreams[N]> {
    const stream = this.#streams[name];
    if (stream) return stream;
    throw new TypeError(`Cannot get '${name}': '${name}' is not piped`);
  }

  get stdin(): WritableStream<Uint8Array> {
    return this.#stream("stdin");
  }

  get stdout(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#stream("stdout");
  }

  get stderr(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#stream("stderr");
  }

  *flows(): Generator<FlowSnapshot, void> {
    if (!this.#client.isReady || !this.#table) return;
    this.#reader ??= new FlowReader(this.#table.buffer());
    for (const flow of this.#reader.flows(monotonicMs())) {
      yield flow;
      if (!this.#table) return; // its memory has gone meanwhile
    }
  }

  events(options?: EventOptions): EventStream {
    return this.#client.events(options);
  }

  kill(signal: Deno.Signal = "SIGTERM"): void {
    if (this.#hasEnded) return;
    try {
      Deno.kill(this.pid, signal); // that of node:child_process does it once only
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error; // it has ended this moment
    }
  }

  close(): Promise<Deno.CommandStatus> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<Deno.CommandStatus> {
    this.#client.request({ do: "close" }).catch(() => {}); // it has ended already
    if (!this.#hasEnded) {
      this.#escalation ??= setTimeout(() => this.#terminate(), TERM_AFTER_MS);
    }
    return await this.status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  ref(): void {
    this.#child.ref();
    this.#control.ref();
  }

  unref(): void {
    this.#child.unref();
    this.#control.unref();
  }
}

/** Messages per second about a policy that fails: how many flows it fails for is the guest's to choose. */
const POLICY_MESSAGES = 10;

/** What is told of a policy's errors unless the script wants them. */
function policyErrors(): (error: unknown, flow: FlowQuestion) => void {
  const limit = new RateLimit(POLICY_MESSAGES);
  return (error, { protocol, address, port }) => {
    if (!limit.allow(monotonicMs())) return;
    const flow = `${protocol} to ${address} port ${port}`;
    console.error(`Policy for ${flow}: the flow was rejected:`, error);
  };
}

function forwarding(client: ControlClient): Forwarding {
  return {
    async add(rule) {
      await client.request({ do: "forward.add", rule });
    },
    async remove(rule) {
      await client.request({ do: "forward.remove", rule });
    },
    async list() {
      return await client.request({ do: "forward.list" }) as ForwardEntry[];
    },
  };
}

/** A function of the library. */
// deno-lint-ignore no-explicit-any
type Caller = (options: any) => Instance;

/**
 * Starts an instance.
 *
 * @param args the command line behind the program's name, with `DESCRIPTOR_OPTIONS` of `child.ts`
 * @param caller the function that the script has called: errors of the start show where
 * @throws ConfigError when the program cannot be started; the signal's reason when it is aborted
 */
export function startInstance(
  args: readonly string[],
  options: InstanceOptions,
  caller: Caller,
): Instance {
  options.signal?.throwIfAborted();
  const started = { stack: "" };
  Error.captureStackTrace(started, caller);
  const memory = createMemory("tubetti-flows", FlowTable.byteLength(DEFAULT_CAPACITY));
  let table: SharedMapping | null = null;
  try {
    table = new SharedMapping(memory, { readOnly: true });
    return new InstanceHandle(startProcess(args, options, memory), options, table, started);
  } catch (error) {
    table?.unmap();
    throw error;
  } finally {
    libc.close(memory); // the process has its own
  }
}
