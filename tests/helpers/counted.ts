// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the flow table says of a flow's bytes and phase.
 *
 * @module
 */
import { FLOW_PHASES, type FlowPhase } from "../../lib/flow/snapshot.ts";
import { BYTES_INI, BYTES_TGT, COUNTERS, type FlowTable } from "../../lib/flow/table.ts";

/** Payload bytes that came from the initiating side of flow `i`, and from the target. */
export function counted({ counters }: FlowTable, i = 0): [number, number] {
  return [counters[i * COUNTERS + BYTES_INI], counters[i * COUNTERS + BYTES_TGT]];
}

/** Name of flow `i`'s phase. */
export function phase({ phases }: FlowTable, i = 0): FlowPhase {
  return FLOW_PHASES[phases[i]];
}
