// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The UNIX socket over which a hypervisor is served, whatever is spoken there.
 *
 * Theory of operation: we listen at a path, one hypervisor at a time connects, and when it leaves the
 * next may come. A second one is accepted and sent away, so that it sees an error instead of waiting.
 * With `--one-off`, and with a connected descriptor that our parent gave us, all is over when the
 * hypervisor leaves. The path is removed at the end if it is still ours.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { monotonicMs } from "../sys/clock.ts";
import { setCloseOnExec, setNonBlocking } from "../sys/descriptors.ts";
import { check, E, errnoName, SysError } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import { hasHungUp } from "../sys/poll.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import {
  AF_UNIX,
  getOption,
  setOption,
  SO_DOMAIN,
  SO_RCVBUF,
  SO_SNDBUF,
  SO_TYPE,
  SOCK_CLOEXEC,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../sys/socket.ts";
import { fileAt, type FileId, isStill, listenUnix } from "../sys/unix_socket.ts";

/** Numbers of the paths that are tried when none is given (passt(1), `-s`). */
const FIRST_NUMBER = 1, LAST_NUMBER = 64;
/** Who waits while another one is sent away. */
const BACKLOG = 8;
/** Asked for; the kernel gives what net.core.wmem_max and rmem_max allow. */
const BUFFER_BYTES = 1 << 20;
const WARNINGS_PER_SECOND = 1;
/** What errors begin with. */
const OPTION = "-s: ";
const F_DUPFD_CLOEXEC = 1030; // linux/fcntl.h

const encoder = new TextEncoder();

/** The path with number `n`. */
function numberedPath(n: number): string {
  return `/tmp/passt_${n}.socket`;
}

/** Listens at the first numbered path that can be had. @throws SysError when there is none */
function listenNumbered(): { path: string; fd: number } {
  let reason: number = E.EADDRINUSE;
  for (let n = FIRST_NUMBER; n <= LAST_NUMBER; n++) {
    const path = numberedPath(n);
    try {
      return { path, fd: listenUnix(path, BACKLOG, OPTION) };
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      reason = error.errno;
    }
  }
  const range = `${numberedPath(FIRST_NUMBER)} to ${LAST_NUMBER}`;
  throw new SysError(`${OPTION}bind`, range, reason, "none of them can be had");
}

/** A duplicate of a descriptor, for when there are no others left. */
function spareOf(fd: number): number {
  return libc.fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

/** A socket for one hypervisor at a time. */
export class Hypervisor {
  /** Where we listen; empty when the connection was given to us. */
  readonly path: string;
  /** The listening socket, or -1. */
  readonly listenFd: number;
  /** How many hypervisors have left. */
  departures = 0;
  readonly #absolute: string;
  readonly #file: FileId | null;
  readonly #oneOff: boolean;
  readonly #warnings = new RateLimit(WARNINGS_PER_SECOND);
  #fd: number;
  #spare = -1;
  #closed = false;

  private constructor(path: string, listenFd: number, fd: number, oneOff: boolean) {
    this.path = path;
    this.listenFd = listenFd;
    this.#fd = fd;
    this.#oneOff = oneOff;
    this.#absolute = path === "" || path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
    this.#file = path === "" ? null : fileAt(this.#absolute);
    if (listenFd >= 0) this.#spare = spareOf(listenFd);
    if (fd >= 0) enlarge(fd);
  }

  /**
   * Listens at a path.
   *
   * @param path null: the first of /tmp/passt_1.socket … /tmp/passt_64.socket that is free
   * @param oneOff whether one hypervisor is all
   * @throws SysError when the path cannot be had
   * @example
   * ```ts
   * import { Hypervisor } from "./hypervisor.ts";
   * import { connectUnix } from "../sys/unix_socket.ts";
   * import { libc } from "../sys/libc.ts";
   * import { assert, assertEquals } from "@std/assert";
   *
   * const folder = Deno.makeTempDirSync();
   * const hypervisor = Hypervisor.listen(`${folder}/socket`, true);
   * const client = connectUnix(hypervisor.path);
   * assert(hypervisor.accept());
   * assert(hypervisor.fd >= 0 && !hypervisor.over);
   * libc.close(client);
   * hypervisor.disconnect();
   * assert(hypervisor.over);
   * hypervisor.close();
   * assertEquals([...Deno.readDirSync(folder)], []);
   * Deno.removeSync(folder);
   * ```
   */
  static listen(path: string | null, oneOff: boolean): Hypervisor {
    const given = path !== null;
    const found = given ? { path, fd: listenUnix(path, BACKLOG, OPTION) } : listenNumbered();
    return new Hypervisor(found.path, found.fd, -1, oneOff);
  }

  /**
   * Takes over a connected UNIX stream socket, the one end of a socketpair(2) for example.
   *
   * @throws SysError when the descriptor is nothing of the kind
   */
  static connected(fd: number): Hypervisor {
    const type = getOption(fd, SOL_SOCKET, SO_TYPE);
    if (type < 0) throw new SysError("-F: getsockopt", `${fd}`, -type);
    if (type !== SOCK_STREAM || getOption(fd, SOL_SOCKET, SO_DOMAIN) !== AF_UNIX) {
      throw new SysError("-F", `${fd}`, E.EPROTOTYPE, "it must be a UNIX stream socket");
    }
    const name = new Uint8Array(2), length = Uint32Array.of(name.length);
    if (libc.getpeername(fd, name, length) < 0) {
      throw new SysError("-F: getpeername", `${fd}`, errno(), "it must be connected");
    }
    setCloseOnExec(fd);
    setNonBlocking(fd);
    return new Hypervisor("", -1, fd, true);
  }

  /** The connected hypervisor, or -1. */
  get fd(): number {
    return this.#fd;
  }

  /** Whether the hypervisor has left, and no other one may come. */
  get over(): boolean {
    return this.departures > 0 && this.#oneOff;
  }

  /**
   * Whether the connected hypervisor has closed its end. Its successor may wait already, and would be
   * sent away if it was accepted before this one was let go of.
   */
  get gone(): boolean {
    return this.#fd >= 0 && hasHungUp(this.#fd);
  }

  /** Gives the socket's path to another user (chown(2)). @throws SysError */
  give(uid: number, gid: number): void {
    if (this.path === "" || !isStill(this.#absolute, this.#file)) return;
    const name = encoder.encode(`${this.#absolute}\0`);
    check(libc.lchown(name, uid, gid), `${OPTION}lchown`, this.path);
  }

  /**
   * Accepts who waits on {@linkcode Hypervisor.listenFd}: nobody is kept waiting.
   *
   * @returns whether a hypervisor is connected now that was not before
   */
  accept(): boolean {
    const fd = this.#accepted();
    if (fd < 0) return false;
    if (this.#fd < 0 && !this.over) {
      this.#fd = fd;
      enlarge(fd);
      return true;
    }
    libc.close(fd);
    this.#warn("Another hypervisor was sent away: we serve one at a time");
    return false;
  }

  /** accept(2), with the spare descriptor when there is no other. @returns descriptor or -1 */
  #accepted(): number {
    if (this.listenFd < 0) return -1;
    if (this.#spare < 0) this.#spare = spareOf(this.listenFd);
    const flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    const fd = libc.accept4(this.listenFd, null, null, flags);
    if (fd >= 0) return fd;
    const reason = errno();
    if (reason === E.EMFILE || reason === E.ENFILE) {
      if (this.#spare >= 0) libc.close(this.#spare);
      const late = libc.accept4(this.listenFd, null, null, flags);
      this.#spare = spareOf(this.listenFd);
      if (late >= 0) return late;
    }
    if (reason !== E.EAGAIN) this.#warn(`A hypervisor waits: accept: ${errnoName(reason)}`);
    return -1;
  }

  #warn(what: string): void {
    if (this.#warnings.allow(monotonicMs())) getLogger().warn(what);
  }

  /** Lets go of the connected hypervisor. Whoever watches the descriptor stops that before. */
  disconnect(): void {
    if (this.#fd < 0) return;
    libc.close(this.#fd);
    this.#fd = -1;
    this.departures++;
  }

  /** Closes everything, and removes the path if it is ours still. Does nothing the second time. */
  close(): void {
    this.disconnect();
    if (this.listenFd < 0 || this.#closed) return;
    this.#closed = true;
    if (isStill(this.#absolute, this.#file)) libc.unlink(encoder.encode(`${this.#absolute}\0`));
    libc.close(this.listenFd);
    if (this.#spare >= 0) libc.close(this.#spare);
    this.#spare = -1;
  }
}

/** Has the kernel keep more for a slow reader, so that we are woken less often. */
function enlarge(fd: number): void {
  setOption(fd, SOL_SOCKET, SO_SNDBUF, BUFFER_BYTES);
  setOption(fd, SOL_SOCKET, SO_RCVBUF, BUFFER_BYTES);
}
