// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Sockets: creation, options and addresses, in forms that allocate nothing.
 *
 * Addresses are four 32-bit words in an `Int32Array`, each the big-endian value of four address
 * bytes; IPv4 is v4-mapped (`0, 0, 0xffff, address`). Ports are numbers in host order. Functions
 * that are used per flow or per packet return a negative errno instead of throwing.
 *
 * @module
 */
import { linger as lingerLayout, sockaddrIn, sockaddrIn6 } from "./layout.ts";
import { errno, libc } from "./libc.ts";

/** Constants of bits/socket.h, asm-generic/socket.h, netinet/in.h and linux/tcp.h. */
export const AF_INET = 2;
export const AF_INET6 = 10;
export const AF_UNIX = 1;
export const SOCK_STREAM = 1;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_NONBLOCK = 0x800;
export const SOCK_CLOEXEC = 0x80000;
export const IPPROTO_IP = 0;
export const IPPROTO_ICMP = 1;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;
export const IPPROTO_IPV6 = 41;
export const IPPROTO_ICMPV6 = 58;
export const SOL_SOCKET = 1;
export const SO_REUSEADDR = 2;
export const SO_TYPE = 3;
export const SO_ERROR = 4;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_OOBINLINE = 10;
export const SO_KEEPALIVE = 9;
export const SO_LINGER = 13;
export const SO_BINDTODEVICE = 25;
export const SO_DOMAIN = 39;
export const SO_PEEK_OFF = 42;
export const SO_RCVBUFFORCE = 33;
export const SO_MEMINFO = 55;
export const TCP_NODELAY = 1;
export const TCP_CONGESTION = 13;
export const IPV6_V6ONLY = 26;
export const MSG_PEEK = 0x02;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const MSG_ERRQUEUE = 0x2000;
export const MSG_NOSIGNAL = 0x4000;
export const SHUT_RD = 0;
export const SHUT_WR = 1;

/** Bytes of `struct sockaddr_in` and `struct sockaddr_in6` (ip(7), ipv6(7)). */
export const SOCKADDR_IN_SIZE: number = sockaddrIn.size;
export const SOCKADDR_IN6_SIZE: number = sockaddrIn6.size;

/** The families' port lies at the same place. */
const PORT = sockaddrIn.at.sin_port;
const IN_ADDR = sockaddrIn.at.sin_addr;
const IN_ZERO = IN_ADDR + sockaddrIn.sizes.sin_addr;
const IN6_FLOWINFO = sockaddrIn6.at.sin6_flowinfo;
const IN6_ADDR = sockaddrIn6.at.sin6_addr;
const IN6_SCOPE = sockaddrIn6.at.sin6_scope_id;

const V4_MAPPED = 0xffff;

/** Scratch `sockaddr` of the address functions below. */
export const sockaddr: Uint8Array<ArrayBuffer> = new Uint8Array(SOCKADDR_IN6_SIZE);
/** The same bytes. */
export const sockaddrView: DataView<ArrayBuffer> = new DataView(sockaddr.buffer);
const length: Uint32Array<ArrayBuffer> = new Uint32Array(1);
const int: Int32Array<ArrayBuffer> = new Int32Array(1);
const linger: Int32Array<ArrayBuffer> = new Int32Array([1, 0]);

/**
 * Writes a socket address at `off` of `view`: AF_INET for a v4-mapped address, else AF_INET6.
 *
 * @param scope interface index for a link-local IPv6 address
 * @returns bytes written, 16 or 28
 */
export function writeSockaddr(
  view: DataView,
  off: number,
  words: Int32Array,
  at: number,
  port: number,
  scope = 0,
): number {
  if (words[at] === 0 && words[at + 1] === 0 && words[at + 2] === V4_MAPPED) {
    view.setUint16(off, AF_INET, true);
    view.setUint16(off + PORT, port);
    view.setInt32(off + IN_ADDR, words[at + 3]);
    view.setInt32(off + IN_ZERO, 0);
    view.setInt32(off + IN_ZERO + 4, 0);
    return SOCKADDR_IN_SIZE;
  }
  view.setUint16(off, AF_INET6, true);
  view.setUint16(off + PORT, port);
  view.setInt32(off + IN6_FLOWINFO, 0);
  for (let i = 0; i < 4; i++) view.setInt32(off + IN6_ADDR + 4 * i, words[at + i]);
  view.setUint32(off + IN6_SCOPE, scope, true);
  return SOCKADDR_IN6_SIZE;
}

/**
 * Reads a socket address at `off` of `view` into `words[at…at+3]`.
 *
 * @returns the port, or -1 for another family (the words are then untouched)
 */
export function readSockaddr(view: DataView, off: number, words: Int32Array, at: number): number {
  const family = view.getUint16(off, true);
  if (family === AF_INET) {
    words[at] = words[at + 1] = 0;
    words[at + 2] = V4_MAPPED;
    words[at + 3] = view.getInt32(off + IN_ADDR);
  } else if (family === AF_INET6) {
    for (let i = 0; i < 4; i++) words[at + i] = view.getInt32(off + IN6_ADDR + 4 * i);
  } else return -1;
  return view.getUint16(off + PORT);
}

/** AF_INET for a v4-mapped address, else AF_INET6. */
export function familyOf(words: Int32Array, at: number): number {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === V4_MAPPED ? AF_INET : AF_INET6;
}

/**
 * Makes a non-blocking, close-on-exec socket.
 *
 * @returns a descriptor or a negative errno
 * @example
 * ```ts
 * import { AF_INET, bindSocket, newSocket, SOCK_DGRAM, socketAddress } from "./socket.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const fd = newSocket(AF_INET, SOCK_DGRAM, 0);
 * const address = new Int32Array([0, 0, 0xffff, 0x7f000001]);
 * assertEquals(bindSocket(fd, address, 0, 0), 0);
 * const bound = new Int32Array(4);
 * const port = socketAddress(fd, bound, 0);
 * assertEquals([bound, port > 0], [address, true]);
 * libc.close(fd);
 * ```
 */
export function newSocket(family: number, type: number, protocol: number): number {
  const fd = libc.socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
  return fd < 0 ? -errno() : fd;
}

/** connect(2) to words and port. @returns 0 or a negative errno (-EINPROGRESS: under way) */
export function connectSocket(
  fd: number,
  words: Int32Array,
  at: number,
  port: number,
  scope = 0,
): number {
  const bytes = writeSockaddr(sockaddrView, 0, words, at, port, scope);
  return libc.connect(fd, sockaddr, bytes) < 0 ? -errno() : 0;
}

/** bind(2) to words and port. @returns 0 or a negative errno */
export function bindSocket(
  fd: number,
  words: Int32Array,
  at: number,
  port: number,
  scope = 0,
): number {
  const bytes = writeSockaddr(sockaddrView, 0, words, at, port, scope);
  return libc.bind(fd, sockaddr, bytes) < 0 ? -errno() : 0;
}

/** The socket's own address into `words`. @returns the port or a negative errno */
export function socketAddress(fd: number, words: Int32Array, at: number): number {
  length[0] = SOCKADDR_IN6_SIZE;
  if (libc.getsockname(fd, sockaddr, length) < 0) return -errno();
  return readSockaddr(sockaddrView, 0, words, at);
}

/**
 * Takes a connection from a listening socket: non-blocking, close-on-exec, the peer in `words`.
 *
 * @param peerPort receives the peer's port at index 0
 * @returns a descriptor or a negative errno
 */
export function acceptSocket(
  fd: number,
  words: Int32Array,
  at: number,
  peerPort: Int32Array,
): number {
  length[0] = SOCKADDR_IN6_SIZE;
  const accepted = libc.accept4(fd, sockaddr, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (accepted < 0) return -errno();
  peerPort[0] = readSockaddr(sockaddrView, 0, words, at);
  return accepted;
}

/** setsockopt(2) with an int. @returns 0 or a negative errno */
export function setOption(fd: number, level: number, name: number, value: number): number {
  int[0] = value;
  return libc.setsockopt(fd, level, name, int, 4) < 0 ? -errno() : 0;
}

/** getsockopt(2) of an int. @returns the value, or a negative errno */
export function getOption(fd: number, level: number, name: number): number {
  length[0] = 4;
  return libc.getsockopt(fd, level, name, int, length) < 0 ? -errno() : int[0];
}

/** The pending error of a socket, cleared by reading. @returns 0 or a positive errno */
export function socketError(fd: number): number {
  const error = getOption(fd, SOL_SOCKET, SO_ERROR);
  return error < 0 ? -error : error;
}

/** Words of `struct sk_meminfo` (linux/sock_diag.h). */
const SK_MEMINFO = { SNDBUF: 3, WMEM_QUEUED: 5, WORDS: 9 } as const;
const meminfo: Int32Array<ArrayBuffer> = new Int32Array(SK_MEMINFO.WORDS);

/**
 * Room in the socket's send buffer, as the kernel accounts it (SO_MEMINFO, Linux 4.12).
 *
 * @returns bytes, negative when more is queued than the buffer's size; `otherwise` when the kernel
 *   does not tell
 */
export function sendSpace(fd: number, otherwise: number): number {
  length[0] = meminfo.byteLength;
  if (libc.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, meminfo, length) < 0) return otherwise;
  return meminfo[SK_MEMINFO.SNDBUF] - meminfo[SK_MEMINFO.WMEM_QUEUED];
}

/** Closes with a reset instead of a FIN (SO_LINGER with time 0, socket(7)). */
export function closeWithReset(fd: number): void {
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, lingerLayout.size);
  libc.close(fd);
}
