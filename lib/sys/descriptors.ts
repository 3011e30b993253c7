// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The process's own table of descriptors: whose they are, and how to let go of some.
 *
 * Everything that the runtime and we open is close-on-exec. So a descriptor that is not has come
 * through execve(2), from whoever started us.
 *
 * @module
 */
import { check, E } from "./errno.ts";
import { errno, libc } from "./libc_rare.ts";

const F_GETFD = 1; // asm-generic/fcntl.h
const F_SETFD = 2; // asm-generic/fcntl.h
const F_GETFL = 3; // asm-generic/fcntl.h
const F_SETFL = 4; // asm-generic/fcntl.h
const FD_CLOEXEC = 1; // asm-generic/fcntl.h
const O_NONBLOCK = 0x800; // asm-generic/fcntl.h
const O_RDWR = 2; // asm-generic/fcntl.h
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h

/** First descriptor behind standard input, output and error. */
const FIRST_OTHER_FD = 3;

/** Numbers of the open descriptors. */
function openNumbers(): number[] {
  return [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => Number(name));
}

/** Has a descriptor closed by execve(2). @throws SysError EBADF */
export function setCloseOnExec(fd: number): void {
  check(libc.fcntl(fd, F_SETFD, FD_CLOEXEC), "fcntl", `F_SETFD ${fd}`);
}

/** Has calls on a descriptor that others may hold too not block. @throws SysError EBADF */
export function setNonBlocking(fd: number): void {
  const flags = check(libc.fcntl(fd, F_GETFL, 0), "fcntl", `F_GETFL ${fd}`);
  check(libc.fcntl(fd, F_SETFL, flags | O_NONBLOCK), "fcntl", `F_SETFL ${fd}`);
}

/** Open descriptors behind the three standard ones: those closed by execve(2), or the others. */
function otherDescriptors(closeOnExec: boolean): number[] {
  return openNumbers().filter((fd) => {
    const flags = fd < FIRST_OTHER_FD ? -1 : libc.fcntl(fd, F_GETFD, 0);
    return flags >= 0 && ((flags & FD_CLOEXEC) !== 0) === closeOnExec;
  });
}

/** Descriptors, but the three standard ones, that came from whoever started us. */
export function inheritedDescriptors(): number[] {
  return otherDescriptors(false);
}

/** What a descriptor is open on, as /proc shows it, or null when it is closed. */
function openOn(fd: number): string | null {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return null;
  }
}

/**
 * The standard descriptors and the runtime's duplicates of them: those on the same pipe, terminal or
 * file. To be called before anything of ours is opened that could be the same file.
 */
export function standardDescriptors(): number[] {
  const standard = [0, 1, 2];
  const targets = new Set(standard.map(openOn));
  const isDuplicate = (fd: number) => targets.has(openOn(fd) ?? "");
  return [...standard, ...otherDescriptors(true).filter(isDuplicate)];
}

/** Opens /dev/null in the place of descriptors. @throws SysError */
export function replaceWithNull(fds: readonly number[]): void {
  const path = new TextEncoder().encode("/dev/null\0");
  const none = check(libc.open(path, O_RDWR | O_CLOEXEC, 0), "open", "/dev/null");
  for (const fd of fds) {
    check(libc.dup3(none, fd, fd < FIRST_OTHER_FD ? 0 : O_CLOEXEC), "dup3", `${fd}`);
  }
  libc.close(none);
}

/** Waits for a byte of a pipe or a socket. Blocks. @returns the byte; negative: its other end is closed */
export function awaitByte(fd: number): number {
  const byte = new Uint8Array(1);
  let n: number;
  do n = libc.read(fd, byte, 1); while (n < 0 && errno() === E.EINTR);
  return n === 1 ? byte[0] : -1;
}
