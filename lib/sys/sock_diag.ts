// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * sock_diag(7): the kernel's list of the sockets of a namespace, for their local ports.
 *
 * Theory of operation: one request per address family asks for the sockets of a protocol that are in
 * one state. The kernel looks at nothing else: for listeners it does not pass through its table of
 * connections, which makes this hundreds of times faster than /proc/net/tcp. Datagrams of up to 32 KiB
 * are read until NLMSG_DONE. Nothing is allocated per question. Whoever is root in the socket's
 * namespace can send to it, so that only datagrams from the kernel are read (netlink(7)).
 *
 * @module
 */
import { E } from "./errno.ts";
import { errno, libc } from "./libc.ts";
import { inetDiagMsg, inetDiagReq, nlmsgerr, nlmsghdr } from "./layout.ts";
import { AF_INET, AF_INET6, MSG_DONTWAIT, MSG_TRUNC } from "./socket.ts";

/** Arguments of socket(2) for {@linkcode SocketDiag}, beside `SOCK_RAW` (linux/netlink.h). */
export const AF_NETLINK = 16;
export const NETLINK_SOCK_DIAG = 4;

const SOCK_DIAG_BY_FAMILY = 20; // linux/sock_diag.h
const NLM_F_REQUEST_DUMP = 0x01 | 0x300; // linux/netlink.h
const NLMSG_ERROR = 2; // linux/netlink.h
const NLMSG_DONE = 3;
const NLMSG_ALIGN = 3; // NLMSG_ALIGNTO - 1

/** Largest datagram of an answer (NLMSG_GOODSIZE and max_recvmsg_len in af_netlink.c). */
const REPLY_SIZE = 32768;
/** struct sockaddr_nl: nl_family, nl_pad, nl_pid (0: the kernel), nl_groups. */
const SENDER_SIZE = 12;
const SENDER_PID = 1;
/** Datagrams of others that are passed over in one answer. */
const MAX_FOREIGN = 1000;

/** What a datagram was; else a negative errno. */
const MORE = 0;
const DONE = 1;

/**
 * Questions about the sockets of one namespace.
 *
 * @example
 * ```ts
 * import { AF_NETLINK, NETLINK_SOCK_DIAG, SocketDiag } from "./sock_diag.ts";
 * import { IPPROTO_TCP, newSocket, SOCK_RAW } from "./socket.ts";
 * import { assert } from "@std/assert";
 *
 * const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
 * const diag = new SocketDiag(newSocket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
 * const ports = new Uint32Array(2048), { port } = listener.addr;
 * // kernels without tcp_diag answer -ENOENT
 * if (diag.localPorts(IPPROTO_TCP, 10, ports) === 0) {
 *   assert(ports[port >> 5] & 1 << (port & 31));
 * }
 * diag.close();
 * listener.close();
 * ```
 */
export class SocketDiag {
  readonly #request = new Uint8Array(nlmsghdr.size + inetDiagReq.size);
  readonly #requestView = new DataView(this.#request.buffer);
  readonly #reply = new Uint8Array(REPLY_SIZE);
  readonly #replyView = new DataView(this.#reply.buffer);
  readonly #sender = new Uint32Array(SENDER_SIZE / 4);
  readonly #senderBytes = new Uint8Array(this.#sender.buffer);
  readonly #senderSize = new Uint32Array(1);
  #sequence = 0;

  /** @param fd a socket of {@linkcode AF_NETLINK} of any namespace; closed by {@linkcode close} only */
  constructor(readonly fd: number) {
    const view = this.#requestView;
    view.setUint32(nlmsghdr.at.nlmsg_len, this.#request.length, true);
    view.setUint16(nlmsghdr.at.nlmsg_type, SOCK_DIAG_BY_FAMILY, true);
    view.setUint16(nlmsghdr.at.nlmsg_flags, NLM_F_REQUEST_DUMP, true);
  }

  /**
   * Adds the local ports of sockets, IPv4 and IPv6, to a set.
   *
   * @param protocol `IPPROTO_TCP` or `IPPROTO_UDP`
   * @param state of the sockets (include/net/tcp_states.h)
   * @param into bit `port & 31` of word `port >> 5`
   * @returns 0, or a negative errno, some ports then being missing; the socket cannot be used again then
   */
  localPorts(protocol: number, state: number, into: Uint32Array): number {
    const result = this.#ask(AF_INET, protocol, state, into);
    return result < 0 ? result : this.#ask(AF_INET6, protocol, state, into);
  }

  close(): void {
    libc.close(this.fd);
  }

  /** One question and its answer. @returns 0, or a negative errno */
  #ask(family: number, protocol: number, state: number, into: Uint32Array): number {
    const view = this.#requestView, body = nlmsghdr.size, { at } = inetDiagReq;
    this.#sequence = this.#sequence + 1 >>> 0;
    view.setUint32(nlmsghdr.at.nlmsg_seq, this.#sequence, true);
    this.#request[body + at.sdiag_family] = family;
    this.#request[body + at.sdiag_protocol] = protocol;
    view.setUint32(body + at.idiag_states, 1 << state, true);
    if (libc.send(this.fd, this.#request, this.#request.length, 0) < 0) return -errno();
    let foreign = 0;
    for (;;) {
      const n = this.#receive();
      if (n < 0) return n;
      if (this.#sender[SENDER_PID] !== 0) {
        if (++foreign > MAX_FOREIGN) return -E.EPROTO;
        continue;
      }
      const result = this.#read(n, into);
      if (result !== MORE) return result === DONE ? 0 : result;
    }
  }

  /** Reads one datagram; the kernel has queued the next one before recvfrom(2) returns. */
  #receive(): number {
    for (;;) {
      this.#senderSize[0] = SENDER_SIZE;
      const n = libc.recvfrom(
        this.fd,
        this.#reply,
        REPLY_SIZE,
        MSG_DONTWAIT | MSG_TRUNC,
        this.#senderBytes,
        this.#senderSize,
      );
      if (n > REPLY_SIZE) return -E.EMSGSIZE;
      if (n >= 0) return n;
      if (errno() !== E.EINTR) return -errno();
    }
  }

  /** Takes the ports of one datagram. @returns {@linkcode MORE}, {@linkcode DONE} or a negative errno */
  #read(end: number, into: Uint32Array): number {
    const view = this.#replyView, { at, size } = nlmsghdr;
    for (let off = 0; off + size <= end;) {
      const length = view.getUint32(off + at.nlmsg_len, true);
      if (length < size || length > end - off) return -E.EBADMSG;
      const type = view.getUint16(off + at.nlmsg_type, true), body = off + size;
      if (type === NLMSG_DONE) return DONE;
      if (type === NLMSG_ERROR) {
        if (length < size + 4) return -E.EBADMSG;
        return Math.min(view.getInt32(body + nlmsgerr.at.error, true), -1);
      }
      if (length >= size + inetDiagMsg.size) {
        const port = view.getUint16(body + inetDiagMsg.at["id.idiag_sport"]); // network order
        if (port > 0) into[port >> 5] |= 1 << (port & 31);
      }
      off += length + NLMSG_ALIGN & ~NLMSG_ALIGN;
    }
    return MORE;
  }
}
