// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Lines of text over a connected stream socket that never makes its user wait.
 *
 * Theory of operation, input: what has come is gathered until a line is complete. A line that is longer than
 * {@linkcode MAX_LINE} is passed over up to its end, and said to be so; all others are taken as they are.
 *
 * Output: lines are gathered and written at once, at the end of a turn of the loop. When the other side
 * does not read, the rest waits in memory, and the socket is watched for room (EPOLLOUT) until it has gone
 * out. Then there is a limit for what can be left out ({@linkcode Channel.full}). What cannot is still taken;
 * but beyond a second limit nothing is read any more: who asks without reading the replies has to wait.
 *
 * @module
 */
import { EPOLL } from "../sys/epoll.ts";
import { E } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RD } from "../sys/socket.ts";
import { MAX_LINE } from "./protocol.ts";

/** Bytes that wait for the other side before {@linkcode Channel.full} says so. */
export const OUTPUT_LIMIT = 1 << 20;
/** Bytes that may wait when it stops saying so: lines are left out in runs, not one by one. */
const OUTPUT_LOW = OUTPUT_LIMIT / 2;
/** Bytes that wait when nothing is read any more, until there are no more than {@linkcode OUTPUT_LIMIT}. */
const OUTPUT_MOST = 2 * OUTPUT_LIMIT;
/** Output buffer at first, and to what it shrinks again. */
const OUTPUT_BYTES = 1 << 16;
/** Bytes of UTF-8 per unit of a JavaScript string, at most. */
const UTF8_MAX = 3;
/** Receiving calls per event. */
const READS = 4;
const NEWLINE = 10;

/** Whether a socket takes nothing more just now; the last two, because the kernel lacks memory. */
function isFull(reason: number): boolean {
  return reason === E.EAGAIN || reason === E.ENOBUFS || reason === E.ENOMEM;
}

/** What becomes of input. */
export interface LineHandler {
  /** A complete line, without its end. */
  line(text: string): void;
  /** A line was too long, and is left out. */
  tooLong(): void;
}

/**
 * One end of the conversation.
 *
 * @example
 * ```ts
 * import { Channel } from "./channel.ts";
 * import { libc } from "../sys/libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const pair = new Int32Array(2), AF_UNIX = 1, SOCK_STREAM = 1;
 * libc.socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
 * const lines: string[] = [];
 * const handler = { line: (text: string) => void lines.push(text), tooLong() {} };
 * const [a, b] = [new Channel(pair[0]), new Channel(pair[1])];
 * a.send("one");
 * a.send("two");
 * a.flush();
 * assertEquals([b.receive(handler), lines], [true, ["one", "two"]]);
 * a.close();
 * assertEquals(b.receive(handler), false);
 * b.close();
 * ```
 */
export class Channel {
  readonly fd: number;
  readonly #in: Uint8Array<ArrayBuffer> = new Uint8Array(MAX_LINE + 1);
  /** Bytes of lines that were not handed out, and how many of them hold no end of a line. */
  #held = 0;
  #searched = 0;
  /** Whether the rest of a line is passed over. */
  #skipping = false;
  #out: Uint8Array<ArrayBuffer> = new Uint8Array(OUTPUT_BYTES);
  /** Output that was not written lies from `#first` to `#end`. */
  #first = 0;
  #end = 0;
  #full = false;
  /** Whether nothing is read. */
  #stopped = false;
  #broken = false;
  readonly #encoder = new TextEncoder();
  readonly #decoder = new TextDecoder();

  /** @param fd a connected stream socket; {@linkcode close} closes it */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** Whether lines that can be left out are to be. */
  get full(): boolean {
    return this.#full;
  }

  /** Whether so much waits that nothing is read any more. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** Bytes that wait to be written. */
  get waiting(): number {
    return this.#end - this.#first;
  }

  /** What the socket is to be watched for (epoll_ctl(2)). */
  get interest(): number {
    return (this.#stopped ? 0 : EPOLL.IN) | (this.waiting > 0 ? EPOLL.OUT : 0);
  }

  /**
   * Reads some of what has come, and hands out complete lines. Does not block.
   *
   * @returns false when the other side has gone, and all that it said was handed out
   */
  receive(handler: LineHandler): boolean {
    for (let k = 0; k < READS; k++) {
      if (!this.#handOut(handler)) return true;
      const free = this.#in.subarray(this.#held);
      const n = libc.recv(this.fd, free, free.length, MSG_DONTWAIT);
      if (n === 0) return false;
      if (n < 0) return errno() === E.EAGAIN || errno() === E.EINTR;
      this.#held += n;
    }
    this.#handOut(handler);
    return true;
  }

  /** Hands out the lines that are complete. @returns false: the replies to them have to be read first */
  #handOut(handler: LineHandler): boolean {
    let from = 0;
    while (!this.#stopped) {
      const at = this.#in.subarray(0, this.#held).indexOf(NEWLINE, Math.max(from, this.#searched));
      if (at < 0) break;
      const line = this.#skipping ? null : this.#decoder.decode(this.#in.subarray(from, at));
      this.#skipping = false;
      from = at + 1;
      if (line !== null) handler.line(line);
    }
    this.#in.copyWithin(0, from, this.#held);
    this.#held -= from;
    this.#searched = this.#stopped ? 0 : this.#held;
    if (!this.#stopped) this.#pass(handler);
    return !this.#stopped;
  }

  /** Passes over a line that is too long. */
  #pass(handler: LineHandler): void {
    const long = this.#held === this.#in.length;
    if (!long && !this.#skipping) return;
    this.#held = this.#searched = 0;
    if (!this.#skipping) handler.tooLong();
    this.#skipping = true;
  }

  /** Appends a line to the output. */
  send(text: string): void {
    if (this.#broken) return;
    this.#reserve(text.length * UTF8_MAX + 1);
    this.#end += this.#encoder.encodeInto(text, this.#out.subarray(this.#end)).written;
    this.#out[this.#end++] = NEWLINE;
    if (this.waiting > OUTPUT_LIMIT) this.#full = true;
    if (this.waiting > OUTPUT_MOST) this.#stopped = true;
  }

  /** Makes room for more output. */
  #reserve(bytes: number): void {
    if (this.#end + bytes <= this.#out.length) return;
    const wanted = this.waiting + bytes;
    if (wanted <= this.#out.length / 2) this.#out.copyWithin(0, this.#first, this.#end);
    else {
      let size = this.#out.length;
      while (size < wanted) size *= 2;
      const larger = new Uint8Array(size);
      larger.set(this.#out.subarray(this.#first, this.#end));
      this.#out = larger;
    }
    this.#end = this.waiting;
    this.#first = 0;
  }

  /**
   * Writes what the socket takes. Does not block.
   *
   * @returns whether {@linkcode receive} is to be called: lines that it has not handed out may be there
   */
  flush(): boolean {
    while (this.waiting > 0) {
      const rest = this.#out.subarray(this.#first, this.#end);
      const n = libc.send(this.fd, rest, rest.length, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n >= 0) this.#first += n;
      else if (isFull(errno())) break;
      else if (errno() !== E.EINTR) this.#break();
    }
    if (this.waiting <= OUTPUT_LOW) this.#full = false;
    if (this.waiting === 0) this.#shrink();
    const goesOn = this.#stopped && this.waiting <= OUTPUT_LIMIT;
    if (goesOn) this.#stopped = false;
    return goesOn;
  }

  #shrink(): void {
    this.#first = this.#end = 0;
    if (this.#out.length > OUTPUT_LIMIT) this.#out = new Uint8Array(OUTPUT_BYTES);
  }

  /**
   * Nobody reads any more, be it that the other side has gone or only shut down its reading: nothing that it
   * writes from now on comes. What it has said before is handed out, and then that it has gone.
   */
  #break(): void {
    this.#broken = true;
    this.#first = this.#end = 0;
    libc.shutdown(this.fd, SHUT_RD);
  }

  close(): void {
    libc.close(this.fd);
  }
}
