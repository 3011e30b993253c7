// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP frames to the guest: headers, checksum requests, and the window we announce.
 *
 * @module
 */
import {
  INI,
  Pif,
  SIDE_EADDR,
  SIDE_OADDR,
  SIDE_PIF,
  SIDE_PORTS,
  SIDE_WORDS,
  TGT,
} from "../flow/side.ts";
import { ETH_HEADER_SIZE, GSO, TX_CONTROL } from "../link/link.ts";
import { isV4 } from "../wire/address.ts";
import { pseudoSum } from "../wire/checksum.ts";
import { ETH_P_IP, ETH_P_IPV6, writeEthernet } from "../wire/ethernet.ts";
import { IPPROTO_TCP, IPV4_HEADER_SIZE, writeIpv4 } from "../wire/ipv4.ts";
import { IPV6_HEADER_SIZE, writeIpv6 } from "../wire/ipv6.ts";
import { DEST, type Packet, parseIp, SOURCE } from "../wire/packet.ts";
import {
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FIN,
  TCP_HEADER_SIZE,
  TCP_OPTION_MSS_SIZE,
  TCP_OPTION_WINDOW_SCALE_PADDED,
  TCP_RST,
  TCP_SYN,
  tcpAck,
  tcpDestPort,
  tcpFlags,
  tcpSeq,
  tcpSourcePort,
  writeTcpHeader,
  writeTcpMss,
  writeTcpWindowScale,
} from "../wire/tcp.ts";
import type { TcpState } from "./state.ts";
import { base, Do, W } from "./words.ts";

/** The largest window announced, in bytes. */
export const MAX_WINDOW = 1 << 20;
/** What is announced also when socket and pool are full, but for what waits already. */
const MIN_WINDOW = 1 << 16;
/** Our window shift (RFC 7323 §2.3) where the guest scales too. */
export const WINDOW_SHIFT = 8;
/** Largest value of the window field. */
const MAX_WINDOW_FIELD = 0xffff;
/** Free blocks below which a flow that overflows gets no window at all. */
const OVERFLOW_RESERVE = 32;

const HOP_LIMIT = 64; // RFC 1700
/** Frames with less payload are copied whole by the guest's kernel, which is faster (measured). */
const MIN_SPLIT_PAYLOAD = 256;

/** The side of flow `i` that is on the tap: INI when the guest started it, else TGT. */
export function tapSide(tcp: TcpState, i: number): number {
  return tcp.sides[i * 2 * SIDE_WORDS + SIDE_PIF] === Pif.TAP ? INI : TGT;
}

/** First word of the side of flow `i` that is on the tap. */
export function tapSideAt(tcp: TcpState, i: number): number {
  return (i * 2 + tapSide(tcp, i)) * SIDE_WORDS;
}

/** Bytes of Ethernet, IP and TCP headers of flow `i`'s data frames. */
export function headerBytes(tcp: TcpState, i: number): number {
  const ip = isV4(tcp.sides, tapSideAt(tcp, i) + SIDE_EADDR) ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  return ETH_HEADER_SIZE + ip + TCP_HEADER_SIZE;
}

/** Largest MSS the guest may be told: what fits its MTU (RFC 9293 §3.7.1). */
export function ourMss(tcp: TcpState, i: number): number {
  return tcp.ctx.mtu - (headerBytes(tcp, i) - ETH_HEADER_SIZE);
}

/**
 * The window to announce for flow `i`, in bytes: what the socket has room for, or the flow's share of
 * the overflow pool where that is more, less what waits there already; see `overflow.ts`.
 */
export function windowOf(tcp: TcpState, i: number): number {
  const held = tcp.data[base(i) + W.OVERFLOW_BYTES];
  if (tcp.data[base(i) + W.DO] & Do.FULL) return 0;
  if (held > 0 && tcp.overflow.freeCount < OVERFLOW_RESERVE) return 0;
  const d = base(i);
  const room = Math.max(tcp.data[d + W.SEND_SPACE], tcp.overflow.share, MIN_WINDOW);
  const space = Math.min(room, MAX_WINDOW);
  // what was announced is not taken back (RFC 9293 §3.8.6.2.2)
  const announced = tcp.data[d + W.WND_EDGE] - tcp.data[d + W.SEQ_FROM_TAP] | 0;
  return Math.max(0, space - held, announced);
}

/** Writes Ethernet and IP headers at `off`. @returns offset of the TCP header */
function writeNetwork(
  tcp: TcpState,
  off: number,
  words: Int32Array,
  src: number,
  dst: number,
  tcpBytes: number,
): number {
  const { view, ctx } = tcp;
  const ip = off + ETH_HEADER_SIZE;
  if (isV4(words, dst)) {
    writeEthernet(view, off, ctx.guestMac, ctx.ourMac, ETH_P_IP);
    const total = IPV4_HEADER_SIZE + tcpBytes;
    writeIpv4(view, ip, total, IPPROTO_TCP, HOP_LIMIT, 0, true, words, src, words, dst);
    return ip + IPV4_HEADER_SIZE;
  }
  writeEthernet(view, off, ctx.guestMac, ctx.ourMac, ETH_P_IPV6);
  writeIpv6(view, ip, tcpBytes, IPPROTO_TCP, HOP_LIMIT, 0, words, src, words, dst);
  return ip + IPV6_HEADER_SIZE;
}

/**
 * Sends a segment of flow `i`. Its payload, if any, lies in the slot already, at
 * {@linkcode headerBytes}; acknowledgement and window are the current ones.
 *
 * @param flags TCP flags
 * @param options bytes of options, already at the end of the header (SYN only)
 * @returns 0 or a negative errno: the frame was dropped
 */
export function sendSegment(
  tcp: TcpState,
  i: number,
  slot: number,
  flags: number,
  seq: number,
  payload: number,
  options = 0,
): number {
  const { data, sides, view } = tcp;
  const d = base(i), side = tapSideAt(tcp, i);
  const off = tcp.ctx.link.txOffset[slot];
  const tcpBytes = TCP_HEADER_SIZE + options + payload;
  const l4 = writeNetwork(tcp, off, sides, side + SIDE_OADDR, side + SIDE_EADDR, tcpBytes);
  const ports = sides[side + SIDE_PORTS];
  const shift = flags & TCP_SYN ? 0 : data[d + W.OUR_SHIFT];
  const window = windowOf(tcp, i);
  const field = Math.min(window >> shift, MAX_WINDOW_FIELD);
  const ack = flags & TCP_ACK ? data[d + W.SEQ_FROM_TAP] : 0;
  const header = TCP_HEADER_SIZE + options;
  writeTcpHeader(view, l4, ports & 0xffff, ports >>> 16, seq, ack, flags, field, header);
  data[d + W.WND_TO_TAP] = field << shift;
  // the field is rounded down: what was announced before still counts
  const edge = data[d + W.SEQ_FROM_TAP] + (field << shift) | 0;
  if ((edge - data[d + W.WND_EDGE] | 0) > 0) data[d + W.WND_EDGE] = edge;
  data[d + W.DO] &= ~Do.ACK;
  const sum = pseudoSum(sides, side + SIDE_OADDR, sides, side + SIDE_EADDR, IPPROTO_TCP, tcpBytes);
  view.setUint16(l4 + TCP_CHECKSUM, sum);
  const headers = l4 - off + header;
  const gso = payload > data[d + W.MSS];
  return tcp.ctx.link.send(
    slot,
    headers + payload,
    payload > MIN_SPLIT_PAYLOAD ? headers : 0,
    l4 - off,
    TCP_CHECKSUM,
    gso ? (isV4(sides, side + SIDE_EADDR) ? GSO.TCPV4 : GSO.TCPV6) : GSO.NONE,
    gso ? data[d + W.MSS] : 0,
  );
}

/**
 * Acknowledges what was received, and announces the window. Its sequence number is the highest sent
 * (SND.NXT): one that we went back to may lie before the guest's window, and the guest would drop it.
 */
export function sendAck(tcp: TcpState, i: number): void {
  sendSegment(tcp, i, TX_CONTROL, TCP_ACK, tcp.data[base(i) + W.SEQ_MAX], 0);
}

/** Sends SYN, or SYN-ACK, with our MSS and window scale. */
export function sendSyn(tcp: TcpState, i: number, flags: number, scale: boolean): void {
  const { view, data } = tcp;
  const at = tcp.ctx.link.txOffset[TX_CONTROL] + headerBytes(tcp, i);
  writeTcpMss(view, at, Math.min(ourMss(tcp, i), MAX_WINDOW_FIELD));
  let options = TCP_OPTION_MSS_SIZE;
  if (scale) {
    writeTcpWindowScale(view, at + options, WINDOW_SHIFT);
    options += TCP_OPTION_WINDOW_SCALE_PADDED;
  }
  sendSegment(tcp, i, TX_CONTROL, flags, data[base(i) + W.SEQ_UNACKED], 0, options);
}

/** Answers a segment that belongs to no flow with RST (RFC 9293 §3.10.7.1). */
export function sendResetTo(tcp: TcpState, packet: Packet, payload: number): void {
  const { view } = tcp;
  const flags = tcpFlags(view, packet.l4);
  if (flags & TCP_RST) return;
  const off = tcp.ctx.link.txOffset[TX_CONTROL];
  const words = packet.addresses;
  const l4 = writeNetwork(tcp, off, words, DEST, SOURCE, TCP_HEADER_SIZE);
  const hasAck = (flags & TCP_ACK) !== 0;
  const length = packet.end - payload + (flags & TCP_SYN ? 1 : 0) + (flags & TCP_FIN ? 1 : 0);
  writeTcpHeader(
    view,
    l4,
    tcpDestPort(view, packet.l4),
    tcpSourcePort(view, packet.l4),
    hasAck ? tcpAck(view, packet.l4) : 0,
    hasAck ? 0 : tcpSeq(view, packet.l4) + length | 0,
    hasAck ? TCP_RST : TCP_RST | TCP_ACK,
    0,
    TCP_HEADER_SIZE,
  );
  view.setUint16(
    l4 + TCP_CHECKSUM,
    pseudoSum(words, DEST, words, SOURCE, IPPROTO_TCP, TCP_HEADER_SIZE),
  );
  const start = l4 - off;
  const frame = start + TCP_HEADER_SIZE;
  tcp.ctx.link.send(TX_CONTROL, frame, 0, start, TCP_CHECKSUM, GSO.NONE, 0);
}

/**
 * The SYN that the guest sent for flow `i`, built again from the flow so that ICMP can quote it.
 *
 * @returns the packet, in a transmit slot, valid until the next frame is built there
 */
export function rebuildSyn(tcp: TcpState, i: number): Packet {
  const { view, sides, data } = tcp;
  const side = tapSideAt(tcp, i);
  const off = tcp.ctx.link.txOffset[0];
  const ports = sides[side + SIDE_PORTS];
  const l4 = writeNetwork(tcp, off, sides, side + SIDE_EADDR, side + SIDE_OADDR, TCP_HEADER_SIZE);
  const seq = data[base(i) + W.SEQ_FROM_TAP] - 1;
  writeTcpHeader(view, l4, ports >>> 16, ports & 0xffff, seq, 0, TCP_SYN, 0, TCP_HEADER_SIZE);
  parseIp(view, off, l4 + TCP_HEADER_SIZE - off, tcp.packet);
  return tcp.packet;
}
