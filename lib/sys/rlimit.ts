// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Resource limits (getrlimit(2)).
 *
 * @module
 */
import { check } from "./errno.ts";
import { rlimit } from "./layout.ts";
import { libc } from "./libc.ts";

const RLIMIT_NOFILE = 7; // asm-generic/resource.h

/**
 * Raises the soft limit of open descriptors to the hard one.
 *
 * @returns the limit: descriptors are below it
 * @throws SysError
 */
export function raiseDescriptorLimit(): number {
  const limits = new BigUint64Array(rlimit.size / 8); // rlim_cur, rlim_max
  check(libc.getrlimit(RLIMIT_NOFILE, limits), "getrlimit", "RLIMIT_NOFILE");
  if (limits[0] !== limits[1]) {
    limits[0] = limits[1];
    check(libc.setrlimit(RLIMIT_NOFILE, limits), "setrlimit", "RLIMIT_NOFILE");
  }
  return Number(limits[0]);
}

/** Number of descriptors this process has open. */
export function openDescriptors(): number {
  let count = 0;
  for (const _ of Deno.readDirSync("/proc/self/fd")) count++;
  return count;
}

/**
 * The soft limit of open descriptors.
 *
 * @throws SysError
 */
export function descriptorLimit(): number {
  const limits = new BigUint64Array(rlimit.size / 8); // rlim_cur, rlim_max
  check(libc.getrlimit(RLIMIT_NOFILE, limits), "getrlimit", "RLIMIT_NOFILE");
  return Number(limits[0]);
}
