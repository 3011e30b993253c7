// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A descriptor that becomes readable at regular intervals (timerfd_create(2)).
 *
 * @module
 */
import { check } from "./errno.ts";
import { timespec } from "./layout.ts";
import { libc } from "./libc.ts";

const CLOCK_MONOTONIC = 1; // linux/time.h
const TFD_NONBLOCK_CLOEXEC = 0x800 | 0x80000; // linux/timerfd.h
const MS_PER_S = 1000;
const NS_PER_MS = 1_000_000;

/**
 * A regular event.
 *
 * @example
 * ```ts
 * import { Ticker } from "./ticker.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const ticker = new Ticker(50);
 * assertEquals(ticker.clear(), false);
 * await new Promise((resolve) => setTimeout(resolve, 120));
 * assertEquals([ticker.clear(), ticker.clear()], [true, false]);
 * ticker.close();
 * ```
 */
export class Ticker {
  /** Readable when an interval has passed; non-blocking, close-on-exec. */
  readonly fd: number;

  /** @throws SysError */
  constructor(intervalMs: number) {
    this.fd = check(libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC), "timerfd_create");
    const spec = new DataView(new ArrayBuffer(2 * timespec.size)); // struct itimerspec
    for (const at of [0, timespec.size]) { // interval, first time
      const seconds = BigInt(Math.floor(intervalMs / MS_PER_S));
      spec.setBigInt64(at + timespec.at.tv_sec, seconds, true);
      spec.setBigInt64(at + timespec.at.tv_nsec, BigInt(intervalMs % MS_PER_S * NS_PER_MS), true);
    }
    check(libc.timerfd_settime(this.fd, 0, spec, null), "timerfd_settime");
  }

  /** Takes the events. @returns whether there were any */
  clear(): boolean {
    return libc.read(this.fd, new Uint8Array(8), 8) > 0; // a count of 64 bits
  }

  close(): void {
    libc.close(this.fd);
  }
}
