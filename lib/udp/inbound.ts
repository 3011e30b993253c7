// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How UDP flows begin that come by a listener.
 *
 * Theory of operation: the listener may be one of the host, for the guest, or one of the guest's
 * namespace, for the host. Address mapping (`nat.ts`) says where the flow goes: through the tap, or
 * spliced (`splice_flow.ts`). Its initiating side is in the index. It uses the listener's socket: the
 * answer leaves from the address and port that the peer addressed, which is told with each datagram
 * (IP_PKTINFO), and no other program can share the port. On the tap the target side must be unique
 * too, and is in the index, or the guest could not tell two peers apart.
 *
 * @module
 */
import { INI, Pif, SIDE_EADDR, TGT } from "../flow/side.ts";
import { natFromHost, natFromSplice } from "../forward/nat.ts";
import { admit, Verdict } from "../forward/policy.ts";
import { E } from "../sys/errno.ts";
import { IPPROTO_UDP } from "../sys/socket.ts";
import { isLoopback } from "../wire/address.ts";
import { newFlow, start, unicast } from "./flow.ts";
import { unreachable } from "./splice_errors.ts";
import { mayStartSpliced, startSpliced } from "./splice_flow.ts";
import { base, type UdpState, W } from "./state.ts";

/**
 * The flow of a datagram that listener `index` has received and whose addresses are in
 * {@linkcode UdpState.hostKey}; a new one if there is none.
 *
 * @param scope interface index of a link-local peer, else 0
 * @returns index, or -1 when the datagram is to be dropped
 */
export function flowFromListener(state: UdpState, index: number, scope: number): number {
  const { ctx, hostKey, tgt } = state;
  const found = ctx.table.lookup(IPPROTO_UDP, hostKey);
  if (found >= 0) return ownedBy(state, found >> 1, index);
  const { pif, to, target, retired } = state.listeners[index], words = hostKey.words;
  if (!unicast(words)) return -1;
  if (retired) { // as if its socket were closed
    if (isLoopback(words, SIDE_EADDR)) unreachable(state, words, 0, E.ECONNREFUSED);
    return -1;
  }
  const mapped = pif === Pif.SPLICE
    ? natFromSplice(ctx, hostKey, tgt, to, target)
    : natFromHost(ctx, hostKey, tgt, to, target);
  if (!mapped || tgt.pif !== Pif.TAP && !mayStartSpliced(state)) return -1;
  const verdict = pif === Pif.SPLICE ? admit(ctx, IPPROTO_UDP, hostKey, tgt) : Verdict.ALLOW;
  if (verdict !== Verdict.ALLOW) {
    // a held one is lost: the decision waits for its repetition
    if (verdict !== Verdict.DROP && verdict !== Verdict.HOLD) {
      unreachable(state, words, 0, E.EACCES);
    }
    return -1;
  }
  if (tgt.pif !== Pif.TAP) return startSpliced(state, index);
  return startToTap(state, index, scope);
}

function startToTap(state: UdpState, index: number, scope: number): number {
  const { ctx, hostKey, tgt } = state;
  if (ctx.table.lookup(IPPROTO_UDP, tgt) >= 0) return -1;
  const i = newFlow(state, hostKey);
  if (i < 0) return -1;
  ctx.table.hashInsert(i, INI);
  ctx.table.hashInsert(i, TGT);
  const at = base(i);
  state.data[at + W.FD] = -1;
  state.data[at + W.LISTENER] = index + 1;
  state.data[at + W.SCOPE] = scope;
  state.listeners[index].flows++;
  start(state, i, hostKey);
  return i;
}

/** `i` when it uses listener `index`, else -1. */
export function ownedBy(state: UdpState, i: number, index: number): number {
  return state.data[base(i) + W.LISTENER] === index + 1 ? i : -1;
}
