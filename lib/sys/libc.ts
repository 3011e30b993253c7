// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The C library's functions, loaded once: the only `Deno.dlopen` of the project.
 *
 * Every hot function uses the calling forms that Deno compiles to a direct call: `buffer`
 * pointers, `u32`/`i32` lengths and `i32` results. A `usize` argument or result would take the slow
 * path (150 ns more, BigInt garbage), so lengths are declared `u32` although C says `size_t`.
 * A failing call returns -1 and leaves the reason in {@linkcode errno}.
 *
 * @module
 */

const library = Deno.dlopen("libc.so.6", {
  // files and descriptors
  open: { parameters: ["buffer", /* path */ "i32", /* flags */ "u32" /* mode */], result: "i32" },
  close: { parameters: ["i32" /* fd */], result: "i32" },
  read: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "u32" /* count */],
    result: "i32",
  },
  write: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "u32" /* count */],
    result: "i32",
  },
  readv: { parameters: ["i32", /* fd */ "buffer", /* iov */ "i32" /* iovcnt */], result: "i32" },
  writev: { parameters: ["i32", /* fd */ "buffer", /* iov */ "i32" /* iovcnt */], result: "i32" },
  pread: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "u32", /* count */ "i64" /* offset */],
    result: "i32",
  },
  pwrite: {
    parameters: ["i32", /* fd */ "buffer", /* buf */ "u32", /* count */ "i64" /* offset */],
    result: "i32",
  },
  lseek: {
    parameters: ["i32", /* fd */ "i64", /* offset */ "i32" /* whence */],
    result: "i64",
  },
  pipe2: { parameters: ["buffer", /* int[2] */ "i32" /* flags */], result: "i32" },
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
  dup: { parameters: ["i32" /* fd */], result: "i32" },
  dup3: { parameters: ["i32", /* oldfd */ "i32", /* newfd */ "i32" /* flags */], result: "i32" },
  flock: { parameters: ["i32", /* fd */ "i32" /* operation */], result: "i32" },
  fchmod: { parameters: ["i32", /* fd */ "u32" /* mode */], result: "i32" },
  ftruncate: { parameters: ["i32", /* fd */ "i64" /* length */], result: "i32" },
  fcntl: { parameters: ["i32", /* fd */ "i32", /* cmd */ "i32" /* arg */], result: "i32" },
  ioctl: { parameters: ["i32", /* fd */ "u32", /* request */ "buffer" /* argp */], result: "i32" },
  ioctlNumber: {
    name: "ioctl",
    parameters: ["i32", /* fd */ "u32", /* request */ "u32" /* arg */],
    result: "i32",
  },
  access: { parameters: ["buffer", /* path */ "i32" /* mode */], result: "i32" },
  unlink: { parameters: ["buffer" /* path */], result: "i32" },
  lchown: {
    parameters: ["buffer", /* path */ "u32", /* uid */ "u32" /* gid */],
    result: "i32",
  },

  // sockets
  socket: { parameters: ["i32", /* domain */ "i32", /* type */ "i32" /* proto */], result: "i32" },
  socketpair: {
    parameters: ["i32", /* domain */ "i32", /* type */ "i32", /* proto */ "buffer" /* int[2] */],
    result: "i32",
  },
  bind: { parameters: ["i32", /* fd */ "buffer", /* addr */ "u32" /* addrlen */], result: "i32" },
  listen: { parameters: ["i32", /* fd */ "i32" /* backlog */], result: "i32" },
  accept4: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "buffer", /* addrlen */ "i32" /* flags */],
    result: "i32",
  },
  connect: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "u32" /* addrlen */],
    result: "i32",
  },
  shutdown: { parameters: ["i32", /* fd */ "i32" /* how */], result: "i32" },
  getsockname: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "buffer" /* addrlen */],
    result: "i32",
  },
  getpeername: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "buffer" /* addrlen */],
    result: "i32",
  },
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
  sendto: {
    parameters: [
      "i32", /* fd */
      "buffer", /* buf */
      "u32", /* len */
      "i32", /* flags */
      "buffer", /* addr */
      "u32", /* addrlen */
    ],
    result: "i32",
  },
  recvfrom: {
    parameters: [
      "i32", /* fd */
      "buffer", /* buf */
      "u32", /* len */
      "i32", /* flags */
      "buffer", /* addr */
      "buffer", /* addrlen */
    ],
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
  epoll_create1: { parameters: ["i32" /* flags */], result: "i32" },
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
  poll: {
    parameters: ["buffer", /* fds */ "u32", /* nfds */ "i32" /* timeout ms */],
    result: "i32",
  },
  clock_gettime: { parameters: ["i32", /* clock */ "buffer" /* timespec */], result: "i32" },
  timerfd_create: { parameters: ["i32", /* clock */ "i32" /* flags */], result: "i32" },
  timerfd_settime: {
    parameters: [
      "i32", /* fd */
      "i32", /* flags */
      "buffer", /* new_value */
      "buffer", /* old_value */
    ],
    result: "i32",
  },
  inotify_init1: { parameters: ["i32" /* flags */], result: "i32" },
  inotify_add_watch: {
    parameters: ["i32", /* fd */ "buffer", /* pathname */ "u32" /* mask */],
    result: "i32",
  },

  // processes
  getpid: { parameters: [], result: "i32" },
  getuid: { parameters: [], result: "u32" },
  geteuid: { parameters: [], result: "u32" },
  getgid: { parameters: [], result: "u32" },
  getegid: { parameters: [], result: "u32" },
  getppid: { parameters: [], result: "i32" },
  setgroups: { parameters: ["usize", /* size */ "buffer" /* list */], result: "i32" },
  setresgid: { parameters: ["u32", /* rgid */ "u32", /* egid */ "u32" /* sgid */], result: "i32" },
  setresuid: { parameters: ["u32", /* ruid */ "u32", /* euid */ "u32" /* suid */], result: "i32" },
  getpwnam: { parameters: ["buffer" /* name */], result: "pointer" },
  getgrnam: { parameters: ["buffer" /* name */], result: "pointer" },
  kill: { parameters: ["i32", /* pid */ "i32" /* sig */], result: "i32" },
  waitpid: {
    parameters: ["i32", /* pid */ "buffer", /* status */ "i32" /* options */],
    result: "i32",
  },
  getrlimit: { parameters: ["i32", /* resource */ "buffer" /* rlim */], result: "i32" },
  setrlimit: { parameters: ["i32", /* resource */ "buffer" /* rlim */], result: "i32" },
  prctl: {
    parameters: ["i32", /* option */ "u64", "u64", "u64", "u64"],
    result: "i32",
  },
  signal: { parameters: ["i32", /* signum */ "usize" /* handler */], result: "usize" },
  sigaction: {
    parameters: ["i32", /* signum */ "buffer", /* act */ "buffer" /* oldact */],
    result: "i32",
  },
  syscall: {
    parameters: ["i64", /* number */ "i64", "i64", "i64", "i64", "i64"],
    result: "i64",
  },
  _exit: { parameters: ["i32" /* status */], result: "void" },

  // memory
  mmap: {
    parameters: [
      "usize", /* addr */
      "usize", /* length */
      "i32", /* prot */
      "i32", /* flags */
      "i32", /* fd */
      "i64", /* offset */
    ],
    result: "usize",
  },
  munmap: { parameters: ["usize", /* addr */ "usize" /* length */], result: "i32" },
  mprotect: {
    parameters: ["usize", /* addr */ "usize", /* length */ "i32" /* prot */],
    result: "i32",
  },

  // names
  if_nametoindex: { parameters: ["buffer" /* name */], result: "u32" },

  __errno_location: { parameters: [], result: "pointer" },
});

/** The loaded functions, under their C names. */
export const libc = library.symbols;

const errnoCell: Int32Array<ArrayBuffer> = new Int32Array(
  Deno.UnsafePointerView.getArrayBuffer(libc.__errno_location()!, 4),
);

/**
 * The calling thread's `errno`, valid only right after a call that returned -1.
 *
 * @returns a positive number from errno(3)
 * @example
 * ```ts
 * import { errno, libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(libc.close(-1), -1);
 * assertEquals(errno(), 9); // EBADF
 * ```
 */
export function errno(): number {
  return errnoCell[0];
}
