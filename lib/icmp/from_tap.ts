// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Echo requests from the guest to the host's network.
 *
 * Theory of operation: a request goes out from where it was received, with the guest's TTL. A ping
 * socket puts in its own identifier and checksum. For a raw socket we put in the identifier allotted to
 * the flow; the checksum, found right before, is adapted (RFC 1624).
 *
 * @module
 */
import { getLogger } from "@std/log";
import type { Context } from "../context.ts";
import { countBytes } from "../flow/count.ts";
import { INI, SIDE_EADDR, SIDE_WORDS, TGT } from "../flow/side.ts";
import { IP_TTL, IPV6_HOPLIMIT } from "../sys/ip_options.ts";
import { errno, libc } from "../sys/libc.ts";
import { cmsgSpace, writeCmsg } from "../sys/message_vector.ts";
import { packetInfoSpace, writePacketInfo } from "../sys/packet_info.ts";
import {
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  writeSockaddr,
} from "../sys/socket.ts";
import { scopeOf } from "../forward/outbound.ts";
import { ANY4, ANY6, isLoopback } from "../wire/address.ts";
import { checkIcmpEcho, echoId, ICMP_ECHO_ID, ICMP_HEADER_SIZE } from "../wire/icmp.ts";
import { checkIcmpv6Echo } from "../wire/icmpv6.ts";
import type { Packet } from "../wire/packet.ts";
import { sendUnreachable } from "./error.ts";
import { pingFlow } from "./flow.ts";
import { drainErrors } from "./errors.ts";
import { replaceWord } from "./rewrite.ts";
import { base, type PingFamily, PingMode, type PingState, pingState, touch, W } from "./state.ts";

const TTL_SPACE = cmsgSpace(4);
const SEND_FLAGS = MSG_DONTWAIT | MSG_NOSIGNAL;

/**
 * Takes an ICMP or ICMPv6 message from the guest. Echo requests are forwarded, all else is dropped.
 *
 * @param packet parsed packet in the link's arena; identifier and checksum may be changed in place
 */
export function pingFromTap(ctx: Context, packet: Packet): void {
  const view = ctx.link.arena.dv;
  const v4 = packet.version === 4;
  if (packet.proto !== (v4 ? IPPROTO_ICMP : IPPROTO_ICMPV6) || packet.ttl === 0) return;
  if ((v4 ? checkIcmpEcho(view, packet) : checkIcmpv6Echo(view, packet)) < 0) return;
  const state = pingState(ctx), family = v4 ? state.v4 : state.v6;
  if (family.mode === PingMode.NONE) return tell(state);
  const flow = pingFlow(state, family, packet, echoId(view, packet.l4));
  if (flow < 0) return;
  touch(state, flow);
  send(state, family, flow, packet);
}

/** Says once why there are no replies. */
function tell(state: PingState): void {
  if (state.told) return;
  state.told = true;
  getLogger().warn(
    "Echo requests are not forwarded: net.ipv4.ping_group_range does not include our group, " +
      "and raw sockets need CAP_NET_RAW",
  );
}

function send(state: PingState, family: PingFamily, flow: number, packet: Packet): void {
  const { ctx, tx, arena } = state, at = base(flow), v4 = family.version === 4;
  const own = state.data[at + W.FD], fd = own >= 0 ? own : family.raw;
  const { l4, end } = packet, view = ctx.link.arena.dv;
  if (own < 0) replaceWord(view, l4, ICMP_ECHO_ID, state.data[at + W.ID]);
  tx.reset(0);
  tx.setData(0, ctx.link.arena.address(l4), end - l4);
  const level = v4 ? IPPROTO_IP : IPPROTO_IPV6;
  const control = tx.control(0);
  const ttl = writeCmsg(arena, control, level, v4 ? IP_TTL : IPV6_HOPLIMIT, 4);
  arena.dv.setInt32(ttl, packet.ttl, true);
  const source = own >= 0 ? 0 : writeSource(state, family, flow, control + TTL_SPACE);
  tx.setControl(0, arena.address(control), TTL_SPACE + source);
  tx.setName(0, arena.address(tx.name(0)), own >= 0 ? 0 : writeTarget(state, flow));
  let sent = libc.sendmsg(fd, tx.views[0], SEND_FLAGS);
  const error = sent < 0 ? errno() : 0;
  if (sent < 0 && own >= 0) { // perhaps the error of an earlier request
    drainErrors(state, flow, own);
    sent = libc.sendmsg(fd, tx.views[0], SEND_FLAGS);
  }
  if (sent < 0) return void sendUnreachable(ctx, packet, error);
  countBytes(state.counters, flow, INI, end - l4 - ICMP_HEADER_SIZE);
}

/** Writes the target's address for the raw socket. @returns bytes */
function writeTarget(state: PingState, flow: number): number {
  const { sides, arena, tx } = state, at = (2 * flow + TGT) * SIDE_WORDS + SIDE_EADDR;
  return writeSockaddr(arena.dv, tx.name(0), sides, at, 0, scopeOf(state.ctx, sides, at));
}

/**
 * Writes source address and interface for the raw socket, as `-o` and `--outbound-if4/6` say; it
 * cannot be bound to them, for it also serves mapped loopback addresses.
 *
 * @param at where the control message goes
 * @returns its bytes, 0 for none
 */
function writeSource(state: PingState, family: PingFamily, flow: number, at: number): number {
  const { ctx, sides, arena } = state, target = (2 * flow + TGT) * SIDE_WORDS + SIDE_EADDR;
  const v4 = family.version === 4, config = v4 ? ctx.ip4 : ctx.ip6;
  const from = config?.outboundAddr ?? null;
  if (isLoopback(sides, target) || (from === null && family.ifindex === 0)) return 0;
  const words = from ?? (v4 ? ANY4 : ANY6);
  writePacketInfo(arena, at, words, 0, family.ifindex);
  return packetInfoSpace(words, 0);
}
