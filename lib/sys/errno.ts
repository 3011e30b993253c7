// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Kernel errors: their numbers, their names, and the one error class that carries them.
 *
 * @module
 */
import { errno } from "./libc_rare.ts";

/** errno numbers of asm-generic/errno.h; the same on x86_64 and aarch64. */
export const E = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  E2BIG: 7,
  ENOEXEC: 8,
  EBADF: 9,
  ECHILD: 10,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ENOTTY: 25,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EPIPE: 32,
  ERANGE: 34,
  ENAMETOOLONG: 36,
  ENOSYS: 38,
  ELOOP: 40,
  EPROTO: 71,
  EBADMSG: 74,
  EBADFD: 77,
  EUSERS: 87,
  ENOTSOCK: 88,
  EDESTADDRREQ: 89,
  EMSGSIZE: 90,
  EPROTOTYPE: 91,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETDOWN: 100,
  ENETUNREACH: 101,
  ENETRESET: 102,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  ENOBUFS: 105,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTDOWN: 112,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
  ECANCELED: 125,
} as const;

const NAMES = new Map<number, string>(Object.entries(E).map(([name, n]) => [n, name]));

/**
 * The symbolic name of an errno number.
 *
 * @example
 * ```ts
 * import { errnoName } from "./errno.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(errnoName(13), "EACCES");
 * assertEquals(errnoName(4095), "errno 4095");
 * ```
 */
export function errnoName(number: number): string {
  return NAMES.get(number) ?? `errno ${number}`;
}

/** A failed system call: what was called, on what, and the kernel's reason. */
export class SysError extends Error {
  /** Name of the class. */
  override readonly name = "SysError";
  /** The function, as in its manual page. */
  readonly call: string;
  /** Positive errno number. */
  readonly errno: number;
  /** Symbolic name, such as `EACCES`. */
  readonly code: string;

  /**
   * Makes an error whose message names all of it.
   *
   * @param call the function's name
   * @param what its object or purpose; may be empty
   * @param number positive errno
   * @param hint what the user can do about it
   */
  constructor(call: string, what: string, number: number, hint = "") {
    const code = errnoName(number);
    super(`${call}${what && " "}${what}: ${code}${hint && ` (${hint})`}`);
    this.call = call;
    this.errno = number;
    this.code = code;
  }
}

/** The error of the C library call that has just failed. */
export function lastError(call: string, what = "", hint = ""): SysError {
  return new SysError(call, what, errno(), hint);
}

/**
 * Passes on a call's result, or throws its error when it is negative.
 *
 * @example
 * ```ts
 * import { check, SysError } from "./errno.ts";
 * import { libc } from "./libc.ts";
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(() => check(libc.close(-1), "close"), SysError, "close: EBADF");
 * ```
 */
export function check(result: number, call: string, what = "", hint = ""): number {
  if (result < 0) throw lastError(call, what, hint);
  return result;
}
