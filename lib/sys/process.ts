// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Child processes: a descriptor that becomes readable when one ends, and its exit status.
 *
 * @module
 */
import { check, E } from "./errno.ts";
import { errno, libc } from "./libc_rare.ts";
import { SYS } from "./syscalls.ts";

const WNOHANG = 1; // linux/wait.h
/** Added to a signal's number in the exit status of what it ended, as in sh(1). */
export const SIGNAL_BASE = 128;

const statusCell = new Int32Array(1);

/**
 * Opens a pidfd: readable (EPOLLIN) when the process has ended. Close-on-exec (pidfd_open(2)).
 *
 * @throws SysError
 */
export function openPidfd(pid: number): number {
  const fd = libc.syscall(BigInt(SYS.pidfd_open), BigInt(pid), 0n, 0n, 0n, 0n);
  return check(Number(fd), "pidfd_open", String(pid));
}

/** The exit code that stands for a wait(2) status: 0–255, or 128 + N after signal N. */
export function exitCode(status: number): number {
  const signal = status & 0x7f;
  return signal === 0 ? status >> 8 & 0xff : SIGNAL_BASE + signal;
}

/**
 * Waits until a child has ended, and reaps it. Blocks.
 *
 * @returns its exit code, as {@linkcode exitCode}
 * @throws SysError ECHILD when there is no such child
 */
export function waitExit(pid: number): number {
  let reaped: number;
  do reaped = libc.waitpid(pid, statusCell, 0); while (reaped < 0 && errno() === E.EINTR);
  check(reaped, "waitpid", String(pid));
  return exitCode(statusCell[0]);
}

/**
 * Reaps a child if it has ended. Does not block.
 *
 * @returns its exit code, or null while it runs
 * @throws SysError ECHILD when there is no such child
 */
export function pollExit(pid: number): number | null {
  const reaped = check(libc.waitpid(pid, statusCell, WNOHANG), "waitpid", String(pid));
  return reaped === 0 ? null : exitCode(statusCell[0]);
}

/** Process group of a process, if it is the foreground one of its terminal; else -1. */
function foregroundGroup(pid: number | "self"): number {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    // behind the name, which may hold anything: state, parent, group, session, terminal, foreground
    const [, , group, , , foreground] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return group === foreground ? Number(group) : -1;
  } catch {
    return -1; // it is gone
  }
}

/** Whether a terminal's Ctrl-C reaches both us and a process: proc_pid_stat(5), termios(3). */
export function sharesForeground(pid: number): boolean {
  const group = foregroundGroup("self");
  return group >= 0 && foregroundGroup(pid) === group;
}

/** Whether a process has a handler for a signal (`SigCgt` of proc_pid_status(5)). */
export function catches(pid: number, signal: number): boolean {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const mask = BigInt(`0x${/^SigCgt:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
    return (mask >> BigInt(signal - 1) & 1n) === 1n;
  } catch {
    return false; // it is gone
  }
}
