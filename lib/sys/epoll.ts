// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * epoll(7): one instance, its event array, and the 64-bit reference each event carries.
 *
 * The reference is two words, `type` (what the descriptor is for) and `data` (a flow index, a
 * descriptor, whatever the type means by it). References never hold pointers, so an event that was
 * already fetched when its descriptor was closed can do no more than name a flow that is closing.
 *
 * @module
 */
import { errno, libc } from "./libc.ts";
import { check, E, lastError } from "./errno.ts";
import { epollEvent } from "./layout.ts";

/** Event bits of linux/eventpoll.h. */
export const EPOLL = {
  IN: 0x001,
  PRI: 0x002,
  OUT: 0x004,
  ERR: 0x008,
  HUP: 0x010,
  RDHUP: 0x2000,
  ONESHOT: 1 << 30,
  ET: 1 << 31,
} as const;

const EPOLL_CLOEXEC = 0x80000; // linux/eventpoll.h
const EPOLL_CTL_ADD = 1; // linux/eventpoll.h
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

const WORDS = epollEvent.size / 4;
const DATA = epollEvent.at.data / 4; // index of the low data word

/**
 * An epoll instance.
 *
 * @example
 * ```ts
 * import { Epoll, EPOLL } from "./epoll.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const fds = new Int32Array(2);
 * libc.pipe2(fds, 0);
 * const epoll = new Epoll(8);
 * epoll.add(fds[0], EPOLL.IN, 7, 42);
 * assertEquals(epoll.wait(0), 0);
 * libc.write(fds[1], new Uint8Array(1), 1);
 * assertEquals(epoll.wait(0), 1);
 * assertEquals([epoll.type(0), epoll.data(0), epoll.events(0)], [7, 42, EPOLL.IN]);
 * epoll.close();
 * libc.close(fds[0]);
 * libc.close(fds[1]);
 * ```
 */
export class Epoll {
  readonly fd: number;
  readonly #max: number;
  readonly #ready: Int32Array<ArrayBuffer>;
  readonly #one: Int32Array<ArrayBuffer> = new Int32Array(WORDS);

  /** @param max events fetched by one {@linkcode wait} */
  constructor(max = 128) {
    this.#max = max;
    this.#ready = new Int32Array(WORDS * max);
    this.fd = check(libc.epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  }

  #control(op: number, fd: number, events: number, type: number, data: number): number {
    const event = this.#one;
    event[0] = events;
    event[DATA] = data;
    event[DATA + 1] = type;
    return libc.epoll_ctl(this.fd, op, fd, event) < 0 ? -errno() : 0;
  }

  /** Starts watching `fd`. @returns 0 or a negative errno (ENOSPC, ENOMEM: epoll_ctl(2)) */
  add(fd: number, events: number, type: number, data: number): number {
    return this.#control(EPOLL_CTL_ADD, fd, events, type, data);
  }

  /** Changes what is watched, or re-arms an edge. @returns 0 or a negative errno */
  modify(fd: number, events: number, type: number, data: number): number {
    return this.#control(EPOLL_CTL_MOD, fd, events, type, data);
  }

  /** Stops watching `fd`; closing the descriptor does the same. */
  remove(fd: number): void {
    this.#control(EPOLL_CTL_DEL, fd, 0, 0, 0);
  }

  /**
   * Blocks until events are there or `timeoutMs` has passed (-1: no limit).
   *
   * @returns the number of events; 0 after a timeout or a signal
   * @throws SysError on anything but EINTR
   */
  wait(timeoutMs: number): number {
    const n = libc.epoll_wait(this.fd, this.#ready, this.#max, timeoutMs);
    if (n >= 0) return n;
    if (errno() === E.EINTR) return 0;
    throw lastError("epoll_wait");
  }

  /** Event bits of the `k`-th ready event. */
  events(k: number): number {
    return this.#ready[k * WORDS];
  }

  /** Type word of the `k`-th ready event. */
  type(k: number): number {
    return this.#ready[k * WORDS + DATA + 1];
  }

  /** Data word of the `k`-th ready event. */
  data(k: number): number {
    return this.#ready[k * WORDS + DATA];
  }

  close(): void {
    libc.close(this.fd);
  }
}
