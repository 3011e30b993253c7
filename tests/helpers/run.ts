// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Running other programs from tests: a command with a deadline, a server that is ended by its
 * process id, and the search for processes that a test left behind.
 *
 * Every process started here carries {@linkcode MARK} in its environment. Children inherit it
 * across `fork`, `execve` and namespaces, so that {@linkcode markedProcesses} finds every
 * descendant, also one that has detached itself.
 *
 * @module
 */

/** Environment variable that tells our processes from all others. */
export const MARK = "TUBETTI_TEST_MARK";

/** How often a condition is tried again, in milliseconds. */
const POLL_MS = 20;

/*
 * Deadlines only end what hangs: they are far longer than anything takes, because machines are
 * shared, and a test that fails for want of time says nothing.
 */

/** How long a program may take unless the caller says otherwise, in milliseconds. */
const DEFAULT_TIMEOUT_MS = 60_000;

/** How long a condition may take to come true, in milliseconds. */
const CONDITION_TIMEOUT_MS = 20_000;

/** How long a program may take until it says something, in milliseconds. */
const OUTPUT_TIMEOUT_MS = 30_000;

/** How often {@linkcode attempt} measures at most. */
const MOST_ATTEMPTS = 3;

/** What became of a command. */
export interface Result {
  /** Exit status, 128 + N after signal N, and 124 when the deadline ended it. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** Wall-clock time it took, in milliseconds. */
  readonly ms: number;
}

/** How to run a command. */
export interface RunOptions {
  /** After so many milliseconds the command gets SIGKILL; 60,000 when not given. */
  timeoutMs?: number;
  /** What the command reads; nothing when not given. */
  stdin?: string;
  env?: Record<string, string>;
  cwd?: string;
  /** Value of {@linkcode MARK}. */
  mark?: string;
  /** Called with the process id right after the start. */
  onStart?: (pid: number) => void;
}

/** Resolves after `ms` milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Tries `condition` until it is true; false when it was not within `timeoutMs`. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  timeoutMs: number = CONDITION_TIMEOUT_MS,
  pollMs: number = POLL_MS,
): Promise<boolean> {
  const end = performance.now() + timeoutMs;
  while (!(await condition())) {
    if (performance.now() > end) return false;
    await sleep(pollMs);
  }
  return true;
}

/**
 * Measures something that depends on the machine's pace, again while the result is not good, three
 * times at most: a hiccup of a shared machine spoils one measurement, a fault of the program all.
 *
 * @returns the first good result, otherwise the last one
 */
export async function attempt<T>(
  measure: () => Promise<T>,
  good: (result: T) => boolean,
): Promise<T> {
  for (let left = MOST_ATTEMPTS - 1;; left--) {
    const result = await measure();
    if (left === 0 || good(result)) return result;
  }
}

function spawn(command: readonly string[], options: RunOptions): Deno.ChildProcess {
  const [program, ...args] = command;
  return new Deno.Command(program!, {
    args,
    stdin: options.stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    env: { ...options.env, ...(options.mark ? { [MARK]: options.mark } : {}) },
    ...(options.cwd ? { cwd: options.cwd } : {}),
  }).spawn();
}

/** Sends SIGKILL; a process that is gone already is no error. */
export function killHard(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // gone already
  }
}

/** Collects a stream as text; survives a stream that a detached child keeps open. */
class Collector {
  text = "";
  readonly done: Promise<void>;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
    this.done = this.#collect();
  }

  async #collect(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for (;;) {
        const { value, done } = await this.#reader.read();
        if (done) return;
        this.text += decoder.decode(value, { stream: true });
      }
    } catch {
      // cancelled
    }
  }

  /** Waits for the end of the stream, but not for ever. */
  async finish(graceMs: number): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, graceMs));
    await Promise.race([this.done, late]);
    clearTimeout(timer);
    await this.#reader.cancel().catch(() => {});
    await this.done;
  }
}

/** How long output may still come after the exit, when a detached child holds the pipe open. */
const OUTPUT_GRACE_MS = 500;

/** Runs a command to its end and returns status and output. */
export async function run(command: readonly string[], options: RunOptions = {}): Promise<Result> {
  const began = performance.now();
  const child = spawn(command, options);
  options.onStart?.(child.pid);
  const out = new Collector(child.stdout);
  const err = new Collector(child.stderr);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    killHard(child.pid);
  }, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
  if (options.stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(options.stdin)).catch(() => {});
    await writer.close().catch(() => {});
  }
  const status = await child.status;
  clearTimeout(timer);
  const ms = performance.now() - began;
  await Promise.all([out.finish(OUTPUT_GRACE_MS), err.finish(OUTPUT_GRACE_MS)]);
  return { code: late ? 124 : status.code, stdout: out.text, stderr: err.text, ms };
}

/** Runs a command that must succeed; throws an error with its output otherwise. */
export async function must(command: readonly string[], options: RunOptions = {}): Promise<string> {
  const result = await run(command, options);
  if (result.code !== 0) throw new Error(describe(command, result));
  return result.stdout;
}

/** One message with a command, its status and the end of its output. */
export function describe(command: readonly string[], result: Result): string {
  const tail = (text: string) => text.trimEnd().slice(-2000);
  return `${command.join(" ")}: exit ${result.code} after ${Math.round(result.ms)} ms\n` +
    `stdout: ${tail(result.stdout)}\nstderr: ${tail(result.stderr)}`;
}

/** A program that runs in the background until {@linkcode Background.stop}. */
export class Background {
  readonly pid: number;
  readonly #child: Deno.ChildProcess;
  readonly #out: Collector;
  readonly #err: Collector;
  #status: Deno.CommandStatus | null = null;
  readonly #ended: Promise<Deno.CommandStatus>;
  readonly command: readonly string[];

  constructor(command: readonly string[], options: RunOptions = {}) {
    this.command = command;
    this.#child = spawn(command, options);
    this.pid = this.#child.pid;
    this.#out = new Collector(this.#child.stdout);
    this.#err = new Collector(this.#child.stderr);
    this.#ended = this.#child.status.then((status) => this.#status = status);
  }

  get stdout(): string {
    return this.#out.text;
  }

  get stderr(): string {
    return this.#err.text;
  }

  /** Exit status, or null while it runs. */
  get code(): number | null {
    return this.#status?.code ?? null;
  }

  /** Sends a signal, SIGTERM when none is named. */
  kill(signal: Deno.Signal = "SIGTERM"): void {
    if (this.#status === null) Deno.kill(this.pid, signal);
  }

  /** Waits for the end; kills after `timeoutMs`, which is reported as status 124. */
  async wait(timeoutMs: number = DEFAULT_TIMEOUT_MS): Promise<number> {
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      killHard(this.pid);
    }, timeoutMs);
    const status = await this.#ended;
    clearTimeout(timer);
    await Promise.all([this.#out.finish(OUTPUT_GRACE_MS), this.#err.finish(OUTPUT_GRACE_MS)]);
    return late ? 124 : status.code;
  }

  /** Ends it and waits until it is gone. */
  async stop(signal: Deno.Signal = "SIGKILL"): Promise<void> {
    if (this.#status === null) {
      try {
        Deno.kill(this.pid, signal);
      } catch {
        // ended between the look and the signal
      }
    }
    await this.wait(2_000);
  }

  /** Waits until the program has printed `text` on either stream. */
  async waitFor(text: string, timeoutMs: number = OUTPUT_TIMEOUT_MS): Promise<void> {
    const seen = () => this.stdout.includes(text) || this.stderr.includes(text);
    await until(() => seen() || this.#status !== null, timeoutMs);
    if (!seen()) {
      throw new Error(
        `${this.command.join(" ")}: did not print "${text}" (status ${this.code})\n` +
          `stdout: ${this.stdout}\nstderr: ${this.stderr}`,
      );
    }
  }
}

/** A process found in /proc. */
export interface FoundProcess {
  readonly pid: number;
  readonly command: string;
}

function readText(path: string): string | null {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return null;
  }
}

/** State letter of a process as proc(5) gives it (`R`, `S`, `Z` …), null when it is gone. */
export function processState(pid: number): string | null {
  const stat = readText(`/proc/${pid}/stat`);
  return stat === null ? null : stat.slice(stat.lastIndexOf(")") + 2)[0] ?? null;
}

/** All living processes whose environment carries `mark`. */
export function markedProcesses(mark: string): FoundProcess[] {
  const found: FoundProcess[] = [];
  for (const entry of Deno.readDirSync("/proc")) {
    const pid = Number(entry.name);
    if (!Number.isInteger(pid) || pid === Deno.pid) continue;
    if (!readText(`/proc/${pid}/environ`)?.split("\0").includes(`${MARK}=${mark}`)) continue;
    if (processState(pid) === "Z") continue;
    const command = readText(`/proc/${pid}/cmdline`)?.replaceAll("\0", " ").trim() ?? "";
    found.push({ pid, command });
  }
  return found;
}
