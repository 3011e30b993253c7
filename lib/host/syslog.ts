// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The system logger: datagrams to /dev/log in the form of RFC 3164, as syslog(3) sends them.
 *
 * The kernel keeps few datagrams for a logger (10, unix(7)): one that is behind gets a moment for each
 * message, and when it does not use it, messages are lost until it does. All are lost where there is no
 * logger. One that comes up later, or again, is found within a second of messages.
 *
 * @module
 */
import { BaseHandler, type LevelName, LogLevels, type LogRecord } from "@std/log";
import { monotonicMs } from "../sys/clock.ts";
import { E } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import {
  AF_UNIX,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOCK_CLOEXEC,
  SOCK_DGRAM,
  SOCK_NONBLOCK,
} from "../sys/socket.ts";
import { waitWritable } from "../sys/poll.ts";
import { unixAddress } from "../sys/unix_socket.ts";
import { encodeLine, lineBytes } from "./log_line.ts";

const DEV_LOG = "/dev/log"; // _PATH_LOG, syslog.h
const FACILITY_DAEMON = 3 << 3; // LOG_DAEMON, RFC 3164 §4.1.1
const RETRY_MS = 1000;
/** How long the logger may take for a message; one that took longer gets no time again. */
const PATIENCE_MS = 100;

const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** Severity of a level (RFC 3164 §4.1.1). */
function severity(level: number): number {
  if (level >= LogLevels.ERROR) return 3;
  if (level >= LogLevels.WARN) return 4;
  return level >= LogLevels.INFO ? 6 : 7;
}

/**
 * Local time as RFC 3164 §4.1.2 has it.
 *
 * @example
 * ```ts
 * import { syslogTime } from "./syslog.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(syslogTime(new Date(2026, 1, 3, 4, 5, 6)), "Feb  3 04:05:06");
 * ```
 */
export function syslogTime(date: Date): string {
  const [hours, minutes, seconds] = [date.getHours(), date.getMinutes(), date.getSeconds()]
    .map((n) => `${n}`.padStart(2, "0"));
  const day = `${date.getDate()}`.padStart(2);
  return `${MONTHS[date.getMonth()]} ${day} ${hours}:${minutes}:${seconds}`;
}

/** Sends records to the system logger. */
export class SyslogHandler extends BaseHandler {
  readonly #address: Uint8Array<ArrayBuffer>;
  readonly #tag: string;
  #fd = -1;
  #patience = PATIENCE_MS;
  #nextTry = -Infinity;

  /** @param options.ident the program's name; `path` is for tests */
  constructor(levelName: LevelName, options: { ident: string; path?: string }) {
    super(levelName);
    this.#address = unixAddress(options.path ?? DEV_LOG);
    this.#tag = `${options.ident}[${libc.getpid()}]`;
  }

  /** Looks for the logger; that there is none is no error. */
  override setup(): void {
    this.#connect();
  }

  override handle(record: LogRecord): void {
    if (record.level < this.level) return;
    const priority = FACILITY_DAEMON | severity(record.level);
    this.log(`<${priority}>${syslogTime(new Date())} ${this.#tag}: ${record.msg}`);
  }

  /** Sends one line. */
  override log(line: string): void {
    if (this.#fd < 0 && !this.#connect()) return;
    const length = encodeLine(line) - 1; // a datagram has no newline
    if (this.#send(length)) return;
    this.destroy(); // the logger that we knew is gone
    if (this.#connect()) this.#send(length);
  }

  /** Closes the socket. */
  override destroy(): void {
    if (this.#fd >= 0) libc.close(this.#fd);
    this.#fd = -1;
  }

  /** @returns false when the socket is of no use any more */
  #send(length: number): boolean {
    if (!waitWritable(this.#fd, this.#patience)) {
      this.#patience = 0;
      return true; // lost
    }
    this.#patience = PATIENCE_MS;
    if (libc.send(this.#fd, lineBytes, length, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    const error = errno();
    return error === E.EAGAIN || error === E.ENOBUFS || error === E.EINTR || error === E.EMSGSIZE;
  }

  /** Tries to reach the logger, at most once in a while. */
  #connect(): boolean {
    const nowMs = monotonicMs();
    if (nowMs < this.#nextTry) return false;
    this.#nextTry = nowMs + RETRY_MS;
    const fd = libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    if (libc.connect(fd, this.#address, this.#address.length) === 0) {
      this.#fd = fd;
      return true;
    }
    libc.close(fd);
    return false;
  }
}
