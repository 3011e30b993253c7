// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Files: which one a path or a descriptor is, whose it is, and opening one by a name that a user gave.
 *
 * Theory of operation: what root writes to by a name in a folder that others may write to must not be led
 * elsewhere by them. So a symbolic link as the last component is followed only if it belongs to root, to
 * ourselves or to the folder's owner, who could change the name anyway: what the kernel does itself where
 * fs.protected_symlinks is set (proc_sys_fs(5)).
 *
 * Descriptors are asked by statx(2) and not by their links below /proc, which a process that has changed
 * its user may not look into (`PR_SET_DUMPABLE`, prctl(2)).
 *
 * @module
 */
import { E, errnoName, SysError } from "./errno.ts";
import { statx } from "./layout.ts";
import { errno, libc } from "./libc.ts";

const AT_FDCWD = -100; // linux/fcntl.h
const AT_SYMLINK_NOFOLLOW = 0x100; // linux/fcntl.h
const AT_EMPTY_PATH = 0x1000; // linux/fcntl.h
const STATX_TYPE_UID_INO = 0x1 | 0x8 | 0x100; // linux/stat.h
const S_IFMT = 0o170000; // inode(7)
const S_IFREG = 0o100000; // inode(7)
/** asm/fcntl.h; the one flag of these that is not the same everywhere */
const O_NOFOLLOW = { x86_64: 0o400000, aarch64: 0o100000 }[Deno.build.arch];
const ROOT = 0;

const status: Uint8Array<ArrayBuffer> = new Uint8Array(statx.size);
const view = new DataView(status.buffer);
const encoder = new TextEncoder();

/** What is known of a file. */
export interface FileStatus {
  readonly isRegular: boolean;
  readonly uid: number;
  /** Device (major, minor) and inode as text: two files are the same when these are. */
  readonly identity: string;
}

function ask(fd: number, path: string, flags: number): FileStatus | null {
  const name = encoder.encode(`${path}\0`);
  if (libc.statx(fd, name, flags, STATX_TYPE_UID_INO, status) < 0) return null;
  const device = `${view.getUint32(statx.at.stx_dev_major, true)}:` +
    view.getUint32(statx.at.stx_dev_minor, true);
  return {
    isRegular: (view.getUint16(statx.at.stx_mode, true) & S_IFMT) === S_IFREG,
    uid: view.getUint32(statx.at.stx_uid, true),
    identity: `${device}:${view.getBigUint64(statx.at.stx_ino, true)}`,
  };
}

/** The status of an open file. @throws SysError EBADF */
export function statusOf(fd: number): FileStatus {
  const known = ask(fd, "", AT_EMPTY_PATH);
  if (known === null) throw new SysError("statx", `${fd}`, errno());
  return known;
}

/** The status of the file that a path leads to, or a negative errno. */
export function statusAt(path: string): FileStatus | number {
  return ask(AT_FDCWD, path, 0) ?? -errno();
}

/**
 * Whether a path leads to the file of this identity.
 *
 * @param unseen the answer where we may not look any more
 */
export function leadsTo(path: string, identity: string, unseen = false): boolean {
  const now = statusAt(path);
  if (typeof now !== "number") return now.identity === identity;
  return unseen && now !== -E.ENOENT && now !== -E.ENOTDIR;
}

/** The folder in which a path's last component is. */
export function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "." : path.slice(0, slash) || "/";
}

/** Whether a symbolic link belongs to somebody who may lead us. */
function isTrusted(path: string): boolean {
  const link = ask(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW);
  const folder = ask(AT_FDCWD, folderOf(path), 0);
  return link !== null && [ROOT, libc.geteuid(), folder?.uid].includes(link.uid);
}

/**
 * Opens a file by a name that a user gave, and does not let others lead us elsewhere.
 *
 * @param flags of open(2)
 * @param mode of a file that is made
 * @returns a descriptor, or a negative errno: ELOOP where {@linkcode linkHint} applies
 * @example
 * ```ts
 * import { leadsTo, openNamed, statusOf } from "./file.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const path = Deno.makeTempFileSync();
 * const fd = openNamed(path, 0, 0);
 * assertEquals(leadsTo(path, statusOf(fd).identity), true);
 * libc.close(fd);
 * Deno.removeSync(path);
 * assertEquals(openNamed(path, 0, 0), -2); // ENOENT
 * ```
 */
export function openNamed(path: string, flags: number, mode: number): number {
  const name = encoder.encode(`${path}\0`);
  let fd = libc.open(name, flags | O_NOFOLLOW, mode);
  if (fd < 0 && errno() === E.ELOOP && isTrusted(path)) fd = libc.open(name, flags, mode);
  return fd < 0 ? -errno() : fd;
}

/** What a user can do about an errno of {@linkcode openNamed}. */
export function linkHint(reason: number): string {
  return reason === E.ELOOP ? "a symbolic link that belongs to somebody else is not followed" : "";
}

/** An errno of {@linkcode openNamed} in words. */
export function openReason(reason: number): string {
  const hint = linkHint(reason);
  return errnoName(reason) + (hint && ` (${hint})`);
}
