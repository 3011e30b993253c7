// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The C library's functions, loaded once: nothing else of the project calls `Deno.dlopen`, but for
 * `libc_rare.ts`, which has those that are not called per packet. They are all to be had here.
 *
 * Every hot function uses the calling forms that Deno compiles to a direct call: `buffer`
 * pointers, `u32`/`i32` lengths and `i32` results. A `usize` argument or result would take the slow
 * path (150 ns more, BigInt garbage), so lengths are declared `u32` although C says `size_t`.
 * A failing call returns -1 and leaves the reason in {@linkcode errno}.
 *
 * @module
 */
import { libc as rare, openLibrary, RARE } from "./libc_rare.ts";

export { errno } from "./libc_rare.ts";

openLibrary(); // for errno

const library = Deno.dlopen("libc.so.6", {
  // files and descriptors
  close: RARE.close,
  read: RARE.read,
  write: RARE.write,
  writev: { parameters: ["i32", /* fd */ "buffer", /* iov */ "i32" /* iovcnt */], result: "i32" },
  splice: {
    parameters: [
      "i32", /* fd_in */
      "pointer", /* off_in */
      "i32", /* fd_out */
      "pointer", /* off_out */
      "u32", /* size */
      "u32", /* flags */
    ],
    result: "i32",
  },

  // sockets
  socket: { parameters: ["i32", /* domain */ "i32", /* type */ "i32" /* proto */], result: "i32" },
  accept4: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "buffer", /* addrlen */ "i32" /* flags */],
    result: "i32",
  },
  connect: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "u32" /* addrlen */],
    result: "i32",
  },
  shutdown: { parameters: ["i32", /* fd */ "i32" /* how */], result: "i32" },
  setsockopt: {
    parameters: [
      "i32", /* fd */
      "i32", /* level */
      "i32", /* optname */
      "buffer", /* optval */
      "u32", /* optlen */
    ],
    result: "i32",
  },
  getsockopt: {
    parameters: [
      "i32", /* fd */
      "i32", /* level */
      "i32", /* optname */
      "buffer", /* optval */
      "buffer", /* optlen */
    ],
    result: "i32",
  },
  send: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "u32", /* len */ "i32" /* flags */],
    result: "i32",
  },
  recv: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "u32", /* len */ "i32" /* flags */],
    result: "i32",
  },
  sendmsg: { parameters: ["i32", /* fd */ "buffer", /* msg */ "i32" /* flags */], result: "i32" },
  recvmsg: { parameters: ["i32", /* fd */ "buffer", /* msg */ "i32" /* flags */], result: "i32" },
  sendmmsg: {
    parameters: ["i32", /* fd */ "buffer", /* msgvec */ "u32", /* vlen */ "i32" /* flags */],
    result: "i32",
  },
  recvmmsg: {
    parameters: [
      "i32", /* fd */
      "buffer", /* msgvec */
      "u32", /* vlen */
      "i32", /* flags */
      "buffer", /* timeout */
    ],
    result: "i32",
  },

  // waiting
  epoll_ctl: {
    parameters: ["i32", /* epfd */ "i32", /* op */ "i32", /* fd */ "buffer" /* event */],
    result: "i32",
  },
  epoll_wait: {
    parameters: [
      "i32", /* epfd */
      "buffer", /* events */
      "i32", /* maxevents */
      "i32", /* timeout ms */
    ],
    result: "i32",
  },
  clock_gettime: RARE.clock_gettime,
});

/** The functions, under their C names: what is called per packet, and all else. */
export const libc = { ...rare, ...library.symbols };
