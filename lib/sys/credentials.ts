// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Users and groups: their numbers, and the change from one to another for the whole process.
 *
 * The kernel keeps credentials per thread. The C library's functions tell every thread to change, which
 * a plain system call would not (nptl(7)).
 *
 * @module
 */
import { check } from "./errno.ts";
import { group, passwd } from "./layout.ts";
import { libc } from "./libc.ts";

const PR_SET_DUMPABLE = 4; // linux/prctl.h

/** Who a process is, in numbers. */
export interface Identity {
  readonly uid: number;
  readonly gid: number;
}

const encoder = new TextEncoder();

/** A user of the system's database with its main group, or null. */
export function findUser(name: string): Identity | null {
  const entry = libc.getpwnam(encoder.encode(`${name}\0`));
  if (entry === null) return null;
  const view = new Deno.UnsafePointerView(entry);
  return { uid: view.getUint32(passwd.at.pw_uid), gid: view.getUint32(passwd.at.pw_gid) };
}

/** A group of the system's database, or null. */
export function findGroup(name: string): number | null {
  const entry = libc.getgrnam(encoder.encode(`${name}\0`));
  return entry === null ? null : new Deno.UnsafePointerView(entry).getUint32(group.at.gr_gid);
}

/** The identity that decides what we may do (effective IDs). */
export function currentIdentity(): Identity {
  return { uid: libc.geteuid(), gid: libc.getegid() };
}

/**
 * Becomes another user, for good: real, effective and saved IDs, no supplementary groups, and with root
 * its capabilities go. The process stays the owner of its files in /proc (PR_SET_DUMPABLE), which the
 * kernel would give to root, until {@linkcode hideMemory}.
 *
 * @throws SysError EPERM without CAP_SETUID and CAP_SETGID
 */
export function becomeUser({ uid, gid }: Identity): void {
  const hint = "changing the user takes root's rights";
  check(libc.setgroups(0n, null), "setgroups", "", hint);
  check(libc.setresgid(gid, gid, gid), "setresgid", `${gid}`, hint);
  check(libc.setresuid(uid, uid, uid), "setresuid", `${uid}`, hint);
  check(libc.prctl(PR_SET_DUMPABLE, 1n, 0n, 0n, 0n), "prctl", "PR_SET_DUMPABLE");
}

/** The user namespace in which the machine's own root is root maps every number to itself. */
const INITIAL_MAP = /^\s*0\s+0\s+4294967295\s*$/; // user_namespaces(7)

/**
 * Keeps other processes of our user from tracing us and from reading our memory and our descriptors below
 * /proc, which are root's from now on, to ourselves, too.
 *
 * @throws SysError
 */
export function hideMemory(): void {
  check(libc.prctl(PR_SET_DUMPABLE, 0n, 0n, 0n, 0n), "prctl", "PR_SET_DUMPABLE");
}

/** Whether we are in the first user namespace, where root is the machine's. */
export function inInitialUserNamespace(): boolean {
  return INITIAL_MAP.test(Deno.readTextFileSync("/proc/self/uid_map"));
}
