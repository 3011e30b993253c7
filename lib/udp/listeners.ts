// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The sockets of forwarded UDP ports, as a set: opening, closing, and keeping them for their flows.
 *
 * Theory of operation: a flow that came by a listener is answered through it, as only its socket has the
 * port that the peer addressed. So a port that is given up while flows use it is *retired*: its socket
 * stays, takes datagrams of the flows there are and no others, and is closed when the last of them has
 * ended, or taken over when the same port is asked for again. As a port is most often given up because
 * the program behind it has gone, and its number is wanted by another, such flows have to be in use:
 * they end after `RETIRED_TIMEOUT` (5) seconds without traffic, and a spliced one at once when its
 * target refuses a datagram. Each listener counts its flows, and places of closed ones are kept in a
 * list, so that nothing here depends on how many listeners there are.
 *
 * @module
 */
import { type Context, EventType } from "../context.ts";
import { Pif } from "../flow/side.ts";
import { bindListener, type ListenSpec } from "../forward/listener.ts";
import { EPOLL } from "../sys/epoll.ts";
import { IP_PKTINFO, IP_RECVERR, IPV6_RECVPKTINFO } from "../sys/ip_options.ts";
import { libc } from "../sys/libc.ts";
import {
  AF_INET,
  AF_INET6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  setOption,
  SOCK_DGRAM,
} from "../sys/socket.ts";
import { formatAddress } from "../wire/address.ts";
import { prepareSocket } from "./socket.ts";
import { type Listener, type UdpState, udpState } from "./state.ts";

/**
 * Starts listening on a port.
 *
 * @returns number of the listener, for {@linkcode udpUnlisten}; or a negative errno (`EADDRINUSE`,
 *   `EACCES`, `EMFILE` …)
 */
export function udpListen(ctx: Context, spec: ListenSpec): number {
  const state = udpState(ctx);
  const kept = takeOver(state, spec);
  if (kept >= 0) return kept;
  const fd = bindListener(ctx, spec, SOCK_DGRAM, prepareListener);
  if (fd < 0) return fd;
  const index = state.freeListeners.pop() ?? state.listeners.length;
  const result = ctx.epoll.add(fd, EPOLL.IN | EPOLL.ERR, EventType.UDP_LISTEN, index);
  if (result < 0) {
    libc.close(fd);
    if (index < state.listeners.length) state.freeListeners.push(index);
    return result;
  }
  const { pif, port, to, target, address, device } = spec;
  state.listeners[index] = {
    fd,
    pif,
    port,
    to,
    target,
    address,
    device,
    flows: 0,
    retired: false,
    v4: true,
    spliced: pif === Pif.SPLICE,
  };
  return index;
}

/** Stops listening. Flows that came from there and are in use go on; until they end, so is the port. */
export function udpUnlisten(ctx: Context, index: number): void {
  const state = udpState(ctx), listener = state.listeners[index];
  if (!listener || listener.fd < 0 || listener.retired) return;
  if (listener.flows === 0) return close(state, index);
  listener.retired = true;
  state.retired.set(keyOf(listener), index);
}

/**
 * Ports on one side that nobody listens on any more, but whose sockets are kept for their flows: they
 * are bound, and yet no program's. Allocates.
 *
 * @param pif `Pif.HOST` or `Pif.SPLICE`
 */
export function udpKeptPorts(ctx: Context, pif: number): number[] {
  const { retired, listeners } = udpState(ctx);
  return [...retired.values()].map((index) => listeners[index])
    .filter((listener) => listener.pif === pif).map(({ port }) => port);
}

/** One flow of listener `index` has ended. */
export function releaseListener(state: UdpState, index: number): void {
  const listener = state.listeners[index];
  if (--listener.flows > 0 || !listener.retired) return;
  state.retired.delete(keyOf(listener));
  close(state, index);
}

function close(state: UdpState, index: number): void {
  const listener = state.listeners[index];
  libc.close(listener.fd);
  listener.fd = -1;
  state.freeListeners.push(index);
}

/** A retired listener for the same port, in operation again. @returns its index, or -1 */
function takeOver(state: UdpState, spec: ListenSpec): number {
  if (state.retired.size === 0) return -1;
  const key = keyOf(spec), index = state.retired.get(key);
  if (index === undefined) return -1;
  state.retired.delete(key);
  const listener = state.listeners[index];
  listener.retired = false;
  listener.to = spec.to; // of new flows
  listener.target = spec.target;
  return index;
}

/** What tells one bound socket from another. */
function keyOf(bound: Pick<Listener, "pif" | "address" | "device" | "port">): string {
  const { pif, address, device, port } = bound;
  return `${pif} ${address === null ? "*" : formatAddress(address)} ${device ?? "*"} ${port}`;
}

/** Asks for each datagram's destination, and for errors about those sent. */
function prepareListener(fd: number, family: number, dual: boolean): void {
  prepareSocket(fd, family === AF_INET);
  if (family === AF_INET || dual) setOption(fd, IPPROTO_IP, IP_PKTINFO, 1);
  if (dual) setOption(fd, IPPROTO_IP, IP_RECVERR, 1);
  if (family === AF_INET6) setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
}
