// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * UNIX stream sockets that have a path (unix(7)).
 *
 * Theory of operation: the path of a socket stays when its owner is killed, and nobody else can bind
 * to it then. Whether it is one of those shows when one connects: the kernel refuses that. Such a path
 * is removed and bound to again, unless it has changed hands meanwhile. As a socket that is bound and
 * does not listen yet looks the same, whoever takes a path holds an abstract socket named after it for
 * that moment.
 *
 * @module
 */
import { E, SysError } from "./errno.ts";
import { sockaddrUn } from "./layout.ts";
import { errno, libc } from "./libc.ts";
import { AF_UNIX, newSocket, SOCK_STREAM } from "./socket.ts";

/** Longest path in bytes, without the NUL at its end. */
export const MAX_SOCKET_PATH: number = sockaddrUn.sizes.sun_path - 1;
/** Others may not connect. */
const PRIVATE_UMASK = 0o177;

const encoder = new TextEncoder();

/** A file, as {@linkcode fileAt} knows it again. */
export interface FileId {
  readonly dev: number;
  readonly ino: number | null;
  readonly isSocket: boolean;
}

/** What is at a path, symbolic links not followed; null: nothing that we can see. */
export function fileAt(path: string): FileId | null {
  try {
    const { dev, ino, isSocket } = Deno.lstatSync(path);
    return { dev, ino, isSocket: isSocket === true };
  } catch {
    return null;
  }
}

/** Whether a path leads to that file still. */
export function isStill(path: string, file: FileId | null): boolean {
  const there = fileAt(path);
  return there !== null && file !== null && there.dev === file.dev && there.ino === file.ino;
}

/**
 * `struct sockaddr_un` for a path.
 *
 * @param option what an error begins with, such as `-s: `
 * @throws SysError ENAMETOOLONG
 * @example
 * ```ts
 * import { unixAddress } from "./unix_socket.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals([...unixAddress("/a")], [1, 0, 0x2f, 0x61, 0]);
 * ```
 */
export function unixAddress(path: string, option = ""): Uint8Array<ArrayBuffer> {
  const name = encoder.encode(`${path}\0`), start = sockaddrUn.at.sun_path;
  if (name.length > MAX_SOCKET_PATH + 1) {
    const hint = `a socket's path has at most ${MAX_SOCKET_PATH} bytes`;
    throw new SysError(`${option}bind`, path, E.ENAMETOOLONG, hint);
  }
  const address = new Uint8Array(start + name.length);
  new DataView(address.buffer).setUint16(sockaddrUn.at.sun_family, AF_UNIX, true);
  address.set(name, start);
  return address;
}

/** Makes a stream socket. @throws SysError */
function newStream(path: string): number {
  const fd = newSocket(AF_UNIX, SOCK_STREAM, 0);
  if (fd < 0) throw new SysError("socket", path, -fd);
  return fd;
}

/**
 * Connects to a socket. Does not block.
 *
 * @returns a non-blocking descriptor, or a negative errno: ECONNREFUSED when nobody listens there
 * @throws SysError ENAMETOOLONG
 */
export function connectUnix(path: string): number {
  const address = unixAddress(path), fd = newStream(path);
  if (libc.connect(fd, address, address.length) === 0) return fd;
  const reason = errno();
  libc.close(fd);
  return -reason;
}

/** bind(2), for ourselves only. @returns 0 or a negative errno */
function bindPrivately(fd: number, address: Uint8Array<ArrayBuffer>): number {
  const umask = Deno.umask(PRIVATE_UMASK);
  const result = libc.bind(fd, address, address.length) < 0 ? -errno() : 0;
  Deno.umask(umask);
  return result;
}

/** Removes a path that its last owner has left. @throws SysError when it is not such a one */
function removeStale(path: string, option: string): void {
  const bind = `${option}bind`;
  const file = fileAt(path);
  if (file === null) return; // gone meanwhile
  if (!file.isSocket) throw new SysError(bind, path, E.EADDRINUSE, "it is there, and no socket");
  const fd = connectUnix(path);
  if (fd >= 0) libc.close(fd);
  if (fd !== -E.ECONNREFUSED || !isStill(path, file)) {
    const live = fd >= 0 || fd === -E.EAGAIN || fd === -E.ECONNREFUSED;
    throw new SysError(bind, path, live ? E.EADDRINUSE : -fd, "it belongs to another process");
  }
  if (libc.unlink(encoder.encode(`${path}\0`)) < 0) {
    throw new SysError(`${option}unlink`, path, errno());
  }
}

/** How long others are given to take a path, and how often that is looked at. */
const LOCK_MS = 200, LOCK_STEP_MS = 2;
const LOCK_PREFIX = "tubetti-lock:";
const naptime = new Int32Array(new SharedArrayBuffer(4));

/**
 * Keeps others of our kind from a path until the descriptor is closed. Blocks while one of them does so,
 * but not for long: it may be somebody who only pretends. @returns the descriptor, or -1
 */
function lockPath(path: string): number {
  const start = sockaddrUn.at.sun_path + 1; // a NUL in front makes a name abstract (unix(7))
  const absolute = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  const name = encoder.encode(`${LOCK_PREFIX}${absolute}`).subarray(-MAX_SOCKET_PATH);
  const address = new Uint8Array(start + name.length);
  new DataView(address.buffer).setUint16(sockaddrUn.at.sun_family, AF_UNIX, true);
  address.set(name, start);
  const fd = newStream(path);
  for (let waited = 0; waited < LOCK_MS; waited += LOCK_STEP_MS) {
    if (libc.bind(fd, address, address.length) === 0) return fd;
    Atomics.wait(naptime, 0, 0, LOCK_STEP_MS);
  }
  libc.close(fd);
  return -1;
}

/**
 * Listens at a path, for processes of the same user only. The path of an owner that is gone is taken.
 *
 * @param backlog connections that wait to be accepted
 * @param option what errors begin with, such as `-s: `
 * @returns a non-blocking descriptor
 * @throws SysError EADDRINUSE when the path belongs to somebody or is no socket, ENAMETOOLONG, EACCES …
 */
export function listenUnix(path: string, backlog: number, option = ""): number {
  const address = unixAddress(path, option), lock = lockPath(path), fd = newStream(path);
  try {
    let result = bindPrivately(fd, address);
    if (result === -E.EADDRINUSE) {
      removeStale(path, option);
      result = bindPrivately(fd, address);
    }
    if (result < 0) throw new SysError(`${option}bind`, path, -result);
    if (libc.listen(fd, backlog) < 0) throw new SysError(`${option}listen`, path, errno());
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  } finally {
    if (lock >= 0) libc.close(lock);
  }
}
