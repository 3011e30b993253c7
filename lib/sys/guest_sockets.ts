// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Sockets in the guest's network namespace, made ahead of their use.
 *
 * Theory of operation: a socket belongs for life to the namespace it was made in, whoever binds or
 * connects it later. Making one there takes a helper process (`namespace.ts`) and some hundred
 * microseconds, whether it makes one or two hundred. So sockets are made in batches and kept in a
 * small pool per kind; batches grow while they are used up quickly. What nobody took for a while is
 * closed.
 *
 * @module
 */
import { E, SysError } from "./errno.ts";
import { libc } from "./libc.ts";
import { guestSockets, type Namespace } from "./namespace.ts";
import { AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM } from "./socket.ts";

/** Sockets made at a time, first and at most. */
const FIRST_BATCH = 8;
const MAX_BATCH = 256;
/** A batch that lasts less long makes the next one larger. */
const BUSY_MS = 1000;
/** How long unused sockets are kept. */
const IDLE_MS = 10_000;

/** Ready sockets of one family and type. */
interface Pool {
  readonly family: number;
  readonly type: number;
  readonly fds: Int32Array<ArrayBuffer>;
  count: number;
  batch: number;
  refilledAt: number;
  takenAt: number;
}

function pool(family: number, type: number): Pool {
  const fds = new Int32Array(MAX_BATCH);
  return { family, type, fds, count: 0, batch: FIRST_BATCH, refilledAt: -Infinity, takenAt: 0 };
}

/** Makes `count` sockets of a kind in a namespace. @throws SysError */
export type MakeSockets = (
  family: number,
  type: number,
  protocol: number,
  count: number,
) => number[];

/** Makes sockets in the namespaces. @returns a function for {@linkcode GuestSockets} */
export function makerIn(namespace: Namespace): MakeSockets {
  return (family, type, protocol, count) =>
    guestSockets(namespace, new Array(count).fill({ family, type, protocol }));
}

/**
 * The sockets of one guest.
 *
 * @example
 * ```ts
 * import { GuestSockets } from "./guest_sockets.ts";
 * import { AF_INET, newSocket, SOCK_STREAM } from "./socket.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * // makerIn(openNamespace(pid)) makes them in the namespace of a process; here it is our own
 * const sockets = new GuestSockets((family, type, protocol, count) =>
 *   Array.from({ length: count }, () => newSocket(family, type, protocol))
 * );
 * const fd = sockets.take(AF_INET, SOCK_STREAM, 0, 0);
 * assertEquals([fd >= 0, sockets.ready], [true, 7]);
 * libc.close(fd);
 * sockets.close();
 * ```
 */
export class GuestSockets {
  readonly #make: MakeSockets;
  readonly #pools: readonly Pool[] = [
    pool(AF_INET, SOCK_STREAM),
    pool(AF_INET6, SOCK_STREAM),
    pool(AF_INET, SOCK_DGRAM),
    pool(AF_INET6, SOCK_DGRAM),
  ];
  #ready = 0;
  /** When there was no room for a batch. */
  #shortAt = -Infinity;

  constructor(make: MakeSockets) {
    this.#make = make;
  }

  /** Sockets that wait for their use. */
  get ready(): number {
    return this.#ready;
  }

  /**
   * Hands over a socket: non-blocking, close-on-exec, not bound. Blocks for a helper process when none
   * of its kind is ready.
   *
   * @param nowMs the time, as in {@linkcode GuestSockets.tick}
   * @returns a descriptor, or a negative errno (`EMFILE`, `EAFNOSUPPORT` …)
   */
  take(family: number, type: number, protocol: number, nowMs: number): number {
    const wide = family === AF_INET6 ? 1 : 0;
    if (protocol !== 0 || (type !== SOCK_STREAM && type !== SOCK_DGRAM)) {
      return this.#one(family, type, protocol);
    }
    const kind = this.#pools[wide + (type === SOCK_DGRAM ? 2 : 0)];
    const short = nowMs - this.#shortAt < BUSY_MS;
    if (kind.count === 0 && (short || this.#refill(kind, nowMs) < 0)) {
      this.close(); // descriptors of the other kinds may be all that is missing
      return this.#one(family, type, protocol);
    }
    kind.takenAt = nowMs;
    this.#ready--;
    return kind.fds[--kind.count];
  }

  #one(family: number, type: number, protocol: number): number {
    try {
      return this.#make(family, type, protocol, 1)[0];
    } catch (error) {
      return negativeErrno(error);
    }
  }

  #refill(kind: Pool, nowMs: number): number {
    if (nowMs - kind.refilledAt < BUSY_MS) kind.batch = Math.min(2 * kind.batch, MAX_BATCH);
    kind.refilledAt = nowMs;
    try {
      const made = this.#make(kind.family, kind.type, 0, kind.batch);
      kind.fds.set(made);
      this.#ready += made.length;
      return kind.count = made.length;
    } catch (error) {
      kind.batch = FIRST_BATCH;
      this.#shortAt = nowMs;
      return negativeErrno(error);
    }
  }

  /** Closes what nobody has taken for a while. To be called about once a second. */
  tick(nowMs: number): void {
    for (const kind of this.#pools) {
      if (kind.count > 0 && nowMs - kind.takenAt >= IDLE_MS) this.#release(kind);
    }
  }

  /** Closes all that wait. What was taken stays its owner's. */
  close(): void {
    for (const kind of this.#pools) this.#release(kind);
  }

  #release(kind: Pool): void {
    this.#ready -= kind.count;
    while (kind.count > 0) libc.close(kind.fds[--kind.count]);
    kind.batch = FIRST_BATCH;
  }
}

function negativeErrno(error: unknown): number {
  if (error instanceof SysError) return -(error.errno || E.EINVAL);
  throw error;
}
