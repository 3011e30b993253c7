// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * States, types, options and errors: the words the flow table and its users share.
 *
 * @module
 */

/**
 * States of a table entry, in the order an entry passes through them. INI and TGT are skipped by
 * types that record no sides.
 */
export const FlowState = {
  /** not in use; part of a free cluster */
  FREE: 0,
  /** allocated, nothing known yet */
  NEW: 1,
  /** the initiating side is recorded */
  INI: 2,
  /** both sides are recorded */
  TGT: 3,
  /** the type is set; its own words may be filled in */
  TYPED: 4,
  /** in operation; only the deferred scan ends it */
  ACTIVE: 5,
} as const;

/** Types every table knows; {@linkcode FlowTable.defineType} adds more. */
export const FlowType = {
  /** no type: the entry is not TYPED yet */
  NONE: 0,
  /** TCP connection through the tap */
  TCP: 1,
  /** TCP connection moved socket to socket */
  TCP_SPLICE: 2,
  /** ICMP echo requests with one identifier */
  PING4: 3,
  /** ICMPv6 echo requests with one identifier */
  PING6: 4,
  /** UDP datagrams between two pairs of address and port */
  UDP: 5,
} as const;

/** Names of {@linkcode FlowState}, by number. */
export const FLOW_STATE_NAMES: readonly string[] = ["FREE", "NEW", "INI", "TGT", "TYPED", "ACTIVE"];

/** Names of {@linkcode FlowType}, by number. */
export const FLOW_TYPE_NAMES: readonly string[] = [
  "<none>",
  "TCP connection",
  "TCP connection (spliced)",
  "ICMP ping sequence",
  "ICMPv6 ping sequence",
  "UDP flow",
];

const IPPROTO_ICMP = 1; // linux/in.h
const IPPROTO_TCP = 6; // linux/in.h
const IPPROTO_UDP = 17; // linux/in.h
const IPPROTO_ICMPV6 = 58; // linux/in6.h

/** IP protocol number of each {@linkcode FlowType}; 0 for NONE. */
export const FLOW_PROTO: readonly number[] = [
  0,
  IPPROTO_TCP,
  IPPROTO_TCP,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_UDP,
];

/** What a table is made from. */
export interface FlowTableOptions {
  /** Number of entries: 1–{@linkcode MAX_CAPACITY}. */
  capacity?: number;
  /** Zero-filled memory of at least {@linkcode FlowTable.byteLength} bytes; may be shared. */
  buffer?: ArrayBufferLike;
  /** Told of each change of state, such as "NEW -> TYPED"; see {@linkcode FlowTable.logLine}. */
  log?: (index: number, message: string) => void;
  /** Milliseconds, to tell when a flow began; 0 for all of them when not given. */
  clock?: () => number;
  /** Key of the index (four words) instead of a random one: for tests. */
  hashKey?: Int32Array<ArrayBuffer>;
}

/**
 * Who is told of flows that begin and end. Neither function may allocate, cancel or scan.
 *
 * @example
 * ```ts
 * import { FlowTable } from "./table.ts";
 * import { FlowType } from "./types.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const table = new FlowTable({ capacity: 10 }), seen: string[] = [];
 * table.on(FlowType.PING4, { deferred: () => true });
 * table.observer = {
 *   opened: (i) => seen.push(`+${i}`),
 *   closed: (i) => seen.push(`-${i}`),
 * };
 * const flow = table.alloc();
 * table.setType(flow, FlowType.PING4);
 * table.activate(flow);
 * table.deferHandler(0);
 * assertEquals(seen, ["+0", "-0"]);
 * ```
 */
export interface FlowObserver {
  /** Flow `i` is ACTIVE now; sides, type and label are known. */
  opened(i: number): void;
  /** ACTIVE flow `i` is about to be freed; all of it is still there. When this throws, it stays. */
  closed(i: number): void;
}

/** A step that the table's rules forbid, or a broken invariant: always a bug of the caller. */
export class FlowError extends Error {
  /** Name of the class. */
  override readonly name = "FlowError";
  /** Entry concerned; -1 when it is the table as a whole. */
  readonly index: number;
  /** Name of the entry's state at that time; empty for the table as a whole. */
  readonly state: string;
  /** What was tried and why it cannot be. */
  readonly tried: string;

  /** Makes the error `Flow INDEX (STATE): TRIED`. */
  constructor(index: number, state: string, tried: string) {
    super(index < 0 ? `Flow table: ${tried}` : `Flow ${index} (${state}): ${tried}`);
    this.index = index;
    this.state = state;
    this.tried = tried;
  }
}
