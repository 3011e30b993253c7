// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Datagrams as frames to the guest.
 *
 * Theory of operation: the payload was received into a transmit slot behind room for the headers, which
 * are written in front of it. What the kernel coalesced (UDP_GRO) goes out as one super-frame where
 * the link takes those, else one datagram at a time. The checksum is left to the link. Datagrams
 * larger than the MTU go out as they are, as one frame: Linux guests accept them.
 *
 * @module
 */
import { countBytes } from "../flow/count.ts";
import { SIDE_EADDR, SIDE_OADDR, SIDE_PORTS, SIDE_WORDS } from "../flow/side.ts";
import { ETH_HEADER_SIZE, GSO, SLOT_FRAME_SIZE } from "../link/link.ts";
import type { MessageVector } from "../sys/message_vector.ts";
import { IPPROTO_UDP } from "../sys/socket.ts";
import { isV4 } from "../wire/address.ts";
import { pseudoSum } from "../wire/checksum.ts";
import { ETH_P_IP, ETH_P_IPV6, writeEthernet } from "../wire/ethernet.ts";
import { IPV4_HEADER_SIZE, writeIpv4 } from "../wire/ipv4.ts";
import { IPV6_HEADER_SIZE, writeIpv6 } from "../wire/ipv6.ts";
import { UDP_CHECKSUM, UDP_HEADER_SIZE, writeUdpHeader } from "../wire/udp.ts";
import { learnNames } from "./names.ts";
import { segmentSize, wholeBytes } from "./received.ts";
import { base, Flag, sideOnTap, tapSide, touch, type UdpState, W } from "./state.ts";

const TTL = 64; // RFC 1700, default TTL

/** Bytes of all headers before the payload, per IP version. */
export const HEADERS4 = ETH_HEADER_SIZE + IPV4_HEADER_SIZE + UDP_HEADER_SIZE;
export const HEADERS6 = ETH_HEADER_SIZE + IPV6_HEADER_SIZE + UDP_HEADER_SIZE;

/** Points receiving messages to where the payload belongs behind `headers` bytes of headers. */
export function aim(state: UdpState, messages: MessageVector, headers: number): void {
  const { link } = state.ctx;
  for (let k = 0; k < messages.count; k++) {
    const payload = link.txOffset[k] + headers;
    messages.setData(k, link.arena.address(payload), SLOT_FRAME_SIZE - headers);
  }
}

/** Forwards received message `k`, which lies in transmit slot `slot` behind flow `i`'s headers. */
export function forward(
  state: UdpState,
  i: number,
  messages: MessageVector,
  k: number,
  slot: number,
): void {
  let segment = segmentSize(messages, k);
  const bytes = wholeBytes(messages, k, segment);
  if (bytes < 0) return;
  if (segment >= bytes) segment = 0;
  if (state.data[base(i) + W.FLAGS] & Flag.NAMES) {
    const headers = isV4(state.sides, tapSide(state, i) + SIDE_EADDR) ? HEADERS4 : HEADERS6;
    learnNames(state, i, state.ctx.link.txOffset[slot] + headers, bytes, segment);
  }
  if (segment > 0 && !state.ctx.link.uso) sendParts(state, i, slot, bytes, segment);
  else sendFrame(state, i, slot, bytes, segment);
  touch(state, i, Flag.TO_GUEST);
}

/** Sends coalesced datagrams one by one, moving each to the place of the first. */
function sendParts(state: UdpState, i: number, slot: number, bytes: number, segment: number): void {
  const { link } = state.ctx;
  const headers = isV4(state.sides, tapSide(state, i) + SIDE_EADDR) ? HEADERS4 : HEADERS6;
  const payload = link.txOffset[slot] + headers;
  for (let done = 0; done < bytes; done += segment) {
    const part = Math.min(segment, bytes - done);
    if (done > 0) link.arena.u8.copyWithin(payload, payload + done, payload + done + part);
    sendFrame(state, i, slot, part, 0);
  }
}

/** Writes flow `i`'s headers before the payload in `slot`, sends and counts. */
function sendFrame(
  state: UdpState,
  i: number,
  slot: number,
  bytes: number,
  segment: number,
): void {
  const { ctx, sides } = state, { link } = ctx;
  const side = sideOnTap(state, i), tap = (2 * i + side) * SIDE_WORDS;
  const view = link.arena.dv, frame = link.txOffset[slot], l3 = frame + ETH_HEADER_SIZE;
  const guest = tap + SIDE_EADDR, our = tap + SIDE_OADDR;
  const length = UDP_HEADER_SIZE + bytes;
  const v4 = isV4(sides, guest);
  const ip = v4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  writeEthernet(view, frame, ctx.guestMac, ctx.ourMac, v4 ? ETH_P_IP : ETH_P_IPV6);
  if (v4) {
    writeIpv4(view, l3, ip + length, IPPROTO_UDP, TTL, 0, true, sides, our, sides, guest);
  } else {
    writeIpv6(view, l3, length, IPPROTO_UDP, TTL, 0, sides, our, sides, guest);
  }
  const ports = sides[tap + SIDE_PORTS];
  const partial = pseudoSum(sides, our, sides, guest, IPPROTO_UDP, length);
  writeUdpHeader(view, l3 + ip, ports & 0xffff, ports >>> 16, length, partial);
  const l4 = ETH_HEADER_SIZE + ip, headers = l4 + UDP_HEADER_SIZE;
  const gso = segment > 0 ? GSO.UDP_L4 : GSO.NONE;
  const result = link.send(slot, headers + bytes, headers, l4, UDP_CHECKSUM, gso, segment);
  if (result >= 0) countBytes(state.counters, i, 1 - side, bytes);
}
