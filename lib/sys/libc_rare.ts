// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The C library's functions that are called now and then: at the start, at the end, once a second.
 *
 * Theory of operation: `Deno.dlopen` compiles a direct call for every function that it loads, a tenth of a
 * millisecond each, and all of them together take as long as half a start of the runtime. These here
 * are called through their addresses instead, which costs nothing to prepare, and a microsecond more per
 * call. What is called per packet or per connection is in `libc.ts`, which has these, too. Only modules
 * that others need than the data path import this one: the process that waits for another
 * (`../host/background.ts`), and scripts that start an instance. The library is opened at the first call, so
 * that a script that makes none needs no permission for that (`--allow-ffi`).
 *
 * @module
 */

/** How they are called. */
export const RARE = {
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
  dup: { parameters: ["i32" /* fd */], result: "i32" },
  dup3: { parameters: ["i32", /* oldfd */ "i32", /* newfd */ "i32" /* flags */], result: "i32" },
  flock: { parameters: ["i32", /* fd */ "i32" /* operation */], result: "i32" },
  fchmod: { parameters: ["i32", /* fd */ "u32" /* mode */], result: "i32" },
  memfd_create: { parameters: ["buffer", /* name */ "u32" /* flags */], result: "i32" },
  ftruncate: { parameters: ["i32", /* fd */ "i64" /* length */], result: "i32" },
  fallocate: {
    parameters: ["i32", /* fd */ "i32", /* mode */ "i64", /* offset */ "i64" /* len */],
    result: "i32",
  },
  fcntl: { parameters: ["i32", /* fd */ "i32", /* cmd */ "i32" /* arg */], result: "i32" },
  ioctl: { parameters: ["i32", /* fd */ "u32", /* request */ "buffer" /* argp */], result: "i32" },
  ioctlNumber: {
    name: "ioctl",
    parameters: ["i32", /* fd */ "u32", /* request */ "u32" /* arg */],
    result: "i32",
  },
  access: { parameters: ["buffer", /* path */ "i32" /* mode */], result: "i32" },
  statx: {
    parameters: [
      "i32", /* dirfd */
      "buffer", /* pathname */
      "i32", /* flags */
      "u32", /* mask */
      "buffer", /* statxbuf */
    ],
    result: "i32",
  },
  unlink: { parameters: ["buffer" /* path */], result: "i32" },
  lchown: {
    parameters: ["buffer", /* path */ "u32", /* uid */ "u32" /* gid */],
    result: "i32",
  },

  // sockets
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
  timerfd_settime: {
    parameters: [
      "i32", /* fd */
      "i32", /* flags */
      "buffer", /* new_value */
      "buffer", /* old_value */
    ],
    result: "i32",
  },
  listen: { parameters: ["i32", /* fd */ "i32" /* backlog */], result: "i32" },
  bind: { parameters: ["i32", /* fd */ "buffer", /* addr */ "u32" /* addrlen */], result: "i32" },
  getsockname: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "buffer" /* addrlen */],
    result: "i32",
  },
  socketpair: {
    parameters: ["i32", /* domain */ "i32", /* type */ "i32", /* proto */ "buffer" /* int[2] */],
    result: "i32",
  },
  getpeername: {
    parameters: ["i32", /* fd */ "buffer", /* addr */ "buffer" /* addrlen */],
    result: "i32",
  },

  // waiting
  epoll_create1: { parameters: ["i32" /* flags */], result: "i32" },
  poll: {
    parameters: ["buffer", /* fds */ "u32", /* nfds */ "i32" /* timeout ms */],
    result: "i32",
  },
  timerfd_create: { parameters: ["i32", /* clock */ "i32" /* flags */], result: "i32" },
  clock_gettime: { parameters: ["i32", /* clock */ "buffer" /* timespec */], result: "i32" },
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
} as const;

/** Where dlsym(3) is: in the C library since glibc 2.34. */
const LIBRARIES = ["libc.so.6", "libdl.so.2"];
const DLSYM = {
  dlsym: { parameters: ["pointer", /* handle */ "buffer" /* name */], result: "pointer" },
} as const;
const ERRNO_LOCATION = { parameters: [], result: "pointer" } as const;

/** @throws NotCapable without `--allow-ffi` */
function openLoader(): Deno.DynamicLibrary<typeof DLSYM> {
  for (const name of LIBRARIES) {
    try {
      return Deno.dlopen(name, DLSYM);
    } catch (error) {
      if (name === LIBRARIES.at(-1) || error instanceof Deno.errors.NotCapable) throw error;
    }
  }
  throw new Error("No C library");
}

const encoder = new TextEncoder();
let loader: Deno.DynamicLibrary<typeof DLSYM> | null = null;
/** The calling thread's errno, once the library is open. */
let errnoCell: Int32Array<ArrayBuffer> = new Int32Array(1);

type Call = (...args: unknown[]) => unknown;

/** A function by its address. @throws Error when there is none */
function find(name: string, definition: Deno.ForeignFunction): Call {
  openLibrary();
  const address = loader!.symbols.dlsym(null, encoder.encode(`${name}\0`)); // null: RTLD_DEFAULT
  if (address === null) throw new Error(`The C library has no ${name}`);
  const pointer = new Deno.UnsafeFnPointer(address as Deno.PointerObject<never>, definition);
  return pointer.call.bind(pointer) as Call;
}

/**
 * Opens the C library, unless it is open. Calls through this module do so themselves. Others need it before
 * they can fail: it finds {@linkcode errno}, and that may change it.
 *
 * @throws NotCapable without `--allow-ffi`
 */
export function openLibrary(): void {
  if (loader) return;
  loader = openLoader();
  const address = find("__errno_location", ERRNO_LOCATION)() as Deno.PointerObject;
  errnoCell = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(address, 4));
}

/** Functions that are looked for when they are called first. */
function load<T extends Deno.ForeignLibraryInterface>(
  table: Record<string, Deno.ForeignFunction>,
): Deno.StaticForeignLibraryInterface<T> {
  const functions: Record<string, Call> = {};
  for (const [key, definition] of Object.entries(table)) {
    let call: Call | null = null;
    functions[key] = (...args) => (call ??= find(definition.name ?? key, definition))(...args);
  }
  return functions as Deno.StaticForeignLibraryInterface<T>;
}

/** The functions, under their C names. */
export const libc: Deno.StaticForeignLibraryInterface<typeof RARE> = load<typeof RARE>(RARE);

/**
 * The calling thread's `errno`, valid only right after a call that returned -1.
 *
 * @returns a positive number from errno(3)
 * @example
 * ```ts
 * import { errno, libc } from "./libc_rare.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(libc.close(-1), -1);
 * assertEquals(errno(), 9); // EBADF
 * ```
 */
export function errno(): number {
  return errnoCell[0];
}
