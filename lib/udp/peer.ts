// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Who sent a datagram to a listener, and which of our addresses it was for.
 *
 * @module
 */
import { SIDE_EADDR, SIDE_OADDR, SIDE_PIF, SIDE_PORTS } from "../flow/side.ts";
import type { MessageVector } from "../sys/message_vector.ts";
import { readPacketInfo } from "../sys/packet_info.ts";
import { AF_INET6, readSockaddr } from "../sys/socket.ts";
import { isLinkLocal, isV4 } from "../wire/address.ts";
import type { UdpState } from "./state.ts";

const SOCKADDR_IN6_SCOPE = 24; // ipv6(7): struct sockaddr_in6, sin6_scope_id

/**
 * Reads the addresses of message `k`, or of an error about one sent, into
 * {@linkcode UdpState.hostKey}.
 *
 * @returns false when the kernel did not tell both
 */
export function readAddresses(
  state: UdpState,
  messages: MessageVector,
  k: number,
  listener: number,
): boolean {
  const words = state.hostKey.words, { pif, port: our } = state.listeners[listener];
  const port = readSockaddr(messages.arena.dv, messages.name(k), words, SIDE_EADDR);
  if (port < 0) return false;
  words[SIDE_PORTS] = port << 16 | our;
  words[SIDE_PIF] = pif;
  return readPacketInfo(messages, k, words, SIDE_OADDR) &&
    isV4(words, SIDE_OADDR) === isV4(words, SIDE_EADDR);
}

/** Interface index of a link-local sender of message `k`, else 0. */
export function peerScope(state: UdpState, messages: MessageVector, k: number): number {
  const { hostKey } = state, { arena } = messages, name = messages.name(k);
  if (arena.dv.getUint16(name, true) !== AF_INET6) return 0;
  if (isV4(hostKey.words, SIDE_EADDR) || !isLinkLocal(hostKey.words, SIDE_EADDR)) return 0;
  return arena.dv.getUint32(name + SOCKADDR_IN6_SCOPE, true);
}
