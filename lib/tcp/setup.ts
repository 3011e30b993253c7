// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How TCP flows begin: the guest's SYN becomes connect(2), an accepted connection becomes our SYN.
 *
 * Theory of operation: the answer to a guest's SYN waits for the socket: connected → SYN-ACK, refused →
 * RST, unreachable → ICMP. So the guest's connect(2) sees what the host's would. Likewise a connection
 * accepted on a listener exists for its client at once, but carries data only when the guest agreed;
 * a guest that refuses makes us reset the client.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { EventType } from "../context.ts";
import { INI, Pif, SIDE_EADDR, TGT } from "../flow/side.ts";
import { FlowType } from "../flow/types.ts";
import { natFromTap } from "../forward/nat.ts";
import { outboundSocket, scopeOf } from "../forward/outbound.ts";
import { admit, admitted, Verdict } from "../forward/policy.ts";
import { deny as denyPacket } from "../icmp/deny.ts";
import { sendUnreachable } from "../icmp/error.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import {
  closeWithReset,
  connectSocket,
  IPPROTO_TCP,
  sendSpace,
  setOption,
  SO_KEEPALIVE,
  SO_OOBINLINE,
  SO_PEEK_OFF,
  SOCK_STREAM,
  socketError,
  SOL_SOCKET,
  TCP_NODELAY,
} from "../sys/socket.ts";
import { isBroadcast, isLoopback, isMulticast, isUnspecified, isV4 } from "../wire/address.ts";
import { DEST, type Packet, SOURCE } from "../wire/packet.ts";
import {
  TCP_ACK,
  TCP_SYN,
  tcpDestPort,
  tcpMssOption,
  tcpSeq,
  tcpSourcePort,
  tcpWindow,
  tcpWindowScaleOption,
} from "../wire/tcp.ts";
import { closeFlow, resetFlow } from "./close.ts";
import {
  headerBytes,
  MAX_WINDOW,
  ourMss,
  rebuildSyn,
  sendResetTo,
  sendSyn,
  tapSideAt,
  WINDOW_SHIFT,
} from "./frame.ts";
import type { TcpState } from "./state.ts";
import { base, Do, Ev, W } from "./words.ts";

const WATCH = EPOLL.IN | EPOLL.PRI | EPOLL.OUT | EPOLL.RDHUP | EPOLL.ET;
const DEFAULT_MSS4 = 536; // RFC 9293 §3.7.1
const DEFAULT_MSS6 = 1220; // likewise
const MIN_MSS = 64; // below, a guest could make us send a packet per handful of bytes
const INITIAL_RTO_MS = 1000; // RFC 6298 §2.1
const MAX_IP_PACKET = 65535;

/** Said when a connection is refused for lack of descriptors. */
export const OUT_OF_DESCRIPTORS =
  "Out of file descriptors: new connections are refused until old ones end";

/** Warns, at most once a second, that a connection could not be made for lack of something. */
function warn(tcp: TcpState, what: string): void {
  if (tcp.warnings.allow(tcp.ctx.nowMs)) getLogger().warn(what);
}

/** Puts the words of a new flow into their initial state. */
function initWords(tcp: TcpState, i: number, fd: number): void {
  const { data, ctx } = tcp;
  const d = base(i);
  const iss = tcp.isn.next(tcp.sides, tapSideAt(tcp, i), ctx.nowMs);
  data[d + W.FD] = fd;
  data[d + W.SEQ_UNACKED] = iss;
  data[d + W.SEQ_TO_TAP] = data[d + W.SEQ_MAX] = data[d + W.SEQ_RECOVER] = iss + 1;
  data[d + W.OVERFLOW_HEAD] = data[d + W.OVERFLOW_TAIL] = -1;
  data[d + W.RTO] = INITIAL_RTO_MS;
  data[d + W.RTT_AT] = -1;
  data[d + W.ACTIVE_AT] = data[d + W.PROGRESS_AT] = ctx.nowMs;
}

/** Takes the guest's MSS and window scale from its SYN or SYN-ACK. */
export function takeOptions(tcp: TcpState, i: number, l4: number): void {
  const { data, view } = tcp;
  const d = base(i);
  const headers = headerBytes(tcp, i) - 14;
  const v4 = isV4(tcp.sides, tapSideAt(tcp, i) + SIDE_EADDR);
  const offered = tcpMssOption(view, l4) || (v4 ? DEFAULT_MSS4 : DEFAULT_MSS6);
  const mss = Math.max(MIN_MSS, Math.min(offered, ourMss(tcp, i)));
  const shift = tcpWindowScaleOption(view, l4);
  data[d + W.MSS] = mss;
  data[d + W.MAX_PAYLOAD] = tcp.ctx.link.tso
    ? Math.max(1, Math.floor((MAX_IP_PACKET - headers) / mss)) * mss
    : mss;
  data[d + W.WND_SHIFT] = shift < 0 ? 0 : shift;
  data[d + W.OUR_SHIFT] = shift < 0 ? 0 : WINDOW_SHIFT;
  data[d + W.WND_FROM_TAP] = tcpWindow(view, l4); // never scaled in a SYN
  data[d + W.SEQ_FROM_TAP] = data[d + W.WND_EDGE] = tcpSeq(view, l4) + 1 | 0;
}

/**
 * Watches the socket of flow `i` and finds the flow by its side on the tap from now on.
 *
 * @returns false when the socket cannot be watched: the flow is reset then
 */
function startFlow(tcp: TcpState, i: number, fd: number, side: number): boolean {
  const { ctx } = tcp;
  setOption(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  setOption(fd, SOL_SOCKET, SO_KEEPALIVE, 1); // a peer that is gone is noticed, as the guest's kernel would
  setOption(fd, SOL_SOCKET, SO_OOBINLINE, 1); // else the kernel would leave a byte out
  ctx.table.activate(i);
  ctx.table.hashInsert(i, side);
  const result = ctx.epoll.add(fd, WATCH, EventType.TCP, i);
  if (result >= 0) return true;
  warn(tcp, `Connection refused: epoll: ${errnoName(-result)}`);
  resetFlow(tcp, i);
  return false;
}

/**
 * Whether a connection can come from and go to these addresses (RFC 9293 §3.9.2.3). Loopback addresses
 * have no business on a link (RFC 1122 §3.2.1.3): the host's is reached by mapped addresses only.
 *
 * @param words source and destination, as in `Packet.addresses`
 */
export function connectable(words: Int32Array): boolean {
  return !isMulticast(words, DEST) && !isBroadcast(words, DEST) && !isUnspecified(words, DEST) &&
    !isMulticast(words, SOURCE) && !isBroadcast(words, SOURCE) && !isUnspecified(words, SOURCE) &&
    !isLoopback(words, SOURCE) && !isLoopback(words, DEST);
}

/**
 * A SYN from the guest that belongs to no flow, between {@linkcode connectable} addresses: starts
 * connecting.
 *
 * @param payload offset of the segment's payload, which is ignored (no TCP Fast Open)
 */
export function connectFromTap(tcp: TcpState, packet: Packet, payload: number): void {
  const { ctx, ini, tgt, view } = tcp;
  ini.pif = Pif.TAP;
  ini.setEndpoint(packet.addresses, SOURCE, tcpSourcePort(view, packet.l4));
  ini.setOur(packet.addresses, DEST, tcpDestPort(view, packet.l4));
  if (ini.oport === 0 || !natFromTap(ctx, IPPROTO_TCP, ini, tgt)) {
    return sendResetTo(tcp, packet, payload);
  }
  const verdict = admit(ctx, IPPROTO_TCP, ini, tgt);
  if (verdict !== Verdict.ALLOW) return deny(tcp, packet, payload, verdict);
  const fd = outboundSocket(ctx, tgt.words, SIDE_EADDR, SOCK_STREAM, IPPROTO_TCP);
  if (fd < 0) {
    const limit = fd === -E.EMFILE || fd === -E.ENFILE;
    warn(tcp, limit ? OUT_OF_DESCRIPTORS : `Connection refused: no socket: ${errnoName(-fd)}`);
    return sendResetTo(tcp, packet, payload);
  }
  const result = connectSocket(
    fd,
    tgt.words,
    SIDE_EADDR,
    tgt.eport,
    scopeOf(ctx, tgt.words, SIDE_EADDR),
  );
  if (result < 0 && result !== -E.EINPROGRESS) {
    libc.close(fd);
    return refusePacket(tcp, packet, payload, -result);
  }
  const i = ctx.table.alloc();
  if (i < 0) {
    libc.close(fd);
    warn(tcp, `Connection refused: all ${ctx.table.capacity} flows are in use`);
    return sendResetTo(tcp, packet, payload);
  }
  ctx.table.initiate(i, ini);
  ctx.table.target(i, tgt);
  ctx.table.setType(i, FlowType.TCP, INI);
  initWords(tcp, i, fd);
  takeOptions(tcp, i, packet.l4);
  tcp.data[base(i) + W.EVENTS] = Ev.TAP_SYN_RCVD;
  admitted(ctx, i, ini);
  startFlow(tcp, i, fd, INI);
}

/** Does with a guest's SYN what the policy says. */
function deny(tcp: TcpState, packet: Packet, payload: number, verdict: number): void {
  if (verdict === Verdict.REJECT) sendResetTo(tcp, packet, payload);
  else denyPacket(tcp.ctx, packet, verdict);
}

/** Tells the guest why its connection cannot be made: ICMP for unreachable destinations, else RST. */
function refusePacket(tcp: TcpState, packet: Packet, payload: number, error: number): void {
  if (error === E.ECONNREFUSED || !sendUnreachable(tcp.ctx, packet, error)) {
    sendResetTo(tcp, packet, payload);
  }
}

/** connect(2) of flow `i` has ended: SYN-ACK, or RST, or ICMP. */
export function finishConnect(tcp: TcpState, i: number): void {
  const { data } = tcp;
  const d = base(i);
  const error = socketError(data[d + W.FD]);
  if (error !== 0) return refuseFlow(tcp, i, error);
  prepareTransfer(tcp, i);
  data[d + W.EVENTS] |= Ev.TAP_SYN_ACK_SENT;
  sendSyn(tcp, i, TCP_SYN | TCP_ACK, data[d + W.OUR_SHIFT] > 0);
  data[d + W.PROGRESS_AT] = tcp.ctx.nowMs;
  tcp.time(i);
}

/** Tells the guest that the connection of flow `i` could not be made, and ends the flow. */
function refuseFlow(tcp: TcpState, i: number, error: number): void {
  if (error !== E.EHOSTUNREACH && error !== E.ENETUNREACH) return resetFlow(tcp, i);
  if (sendUnreachable(tcp.ctx, rebuildSyn(tcp, i), error)) closeFlow(tcp, i);
  else resetFlow(tcp, i);
}

/**
 * Prepares the connected socket: looks how much it takes, and lets the kernel keep the peek offset
 * where it can (SO_PEEK_OFF, Linux 6.9 for TCP).
 */
function prepareTransfer(tcp: TcpState, i: number): void {
  const d = base(i);
  tcp.data[d + W.SEND_SPACE] = sendSpace(tcp.data[d + W.FD], MAX_WINDOW);
  if (setOption(tcp.data[d + W.FD], SOL_SOCKET, SO_PEEK_OFF, 0) === 0) {
    tcp.data[d + W.DO] |= Do.PEEK_OFF;
  }
}

/**
 * Takes over a connection accepted from a listener and sends SYN to the guest. Both sides are those in
 * `tcp.ini` and `tcp.tgt`.
 *
 * @param fd the accepted socket, owned by the flow from now on
 */
export function connectToGuest(tcp: TcpState, fd: number): void {
  const { ctx, ini, tgt } = tcp;
  // the guest would take a second connection with the same ports for the first
  if (ctx.table.lookup(IPPROTO_TCP, tgt) >= 0) return closeWithReset(fd);
  const i = ctx.table.alloc();
  if (i < 0) {
    warn(tcp, `Connection refused: all ${ctx.table.capacity} flows are in use`);
    return closeWithReset(fd);
  }
  ctx.table.initiate(i, ini);
  ctx.table.target(i, tgt);
  ctx.table.setType(i, FlowType.TCP, INI);
  initWords(tcp, i, fd);
  const d = base(i);
  tcp.data[d + W.EVENTS] = Ev.SOCK_ACCEPTED;
  tcp.data[d + W.MSS] = ourMss(tcp, i);
  if (!startFlow(tcp, i, fd, TGT)) return;
  prepareTransfer(tcp, i);
  sendSyn(tcp, i, TCP_SYN, true);
  tcp.time(i);
}
