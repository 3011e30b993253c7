// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP listeners on the host whose connections go to the guest.
 *
 * Theory of operation: one socket per port, dual-stack where the kernel has IPv6, watched edge-triggered
 * and emptied on each event, so that a connection that cannot be taken never makes the loop spin. At
 * the descriptor limit a spare descriptor is given up for a moment to accept and reset what waits:
 * clients see a refusal instead of a connection that hangs, and old connections go on.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { EventType } from "../context.ts";
import type { PortRule } from "../forward/ports.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, SysError } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import {
  acceptSocket,
  AF_INET,
  AF_INET6,
  bindSocket,
  closeWithReset,
  familyOf,
  IPPROTO_IPV6,
  IPV6_V6ONLY,
  newSocket,
  setOption,
  SO_BINDTODEVICE,
  SO_REUSEADDR,
  SOCK_STREAM,
  socketAddress,
  SOL_SOCKET,
} from "../sys/socket.ts";
import { ANY4, ANY6, formatAddress } from "../wire/address.ts";
import { connectToGuest, OUT_OF_DESCRIPTORS } from "./setup.ts";
import type { TcpState } from "./state.ts";

const BACKLOG = 4096; // somaxconn of socket(7) cuts it
const LOW_PORT_HINT =
  "ports below 1024 need CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start";
const LOW_PORT_LIMIT = 1024;

const F_DUPFD_CLOEXEC = 1030; // linux/fcntl.h
const STDERR = 2;

/** A descriptor that is good for nothing but being closed. */
function spareDescriptor(): number {
  return libc.fcntl(STDERR, F_DUPFD_CLOEXEC, 0);
}

/** One listening socket. */
interface Listener {
  fd: number;
  /** Port of the guest. */
  guestPort: number;
}

/** The listeners of one instance. */
export class Listeners {
  readonly #tcp: TcpState;
  readonly #all: Listener[] = [];
  readonly #addresses: Int32Array<ArrayBuffer> = new Int32Array(8);
  readonly #peerPort: Int32Array<ArrayBuffer> = new Int32Array(1);
  /** A descriptor to give up when none is left. */
  #spare = spareDescriptor();

  constructor(tcp: TcpState) {
    this.#tcp = tcp;
  }

  /**
   * Listens on the ports of a rule.
   *
   * @throws SysError naming the address and port that could not be bound
   */
  open(rule: PortRule): void {
    for (let port = rule.first; port <= rule.last; port++) {
      const fd = bindListener(this.#tcp, rule, port);
      const index = this.#all.push({ fd, guestPort: rule.to + port - rule.first }) - 1;
      this.#tcp.ctx.epoll.add(fd, EPOLL.IN | EPOLL.ET, EventType.TCP_LISTEN, index);
    }
  }

  /** Accepts everything that waits on a listener. */
  event(index: number): void {
    const { fd, guestPort } = this.#all[index];
    for (;;) {
      const accepted = acceptSocket(fd, this.#addresses, 0, this.#peerPort);
      if (accepted >= 0) this.#accepted(accepted, guestPort);
      else if (accepted === -E.EMFILE || accepted === -E.ENFILE) {
        if (!this.#refuse(fd)) return;
      } else if (accepted !== -E.ECONNABORTED && accepted !== -E.EINTR) return;
    }
  }

  #accepted(fd: number, guestPort: number): void {
    const port = socketAddress(fd, this.#addresses, 4);
    if (port < 0) return closeWithReset(fd);
    connectToGuest(this.#tcp, fd, this.#addresses, this.#peerPort[0], port, guestPort);
  }

  /** Out of descriptors: accepts one connection on the spare one, only to reset it. */
  #refuse(listener: number): boolean {
    const { ctx, warnings } = this.#tcp;
    if (warnings.allow(ctx.nowMs)) {
      getLogger().warn(OUT_OF_DESCRIPTORS);
    }
    if (this.#spare >= 0) libc.close(this.#spare);
    const fd = acceptSocket(listener, this.#addresses, 0, this.#peerPort);
    if (fd >= 0) closeWithReset(fd);
    this.#spare = spareDescriptor();
    return fd >= 0;
  }

  /** Closes all listeners. */
  close(): void {
    for (const { fd } of this.#all) libc.close(fd);
    this.#all.length = 0;
    if (this.#spare >= 0) libc.close(this.#spare);
    this.#spare = -1;
  }
}

/** Makes the listening socket of one port. */
function bindListener(tcp: TcpState, rule: PortRule, port: number): number {
  const { ctx } = tcp;
  let address = rule.address ?? (ctx.ip6 ? ANY6 : ANY4);
  let fd = newSocket(familyOf(address, 0), SOCK_STREAM, 0);
  if (fd === -E.EAFNOSUPPORT && !rule.address && ctx.ip4) {
    address = ANY4; // the kernel has no IPv6
    fd = newSocket(AF_INET, SOCK_STREAM, 0);
  }
  const name = `${formatAddress(address)} port ${port}`;
  if (fd < 0) throw new SysError("socket", name, -fd);
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (familyOf(address, 0) === AF_INET6) {
    setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, rule.address || !ctx.ip4 ? 1 : 0);
  }
  let result = 0;
  if (rule.device) {
    const device = new TextEncoder().encode(`${rule.device}\0`);
    if (libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, device.length) < 0) {
      result = -errno();
    }
  }
  if (result === 0) result = bindSocket(fd, address, 0, port);
  if (result === 0 && libc.listen(fd, BACKLOG) < 0) result = -errno();
  if (result < 0) {
    libc.close(fd);
    const hint = result === -E.EACCES && port < LOW_PORT_LIMIT ? LOW_PORT_HINT : "";
    throw new SysError("bind", name, -result, hint);
  }
  return fd;
}
