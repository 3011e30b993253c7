// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Connections that the guest has made to a port of its namespace, and that are not decided on yet.
 *
 * Theory of operation: its kernel has accepted for us already, so the socket just waits, unread, at the
 * place of its question (`forward/questions.ts`). When that is answered the connection is decided on as
 * if it had come just now, and takes the answer by its sides. When it is over without an answer, or
 * gives way to another, its client is reset.
 *
 * So that nobody fills the process with them, sockets that wait are a small share of its descriptors. When
 * there is no room for another, those go whose client has closed, or has at least nothing more to say. If
 * there are none, who comes is reset, and nobody asked about it.
 *
 * @module
 */
import { copySide, type FlowSide, SIDE_WORDS } from "../flow/side.ts";
import { MAX_QUESTIONS, type Waiting } from "../forward/questions.ts";
import { descriptorLimit } from "../sys/rlimit.ts";
import { closeWithReset, getOption, IPPROTO_TCP } from "../sys/socket.ts";

/** One descriptor in this many may be a socket that waits. */
const SHARE_OF_DESCRIPTORS = 8;
const NONE = -1;
const TCP_INFO = 11; // linux/tcp.h: the struct's first byte is the state
const STATE_MASK = 0xff;
const TCP_CLOSE = 7, TCP_CLOSE_WAIT = 8; // net/tcp_states.h

/** How many sockets may wait where so many descriptors may be open. */
export function heldShare(descriptors: number): number {
  return Math.max(1, Math.min(MAX_QUESTIONS, Math.floor(descriptors / SHARE_OF_DESCRIPTORS)));
}

/** Whether a socket's peer has reset it, or closed, or at least nothing more to say. */
function isLeft(fd: number): boolean {
  const info = getOption(fd, IPPROTO_TCP, TCP_INFO), state = info & STATE_MASK;
  return info >= 0 && (state === TCP_CLOSE || state === TCP_CLOSE_WAIT);
}

/** Accepted sockets that wait, by the place of their question. */
export class HeldConnections implements Waiting {
  readonly #fds = new Int32Array(MAX_QUESTIONS).fill(NONE);
  #count = 0;
  readonly #most: number;
  /** When it was looked for sockets that are left. */
  #lookedAt = -1;
  readonly #sides = new Int32Array(MAX_QUESTIONS * 2 * SIDE_WORDS);

  /** @param most sockets that may wait at a time */
  constructor(most: number = heldShare(descriptorLimit())) {
    this.#most = most;
  }

  /** Sockets that wait. */
  get count(): number {
    return this.#count;
  }

  /** Whether another may wait. */
  hasRoom(nowMs: number): boolean {
    return this.#count < this.#most || this.#makeRoom(nowMs);
  }

  /**
   * Keeps a socket, which is ours from now on. One that was there has come from the same port: it has gone.
   *
   * @returns false when there is no room: the socket is the caller's still
   */
  keep(place: number, fd: number, ini: FlowSide, tgt: FlowSide): boolean {
    this.drop(place);
    if (this.#count >= this.#most) return false;
    this.#fds[place] = fd;
    this.#count++;
    const at = place * 2 * SIDE_WORDS;
    copySide(this.#sides, at, ini.words, 0);
    copySide(this.#sides, at + SIDE_WORDS, tgt.words, 0);
    return true;
  }

  /** Resets those that their clients have left. @returns whether there was one */
  #makeRoom(nowMs: number): boolean {
    if (this.#lookedAt === nowMs) return false; // in this turn of the loop
    this.#lookedAt = nowMs;
    const before = this.#count;
    for (let place = 0; place < MAX_QUESTIONS; place++) {
      if (this.#fds[place] >= 0 && isLeft(this.#fds[place])) this.drop(place);
    }
    return this.#count < before;
  }

  /**
   * Takes the socket that waits at a place, and puts back its sides as they were.
   *
   * @returns the socket, the caller's from now on; or -1: there is none
   */
  take(place: number, ini: FlowSide, tgt: FlowSide): number {
    const fd = this.#fds[place];
    if (fd < 0) return NONE;
    const at = place * 2 * SIDE_WORDS;
    copySide(ini.words, 0, this.#sides, at);
    copySide(tgt.words, 0, this.#sides, at + SIDE_WORDS);
    this.#fds[place] = NONE;
    this.#count--;
    return fd;
  }

  drop(place: number): void {
    const fd = this.#fds[place];
    if (fd < 0) return;
    closeWithReset(fd);
    this.#fds[place] = NONE;
    this.#count--;
  }

  /** Resets all that wait. */
  dropAll(): void {
    for (let place = 0; place < MAX_QUESTIONS; place++) this.drop(place);
  }
}
