// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Syscall scripts: tables of system calls that machine code executes one after the other, also in a
 * new process, where no TypeScript can run.
 *
 * Theory of operation: the runtime has threads from the start, so its process can neither fork and go
 * on in TypeScript, nor change its user namespace. A script can do both. Its table is laid out here,
 * in memory that a child shares with us (MAP_SHARED), and run by about 200 bytes of position-independent
 * code (`asm/script_*.S`). In a table that holds a clone(2), the parent returns from there and the
 * child does the rest and exits; it touches nothing but its stack and the table. An entry may take
 * the result of an earlier one as first argument (open, then write to what was opened). A required
 * step that fails ends the child. All results stay readable in the table, so that the parent can say
 * which step failed, on what, and why. There are no loops and no branches: a script always ends.
 *
 * All signals are blocked from before the clone until the parent has returned from it; the child keeps
 * them blocked unless {@linkcode Script.restoreSignals} says otherwise. So no handler of ours runs there.
 *
 * @module
 */
import { Arena } from "./arena.ts";
import { load, MACHINE_CODE } from "./asm/machine_code.ts";
import { SysError } from "./errno.ts";
import { libc } from "./libc_rare.ts";
import { type SignalMask, SIGSET_SIZE } from "./signal_mask.ts";
import { SYS, type SyscallName } from "./syscalls.ts";

// One entry of the table, as asm/script_*.S reads it.
const ENTRY_SIZE = 72;
const ARGUMENTS = 8;
const MAX_ARGUMENTS = 6;
const RESULT = 56;
const CONTROL = 64;
const FIRST_FROM = 68;

// Bits of the control word.
const RETURN_NONZERO = 1;
const EXIT_NEGATIVE = 2;
const EXIT_ZERO = 4;
const END_POSITIVE = 8;
const STATUS_SHIFT = 8;
const TOLERATE_SHIFT = 16;

/** Entries of a table unless more are asked for. */
const USUAL_STEPS = 64;
/** Virtual size of a script's memory: the table and all data, for execve(2) up to 6 MiB (ARG_MAX). */
const SCRIPT_MEMORY = 8 << 20;
/** Result of an entry that was not reached; no system call returns it. */
const NOT_REACHED = -0x80000000;

const SIGCHLD = 17; // asm-generic/signal.h
const SIG_SETMASK = 2; // asm-generic/signal.h

/** Status of a child whose script failed; the table tells more. */
export const SCRIPT_FAILED = 125;

/** Flags of linux/sched.h for {@linkcode Script.clone}. */
export const CLONE = {
  VM: 0x100,
  FILES: 0x400,
  VFORK: 0x4000,
  PARENT: 0x8000,
  PARENT_SETTID: 0x100000,
  NEWNS: 0x20000,
  NEWUTS: 0x4000000,
  NEWIPC: 0x8000000,
  NEWUSER: 0x10000000,
  NEWPID: 0x20000000,
  NEWNET: 0x40000000,
} as const;

/** A step of a script: what {@linkcode Script.call} returns; as first argument it means its result. */
export class Step {
  /**
   * @param index position in the table
   * @param name system call
   * @param options as given to {@linkcode Script.call}
   * @param from step whose result is the first argument, or null
   */
  constructor(
    readonly index: number,
    readonly name: SyscallName,
    readonly options: StepOptions,
    readonly from: Step | null,
  ) {}
}

/** How a step is treated and reported. */
export interface StepOptions {
  /** Object or purpose, for the error message. */
  readonly what?: string;
  /** What the user can do about an error. */
  readonly hint?: (errno: number) => string;
  /** False: an error is only recorded. Default true: it ends the child. */
  readonly required?: boolean;
  /** An errno that is no failure even where the step is required. */
  readonly tolerate?: number;
  /** The result 0 (end of file) ends the child too. */
  readonly exitOnZero?: boolean;
  /** The result is a descriptor that stays open for the parent (with CLONE_FILES). */
  readonly opens?: boolean;
}

/** An argument: a number or address, a string (its address is passed), a step's result, or nothing (0). */
export type Argument = number | string | Step;

const runner = new Deno.UnsafeFnPointer(
  Deno.UnsafePointer.create(load(MACHINE_CODE[Deno.build.arch].script)) as Deno.PointerObject<
    { parameters: ["usize", "usize"]; result: "isize" }
  >,
  { parameters: ["usize", "usize"], result: "isize" },
);

const unused: Arena[] = [];
const encoder = new TextEncoder();

/**
 * A table of system calls under construction, and its results.
 *
 * @example
 * ```ts
 * import { CLONE, Script } from "./script.ts";
 * import { waitExit } from "./process.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const script = new Script();
 * script.clone(CLONE.FILES);
 * const opened = script.call("openat", [-100, "/dev/null", 0], { what: "/dev/null", opens: true });
 * script.exit(7);
 * const pid = script.run();
 * assertEquals(waitExit(pid), 7);
 * assertEquals(script.failure(), null);
 * assertEquals(script.result(opened) >= 0, true);
 * script.closeOpened();
 * script.dispose();
 * ```
 */
export class Script {
  readonly #arena: Arena;
  readonly #steps: Step[] = [];
  readonly #tableSize: number;
  #used: number;
  /** Offset of the signal mask in force before the script. */
  readonly #mask: number;
  #clones = false;
  /** Offset of the number of the process that took the child's place; 0: none. */
  #successor = 0;

  /** @param steps how many system calls the table has room for */
  constructor(steps: number = USUAL_STEPS) {
    this.#used = this.#tableSize = steps * ENTRY_SIZE;
    this.#arena = unused.pop() ?? new Arena(SCRIPT_MEMORY, { shared: true });
    this.#mask = this.reserve(SIGSET_SIZE);
  }

  /**
   * Takes zeroed memory that the child shares with us.
   *
   * @returns its offset for {@linkcode view} and {@linkcode address}
   * @throws RangeError when the script's memory is used up
   */
  reserve(bytes: number): number {
    const off = Math.ceil(this.#used / 8) * 8;
    if (off + bytes > this.#arena.size) throw new RangeError(`Script data exceeds ${off} bytes`);
    this.#used = off + bytes;
    this.#arena.u8.fill(0, off, off + bytes);
    return off;
  }

  /** The bytes at an offset from {@linkcode reserve}. */
  view(off: number, bytes: number): DataView<ArrayBuffer> {
    return new DataView(this.#arena.u8.buffer, off, bytes);
  }

  /** The address of an offset from {@linkcode reserve}, to be passed as an argument. */
  address(off: number): number {
    return this.#arena.address(off);
  }

  /** Copies bytes into the script's memory. @returns their address */
  data(bytes: Uint8Array): number {
    const off = this.reserve(bytes.length);
    this.#arena.u8.set(bytes, off);
    return this.address(off);
  }

  /** Stores a NUL-terminated string. @returns its address */
  string(text: string): number {
    return this.data(encoder.encode(`${text}\0`));
  }

  /** Stores a NULL-terminated array of addresses, as execve(2) takes it. @returns its address */
  vector(addresses: readonly number[]): number {
    const off = this.reserve(8 * (addresses.length + 1));
    addresses.forEach((address, i) => this.#arena.set64(off + 8 * i, address));
    return this.address(off);
  }

  /**
   * Adds a system call.
   *
   * @param name system call
   * @param args up to six; a {@linkcode Step} only in the first place
   * @throws RangeError when the table is full
   */
  call(name: SyscallName, args: readonly Argument[], options: StepOptions = {}): Step {
    const control = (options.required === false ? 0 : EXIT_NEGATIVE) |
      (options.exitOnZero ? EXIT_ZERO : 0) | SCRIPT_FAILED << STATUS_SHIFT |
      (options.tolerate ?? 0) << TOLERATE_SHIFT;
    return this.#add(name, args, options, this.#clones ? control : 0); // never end ourselves
  }

  #add(name: SyscallName, args: readonly Argument[], options: StepOptions, control: number): Step {
    const entry = this.#steps.length * ENTRY_SIZE;
    if (entry + ENTRY_SIZE > this.#tableSize) throw new RangeError("Script table is full");
    const arena = this.#arena;
    arena.set64(entry, SYS[name]);
    arena.set64(entry + CONTROL, control);
    for (let i = 0; i < MAX_ARGUMENTS; i++) {
      const arg = args[i] ?? 0;
      if (arg instanceof Step) {
        arena.u32[(entry + FIRST_FROM) >> 2] = arg.index * ENTRY_SIZE + RESULT;
      } else {
        const value = typeof arg === "string" ? this.string(arg) : arg;
        arena.set64(entry + ARGUMENTS + 8 * i, value);
      }
    }
    arena.set64(entry + RESULT, NOT_REACHED);
    const from = args[0] instanceof Step ? args[0] : null;
    const step = new Step(this.#steps.length, name, options, from);
    this.#steps.push(step);
    return step;
  }

  /**
   * From here on the calls are made by a new process, a child that waitpid(2) sees.
   *
   * @param flags of {@linkcode CLONE}; with VM|VFORK the child has ended when {@linkcode run} returns
   */
  clone(flags: number, options: StepOptions = {}): Step {
    const all = this.data(new Uint8Array(SIGSET_SIZE).fill(0xff));
    this.call("rt_sigprocmask", [SIG_SETMASK, all, this.address(this.#mask), SIGSET_SIZE]);
    this.#clones = true;
    return this.#add("clone", [flags | SIGCHLD], options, RETURN_NONZERO);
  }

  /**
   * From here on the calls are made by another process, which takes the child's place: our child as well,
   * and the child before ends with status 0. So a child can join a namespace and have children made there.
   *
   * @param flags of {@linkcode CLONE}
   */
  succeed(flags: number, options: StepOptions = {}): Step {
    this.#successor = this.reserve(8);
    const every = flags | CLONE.PARENT | CLONE.PARENT_SETTID | SIGCHLD;
    const control = END_POSITIVE | EXIT_NEGATIVE | SCRIPT_FAILED << STATUS_SHIFT;
    return this.#add("clone", [every, 0, this.address(this.#successor)], options, control);
  }

  /** Process ID of the successor, once the child before has ended; 0: there is none. */
  get successor(): number {
    return this.#successor === 0 ? 0 : this.#arena.dv.getInt32(this.#successor, true);
  }

  /** Gives the child a signal mask; without one, that which was in force before the script. */
  restoreSignals(mask?: SignalMask): Step {
    const address = mask ? this.data(mask) : this.address(this.#mask);
    return this.call("rt_sigprocmask", [SIG_SETMASK, address, 0, SIGSET_SIZE]);
  }

  /** Writes a short text to a file below /proc. */
  writeFile(path: string, text: string, options: StepOptions = {}): void {
    const O_WRONLY_CLOEXEC = 1 | 0x80000; // asm-generic/fcntl.h
    const file = this.call("openat", [AT_FDCWD, path, O_WRONLY_CLOEXEC], {
      what: path,
      ...options,
    });
    this.call("write", [file, text, text.length], { what: path, ...options });
    this.call("close", [file], { required: false });
  }

  /** Ends the child. */
  exit(status: number): Step {
    return this.call("exit_group", [status]);
  }

  /**
   * Runs the script. Blocks until the parent's part is done.
   *
   * @returns the child's process ID when the script clones, else the last call's result
   * @throws SysError when clone fails
   */
  run(): number {
    if (this.#clones && this.#steps.at(-1)!.name !== "exit_group") {
      throw new Error("Child would return");
    }
    const result = Number(runner.call(BigInt(this.address(0)), BigInt(this.#steps.length)));
    if (!this.#clones) return result;
    const mask = BigInt(this.address(this.#mask));
    const sigset = BigInt(SIGSET_SIZE);
    libc.syscall(BigInt(SYS.rt_sigprocmask), BigInt(SIG_SETMASK), mask, 0n, sigset, 0n);
    if (result < 0) {
      const clone = this.#steps.find((step) => step.name === "clone")!;
      throw this.#error(clone, -result);
    }
    return result;
  }

  #error(step: Step, errno: number): SysError {
    const { what = "", hint } = step.options;
    return new SysError(step.name, what, errno, hint?.(errno) ?? "");
  }

  /** A step's result: what the system call returned (negative errno), -2^31 when it was not reached. */
  result(step: Step): number {
    return this.#arena.dv.getInt32(step.index * ENTRY_SIZE + RESULT, true);
  }

  /** The error of one step, or null when it succeeded or was not reached. */
  errorOf(step: Step): SysError | null {
    const result = this.result(step);
    return result < 0 && result !== NOT_REACHED ? this.#error(step, -result) : null;
  }

  /** The errors of all required or all other steps, without tolerated ones and mere consequences. */
  errors(required: boolean): SysError[] {
    const errors: SysError[] = [];
    for (const step of this.#steps) {
      const { tolerate, required: isRequired = true } = step.options;
      const error = isRequired === required ? this.errorOf(step) : null;
      const consequence = step.from !== null && this.errorOf(step.from) !== null;
      if (error && error.errno !== tolerate && !consequence) errors.push(error);
    }
    return errors;
  }

  /** The error of the required step that ended the child (or failed, without one), or null. */
  failure(): SysError | null {
    return this.errors(true)[0] ?? null;
  }

  /** Closes what the child opened for us (steps marked `opens`). */
  closeOpened(): void {
    for (const step of this.#steps) {
      const fd = step.options.opens ? this.result(step) : -1;
      if (fd >= 0) libc.close(fd);
    }
  }

  /** Gives the memory back. Nothing of the script may be used afterwards, and its child must be past it. */
  dispose(): void {
    unused.push(this.#arena);
  }
}

/** Directory argument of openat(2) for a path relative to the working directory (linux/fcntl.h). */
export const AT_FDCWD = -100;
