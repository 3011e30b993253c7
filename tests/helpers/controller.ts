// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A controller of the program under test: starts it with `--control` and `--flow-table`, and speaks with it
 * line by line.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { Duplex } from "node:stream";
import type { ErrorRecord, Notice, Ready } from "../../lib/control/protocol.ts";
import type { FlowSnapshot } from "../../lib/flow/snapshot.ts";
import { DEFAULT_CAPACITY, FlowTable } from "../../lib/flow/table.ts";
import type { FlowQuestion } from "../../lib/forward/question.ts";
import { libc } from "../../lib/sys/libc.ts";
import { createMemory } from "../../lib/sys/shared_memory.ts";
import { killHard, MARK, until } from "./run.ts";
import { programUnderTest, STAY_ROOT, type Testbed } from "./testbed.ts";

/** Descriptors of the program under test. */
const CONTROL = 3, TABLE = 4;

/** A message: one of {@linkcode Notice}. */
export interface Heard {
  readonly ready?: Ready;
  readonly failed?: ErrorRecord;
  readonly reply?: number;
  readonly result?: unknown;
  readonly error?: ErrorRecord;
  readonly opened?: FlowSnapshot;
  readonly closed?: FlowSnapshot;
  readonly lost?: number;
  readonly end?: true;
  readonly ask?: number;
  readonly flow?: FlowQuestion;
}

/** How to start the program under test. */
export interface ControllerOptions {
  /** Written before anything else. */
  readonly requests?: readonly object[];
  /** Size of the table's file; null: there is none. Default: room for as many flows as there can be. */
  readonly tableBytes?: number | null;
  /** Program under test in place of the default one. */
  readonly program?: readonly string[];
}

/** One program under test and the conversation with it. */
export class Controller implements AsyncDisposable {
  /** All that was heard, in order. */
  readonly heard: Heard[] = [];
  stderr = "";
  stdout = "";
  /** Exit code of the program, once it has ended; negative: ended by a signal. */
  code: number | null = null;
  /** Memory of the table; negative: none. Closed at the end. */
  readonly table: number;
  /** Whether the program has closed its end. */
  hungUp = false;
  readonly #child: ChildProcess;
  readonly #socket: Duplex;
  #rest = "";
  #id = 0;

  /** @param args the program's options, and behind `--` its command */
  constructor(bed: Testbed, args: readonly string[], options: ControllerOptions = {}) {
    const { requests = [], tableBytes = FlowTable.byteLength(DEFAULT_CAPACITY), program } = options;
    this.table = tableBytes === null ? -1 : createMemory("flows", tableBytes);
    const shared = tableBytes === null ? [] : ["--flow-table", `${TABLE}`];
    const [file, ...words] = [
      ...["ip", "netns", "exec", bed.host],
      ...(program ?? programUnderTest()),
      ...["--control", `${CONTROL}`, ...shared, ...STAY_ROOT],
      ...args,
    ];
    this.#child = spawn(file!, words, {
      stdio: ["ignore", "pipe", "pipe", "pipe", ...(tableBytes === null ? [] : [this.table])],
      env: { ...Deno.env.toObject(), [MARK]: bed.guestMark },
    });
    this.#socket = this.#child.stdio[CONTROL] as Duplex;
    for (const request of requests) this.send(request);
    this.#listen();
  }

  #listen(): void {
    this.#child.on("exit", (code) => this.code = code ?? -1);
    this.#child.stderr!.on("data", (data) => this.stderr += data);
    this.#child.stdout!.on("data", (data) => this.stdout += data);
    this.#socket.on("error", () => this.hungUp = true);
    this.#socket.on("close", () => this.hungUp = true);
    this.resume();
  }

  readonly #hear = (data: Uint8Array): void => {
    const lines = (this.#rest + data).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) this.heard.push(JSON.parse(line) satisfies Notice);
  };

  /** Reads what comes. */
  resume(): void {
    this.#socket.on("data", this.#hear);
    this.#socket.resume();
  }

  /** Reads nothing any more. */
  pause(): void {
    this.#socket.off("data", this.#hear);
    this.#socket.pause();
  }

  /** Writes an object, or a text as it is. */
  send(message: object | string): void {
    this.#socket.write(typeof message === "string" ? message : `${JSON.stringify(message)}\n`);
  }

  /** Waits for something that is said. @throws when it is not, and the program has ended or time has passed */
  async hear(wanted: (heard: Heard) => unknown, from = 0): Promise<Heard> {
    const find = () => this.heard.slice(from).find(wanted);
    await until(() => find() !== undefined || this.hungUp);
    const found = find();
    if (found) return found;
    throw new Error(`Not heard (exit ${this.code}): ${JSON.stringify(this.heard)}\n${this.stderr}`);
  }

  /** Waits until all is ready. */
  async ready(): Promise<Ready> {
    return (await this.hear(({ ready }) => ready)).ready!;
  }

  /** Asks for something, and waits for the reply. */
  async request(request: object): Promise<{ result?: unknown; error?: ErrorRecord }> {
    const id = ++this.#id;
    this.send({ id, ...request });
    return await this.hear(({ reply }) => reply === id) as object;
  }

  /** Closes the socket. */
  hangUp(): void {
    this.#socket.destroy();
  }

  /** Waits for the program's end. @returns its exit code */
  async end(): Promise<number | null> {
    await until(() => this.code !== null);
    return this.code;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.code === null) killHard(this.#child.pid!);
    await this.end();
    this.hangUp();
    await until(() => this.hungUp);
    if (this.table >= 0) libc.close(this.table);
  }
}
