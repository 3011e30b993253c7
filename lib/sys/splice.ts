// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * splice(2): moving data between sockets without copying it, and the pipes that takes.
 *
 * Theory of operation: data goes from a socket into a pipe and from there to another socket; what
 * moves are references to the kernel's pages. As a pipe is empty again once the second socket has taken
 * everything, one pipe serves all connections in turn. Only data that a full socket does not take stays
 * in its pipe: its owner then takes that pipe out of the pool until it is empty again. So the number of
 * pipes is that of receivers which lag behind, not that of connections, and it is bounded.
 *
 * A pipe holds so many pages, which count against a limit of all pipes of a user
 * (`/proc/sys/fs/pipe-user-pages-soft`, pipe(7)). Some are enlarged for bulk transfers; together they
 * stay below half of the usual limit.
 *
 * @module
 */
import { Arena, PAGE_SIZE } from "./arena.ts";
import { errno, libc } from "./libc.ts";

const SPLICE_F_MOVE = 1; // linux/splice.h
const SPLICE_F_NONBLOCK = 2;
const FLAGS = SPLICE_F_MOVE | SPLICE_F_NONBLOCK;
const O_NONBLOCK = 0x800; // asm-generic/fcntl.h
const O_CLOEXEC = 0x80000;
const F_SETPIPE_SZ = 1031; // linux/fcntl.h
const F_GETPIPE_SZ = 1032;
/** Bytes of a pipe that says nothing of its size: one page can always be written (pipe(7)). */
const LEAST_PIPE = PAGE_SIZE;
const IOVEC_SIZE = 16;

/** Pipes of a pool unless fewer are asked for: 256 × 64 KiB, 16 MiB. */
export const MAX_PIPES = 256;
/** How many of them may be enlarged, and to what: 32 × 512 KiB, another 16 MiB. */
const MAX_LARGE = 32;
const LARGE_PIPE = 512 << 10;

/**
 * Moves up to `bytes` from `from` to `to`, one of which is a pipe. Never blocks.
 *
 * @returns bytes moved, 0 at the end of the input, or a negative errno. -EAGAIN: input empty or output
 *   full
 */
export function splice(from: number, to: number, bytes: number): number {
  const moved = libc.splice(from, null, to, null, bytes, FLAGS);
  return moved < 0 ? -errno() : moved;
}

/** Memory that data is copied through where that is better than moving it, and its iovec. */
export class CopyBuffer {
  /** The bytes, for recv(2) and send(2). */
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #arena: Arena;
  readonly #at: number;
  readonly #iov: number;
  readonly #iovec: Uint8Array<ArrayBuffer>;

  constructor(size: number) {
    this.#arena = new Arena(size + IOVEC_SIZE);
    this.#at = this.#arena.alloc(size);
    this.#iov = this.#arena.alloc(IOVEC_SIZE, IOVEC_SIZE);
    this.bytes = this.#arena.view(this.#at, size);
    this.#iovec = this.#arena.view(this.#iov, IOVEC_SIZE);
  }

  /** Writes bytes `from…to - 1` to a descriptor. @returns bytes written or a negative errno */
  write(fd: number, from: number, to: number): number {
    this.#arena.setIovec(this.#iov, this.#at + from, to - from);
    const written = libc.writev(fd, this.#iovec, 1);
    return written < 0 ? -errno() : written;
  }
}

/**
 * Pipes, made when they are needed and closed when they are not.
 *
 * @example
 * ```ts
 * import { PipePool, splice } from "./splice.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [a, b] = [new Int32Array(2), new Int32Array(2)];
 * for (const pair of [a, b]) libc.socketpair(1, 1, 0, pair);
 * libc.send(a[0], new Uint8Array(100), 100, 0);
 * const pool = new PipePool();
 * const pipe = pool.ready(); // it stays in the pool, as it is empty again right away
 * assertEquals(splice(a[1], pool.input[pipe], 1 << 20), 100);
 * assertEquals(splice(pool.output[pipe], b[0], 100), 100);
 * pool.close();
 * for (const fd of [...a, ...b]) libc.close(fd);
 * ```
 */
export class PipePool {
  /** Per pipe: the descriptor to write to, and the one to read from. */
  readonly input: Int32Array<ArrayBuffer>;
  readonly output: Int32Array<ArrayBuffer>;
  /** Per pipe: bytes that it surely holds. */
  readonly size: Int32Array<ArrayBuffer>;
  readonly #max: number;
  readonly #pair: Int32Array<ArrayBuffer> = new Int32Array(2);
  /** Numbers of no pipe, and of empty pipes with the last used on top. */
  readonly #unused: Int32Array<ArrayBuffer>;
  #unusedCount: number;
  readonly #empty: Int32Array<ArrayBuffer>;
  #emptyCount = 0;
  #large = 0;
  /** Whether the kernel refused to enlarge one: not tried again before the next tick. */
  #tight = false;
  /** Whether the kernel had no pipe for us: not asked again before the next tick. */
  #refused = false;
  /** Fewest empty pipes left over since the last tick. */
  #spare = 0;

  /** @param max pipes, 0–{@linkcode MAX_PIPES} */
  constructor(max: number = MAX_PIPES) {
    this.#max = max;
    this.input = new Int32Array(max);
    this.output = new Int32Array(max);
    this.size = new Int32Array(max);
    this.#empty = new Int32Array(max);
    this.#unused = Int32Array.from({ length: max }, (_, k) => max - 1 - k);
    this.#unusedCount = max;
  }

  /** Pipes that are open. */
  get open(): number {
    return this.#max - this.#unusedCount;
  }

  /** Whether {@linkcode PipePool.tick} has something to do sooner or later. */
  get timed(): boolean {
    return this.#emptyCount > 0 || this.#refused || this.#tight;
  }

  /**
   * An empty pipe, which stays in the pool: it must be empty again before the next call, or be taken
   * with {@linkcode PipePool.take}.
   *
   * @returns its number, or -1 when there is none and none can be made
   */
  ready(): number {
    if (this.#emptyCount === 0 && !this.#make()) return -1;
    const left = this.#emptyCount - 1;
    if (left < this.#spare) this.#spare = left;
    return this.#empty[left];
  }

  /** Takes the pipe that {@linkcode PipePool.ready} has just named out of the pool. */
  take(): void {
    this.#emptyCount--;
  }

  /** Puts a pipe that is empty back. */
  give(pipe: number): void {
    this.#empty[this.#emptyCount++] = pipe;
  }

  /** Closes a pipe that was taken, with what is in it. */
  discard(pipe: number): void {
    libc.close(this.input[pipe]);
    libc.close(this.output[pipe]);
    if (this.size[pipe] === LARGE_PIPE) this.#large--;
    this.#unused[this.#unusedCount++] = pipe;
  }

  /** Enlarges a pipe through which much goes, if that is allowed. */
  enlarge(pipe: number): void {
    if (this.#tight || this.size[pipe] >= LARGE_PIPE || this.#large >= MAX_LARGE) return;
    // EPERM: the user has many large pipes elsewhere; as it is, it will do
    this.#tight = libc.fcntl(this.input[pipe], F_SETPIPE_SZ, LARGE_PIPE) !== LARGE_PIPE;
    if (this.#tight) return;
    this.size[pipe] = LARGE_PIPE;
    this.#large++;
  }

  #make(): boolean {
    if (this.#refused || this.#unusedCount === 0) return false;
    if (libc.pipe2(this.#pair, O_NONBLOCK | O_CLOEXEC) < 0) {
      this.#refused = true;
      return false;
    }
    const pipe = this.#unused[--this.#unusedCount];
    this.output[pipe] = this.#pair[0];
    this.input[pipe] = this.#pair[1];
    const size = libc.fcntl(this.#pair[1], F_GETPIPE_SZ, 0);
    this.size[pipe] = Math.max(size, LEAST_PIPE);
    this.give(pipe);
    return true;
  }

  /** Closes the pipes that nobody needed since the last call. To be called about once a second. */
  tick(): void {
    this.#refused = this.#tight = false;
    const spare = Math.min(this.#spare, this.#emptyCount);
    for (let k = 0; k < spare; k++) this.discard(this.#empty[k]);
    this.#emptyCount -= spare;
    this.#empty.copyWithin(0, spare, spare + this.#emptyCount);
    this.#spare = this.#emptyCount;
  }

  /** Closes all pipes that are in the pool. */
  close(): void {
    while (this.#emptyCount > 0) this.discard(this.#empty[--this.#emptyCount]);
  }
}
