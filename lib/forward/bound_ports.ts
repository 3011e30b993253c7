// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Which ports are bound in a network namespace: what `auto` follows.
 *
 * Theory of operation: where the kernel answers sock_diag(7), it is asked for listeners and unconnected UDP
 * sockets alone. That takes 0.03 ms, and 7 ms for 10,000 ports.
 *
 * Otherwise files are read, which costs 5 ms and more each, because the kernel looks through its whole table
 * of connections behind the last listener. `/proc/PID/net/{tcp,tcp6,udp,udp6}` (proc(5)) have one line per socket. A file
 * once opened keeps showing its namespace, whatever becomes of the process, so that the files are
 * opened once and read again from the beginning for each scan. The kernel gives at most a page per
 * read and makes the lines while reading; `tcp` and `tcp6` list the listeners first (tcp_get_idx()),
 * so reading ends at the first other socket and connections are not printed. Lines are read
 * where they lie, byte by byte; one that a read has cut waits at the start of the buffer for its rest.
 *
 * @module
 */
import { check, E, SysError } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import { SocketDiag } from "../sys/sock_diag.ts";
import { IPPROTO_TCP, IPPROTO_UDP } from "../sys/socket.ts";

/** A set of ports: bit `port & 31` of word `port >> 5`, 2048 words. */
export type PortBitmap = Uint32Array;

/** States as the files show them (include/net/tcp_states.h): a listener; UDP without a peer. */
export const TCP_LISTEN = 0x0a;
export const UDP_UNCONNECTED = 0x07; // TCP_CLOSE

const O_RDONLY_CLOEXEC = 0x80000; // asm-generic/fcntl.h
const SEEK_SET = 0; // lseek(2)
/** The files in messages. */
const WHAT = "/proc/net of a namespace";
/** Where lseek(2) goes back to: made once. */
const BEGINNING = 0n;
/** Bytes per read; the kernel gives no more than one page at a time, of up to 64 KiB. */
const READ_SIZE = 1 << 16;
/** Room for one line that a read has cut; the longest of tcp6 has 190 bytes. */
const LINE_ROOM = 1024;

const NEWLINE = 0x0a, COLON = 0x3a;
/** Digits of a port, and where the state stands behind the remote port's colon: `:PPPP SS`. */
const PORT_DIGITS = 4;
const STATE_AT = 6;
/** Shortest end of a line that {@linkcode portsOfLines} looks at: colon, port, space, state. */
const TAIL = STATE_AT + 2;

/** Value of an upper case hexadecimal digit, or something outside 0–15. */
function digit(byte: number): number {
  return byte <= 0x39 ? byte - 0x30 : byte - 0x37;
}

/** Port behind a colon. @returns 0–65535, or something negative or larger when there is none */
function portAt(bytes: Uint8Array, at: number): number {
  return digit(bytes[at]) << 12 | digit(bytes[at + 1]) << 8 | digit(bytes[at + 2]) << 4 |
    digit(bytes[at + 3]);
}

/** Place of the next colon before `end`, or `end`. */
function colon(bytes: Uint8Array, at: number, end: number): number {
  while (at < end && bytes[at] !== COLON) at++;
  return at;
}

/** Answer of {@linkcode portsOfLines} when the sockets of a state come first and end. */
export const LINES_END = -1;

/**
 * Adds the local ports of sockets in one state to a set, from whole lines of /proc/net/tcp and its
 * likes: `SLOT: ADDRESS:PORT ADDRESS:PORT STATE …`, hexadecimal. Lines of another form (the heading) are
 * passed over.
 *
 * @param bytes text from `from` to `end`, which may lie within a line
 * @param state state of the sockets that count
 * @param first whether those come first: what follows another socket is not looked at
 * @returns where the last, unfinished line begins (`end`: there is none), or {@linkcode LINES_END}
 * @example
 * ```ts
 * import { portsOfLines, TCP_LISTEN } from "./bound_ports.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const text = "   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000\n   1: 0";
 * const bytes = new TextEncoder().encode(text), ports = new Uint32Array(2048);
 * assertEquals(portsOfLines(bytes, 0, bytes.length, TCP_LISTEN, true, ports), text.indexOf("\n") + 1);
 * assertEquals(ports[0], 1 << 22);
 * ```
 */
export function portsOfLines(
  bytes: Uint8Array,
  from: number,
  end: number,
  state: number,
  first: boolean,
  into: PortBitmap,
): number {
  let line = from;
  while (line < end) {
    const next = bytes.indexOf(NEWLINE, line) + 1;
    if (next === 0 || next > end) return line; // unfinished
    const local = colon(bytes, colon(bytes, line, next) + 1, next);
    const remote = colon(bytes, local + 1 + PORT_DIGITS, next);
    if (remote + TAIL < next) {
      const at = remote + STATE_AT;
      if ((digit(bytes[at]) << 4 | digit(bytes[at + 1])) === state) {
        const port = portAt(bytes, local + 1);
        if (port > 0 && port <= 0xffff) into[port >> 5] |= 1 << (port & 31);
      } else if (first) return LINES_END;
    }
    line = next;
  }
  return line;
}

/** Opens a file. @returns -1 when it may be missing and is */
function openFile(path: string, optional: boolean): number {
  const fd = libc.open(new TextEncoder().encode(`${path}\0`), O_RDONLY_CLOEXEC, 0);
  if (fd < 0 && optional && errno() === E.ENOENT) return -1;
  return check(fd, "open", path);
}

/** Opens the four files of a folder. @throws SysError */
function openFiles(path: string): number[] {
  const opened: number[] = [];
  try {
    for (const name of ["tcp", "tcp6", "udp", "udp6"]) {
      opened.push(openFile(`${path}/${name}`, name.endsWith("6")));
    }
    return opened;
  } catch (error) {
    for (const fd of opened) if (fd >= 0) libc.close(fd);
    throw error;
  }
}

/**
 * The bound ports of one network namespace.
 *
 * @example
 * ```ts
 * import { BoundPorts } from "./bound_ports.ts";
 * import { assert } from "@std/assert";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * const bound = new BoundPorts("/proc/self/net"), ports = new Uint32Array(2048);
 * bound.scanTcp(ports);
 * assert(ports[listener.addr.port >> 5] & 1 << (listener.addr.port & 31));
 * bound.close();
 * listener.close();
 * ```
 */
export class BoundPorts {
  readonly #tcp: readonly number[];
  readonly #udp: readonly number[];
  readonly #buffer = new Uint8Array(LINE_ROOM + READ_SIZE);
  /** Null where the kernel does not answer. */
  #diag: SocketDiag | null;
  /** Where reads go: behind the room for a cut line. */
  readonly #read = this.#buffer.subarray(LINE_ROOM);

  /**
   * A kernel without IPv6 has no files for it.
   *
   * @param files folder of the files, `/proc/PID/net` of a process in the namespace; or the files
   *   themselves, opened by {@linkcode openProcNet} of `../sys/namespace.ts` and ours from now on
   * @param diag socket of `AF_NETLINK`, `SOCK_RAW`, `NETLINK_SOCK_DIAG` made in the namespace, which is
   *   ours from now on; negative: there is none
   * @throws SysError
   */
  constructor(files: string | readonly number[], diag: number = -1) {
    this.#diag = diag < 0 ? null : new SocketDiag(diag);
    let opened: readonly number[];
    try {
      opened = typeof files === "string" ? openFiles(files) : files;
    } catch (error) {
      this.#diag?.close();
      throw error;
    }
    this.#tcp = opened.slice(0, 2).filter((fd) => fd >= 0);
    this.#udp = opened.slice(2).filter((fd) => fd >= 0);
  }

  /** Adds the ports of TCP listeners to a set. @throws SysError */
  scanTcp(into: PortBitmap): void {
    if (this.#ask(IPPROTO_TCP, TCP_LISTEN, into)) return;
    for (let i = 0; i < this.#tcp.length; i++) this.#scan(this.#tcp[i], TCP_LISTEN, true, into);
  }

  /** Adds the ports of bound UDP sockets that are not connected to a set. @throws SysError */
  scanUdp(into: PortBitmap): void {
    if (this.#ask(IPPROTO_UDP, UDP_UNCONNECTED, into)) return;
    for (let i = 0; i < this.#udp.length; i++) {
      this.#scan(this.#udp[i], UDP_UNCONNECTED, false, into);
    }
  }

  /** Asks the kernel. @returns false when it does not answer, now or ever */
  #ask(protocol: number, state: number, into: PortBitmap): boolean {
    if (this.#diag === null) return false;
    if (this.#diag.localPorts(protocol, state, into) === 0) return true;
    this.#diag.close();
    this.#diag = null;
    return false;
  }

  #scan(fd: number, state: number, first: boolean, into: PortBitmap): void {
    check(Number(libc.lseek(fd, BEGINNING, SEEK_SET)), "lseek", WHAT);
    let kept = 0;
    for (;;) {
      const n = libc.read(fd, this.#read, READ_SIZE);
      if (n < 0 && errno() === E.EINTR) continue;
      if (n < 0) throw new SysError("read", WHAT, errno());
      if (n === 0) return;
      const end = LINE_ROOM + n;
      const rest = portsOfLines(this.#buffer, LINE_ROOM - kept, end, state, first, into);
      if (rest === LINES_END) return;
      kept = end - rest;
      if (kept > LINE_ROOM) kept = 0; // no line of these files
      this.#buffer.copyWithin(LINE_ROOM - kept, end - kept, end);
    }
  }

  /** Closes files and socket. */
  close(): void {
    this.#diag?.close();
    this.#diag = null;
    for (const fd of [...this.#tcp, ...this.#udp]) libc.close(fd);
  }
}
