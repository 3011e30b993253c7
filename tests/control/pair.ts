// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A pair of connected sockets: the one end is for the code under test, the other for the test itself.
 *
 * @module
 */
import { E } from "../../lib/sys/errno.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import { AF_UNIX, MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_RD, SOCK_STREAM } from "../../lib/sys/socket.ts";

/** Far more than a socket's buffer. */
const PIECE = 1 << 16;

/** Both ends. */
export class Pair implements Disposable {
  /** End of the code under test, which closes it. */
  readonly fd: number;
  readonly #ours: number;
  readonly #encoder = new TextEncoder();
  readonly #decoder = new TextDecoder();
  #rest = "";
  #closed = false;

  constructor() {
    const fds = new Int32Array(2);
    libc.socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
    this.fd = fds[0];
    this.#ours = fds[1];
  }

  /** Writes bytes, as many as the socket takes. @returns their number */
  writeBytes(bytes: Uint8Array<ArrayBuffer>): number {
    const n = libc.send(this.#ours, bytes, bytes.length, MSG_DONTWAIT | MSG_NOSIGNAL);
    return n < 0 && errno() === E.EAGAIN ? 0 : n;
  }

  /** Writes a text, which must go in. */
  write(text: string): void {
    const bytes = this.#encoder.encode(text), n = this.writeBytes(bytes);
    if (n !== bytes.length) throw new Error(`Only ${n} of ${bytes.length} bytes went in`);
  }

  /** Reads what has come, up to a number of bytes. */
  read(most = Infinity): string {
    const buffer = new Uint8Array(PIECE);
    let text = "";
    for (let left = most; left > 0;) {
      const n = libc.recv(this.#ours, buffer, Math.min(left, PIECE), MSG_DONTWAIT);
      if (n <= 0) break;
      text += this.#decoder.decode(buffer.subarray(0, n), { stream: true });
      left -= n;
    }
    return text;
  }

  /** Reads what has come, as messages; an incomplete one is kept. */
  messages(): unknown[] {
    const lines = (this.#rest + this.read()).split("\n");
    this.#rest = lines.pop()!;
    return lines.map((line) => JSON.parse(line));
  }

  /** Reads nothing any more, and has the other end know. */
  deafen(): void {
    libc.shutdown(this.#ours, SHUT_RD);
  }

  /** Closes the test's end. */
  close(): void {
    if (!this.#closed) libc.close(this.#ours);
    this.#closed = true;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
