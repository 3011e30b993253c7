// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * ICMP errors about echo requests, to the guest.
 *
 * Theory of operation: ping sockets report them in their error queue (IP_RECVERR), where the data
 * begins with the header of the request; a raw socket receives the error messages themselves. Either way
 * the guest's request is rebuilt, with its own addresses and identifier, and quoted in an error from
 * the router as the guest knows it: so `traceroute -I` works.
 *
 * @module
 */
import { INI, SIDE_EADDR, SIDE_OADDR, SIDE_PORTS, SIDE_WORDS, TGT } from "../flow/side.ts";
import { IP_RECVERR, IPV6_RECVERR, ORIGIN_ICMP, ORIGIN_ICMP6 } from "../sys/ip_options.ts";
import { sockExtendedErr } from "../sys/layout.ts";
import { libc } from "../sys/libc.ts";
import {
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  readSockaddr,
  SOCKADDR_IN6_SIZE,
  SOCKADDR_IN_SIZE,
  socketError,
} from "../sys/socket.ts";
import { isV4 } from "../wire/address.ts";
import { ICMP_ECHO_ID, ICMP_HEADER_SIZE } from "../wire/icmp.ts";
import { finishIcmpv6 } from "../wire/icmpv6.ts";
import { IPV4_HEADER_SIZE, writeIpv4 } from "../wire/ipv4.ts";
import { IPV6_HEADER_SIZE, writeIpv6 } from "../wire/ipv6.ts";
import {
  isRelayed,
  nameForGuest,
  quoteOffset,
  quoteRoom,
  secondWord,
  sendQuotedError,
} from "./error.ts";
import { replaceWord } from "./rewrite.ts";
import type { PingState } from "./state.ts";

/** Errors taken from a queue at once. */
const MAX_ERRORS = 16;
const QUOTED_TTL = 1; // what it was worth when it was dropped is not known

/** Empties the error queue of flow `flow`'s ping socket, and clears the pending error. */
export function drainErrors(state: PingState, flow: number, fd: number): void {
  const { error, arena, address } = state;
  const v4 = isV4(state.sides, (2 * flow + INI) * SIDE_WORDS + SIDE_EADDR);
  const level = v4 ? IPPROTO_IP : IPPROTO_IPV6, name = v4 ? IP_RECVERR : IPV6_RECVERR;
  const room = sockExtendedErr.size + (v4 ? SOCKADDR_IN_SIZE : SOCKADDR_IN6_SIZE);
  for (let n = 0; n < MAX_ERRORS; n++) {
    error.reset(0);
    const bytes = libc.recvmsg(fd, error.views[0], MSG_ERRQUEUE | MSG_DONTWAIT);
    if (bytes < 0) break;
    const at = error.findControl(0, level, name, room);
    if (at < 0 || bytes < ICMP_HEADER_SIZE) continue;
    if (arena.u8[at + sockExtendedErr.at.ee_origin] !== (v4 ? ORIGIN_ICMP : ORIGIN_ICMP6)) continue;
    const type = arena.u8[at + sockExtendedErr.at.ee_type],
      code = arena.u8[at + sockExtendedErr.at.ee_code];
    const word = secondWord(v4, type, code, arena.u32[(at + sockExtendedErr.at.ee_info) >> 2]);
    address.fill(0);
    readSockaddr(arena.dv, at + sockExtendedErr.size, address, 0);
    relayError(state, flow, type, code, word, arena.u8, state.errorPayload, bytes);
  }
  socketError(fd);
}

/**
 * Sends an error about a request of flow `flow` to the guest. Whom it is from is in
 * {@linkcode PingState.address}, as known on the host.
 *
 * @param from memory that holds the request's ICMP message: `bytes` ≥ 8 bytes at `at`
 */
export function relayError(
  state: PingState,
  flow: number,
  type: number,
  code: number,
  word: number,
  from: Uint8Array,
  at: number,
  bytes: number,
): void {
  const { ctx, sides, address } = state, { link } = ctx;
  const tap = (2 * flow + INI) * SIDE_WORDS, host = (2 * flow + TGT) * SIDE_WORDS;
  const guest = tap + SIDE_EADDR, our = tap + SIDE_OADDR;
  const v4 = isV4(sides, guest), version = v4 ? 4 : 6, view = link.arena.dv;
  if (!isRelayed(v4, type)) return;
  nameForGuest(ctx, address, sides, tap, host);
  const l3 = quoteOffset(ctx, version), ip = v4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  const length = Math.min(bytes, quoteRoom(version) - ip);
  for (let k = 0; k < length; k++) link.arena.u8[l3 + ip + k] = from[at + k];
  const id = sides[tap + SIDE_PORTS] >>> 16;
  if (v4) {
    const total = ip + length;
    replaceWord(view, l3 + ip, ICMP_ECHO_ID, id);
    writeIpv4(view, l3, total, IPPROTO_ICMP, QUOTED_TTL, 0, true, sides, guest, sides, our);
  } else { // the checksum covers addresses that were others on the host's network
    view.setUint16(l3 + ip + ICMP_ECHO_ID, id);
    finishIcmpv6(view, l3 + ip, length, sides, guest, sides, our);
    writeIpv6(view, l3, length, IPPROTO_ICMPV6, QUOTED_TTL, 0, sides, guest, sides, our);
  }
  sendQuotedError(ctx, version, type, code, word, address, 0, sides, guest, ip + length);
}
