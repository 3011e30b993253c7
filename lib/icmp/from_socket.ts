// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Echo replies from the host's network to the guest.
 *
 * Theory of operation: messages are received behind the place of their headers in a transmit slot. A
 * ping socket yields replies to its own identifier only. The raw socket of a family sees every echo
 * reply and error the host gets; what belongs to a flow is found by the identifier allotted to it, and
 * must come from, or be about, the address that flow pings. The guest's identifier is put back, the TTL
 * is kept, and the checksum computed anew.
 *
 * @module
 */
import { type Context, EventType } from "../context.ts";
import { countBytes } from "../flow/count.ts";
import { INI, SIDE_EADDR, SIDE_OADDR, SIDE_PORTS, SIDE_WORDS, TGT } from "../flow/side.ts";
import { Phase } from "../flow/snapshot.ts";
import { ETH_HEADER_SIZE, GSO } from "../link/link.ts";
import { EPOLL } from "../sys/epoll.ts";
import { IP_TTL, IPV6_HOPLIMIT } from "../sys/ip_options.ts";
import { libc } from "../sys/libc.ts";
import {
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  MSG_DONTWAIT,
  MSG_TRUNC,
  readSockaddr,
} from "../sys/socket.ts";
import { isV4, loadV4, loadV6, sameAddress } from "../wire/address.ts";
import { checksumValid } from "../wire/checksum.ts";
import { ETH_P_IP, ETH_P_IPV6, writeEthernet } from "../wire/ethernet.ts";
import {
  echoId,
  finishIcmp,
  ICMP_ECHO_ID,
  ICMP_ECHO_REPLY,
  ICMP_ECHO_REQUEST,
  ICMP_ERROR_WORD,
  ICMP_HEADER_SIZE,
  icmpCode,
  icmpType,
} from "../wire/icmp.ts";
import { finishIcmpv6, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST } from "../wire/icmpv6.ts";
import {
  IPV4_DEST,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER_SIZE,
  IPV4_PROTOCOL,
  IPV4_SOURCE,
  IPV4_TTL,
  ipv4HeaderSize,
  writeIpv4,
} from "../wire/ipv4.ts";
import { IPV6_DEST, IPV6_HEADER_SIZE, IPV6_NEXT_HEADER, writeIpv6 } from "../wire/ipv6.ts";
import { secondWord } from "./error.ts";
import { drainErrors, relayError } from "./errors.ts";
import { isOpen } from "./flow.ts";
import {
  base,
  type PingFamily,
  PingMode,
  type PingState,
  pingState,
  RX_MESSAGES,
  touch,
  W,
} from "./state.ts";

const USUAL_TTL = 64; // RFC 1700, default TTL
/** Receiving calls per event. */
const RX_ROUNDS = 4;

/**
 * An event on a ping flow's socket (`type` is EventType.PING, `data` the flow), or on a raw socket
 * (EventType.PING_RAW, 4 or 6). Harmless when the flow has ended.
 */
export function pingEvent(ctx: Context, type: number, data: number, events: number): void {
  const state = pingState(ctx);
  if (type === EventType.PING_RAW) {
    const family = data === 4 ? state.v4 : state.v6;
    if (family.mode === PingMode.RAW) receiveRaw(state, family);
    return;
  }
  if (!isOpen(state, data)) return;
  const fd = state.data[base(data) + W.FD];
  if (fd < 0) return;
  if (events & EPOLL.ERR) drainErrors(state, data, fd);
  if (events & EPOLL.IN) receiveFlow(state, data, fd);
}

/** Headers before an ICMP message towards the guest. */
function headersOf(v4: boolean): number {
  return ETH_HEADER_SIZE + (v4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE);
}

/** Takes replies from a flow's ping socket. */
function receiveFlow(state: PingState, flow: number, fd: number): void {
  const { rx, ctx } = state;
  const v4 = isV4(state.sides, (2 * flow + INI) * SIDE_WORDS + SIDE_EADDR);
  state.aim(headersOf(v4));
  for (let round = 0; round < RX_ROUNDS; round++) {
    const n = libc.recvmmsg(fd, rx.views[0], RX_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      const bytes = rx.transferred(k);
      const l4 = ctx.link.txOffset[k] + state.rxHeader;
      if (isReply(state, k, l4, bytes, v4)) sendReply(state, flow, k, bytes, ttlOf(state, k, v4));
      rx.reset(k);
    }
    if (n < RX_MESSAGES) return; // also after an error, which epoll reports again
  }
}

/** Whether message `k`, whose ICMP header is at `l4`, is a whole echo reply. */
function isReply(state: PingState, k: number, l4: number, bytes: number, v4: boolean): boolean {
  const view = state.ctx.link.arena.dv;
  return bytes >= ICMP_HEADER_SIZE && (state.rx.flags(k) & MSG_TRUNC) === 0 &&
    icmpType(view, l4) === (v4 ? ICMP_ECHO_REPLY : ICMPV6_ECHO_REPLY) && icmpCode(view, l4) === 0;
}

/** TTL that message `k` came with, as far as the kernel tells. */
function ttlOf(state: PingState, k: number, v4: boolean): number {
  const { rx, arena } = state;
  const level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  const at = rx.findControl(k, level, v4 ? IP_TTL : IPV6_HOPLIMIT, 4);
  return at < 0 ? USUAL_TTL : arena.u32[at >> 2] & 0xff;
}

/** Sends the echo reply of `bytes` bytes in `slot`, behind its headers' place, to the guest. */
function sendReply(state: PingState, flow: number, slot: number, bytes: number, ttl: number): void {
  const { ctx, sides } = state, { link } = ctx, view = link.arena.dv;
  const tap = (2 * flow + INI) * SIDE_WORDS, guest = tap + SIDE_EADDR, our = tap + SIDE_OADDR;
  const v4 = isV4(sides, guest), headers = headersOf(v4);
  const frame = link.txOffset[slot], l3 = frame + ETH_HEADER_SIZE, l4 = frame + headers;
  view.setUint16(l4 + ICMP_ECHO_ID, sides[tap + SIDE_PORTS] >>> 16);
  writeEthernet(view, frame, ctx.guestMac, ctx.ourMac, v4 ? ETH_P_IP : ETH_P_IPV6);
  if (v4) {
    const total = IPV4_HEADER_SIZE + bytes;
    writeIpv4(view, l3, total, IPPROTO_ICMP, ttl, 0, true, sides, our, sides, guest);
    finishIcmp(view, l4, bytes);
  } else {
    writeIpv6(view, l3, bytes, IPPROTO_ICMPV6, ttl, 0, sides, our, sides, guest);
    finishIcmpv6(view, l4, bytes, sides, our, sides, guest);
  }
  touch(state, flow);
  state.phases[flow] = Phase.OPEN;
  if (link.send(slot, headers + bytes, 0, 0, 0, GSO.NONE, 0) < 0) return;
  countBytes(state.counters, flow, TGT, bytes - ICMP_HEADER_SIZE);
}

/** Takes what the raw socket of a family has. IPv4 comes with its header, IPv6 without. */
function receiveRaw(state: PingState, family: PingFamily): void {
  const { rx } = state, v4 = family.version === 4;
  state.aim(v4 ? ETH_HEADER_SIZE : headersOf(false));
  for (let round = 0; round < RX_ROUNDS; round++) {
    const n = libc.recvmmsg(family.raw, rx.views[0], RX_MESSAGES, MSG_DONTWAIT, null);
    for (let k = 0; k < n; k++) {
      if ((rx.flags(k) & MSG_TRUNC) === 0) {
        if (v4) takeRaw4(state, family, k, rx.transferred(k));
        else takeRaw6(state, family, k, rx.transferred(k));
      }
      rx.reset(k);
    }
    if (n < RX_MESSAGES) return;
  }
}

/** The flow that `id` was allotted to and that pings `address`, or -1. */
function rawFlow(state: PingState, family: PingFamily, id: number, address: Int32Array): number {
  const flow = family.ids[id] - 1;
  if (flow < 0) return -1;
  const at = (2 * flow + TGT) * SIDE_WORDS + SIDE_EADDR;
  return sameAddress(address, 0, state.sides, at) ? flow : -1;
}

/** An IPv4 packet with an ICMP message, `bytes` long, from the raw socket. */
function takeRaw4(state: PingState, family: PingFamily, slot: number, bytes: number): void {
  const { link } = state.ctx, view = link.arena.dv;
  const l3 = link.txOffset[slot] + ETH_HEADER_SIZE;
  if (bytes < IPV4_HEADER_SIZE) return;
  const header = ipv4HeaderSize(view, l3), length = bytes - header, l4 = l3 + header;
  if (header < IPV4_HEADER_SIZE || length < ICMP_HEADER_SIZE) return;
  if (!checksumValid(view, l4, length, 0)) return; // raw sockets get broken ones too
  loadV4(view, l3 + IPV4_SOURCE, state.address, 0);
  if (icmpType(view, l4) !== ICMP_ECHO_REPLY) return takeError4(state, family, l4, length);
  const flow = rawFlow(state, family, echoId(view, l4), state.address);
  if (flow < 0 || icmpCode(view, l4) !== 0) return;
  const ttl = view.getUint8(l3 + IPV4_TTL);
  if (header > IPV4_HEADER_SIZE) link.arena.u8.copyWithin(l3 + IPV4_HEADER_SIZE, l4, l4 + length);
  sendReply(state, flow, slot, length, ttl);
}

/** An ICMP error at `l4`: relays it when the packet it quotes is a request of ours. */
function takeError4(state: PingState, family: PingFamily, l4: number, length: number): void {
  const { link } = state.ctx, view = link.arena.dv, end = l4 + length;
  const quoted = l4 + ICMP_HEADER_SIZE;
  if (quoted + IPV4_HEADER_SIZE > end) return;
  const request = quoted + ipv4HeaderSize(view, quoted);
  if (request < quoted + IPV4_HEADER_SIZE || request + ICMP_HEADER_SIZE > end) return;
  if (view.getUint8(quoted + IPV4_PROTOCOL) !== IPPROTO_ICMP) return;
  if (view.getUint16(quoted + IPV4_FRAGMENT) & IPV4_FRAGMENT_OFFSET) return;
  if (icmpType(view, request) !== ICMP_ECHO_REQUEST) return;
  loadV4(view, quoted + IPV4_DEST, state.quoted, 0);
  const flow = rawFlow(state, family, echoId(view, request), state.quoted);
  if (flow < 0) return;
  const type = icmpType(view, l4), code = icmpCode(view, l4);
  const word = secondWord(true, type, code, view.getUint32(l4 + ICMP_ERROR_WORD));
  relayError(state, flow, type, code, word, link.arena.u8, request, end - request);
}

/** An ICMPv6 message, `bytes` long, from the raw socket, which has verified its checksum. */
function takeRaw6(state: PingState, family: PingFamily, slot: number, bytes: number): void {
  const { link } = state.ctx, view = link.arena.dv, { arena, rx } = state;
  const l4 = link.txOffset[slot] + headersOf(false);
  if (bytes < ICMP_HEADER_SIZE) return;
  if (readSockaddr(arena.dv, rx.name(slot), state.address, 0) < 0) return;
  if (icmpType(view, l4) !== ICMPV6_ECHO_REPLY) return takeError6(state, family, l4, bytes);
  const flow = rawFlow(state, family, echoId(view, l4), state.address);
  if (flow < 0 || icmpCode(view, l4) !== 0) return;
  sendReply(state, flow, slot, bytes, ttlOf(state, slot, false));
}

/** An ICMPv6 error at `l4`: relays it when the packet it quotes is a request of ours. */
function takeError6(state: PingState, family: PingFamily, l4: number, length: number): void {
  const { link } = state.ctx, view = link.arena.dv, end = l4 + length;
  const quoted = l4 + ICMP_HEADER_SIZE, request = quoted + IPV6_HEADER_SIZE;
  if (request + ICMP_HEADER_SIZE > end) return;
  if (view.getUint8(quoted + IPV6_NEXT_HEADER) !== IPPROTO_ICMPV6) return;
  if (icmpType(view, request) !== ICMPV6_ECHO_REQUEST) return;
  loadV6(view, quoted + IPV6_DEST, state.quoted, 0);
  const flow = rawFlow(state, family, echoId(view, request), state.quoted);
  if (flow < 0) return;
  const type = icmpType(view, l4), code = icmpCode(view, l4);
  const word = secondWord(false, type, code, view.getUint32(l4 + ICMP_ERROR_WORD));
  relayError(state, flow, type, code, word, link.arena.u8, request, end - request);
}
