// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The signal mask of the calling thread: sigprocmask(2).
 *
 * @module
 */
import { Arena } from "./arena.ts";
import { check } from "./errno.ts";
import { libc } from "./libc_rare.ts";
import { SYS } from "./syscalls.ts";

const SIG_UNBLOCK = 1n; // asm-generic/signal-defs.h
/** Bytes of the kernel's sigset_t. */
export const SIGSET_SIZE = 8;

/** The kernel's set of signals: bit `signal - 1`. */
export type SignalMask = Uint8Array<ArrayBuffer>;

/**
 * Unblocks signals in the calling thread: whoever started us may have blocked them.
 *
 * @param signals numbers, such as `SIG.TERM`
 * @returns the mask before
 * @throws SysError
 */
export function unblockSignals(signals: readonly number[]): SignalMask {
  const arena = new Arena(2 * SIGSET_SIZE);
  const set = arena.alloc(SIGSET_SIZE, SIGSET_SIZE), before = arena.alloc(SIGSET_SIZE, SIGSET_SIZE);
  for (const signal of signals) arena.u8[set + (signal - 1 >> 3)] |= 1 << (signal - 1 & 7);
  const [from, to] = [BigInt(arena.address(set)), BigInt(arena.address(before))];
  const result = libc.syscall(
    BigInt(SYS.rt_sigprocmask),
    SIG_UNBLOCK,
    from,
    to,
    BigInt(SIGSET_SIZE),
    0n,
  );
  check(Number(result), "rt_sigprocmask");
  return arena.u8.slice(before, before + SIGSET_SIZE);
}
