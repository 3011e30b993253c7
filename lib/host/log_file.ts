// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The log file: lines with the time since the start, in a file that never grows beyond its size.
 *
 * Theory of operation: every line is one write(2) at the end of the file, after a look at how long the
 * file is. A line that does not fit any more first makes room: the newest half is moved to the
 * beginning of the same file, behind a header line, and the rest is cut off. So each line is moved once
 * on average, whatever the size, and what was opened at start suffices: no other file is made, no
 * directory is written, and the process may have changed its user, its root and its directory since.
 * Several processes may share a file: lines are appended whole, and a lock lets one of them make room.
 *
 * Whatever fails after the start (a full disk, say) costs lines, never the traffic. Files that have no
 * size, such as a FIFO or /dev/stderr, are just written to, without waiting for who reads them.
 *
 * ```text
 * tubetti 0.1.0: /usr/bin/tubetti (1234), 2026-01-31T12:00:00.000Z
 * 0.0312: info:    Template interface: eth0 (IPv4)
 * 17.2040: WARNING: ...
 * ```
 *
 * @module
 */
import { BaseHandler, type LevelName, LogLevels, type LogRecord } from "@std/log";
import { monotonicMs } from "../sys/clock.ts";
import { E, SysError } from "../sys/errno.ts";
import { linkHint, openNamed, statusOf } from "../sys/file.ts";
import { errno, libc } from "../sys/libc.ts";
import { encodeLine, lineBytes, MAX_LINE } from "./log_line.ts";

/** asm-generic/fcntl.h; the same on x86_64 and aarch64 */
const O_RDWR = 2;
const O_CREAT = 0o100;
const O_NOCTTY = 0o400;
const O_APPEND = 0o2000;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const F_SETFL = 4;
const SEEK_END = 2; // linux/fs.h
const LOCK_EX_NB = 2 | 4; // sys/file.h
const LOCK_UN = 8;

const MODE = 0o600;
/** Smallest size a file can have: the kept half must not reach back into the header. */
const MIN_SIZE = 4 * MAX_LINE;
const CHUNK = 64 << 10;
const NEWLINE = 10;
const newline = new Uint8Array([NEWLINE]);

/** What stands before a message, by level. */
function label(level: number): string {
  if (level >= LogLevels.ERROR) return "ERROR:   ";
  if (level >= LogLevels.WARN) return "WARNING: ";
  if (level >= LogLevels.INFO) return "info:    ";
  return "         ";
}

/** How a log file is made. */
export interface LogFileOptions {
  readonly filename: string;
  /** Most bytes it may have, at least 4096. */
  readonly maxBytes: number;
  /** First line, without its end. */
  readonly header: string;
}

/**
 * Writes to a log file. Messages are taken as they are: `logging.ts` makes lines of them.
 *
 * @example
 * ```ts
 * import { LogFileHandler } from "./log_file.ts";
 * import { Logger } from "@std/log";
 * import { assertMatch } from "@std/assert";
 *
 * const filename = Deno.makeTempFileSync();
 * const handler = new LogFileHandler("NOTSET", { filename, maxBytes: 1 << 16, header: "me (1)" });
 * handler.setup();
 * new Logger("file", "INFO", { handlers: [handler] }).warn("beware");
 * handler.destroy();
 * assertMatch(Deno.readTextFileSync(filename), /^me \(1\)\n\d+\.\d{4}: WARNING: beware\n$/);
 * Deno.removeSync(filename);
 * ```
 */
export class LogFileHandler extends BaseHandler {
  readonly #options: LogFileOptions;
  readonly #began = monotonicMs();
  #fd = -1;
  #sized = false;
  /** The last line was written in part. */
  #torn = false;

  constructor(levelName: LevelName, options: LogFileOptions) {
    super(levelName);
    if (!(options.maxBytes >= MIN_SIZE)) throw new RangeError(`Log size ${options.maxBytes}`);
    this.#options = options;
  }

  /** Opens the file, creates it if need be, and appends the header. @throws SysError */
  override setup(): void {
    const { filename, header } = this.#options;
    const flags = O_RDWR | O_CREAT | O_NOCTTY | O_APPEND | O_NONBLOCK | O_CLOEXEC;
    const fd = openNamed(filename, flags, MODE);
    if (fd < 0) throw new SysError("open", filename, -fd, linkHint(-fd));
    this.#fd = fd;
    this.#sized = statusOf(fd).isRegular;
    this.log(header);
  }

  override handle(record: LogRecord): void {
    if (record.level < this.level) return;
    const seconds = ((monotonicMs() - this.#began) / 1000).toFixed(4);
    this.log(`${seconds}: ${label(record.level)}${record.msg}`);
  }

  /** Appends one line. */
  override log(line: string): void {
    if (this.#fd < 0) return;
    if (this.#sized && !this.#hasRoom(MAX_LINE)) this.#makeRoom();
    const length = encodeLine(line);
    if (this.#sized && !this.#hasRoom(length + 1)) return;
    if (this.#torn) this.#torn = libc.write(this.#fd, newline, 1) !== 1;
    if (this.#torn) return;
    const written = libc.write(this.#fd, lineBytes, length);
    this.#torn = written > 0 && written < length;
  }

  /** Closes the file. */
  override destroy(): void {
    if (this.#fd >= 0) libc.close(this.#fd);
    this.#fd = -1;
  }

  #hasRoom(bytes: number): boolean {
    return this.#length() + bytes <= this.#options.maxBytes;
  }

  #length(): number {
    return Number(libc.lseek(this.#fd, 0n, SEEK_END));
  }

  #makeRoom(): void {
    const fd = this.#fd;
    if (libc.flock(fd, LOCK_EX_NB) < 0) return; // another process is about it
    libc.fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK); // pwrite(2) appends with O_APPEND, BUGS
    const end = this.#length(), keep = Math.floor(this.#options.maxBytes / 2);
    const kept = moveTail(fd, end - keep, end, this.#options.header);
    libc.ftruncate(fd, BigInt(kept));
    libc.fcntl(fd, F_SETFL, O_RDWR | O_APPEND | O_NONBLOCK);
    libc.flock(fd, LOCK_UN);
    this.#torn = false;
  }
}

/** pread(2) until it was not interrupted. */
function readAt(fd: number, chunk: Uint8Array<ArrayBuffer>, count: number, at: number): number {
  for (;;) {
    const read = libc.pread(fd, chunk, count, BigInt(at));
    if (read >= 0 || errno() !== E.EINTR) return read;
  }
}

/** Position behind the first newline of `from…end`; `end` when none is found in one chunk. */
function nextLine(fd: number, from: number, end: number, chunk: Uint8Array<ArrayBuffer>): number {
  const read = readAt(fd, chunk, chunk.length, from);
  const at = read > 0 ? chunk.subarray(0, read).indexOf(NEWLINE) : -1;
  return at < 0 ? end : from + at + 1;
}

/** Writes the header, and the whole lines of `from…end` behind it. @returns where they end */
function moveTail(fd: number, from: number, end: number, header: string): number {
  const chunk = new Uint8Array(CHUNK);
  let source = nextLine(fd, from, end, chunk);
  let target = Math.max(0, libc.pwrite(fd, lineBytes, encodeLine(`${header}, continued`), 0n));
  while (source < end) {
    const read = readAt(fd, chunk, Math.min(CHUNK, end - source), source);
    if (read <= 0) break;
    const written = libc.pwrite(fd, chunk, read, BigInt(target));
    if (written > 0) target += written;
    if (written !== read) break;
    source += read;
  }
  return target;
}
