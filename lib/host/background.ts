// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Going to the background: a second process does the work, the first one waits until it is ready.
 *
 * Theory of operation: a process with threads cannot fork and go on, so the program starts itself again,
 * from its own executable with its own command line and environment, in a new session. Everything is as
 * for the first: working directory, standard error, inherited descriptors. One more descriptor, a pipe's
 * end, is named by an environment variable together with the first process's number: by both together
 * the second process knows what it is. When all is ready, it lets go of the caller's terminal, folder and
 * files and writes a byte to the pipe. At that the first process leaves with 0; when the pipe ends without
 * it, with the second's exit code, which has said why. Should the first process be ended before, the pipe
 * is broken, and the second ends, too.
 *
 * Starting the runtime takes most of the time, so it begins before the first process knows its options:
 * {@linkcode seemsBackground} guesses from their looks. Where the guess was wrong, the second process, which
 * reads them in full, declines, and the first one goes on as if nothing had been.
 *
 * @module
 */
import type { Options } from "../config/options.ts";
import {
  awaitByte,
  replaceWithNull,
  setCloseOnExec,
  standardDescriptors,
} from "../sys/descriptors.ts";
import { check, E, SysError } from "../sys/errno.ts";
import { libc } from "../sys/libc_rare.ts";
import { waitExit } from "../sys/process.ts";
import { CLONE, Script } from "../sys/script.ts";
import type { PidFile } from "./pid_file.ts";
import { addStartStrings } from "./start_strings.ts";

/** `PID:FD` of the first process and of the pipe to it. */
const MARK = "TUBETTI_START";

const F_SETFD = 2; // asm-generic/fcntl.h
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h
/** Bytes through the pipe. */
const READY = 0, DECLINED = 1;
/** Entries of the script that starts the second process. */
const STEPS = 8;
/** execve(2)'s failure, as sh(1) has it. */
const NOT_EXECUTED = 126;
const SIGNAL_BASE = 128;
/** Longest name of a process (TASK_COMM_LEN - 1, linux/sched.h). */
const MAX_NAME = 15;

/** Whether an instance is to run in the background: all do but those that have a command to wait for. */
export function needsBackground({ mode, target, foreground, control }: Options): boolean {
  return !foreground && control === null && (mode === "passt" || target.kind !== "command");
}

/** Options that keep us in the foreground, or that print something: `-f`, `-h` and longer forms. */
const FOREGROUND = /^-(?:[^-]*[fh]|-(?:cont|fo|he|ve))/;
/** What names a namespace that is there already. */
const ATTACHED = /^(?:--netns(?:=.*)?|[1-9]\d{0,9})$/;

/**
 * Whether a command line looks as if the instance were to run in the background. Only a guess: options
 * are not told from their values, nor from a command's.
 *
 * @example
 * ```ts
 * import { seemsBackground } from "./background.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(seemsBackground(["--config-net", "--netns", "/run/netns/blue"]), true);
 * assertEquals(seemsBackground(["-q", "4711"]), true);
 * assertEquals(seemsBackground(["-qf", "4711"]), false);
 * assertEquals(seemsBackground(["--", "sleep", "4711"]), false);
 * ```
 */
export function seemsBackground(args: readonly string[]): boolean {
  return args.some((arg) => ATTACHED.test(arg)) &&
    !args.some((arg) => arg === "--" || FOREGROUND.test(arg));
}

/** The script that starts us again. It runs in our memory (vfork(2)), with descriptors of its own. */
function addSteps(script: Script, pipeEnd: number): void {
  const mark = script.string(`${MARK}=${libc.getpid()}:${pipeEnd}`);
  const argv = script.vector(addStartStrings(script, "cmdline"));
  const environment = script.vector([mark, ...addStartStrings(script, "environ")]); // the first counts
  script.clone(CLONE.VM | CLONE.VFORK, { what: "second process" });
  script.call("setsid", []);
  script.call("fcntl", [pipeEnd, F_SETFD, 0]);
  script.restoreSignals();
  script.call("execve", ["/proc/self/exe", argv, environment], { what: "own executable" });
  script.exit(NOT_EXECUTED);
}

/** Starts the second process. @returns its number and our end of the pipe */
function startAgain(): { pid: number; fd: number } {
  const pipe = new Int32Array(2);
  check(libc.pipe2(pipe, O_CLOEXEC), "pipe2", "for the second process");
  const script = new Script(STEPS);
  try {
    addSteps(script, pipe[1]);
    const pid = script.run();
    const error = script.failure();
    if (!error) return { pid, fd: pipe[0] };
    exitCodeOf(pid);
    throw error;
  } finally {
    libc.close(pipe[1]);
    script.dispose();
  }
}

/** The second process's exit code; 1 where the system has reaped it for us. */
function exitCodeOf(pid: number): number {
  try {
    return waitExit(pid) || 1;
  } catch {
    return 1; // whoever started us ignores SIGCHLD
  }
}

/**
 * Starts the program again in the background, and waits until it is ready. Blocks.
 *
 * @returns our exit code: 0 when it is ready, else its own; it has said why. Null: it has declined
 * @throws SysError when it cannot be started, or was killed
 */
export function runInBackground(): number | null {
  const { pid, fd } = startAgain();
  const answer = awaitByte(fd);
  libc.close(fd);
  if (answer === READY) return 0;
  const code = exitCodeOf(pid);
  if (answer === DECLINED) return null;
  if (code > SIGNAL_BASE) {
    throw new SysError("start", `ended by signal ${code - SIGNAL_BASE}`, E.EINTR);
  }
  return code;
}

/** To be told when all is ready. */
export interface Readiness {
  /**
   * Everything is in place: writes the process number's file, and in the background lets go of the caller.
   *
   * @throws SysError when the file cannot be written, or nobody waits for us any more
   */
  ready(): void;
}

/** The readiness of a process in the foreground. */
export function foregroundReadiness(pidFile: PidFile | null): Readiness {
  return { ready: () => pidFile?.write(libc.getpid()) };
}

/** What the second process has been given by the first. */
export class Background {
  /** Our end of the pipe. */
  readonly fd: number;
  /** Descriptors on the caller's terminal or files. */
  readonly #standard: readonly number[];

  private constructor(fd: number) {
    this.fd = fd;
    setCloseOnExec(fd);
    this.#standard = standardDescriptors();
    nameProcess();
  }

  /**
   * Takes over, when we are the second process; null when we are the first, or the only one. To be
   * called once, before any file is opened.
   *
   * @throws SysError when the process that started us is gone
   */
  static take(): Background | null {
    const mark = Deno.env.get(MARK);
    if (mark === undefined) return null;
    Deno.env.delete(MARK);
    const [, parent, fd] = /^(\d+):(\d+)$/.exec(mark) ?? [];
    if (parent === undefined) return null; // somebody else's variable
    if (libc.getppid() !== Number(parent)) throw orphaned();
    return new Background(Number(fd));
  }

  /**
   * As {@linkcode foregroundReadiness}, and lets go of the caller.
   *
   * @param silenced called when standard error is about to be nobody's
   */
  readiness(pidFile: PidFile | null, silenced: () => void = () => {}): Readiness {
    return {
      ready: () => {
        pidFile?.write(libc.getpid());
        silenced();
        Deno.chdir("/"); // any folder could be on a file system that is to be unmounted
        replaceWithNull(this.#standard);
        this.#answer(READY);
      },
    };
  }

  /**
   * Leaves everything to the process that waits for us: we are to end now. To be called before anything
   * is done.
   *
   * @throws SysError when nobody waits for us any more
   */
  decline(): void {
    this.#answer(DECLINED);
  }

  #answer(byte: number): void {
    const told = libc.write(this.fd, Uint8Array.of(byte), 1);
    libc.close(this.fd);
    if (told !== 1) throw orphaned();
  }
}

function orphaned(): SysError {
  return new SysError(MARK, "the process that started us has gone", E.ESRCH);
}

/** We were executed under another name than the caller's: what ps(1) shows is that of argv[0]. */
function nameProcess(): void {
  const line = Deno.readTextFileSync("/proc/self/cmdline");
  const path = line.slice(0, line.indexOf("\0"));
  const name = path.slice(path.lastIndexOf("/") + 1).slice(0, MAX_NAME);
  try {
    Deno.writeTextFileSync("/proc/self/comm", name, { create: false });
  } catch {
    // /proc cannot be written: the name is all that is wrong then
  }
}
