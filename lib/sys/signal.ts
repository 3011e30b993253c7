// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Signals as bytes in a pipe.
 *
 * Theory of operation: a signal may arrive in any thread of the runtime, at any time, so no TypeScript
 * can handle it, and signalfd(2) sees only signals that every thread has blocked. The handler is
 * therefore about 30 bytes of machine code (`asm/signal_*.S`) that write the signal's number to a pipe;
 * the event loop watches the pipe's other end. Calls that a signal interrupts are restarted, except
 * epoll_wait(2), which returns early.
 *
 * @module
 */
import { load, MACHINE_CODE } from "./asm/machine_code.ts";
import { check } from "./errno.ts";
import { sigaction } from "./layout.ts";
import { libc } from "./libc.ts";
import { type SignalMask, unblockSignals } from "./signal_mask.ts";

/** Signal numbers of asm-generic/signal.h. */
export const SIG = { HUP: 1, INT: 2, QUIT: 3, KILL: 9, PIPE: 13, TERM: 15, CHLD: 17 } as const;

const SIG_DFL = 0n; // asm-generic/signal.h
const SIG_IGN = 1n; // asm-generic/signal.h
const SA_RESTART = 0x10000000; // asm-generic/signal.h
const O_NONBLOCK_CLOEXEC = 0x800 | 0x80000; // asm-generic/fcntl.h

/** Signals that whoever started us may have ignored on purpose (nohup(1), `&` in a script). */
const IGNORABLE: readonly number[] = [SIG.HUP, SIG.INT, SIG.QUIT];

type Action = Uint8Array<ArrayBuffer>;

/** Sets an action. @returns the one before */
function setAction(signal: number, handler: bigint, flags: number): Action {
  const action: Action = new Uint8Array(sigaction.size),
    before: Action = new Uint8Array(sigaction.size);
  const view = new DataView(action.buffer);
  view.setBigUint64(sigaction.at.sa_handler, handler, true);
  view.setUint32(sigaction.at.sa_flags, flags, true);
  check(libc.sigaction(signal, action, before), "sigaction", String(signal));
  return before;
}

function isIgnored(signal: number): boolean {
  const action: Action = new Uint8Array(sigaction.size);
  check(libc.sigaction(signal, null, action), "sigaction", String(signal));
  return ignores(action);
}

function ignores(action: Action): boolean {
  return new DataView(action.buffer).getBigUint64(sigaction.at.sa_handler, true) === SIG_IGN;
}

/** Caught signals, waiting to be read. */
export interface Signals {
  /** Readable when a signal has come; non-blocking, close-on-exec. */
  readonly fd: number;
  /** Signals that were ignored when we were started and are not any more: for a command of ours. */
  readonly ignored: readonly number[];
  /** The mask that we were started with: for a command of ours, too. */
  readonly mask: SignalMask;
  /** The next signal's number, or 0 when there is none. */
  next(): number;
  /** Puts the earlier actions back and closes the pipe. */
  restore(): void;
}

/**
 * Catches signals, also blocked ones, and ignores SIGPIPE: a write to a closed connection says EPIPE.
 *
 * SIGHUP, SIGINT and SIGQUIT stay ignored where they were ignored at start. SIGCHLD gets its default
 * action: where whoever started us ignores it, the kernel would reap children before waitpid(2) sees
 * their status.
 *
 * @param signals numbers, such as `SIG.TERM`
 * @throws SysError
 * @example
 * ```ts
 * import { installSignals, SIG } from "./signal.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const signals = installSignals([SIG.TERM]);
 * libc.kill(libc.getpid(), SIG.TERM);
 * let signal = 0;
 * while (signal === 0) signal = signals.next(); // another thread may be the one that gets it
 * assertEquals(signal, SIG.TERM);
 * signals.restore();
 * ```
 */
export function installSignals(signals: readonly number[]): Signals {
  const pipe = new Int32Array(2);
  check(libc.pipe2(pipe, O_NONBLOCK_CLOEXEC), "pipe2", "for signals");
  const [fd, writeEnd] = pipe;
  const handler = load(MACHINE_CODE[Deno.build.arch].signal, writeEnd);
  const wanted = signals.filter((signal) => !IGNORABLE.includes(signal) || !isIgnored(signal));
  const before = wanted.map((signal): [number, Action] => [
    signal,
    setAction(signal, handler, SA_RESTART),
  ]);
  before.push([SIG.CHLD, setAction(SIG.CHLD, SIG_DFL, 0)]);
  const ignored = before.filter(([, action]) => ignores(action)).map(([signal]) => signal);
  before.push([SIG.PIPE, setAction(SIG.PIPE, SIG_IGN, 0)]);
  const byte = new Uint8Array(1);
  return {
    fd,
    ignored,
    mask: unblockSignals(wanted),
    next: () => libc.read(fd, byte, 1) === 1 ? byte[0] : 0,
    restore() {
      for (const [signal, action] of before) libc.sigaction(signal, action, null);
      libc.close(fd);
      libc.close(writeEnd);
    },
  };
}
