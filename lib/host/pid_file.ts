// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `-P`: a file with our process number.
 *
 * Theory of operation: the file is opened and locked before anything starts (flock(2)), so that a path that
 * cannot be written, or that belongs to an instance that runs, is an error with nothing to undo. Its
 * content changes only when all is ready. The lock lives as long as we do; a file that a killed instance
 * left is taken over. At the end the file is removed, if it is still the one we hold: by then another
 * instance may have put its own in its place. Where we may not remove it, having given root up, it is
 * left empty.
 *
 * @module
 */
import { E, SysError } from "../sys/errno.ts";
import { leadsTo, linkHint, openNamed, statusOf } from "../sys/file.ts";
import { errno, libc } from "../sys/libc.ts";

const O_RDWR_CREAT_CLOEXEC = 2 | 0x40 | 0x80000; // asm-generic/fcntl.h
const O_EXCL = 0x80; // asm-generic/fcntl.h
const O_NONBLOCK = 0x800; // asm-generic/fcntl.h
const LOCK_EX_NB = 2 | 4; // sys/file.h
const PRIVATE = 0o600;
const WORLD_READABLE = 0o644;
/** How often a file that its last owner removes while we lock it is opened anew. */
const ATTEMPTS = 10;
/** Longest process number with its line end, and some more. */
const MAX_TEXT = 32;
/** Most bytes of an older file that are put back after a start that comes to nothing. */
const MAX_KEPT = 64 << 10;

const encoder = new TextEncoder(), decoder = new TextDecoder();

/** Opens the file. @returns descriptor, and whether it was made */
function openFile(path: string): { fd: number; made: boolean } {
  const flags = O_RDWR_CREAT_CLOEXEC | O_NONBLOCK; // a FIFO must not hold us
  let fd = openNamed(path, flags | O_EXCL, PRIVATE);
  if (fd >= 0) {
    libc.fchmod(fd, WORLD_READABLE); // whatever the umask; an older file keeps its mode
    return { fd, made: true };
  }
  if (fd === -E.EEXIST) fd = openNamed(path, flags, PRIVATE);
  if (fd >= 0) return { fd, made: false };
  throw new SysError("-P: open", path, -fd, linkHint(-fd));
}

/** The first bytes of a file. */
function readStart(fd: number, most: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(most);
  return bytes.slice(0, Math.max(0, libc.pread(fd, bytes, most, 0n)));
}

function readText(fd: number): string {
  return decoder.decode(readStart(fd, MAX_TEXT)).trim();
}

/** Why a file cannot be locked. */
function lockError(path: string, fd: number): SysError {
  const reason = errno(), owner = readText(fd);
  const who = /^\d+$/.test(owner) ? `process ${owner}` : "another process";
  const hint = reason === E.EAGAIN ? `it belongs to ${who}, which still runs` : "";
  return new SysError("-P: flock", path, reason, hint);
}

/** A file for our process number. */
export class PidFile {
  readonly #path: string;
  readonly #regular: boolean;
  /** Whether the file is to go: we made it, or have written to it. */
  #ours: boolean;
  #fd: number;
  /** What an older file held before we wrote to it; null: nothing to be put back. */
  #before: Uint8Array<ArrayBuffer> | null = null;

  private constructor(path: string, fd: number, made: boolean, regular: boolean) {
    this.#path = path;
    this.#fd = fd;
    this.#ours = made;
    this.#regular = regular;
  }

  /**
   * Opens and locks the file; the path may be relative to the folder we are in now.
   *
   * @throws SysError when it cannot be written, or its owner lives
   */
  static open(path: string): PidFile {
    const absolute = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
    for (let left = ATTEMPTS; left > 0; left--) {
      const { fd, made } = openFile(absolute);
      const status = statusOf(fd), regular = status.isRegular; // others, such as /dev/stdout, are written to only
      if (regular && libc.flock(fd, LOCK_EX_NB) < 0) {
        const error = lockError(path, fd);
        libc.close(fd);
        throw error;
      }
      if (!regular || leadsTo(absolute, status.identity)) {
        return new PidFile(absolute, fd, made, regular);
      }
      libc.close(fd); // its last owner has removed it meanwhile
    }
    throw new SysError("-P: open", path, E.EAGAIN, "it comes and goes");
  }

  /** Writes a process number. @throws SysError */
  write(pid: number): void {
    const text = encoder.encode(`${pid}\n`);
    if (this.#regular && !this.#ours) this.#before = readStart(this.#fd, MAX_KEPT);
    if (this.#regular) libc.ftruncate(this.#fd, 0n);
    const written = libc.write(this.#fd, text, text.length);
    if (written !== text.length) {
      throw new SysError("-P: write", this.#path, written < 0 ? errno() : E.ENOSPC);
    }
    this.#ours = this.#regular;
    if (!this.#regular) this.close();
  }

  /** Gives an older file back what it held: for a start that comes to nothing after {@linkcode write}. */
  undo(): void {
    if (this.#fd < 0 || this.#before === null) return;
    libc.ftruncate(this.#fd, 0n);
    libc.pwrite(this.#fd, this.#before, this.#before.length, 0n);
    this.#ours = false;
  }

  /** Removes the file if it is ours, and lets go of it. Does nothing the second time. */
  close(): void {
    if (this.#fd < 0) return;
    if (this.#ours && this.#regular) {
      const name = encoder.encode(`${this.#path}\0`);
      const gone = leadsTo(this.#path, statusOf(this.#fd).identity) && libc.unlink(name) === 0;
      if (!gone) libc.ftruncate(this.#fd, 0n); // after giving root up: the folder may be closed to us
    }
    libc.close(this.#fd);
    this.#fd = -1;
  }
}
