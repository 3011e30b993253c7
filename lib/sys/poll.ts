// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * poll(2) on one descriptor, for the rare question that epoll does not answer in time.
 *
 * @module
 */
import { pollfd } from "./layout.ts";
import { libc } from "./libc.ts";

const POLLOUT = 4; // asm-generic/poll.h
const POLLHUP = 0x10; // asm-generic/poll.h
const POLLRDHUP = 0x2000; // asm-generic/poll.h

const request = new Uint8Array(pollfd.size);
const view = new DataView(request.buffer);

/**
 * Whether a write would not block, now or within a time. A write to a pipe that is called writable
 * takes PIPE_BUF (4096) bytes at once (pipe(7)). Errors count as writable: the write reports them.
 *
 * @param timeoutMs 0: does not wait
 * @example
 * ```ts
 * import { waitWritable } from "./poll.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const pipe = new Int32Array(2);
 * libc.pipe2(pipe, 0x800); // O_NONBLOCK
 * assertEquals(waitWritable(pipe[1], 0), true);
 * const page = new Uint8Array(4096);
 * while (libc.write(pipe[1], page, page.length) > 0);
 * assertEquals(waitWritable(pipe[1], 10), false);
 * libc.close(pipe[0]), libc.close(pipe[1]);
 * ```
 */
export function waitWritable(fd: number, timeoutMs: number): boolean {
  view.setInt32(pollfd.at.fd, fd, true);
  view.setInt16(pollfd.at.events, POLLOUT, true);
  return libc.poll(request, 1, timeoutMs) > 0;
}

/** Whether the other end of a stream socket has been closed, whatever may still be read from ours. */
export function hasHungUp(fd: number): boolean {
  view.setInt32(pollfd.at.fd, fd, true);
  view.setInt16(pollfd.at.events, POLLRDHUP, true);
  if (libc.poll(request, 1, 0) <= 0) return false;
  return (view.getInt16(pollfd.at.revents, true) & (POLLHUP | POLLRDHUP)) !== 0;
}
