// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Conversations with resolvers, which the policy learns names from.
 *
 * Theory of operation: a flow that leads to a configured resolver is marked when it begins; what passes on it
 * is shown to the policy (`forward/dns_names.ts`), an answer before the guest has it. No other flow
 * is looked at.
 *
 * A resolver on the host itself is not believed while we listen on port 53 of the host for the guest: when
 * it is down, its clients, and so we, would reach the guest in its place.
 *
 * @module
 */
import { type FlowSide, Pif, SIDE_EADDR } from "../flow/side.ts";
import { DNS_PORT } from "../forward/policy.ts";
import { libc } from "../sys/libc.ts";
import { bindSocket, familyOf, IPPROTO_UDP, newSocket, SOCK_DGRAM } from "../sys/socket.ts";
import { isLinkLocal } from "../wire/address.ts";
import { base, Flag, type UdpState, W } from "./state.ts";

/** Marks flow `i`, from `ini` to `UdpState.tgt`, if the policy learns from it. */
export function markNames(state: UdpState, i: number, ini: FlowSide): void {
  const { ctx: { policy }, tgt } = state;
  if (policy === null || !policy.teaches(IPPROTO_UDP, ini, tgt)) return;
  const here = isHere(tgt.words);
  state.data[base(i) + W.FLAGS] |= here ? Flag.NAMES | Flag.HERE : Flag.NAMES;
}

/** Whether a side's endpoint is an address of the host: then sockets can be bound to it. */
function isHere(words: Int32Array): boolean {
  if (isLinkLocal(words, SIDE_EADDR)) return true; // it cannot be told without an interface
  const fd = newSocket(familyOf(words, SIDE_EADDR), SOCK_DGRAM, IPPROTO_UDP);
  if (fd < 0) return true; // it cannot be told
  const result = bindSocket(fd, words, SIDE_EADDR, 0);
  libc.close(fd);
  return result >= 0;
}

/** Shows a datagram of the guest on marked flow `i` to the policy; it lies at `start` in the link's arena. */
export function noteQuery(state: UdpState, i: number, start: number, bytes: number): void {
  const { link, policy, nowMs } = state.ctx;
  policy?.names?.asked(i, link.arena.dv, start, start + bytes, nowMs);
}

/**
 * Shows what came for the guest on marked flow `i` to the policy.
 *
 * @param start where it lies in the link's arena
 * @param segment bytes per datagram when there are several, else 0
 */
export function learnNames(
  state: UdpState,
  i: number,
  start: number,
  bytes: number,
  segment: number,
): void {
  const { link, policy, nowMs } = state.ctx, names = policy?.names;
  if (state.data[base(i) + W.FLAGS] & Flag.HERE && weServe(state)) return;
  const step = segment > 0 ? segment : bytes;
  for (let done = 0; done < bytes; done += step) {
    const end = start + Math.min(bytes, done + step);
    names?.answered(i, link.arena.dv, start + done, end, nowMs);
  }
}

/** Whether we listen on the resolvers' port of the host. */
function weServe({ listeners }: UdpState): boolean {
  for (let k = 0; k < listeners.length; k++) {
    const { fd, pif, port } = listeners[k];
    if (fd >= 0 && pif === Pif.HOST && port === DNS_PORT) return true;
  }
  return false;
}
