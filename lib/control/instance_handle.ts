// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * An instance as a script holds it.
 *
 * Theory of operation: the instance is a process of its own, started by node:child_process, which can pass on
 * descriptors: 3 is the control socket (`protocol.ts`), 4 a memfd with the flow table. So neither waits for
 * the other: the script reads flows in memory that both have mapped, and everything else goes over the
 * socket, in which the instance never waits. When the script ends, however that happens, the socket
 * closes, and the instance ends itself. When the instance ends, everything that waits for it is
 * told, and the memory is given back: from then on nothing may look at the table.
 *
 * @module
 */
import process from "node:process";
import type { ChildProcess } from "node:child_process";
import type { Socket } from "node:net";
import { ConfigError } from "../config/error.ts";
import { FlowReader } from "../flow/reader.ts";
import type { FlowSnapshot } from "../flow/snapshot.ts";
import { DEFAULT_CAPACITY, FlowTable } from "../flow/table.ts";
import type { FlowQuestion } from "../forward/question.ts";
import { monotonicMs } from "../sys/clock.ts";
import { libc } from "../sys/libc_rare.ts";
import { createMemory, SharedMapping } from "../sys/shared_memory.ts";
import type { InstanceOptions, Stdio } from "./arguments.ts";
import { ControlClient } from "./client.ts";
import type { EventOptions, FlowEvent } from "./event_stream.ts";
import { ownProgram } from "./program.ts";
import type { ForwardEntry, ForwardRule, Ready } from "./protocol.ts";
import { webStream } from "./streams.ts";

/** The descriptors that an instance finds, and the options that say so. */
const CONTROL_FD = 3, TABLE_FD = 4;
export const DESCRIPTOR_OPTIONS: readonly string[] = [
  `--control=${CONTROL_FD}`,
  `--flow-table=${TABLE_FD}`,
];

/** How long an instance may take to close before it gets SIGTERM, and then SIGKILL. */
const TERM_AFTER_MS = 3000, KILL_AFTER_MS = 6000;
/** How long a process that has ended may have others that keep its control socket open. */
const LAST_WORDS_MS = 1000;
/** Exit code of a process that ended by signal N, less N (as sh(1) has it). */
const SIGNAL_BASE = 128;

/** The instance has ended, or is not there yet and will never be. */
export class InstanceClosedError extends Error {
  override readonly name = "InstanceClosedError";
  /** How it ended. */
  readonly status: Deno.CommandStatus;

  constructor(status: Deno.CommandStatus, options?: ErrorOptions) {
    const how = status.signal ? `by ${status.signal}` : `with exit code ${status.code}`;
    super(`The instance has ended ${how}`, options);
    this.status = status;
  }
}

/** Ports that are forwarded while the instance runs. */
export interface Forwarding {
  /**
   * Forwards ports, from when the promise is fulfilled.
   *
   * @throws ConfigError, PortSpecError when the rule cannot be had; nothing has changed then
   */
  add(rule: ForwardRule): Promise<void>;
  /** Ends a rule of {@linkcode add} or of the start. What is connected stays connected. @throws ConfigError */
  remove(rule: ForwardRule): Promise<void>;
  /** The rules in force. */
  list(): Promise<ForwardEntry[]>;
}

/** A running instance. It ends with the script, with its command, or by {@linkcode close}. */
export interface Instance extends AsyncDisposable {
  /** Number of the process that was started. */
  readonly pid: number;
  /**
   * All is in place, and the command has begun. Rejected with a ConfigError, SysError or CommandError that says
   * why the start failed, or with an {@linkcode InstanceClosedError}. It need not be awaited.
   */
  readonly ready: Promise<Ready>;
  /** How it ended: the command's exit code, 0 after {@linkcode close}. Never rejected. */
  readonly status: Promise<Deno.CommandStatus>;
  /** Standard streams of the command. @throws TypeError when they are not `piped` */
  readonly stdin: WritableStream<Uint8Array>;
  readonly stdout: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly stderr: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly forward: Forwarding;
  /**
   * The flows of this moment, read from memory while they are iterated: the data path does not notice. None
   * before {@linkcode ready} and after the end.
   */
  flows(): IterableIterator<FlowSnapshot>;
  /**
   * What happens to flows from now on; called right after the start, nothing is missed. Each call gives one more
   * consumer all events. Ends when the instance does.
   */
  events(options?: EventOptions): AsyncIterableIterator<FlowEvent, undefined>;
  /** Sends a signal, SIGTERM unless given; none when it has ended. */
  kill(signal?: Deno.Signal): void;
  /** Ends it, and its command with it, and waits for that. */
  close(): Promise<Deno.CommandStatus>;
  /** Whether the script goes on while nothing but this instance runs: it does, until `unref` is called. */
  ref(): void;
  unref(): void;
}

/** Loaded when the first instance starts: other users of the library do without. */
function builtin<T>(name: string): T {
  return process.getBuiltinModule(name) as T;
}

function nodeStdio(stdio: Stdio): "inherit" | "pipe" | "ignore" {
  return stdio === "piped" ? "pipe" : stdio === "null" ? "ignore" : "inherit";
}

function environment({ env = {}, clearEnv = false }: InstanceOptions): Record<string, string> {
  return { ...(clearEnv ? {} : Deno.env.toObject()), ...env };
}

/** Starts the process. @throws ConfigError when there is no such program or folder */
function startProcess(
  args: readonly string[],
  options: InstanceOptions,
  table: number,
): ChildProcess {
  const [program, ...before] = options.program ?? ownProgram();
  const { stdin = "inherit", stdout = "inherit", stderr = "inherit" } = options;
  const { spawn } = builtin<typeof import("node:child_process")>("node:child_process");
  const child = spawn(program, [...before, ...args], {
    env: environment(options),
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    stdio: [...[stdin, stdout, stderr].map(nodeStdio), "pipe", table],
  });
  child.on("error", () => {}); // follows what is said here
  if (child.pid !== undefined) return child;
  const where = options.cwd === undefined ? "" : ` in ${options.cwd}`;
  throw new ConfigError(`program: ${program} cannot be started${where}`);
}

function exitStatus(code: number | null, signal: string | null): Deno.CommandStatus {
  const { signals } = builtin<typeof import("node:os")>("node:os").constants;
  const number = code ?? SIGNAL_BASE + (signals[signal as keyof typeof signals] ?? 0);
  return { success: number === 0, code: number, signal: signal as Deno.Signal | null };
}

/** The instance of one process. */
class InstanceHandle implements Instance {
  readonly pid: number;
  readonly ready: Promise<Ready>;
  readonly status: Promise<Deno.CommandStatus>;
  readonly forward: Forwarding;
  readonly #child: ChildProcess;
  readonly #control: Socket;
  readonly #client: ControlClient;
  readonly #options: InstanceOptions;
  readonly #ready = Promise.withResolvers<Ready>();
  readonly #streams: { stdin?: WritableStream; stdout?: ReadableStream; stderr?: ReadableStream };
  /** The flow table; null: it must not be touched any more. */
  #table: SharedMapping | null;
  #reader: FlowReader | null = null;
  /** Why we have ended it. */
  #cause: unknown;
  #closing: Promise<Deno.CommandStatus> | null = null;
  /** Its number may be somebody else's. */
  #hasEnded = false;

  constructor(child: ChildProcess, options: InstanceOptions, table: SharedMapping) {
    this.#child = child;
    this.#control = child.stdio[CONTROL_FD] as Socket;
    this.#options = options;
    this.#table = table;
    this.pid = child.pid!;
    this.#streams = webStreams(child);
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
      failed: (error) => this.#ready.reject(error),
      policy: typeof policy === "function" ? policy : undefined,
      policyFailed: onPolicyError ?? sayPolicyError,
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
    this.kill();
  };

  /** Waits for the end, and tells everybody. */
  async #watch(): Promise<Deno.CommandStatus> {
    const closed = new Promise<void>((resolve) => this.#control.on("close", () => resolve()));
    const status = await new Promise<Deno.CommandStatus>((resolve) =>
      this.#child.on("exit", (code, signal) => {
        this.#hasEnded = true;
        resolve(exitStatus(code, signal));
      })
    );
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
    const error = new InstanceClosedError(
      status,
      this.#cause === undefined ? {} : { cause: this.#cause },
    );
    this.#ready.reject(error);
    this.#client.end(error);
  }

  #stream<N extends "stdin" | "stdout" | "stderr">(name: N): NonNullable<Instance[N]> {
    const stream = this.#streams[name];
    if (!stream) throw new TypeError(`Cannot get '${name}': '${name}' is not piped`);
    return stream as NonNullable<Instance[N]>;
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
    const { isReady } = this.#client;
    if (!isReady || !this.#table) return;
    this.#reader ??= new FlowReader(this.#table.buffer());
    for (const flow of this.#reader.flows(monotonicMs())) {
      yield flow;
      if (!this.#table) return; // its memory has gone meanwhile
    }
  }

  events(options?: EventOptions): AsyncIterableIterator<FlowEvent, undefined> {
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
    const term = setTimeout(() => this.kill("SIGTERM"), TERM_AFTER_MS);
    const kill = setTimeout(() => this.kill("SIGKILL"), KILL_AFTER_MS);
    const status = await this.status;
    clearTimeout(term);
    clearTimeout(kill);
    return status;
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

/** What is told of a policy's error unless the script wants it. */
function sayPolicyError(error: unknown, { protocol, address, port }: FlowQuestion): void {
  console.error(`Policy for ${protocol} to ${address} port ${port}: the flow was rejected:`, error);
}

function webStreams({ stdin, stdout, stderr }: ChildProcess) {
  const { Writable } = builtin<typeof import("node:stream")>("node:stream");
  return {
    ...(stdin ? { stdin: Writable.toWeb(stdin) as WritableStream } : {}),
    ...(stdout ? { stdout: webStream(stdout) } : {}),
    ...(stderr ? { stderr: webStream(stderr) } : {}),
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

/**
 * Starts an instance.
 *
 * @param args the command line behind the program's name, with {@linkcode DESCRIPTOR_OPTIONS}
 * @throws ConfigError when the program cannot be started; the signal's reason when it is aborted
 */
export function startInstance(args: readonly string[], options: InstanceOptions): Instance {
  options.signal?.throwIfAborted();
  const memory = createMemory("tubetti-flows", FlowTable.byteLength(DEFAULT_CAPACITY));
  let table: SharedMapping | null = null;
  try {
    table = new SharedMapping(memory, { readOnly: true });
    return new InstanceHandle(startProcess(args, options, memory), options, table);
  } catch (error) {
    table?.unmap();
    throw error;
  } finally {
    libc.close(memory); // the process has its own
  }
}
