// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What becomes of a packet whose flow the policy does not let begin, or not yet.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { hold, Verdict } from "../forward/policy.ts";
import { E } from "../sys/errno.ts";
import type { Packet } from "../wire/packet.ts";
import { sendUnreachable } from "./error.ts";

/**
 * Does with a packet of the guest what the policy says. It tells by ICMP what is refused: for TCP that is not what
 * {@linkcode Verdict}.REJECT means.
 *
 * @param packet in the link's arena, where it was received
 * @param verdict one of {@linkcode Verdict}, not ALLOW
 */
export function deny(ctx: Context, packet: Packet, verdict: number): void {
  if (verdict === Verdict.HOLD) hold(ctx, packet);
  else if (verdict !== Verdict.DROP) sendUnreachable(ctx, packet, E.EACCES);
}
