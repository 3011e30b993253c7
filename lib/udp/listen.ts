// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Datagrams from the host's side to forwarded ports.
 *
 * Theory of operation: one socket per rule, of both families where the rule names no address. It asks for
 * the destination of each datagram (IP_PKTINFO, IPV6_RECVPKTINFO), which together with the sender
 * makes the flow; see `flow.ts`. A datagram of the other family than the last one was received behind
 * headers of the wrong size and is moved once.
 *
 * @module
 */
import { type Context, EventType } from "../context.ts";
import { Pif, SIDE_EADDR, SIDE_PIF } from "../flow/side.ts";
import { FlowState, FlowType } from "../flow/types.ts";
import { SLOT_FRAME_SIZE } from "../link/link.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E } from "../sys/errno.ts";
import { IP_PKTINFO, IP_RECVERR, IPV6_RECVPKTINFO } from "../sys/ip_options.ts";
import { errno, libc } from "../sys/libc.ts";
import {
  AF_INET,
  AF_INET6,
  bindSocket,
  familyOf,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPPROTO_UDP,
  IPV6_V6ONLY,
  MSG_DONTWAIT,
  newSocket,
  setOption,
  SO_BINDTODEVICE,
  SOCK_DGRAM,
  SOL_SOCKET,
} from "../sys/socket.ts";
import { type Address, ANY4, ANY6, isLinkLocal, isV4 } from "../wire/address.ts";
import { drainErrors } from "./errors.ts";
import { flowFromHost, prepareSocket } from "./flow.ts";
import { peerScope, readAddresses } from "./peer.ts";
import { base, Flag, RX_MESSAGES, type UdpState, udpState, W } from "./state.ts";
import { aim, forward, HEADERS4, HEADERS6 } from "./to_tap.ts";

/** Receiving calls per event. */
const RX_ROUNDS = 4;

/** A port of the host that is forwarded to the guest. */
export interface UdpRule {
  /** Address to listen on; null: all, of both families as far as they are enabled. */
  readonly address: Address | null;
  /** Port to listen on: 1–65535. */
  readonly port: number;
  /** Port of the guest. */
  readonly guestPort: number;
  /** Interface to listen on; null: all. */
  readonly device?: string | null;
}

/**
 * Starts listening on a port of the host.
 *
 * @returns number of the listener, for {@linkcode udpUnlisten}; or a negative errno (`EADDRINUSE`,
 *   `EACCES`, `EMFILE` …)
 */
export function udpListen(ctx: Context, rule: UdpRule): number {
  const state = udpState(ctx);
  const fd = openListener(ctx, rule);
  if (fd < 0) return fd;
  let index = state.listeners.findIndex((listener) => listener.fd < 0);
  if (index < 0) index = state.listeners.length;
  const result = ctx.epoll.add(fd, EPOLL.IN | EPOLL.ERR, EventType.UDP_LISTEN, index);
  if (result < 0) {
    libc.close(fd);
    return result;
  }
  const { port, guestPort } = rule;
  state.listeners[index] = { fd, port, guestPort, v4: true };
  return index;
}

/** Stops listening; flows that came from there are closed by the next scan of the flow table. */
export function udpUnlisten(ctx: Context, index: number): void {
  const state = udpState(ctx), { table } = ctx;
  const listener = state.listeners[index];
  if (!listener || listener.fd < 0) return;
  libc.close(listener.fd);
  listener.fd = -1;
  for (let i = 0, left = table.activeCount; i < table.capacity && left > 0; i++) {
    if (table.stateOf(i) !== FlowState.ACTIVE) continue;
    left--;
    const at = base(i);
    if (table.typeOf(i) !== FlowType.UDP || state.data[at + W.LISTENER] !== index + 1) continue;
    state.data[at + W.FLAGS] |= Flag.CLOSED;
    ctx.closing++;
  }
}

function openListener(ctx: Context, rule: UdpRule): number {
  const dual = rule.address === null && ctx.ip4 !== null && ctx.ip6 !== null;
  const address = rule.address ?? (ctx.ip6 ? ANY6 : ANY4);
  const fd = bindListener(ctx, rule, address, dual);
  // a host without IPv6 has no sockets for both families
  return dual && fd === -E.EAFNOSUPPORT ? bindListener(ctx, rule, ANY4, false) : fd;
}

function bindListener(ctx: Context, rule: UdpRule, address: Address, dual: boolean): number {
  const family = familyOf(address, 0);
  const fd = newSocket(family, SOCK_DGRAM, IPPROTO_UDP);
  if (fd < 0) return fd;
  prepareSocket(fd, family === AF_INET);
  if (family === AF_INET || dual) {
    setOption(fd, IPPROTO_IP, IP_PKTINFO, 1);
    setOption(fd, IPPROTO_IP, IP_RECVERR, 1);
  }
  if (family === AF_INET6) {
    setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual ? 0 : 1);
    setOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  }
  let result = rule.device ? bindToDevice(fd, rule.device) : 0;
  const scope = isLinkLocal(address) && ctx.ip6 ? ctx.ip6.ifindex : 0;
  if (result >= 0) result = bindSocket(fd, address, 0, rule.port, scope);
  if (result >= 0) return fd;
  libc.close(fd);
  return result;
}

function bindToDevice(fd: number, device: string): number {
  const name = new TextEncoder().encode(`${device}\0`);
  const result = libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length);
  return result < 0 ? -errno() : 0;
}

/** An event on the socket of listener `index`; harmless when it was closed. */
export function udpListenEvent(ctx: Context, index: number, events: number): void {
  const state = udpState(ctx);
  const listener = state.listeners[index];
  if (!listener || listener.fd < 0) return;
  if (events & EPOLL.ERR) drainErrors(state, listener.fd, -1, index);
  if (events & EPOLL.IN) receive(state, index);
}

function receive(state: UdpState, index: number): void {
  const { rxNamed } = state, listener = state.listeners[index];
  for (let round = 0; round < RX_ROUNDS; round++) {
    const headers = listener.v4 ? HEADERS4 : HEADERS6;
    if (state.rxNamedHeader !== headers) {
      aim(state, rxNamed, headers);
      state.rxNamedHeader = headers;
    }
    const n = libc.recvmmsg(listener.fd, rxNamed.views[0], RX_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      take(state, index, k, headers);
      rxNamed.reset(k);
    }
    if (n < RX_MESSAGES) return; // also after an error, which epoll reports again
  }
}

/** Forwards message `k`, received behind `headers` bytes. */
function take(state: UdpState, index: number, k: number, headers: number): void {
  const { rxNamed, hostKey } = state, words = hostKey.words;
  if (!readAddresses(state, rxNamed, k, index)) return;
  words[SIDE_PIF] = Pif.HOST;
  const flow = flowFromHost(state, index, peerScope(state, rxNamed, k));
  if (flow < 0) return;
  const v4 = isV4(words, SIDE_EADDR);
  state.listeners[index].v4 = v4;
  const wanted = v4 ? HEADERS4 : HEADERS6;
  if (wanted !== headers) {
    const { link } = state.ctx, from = link.txOffset[k] + headers;
    const bytes = rxNamed.transferred(k);
    if (wanted + bytes > SLOT_FRAME_SIZE) return;
    link.arena.u8.copyWithin(link.txOffset[k] + wanted, from, from + bytes);
  }
  forward(state, flow, rxNamed, k);
}
