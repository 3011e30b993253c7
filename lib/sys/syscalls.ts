// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * System call numbers for syscall scripts (`script.ts`), by architecture.
 *
 * Only calls that exist on every supported architecture are used: openat(2), not open(2).
 *
 * @module
 */
import type { Architecture } from "./asm/machine_code.ts";

/** Numbers of asm/unistd_64.h (x86_64) and asm-generic/unistd.h (aarch64). */
export const SYSCALL_NUMBERS = {
  x86_64: {
    read: 0,
    write: 1,
    close: 3,
    rt_sigaction: 13,
    rt_sigprocmask: 14,
    ioctl: 16,
    getpid: 39,
    socket: 41,
    clone: 56,
    execve: 59,
    fcntl: 72,
    umask: 95,
    setsid: 112,
    prctl: 157,
    mount: 165,
    sethostname: 170,
    exit_group: 231,
    openat: 257,
    setns: 308,
    open_tree: 428,
    move_mount: 429,
    pidfd_open: 434,
    close_range: 436,
  },
  aarch64: {
    read: 63,
    write: 64,
    close: 57,
    rt_sigaction: 134,
    rt_sigprocmask: 135,
    ioctl: 29,
    getpid: 172,
    socket: 198,
    clone: 220,
    execve: 221,
    fcntl: 25,
    umask: 166,
    setsid: 157,
    prctl: 167,
    mount: 40,
    sethostname: 161,
    exit_group: 94,
    openat: 56,
    setns: 268,
    open_tree: 428,
    move_mount: 429,
    pidfd_open: 434,
    close_range: 436,
  },
} as const satisfies Record<Architecture, Record<string, number>>;

/** Name of a system call that scripts may use. */
export type SyscallName = keyof typeof SYSCALL_NUMBERS.x86_64;

/** Numbers of the running architecture. */
export const SYS: Readonly<Record<SyscallName, number>> = SYSCALL_NUMBERS[Deno.build.arch];
