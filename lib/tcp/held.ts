// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Connections that the guest has made to a port of its namespace, and that are not decided on yet.
 *
 * Theory of operation: its kernel has accepted for us already, so the socket just waits, unread, at the
 * place of its question (`forward/questions.ts`). When that is answered the connection is decided on as
 * if it had come just now, and takes the answer by its sides. When it is over without an answer, or
 * gives way to another, its client is reset.
 *
 * @module
 */
import { copySide, type FlowSide, SIDE_WORDS } from "../flow/side.ts";
import { MAX_QUESTIONS, type Waiting } from "../forward/questions.ts";
import { closeWithReset } from "../sys/socket.ts";

const NONE = -1;

/** Accepted sockets that wait, by the place of their question. */
export class HeldConnections implements Waiting {
  readonly #fds = new Int32Array(MAX_QUESTIONS).fill(NONE);
  #count = 0;
  readonly #sides = new Int32Array(MAX_QUESTIONS * 2 * SIDE_WORDS);

  /** Sockets that wait. */
  get count(): number {
    return this.#count;
  }

  /** Keeps a socket, which is ours from now on. One that was there has come from the same port: it has gone. */
  keep(place: number, fd: number, ini: FlowSide, tgt: FlowSide): void {
    this.drop(place);
    this.#fds[place] = fd;
    this.#count++;
    const at = place * 2 * SIDE_WORDS;
    copySide(this.#sides, at, ini.words, 0);
    copySide(this.#sides, at + SIDE_WORDS, tgt.words, 0);
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
