// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Checks the invariants of a flow table. Tests call it through {@linkcode FlowTable.verify}; the
 * running table pays nothing for it.
 *
 * @module
 */
import { inUse } from "./generations.ts";
import { type FlowViews, HEADER_USED } from "./layout.ts";
import { FLOW_STATE_NAMES, FlowError, FlowState, FlowType } from "./types.ts";

/** What a table tells of itself beside its buffer. */
export interface FlowCounts {
  /** Head of the first free cluster, or the capacity. */
  readonly firstFree: number;
  /** Entries in state ACTIVE. */
  readonly activeCount: number;
  /** Sides in the index. */
  readonly hashCount: number;
}

/**
 * Throws FlowError for the first invariant that does not hold. Takes time linear in the capacity.
 *
 * @param nascent index of the nascent entry, or negative
 */
export function verifyFlowTable(views: FlowViews, counts: FlowCounts, nascent: number): void {
  const { states, types, free, hashed, generations } = views, capacity = states.length;
  const used = views.header[HEADER_USED];
  let expectedHead = counts.firstFree, clusterEnd = 0, active = 0, indexed = 0;
  const check = (i: number, holds: boolean, message: string) => {
    if (!holds) throw new FlowError(i, FLOW_STATE_NAMES[states[i]] ?? "?", `broken: ${message}`);
  };
  for (let i = 0; i < capacity; i++) {
    const n = free[2 * i], next = free[2 * i + 1];
    indexed += (hashed[i] & 1) + (hashed[i] >> 1);
    if (states[i] === FlowState.FREE && i >= clusterEnd) {
      check(i, i === expectedHead, `chain of free clusters expects ${expectedHead}`);
      check(i, n >= 1 && i + n <= capacity, `cluster of ${n}`);
      check(i, next >= i + n && next <= capacity, `next cluster is ${next}, n is ${n}`);
      clusterEnd = i + n;
      expectedHead = next;
    } else {
      check(i, n === 0 && next === 0, `n is ${n}, next is ${next}`);
    }
    check(i, i >= clusterEnd || states[i] === FlowState.FREE, "lies in a free cluster");
    if (states[i] === FlowState.ACTIVE) active++;
    else check(i, states[i] === FlowState.FREE || i === nascent, "is forgotten");
    check(i, states[i] >= FlowState.TYPED === (types[i] !== FlowType.NONE), `type is ${types[i]}`);
    check(i, hashed[i] === 0 || types[i] !== FlowType.NONE, "is in the index");
    const shown = inUse(generations[i]) && i < used;
    check(i, shown === (states[i] === FlowState.ACTIVE), `generation is ${generations[i]}`);
  }
  const checkTable = (holds: boolean, message: string) => {
    if (!holds) throw new FlowError(-1, "", `broken: ${message}`);
  };
  checkTable(expectedHead === capacity, `chain of free clusters ends with ${expectedHead}`);
  checkTable(active === counts.activeCount, `${active} active, counted ${counts.activeCount}`);
  checkTable(indexed === counts.hashCount, `${indexed} in the index, counted ${counts.hashCount}`);
  checkTable(nascent < 0 || nascent < counts.firstFree, "a free entry lies before the nascent one");
}
