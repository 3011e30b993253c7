// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a receiving call has brought: one datagram, or several of one size (UDP_GRO, udp(7)).
 *
 * @module
 */
import { UDP_GRO } from "../sys/ip_options.ts";
import type { MessageVector } from "../sys/message_vector.ts";
import { IPPROTO_UDP, MSG_TRUNC } from "../sys/socket.ts";

/** Size of the datagrams that received message `k` is made of; 0: it is a single one. */
export function segmentSize(messages: MessageVector, k: number): number {
  const gro = messages.findControl(k, IPPROTO_UDP, UDP_GRO, 4);
  return gro < 0 ? 0 : messages.arena.u32[gro >> 2];
}

/**
 * Bytes of whole datagrams in received message `k`: of one that was larger than its memory the last ones
 * are lost.
 *
 * @param segment as {@linkcode segmentSize} has it
 * @returns -1 when the only datagram was cut
 */
export function wholeBytes(messages: MessageVector, k: number, segment: number): number {
  const bytes = messages.transferred(k);
  if ((messages.flags(k) & MSG_TRUNC) === 0) return bytes;
  return segment === 0 ? -1 : bytes - bytes % segment;
}
