// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The process of an instance.
 *
 * Theory of operation: node:child_process can pass on descriptors, which Deno.Command cannot. In the child, 3 is
 * one end of a UNIX socket pair, and 4 the memory of the flow table.
 *
 * Its output are web streams that keep no script running which does not read them: node:child_process
 * throws away at the end of a process what nobody has asked for yet, and an open pipe keeps the script
 * alive. With a listener, what was written stays in the pipe and in a bounded buffer; and the pipe counts for
 * the script's life only while somebody waits for data.
 *
 * @module
 */
import process from "node:process";
import type { ChildProcess } from "node:child_process";
import type { Readable } from "node:stream";
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";
import { type InstanceOptions, startFolder, type Stdio } from "./arguments.ts";
import { findProgram, ownProgram } from "./program.ts";

/** The descriptor in the child that is its end of the control socket; in `stdio` of {@linkcode ChildProcess}, ours. */
export const CONTROL_FD = 3;
/** The descriptor in the child that is the memory of the flow table. */
const TABLE_FD = 4;
/** The options that say so. */
export const DESCRIPTOR_OPTIONS: readonly string[] = [
  `--control=${CONTROL_FD}`,
  `--flow-table=${TABLE_FD}`,
];

/** Exit code of a process that ended by signal N, less N (as sh(1) has it). */
const SIGNAL_BASE = 128;

/** A module, loaded when the first instance starts: other users of the library do without. */
function builtin<T>(name: string): T {
  return process.getBuiltinModule(name) as T;
}

function nodeStdio(stdio: Stdio): "inherit" | "pipe" | "ignore" {
  return stdio === "piped" ? "pipe" : stdio === "null" ? "ignore" : "inherit";
}

/** The script's variables, but for those that the runtime has made: a PATH of its own where there is none. */
function ownVariables(): Record<string, string> {
  const { DENO_NODE_SHIM_ACTIVE, PATH, ...rest } = Deno.env.toObject();
  return DENO_NODE_SHIM_ACTIVE !== undefined || PATH === undefined ? rest : { ...rest, PATH };
}

function environment({ env = {}, clearEnv = false }: InstanceOptions): Record<string, string> {
  return { ...(clearEnv ? {} : ownVariables()), ...env };
}

/**
 * Starts the process.
 *
 * @param args the command line behind the program's name
 * @param table descriptor of the flow table's memory
 * @throws ConfigError when there is no such program or folder; NotCapable
 */
export function startProcess(
  args: readonly string[],
  options: InstanceOptions,
  table: number,
): ChildProcess & { readonly pid: number } {
  const [program, ...before] = options.program ?? ownProgram();
  if (program === undefined) throw new ConfigError("program: names none");
  const { stdin = "inherit", stdout = "inherit", stderr = "inherit" } = options;
  const { spawn } = builtin<typeof import("node:child_process")>("node:child_process");
  const cwd = startFolder(options), env = environment(options);
  const path = findProgram(program, cwd, env.PATH);
  const child = spawn(path, [...before, ...args], {
    env,
    ...(cwd === undefined ? {} : { cwd }),
    stdio: [...[stdin, stdout, stderr].map(nodeStdio), "pipe", table],
  });
  child.on("error", () => {}); // follows what is said here
  if (child.pid !== undefined) return child as ChildProcess & { readonly pid: number };
  const failed = `program: ${shown(program)} cannot be started`;
  const { state } = Deno.permissions.querySync({ name: "run", command: path });
  if (state === "granted") throw new ConfigError(failed);
  throw new Deno.errors.NotCapable(`${failed}: run again with the --allow-run flag`);
}

/** Waits for the process. */
export function exitStatus(child: ChildProcess): Promise<Deno.CommandStatus> {
  const { signals } = builtin<typeof import("node:os")>("node:os").constants;
  return new Promise((resolve) =>
    child.on("exit", (code, signal) => {
      const number = code ?? SIGNAL_BASE + (signal === null ? 0 : signals[signal]);
      resolve({ success: number === 0, code: number, signal: signal as Deno.Signal | null });
    })
  );
}

/** A readable that can be left out of what keeps a script running, as sockets and pipes can. */
type Held = Readable & { ref?(): void; unref?(): void };

/** The bytes of a readable, read as they are asked for. */
function webReadable(readable: Held): ReadableStream<Uint8Array<ArrayBuffer>> {
  readable.on("readable", () => {});
  readable.unref?.();
  const chunks = readable[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      readable.ref?.();
      const { value, done } = await chunks.next().finally(() => readable.unref?.());
      if (done) controller.close();
      else controller.enqueue(new Uint8Array(value)); // no Buffer, whose methods differ
    },
    cancel() {
      readable.destroy();
    },
  }, { highWaterMark: 0 });
}

/** The standard streams that are piped. */
export interface PipedStreams {
  readonly stdin?: WritableStream<Uint8Array>;
  readonly stdout?: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly stderr?: ReadableStream<Uint8Array<ArrayBuffer>>;
}

/** The standard streams of a process that are piped, as web streams. */
export function pipedStreams({ stdin, stdout, stderr }: ChildProcess): PipedStreams {
  const { Writable } = builtin<typeof import("node:stream")>("node:stream");
  return {
    ...(stdin ? { stdin: Writable.toWeb(stdin) as WritableStream<Uint8Array> } : {}),
    ...(stdout ? { stdout: webReadable(stdout) } : {}),
    ...(stderr ? { stderr: webReadable(stderr) } : {}),
  };
}
