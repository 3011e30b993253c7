// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a flow table knows of each flow type: name, IP protocol, and the work to do in scans.
 *
 * @module
 */
import { MAX_TYPES } from "./layout.ts";
import { FLOW_PROTO, FLOW_TYPE_NAMES, FlowError, FlowType } from "./types.ts";

const MAX_PROTO = 255; // RFC 791 §3.1: one byte

/** Work of a flow type. Either function returns true to say that the flow is closed and to be freed. */
export interface FlowHandlers {
  /** Called for each active flow in every scan. */
  deferred?: (index: number) => boolean;
  /** Called at most once per timer interval, unless `deferred` closed the flow. */
  timer?: (index: number, nowMs: number) => boolean;
}

/** The types of one table; arrays are indexed by type. */
export class TypeRegistry {
  /** Names as in log lines. */
  readonly names: string[] = [...FLOW_TYPE_NAMES];
  /** IP protocol numbers. */
  readonly protos: number[] = [...FLOW_PROTO];
  /** Work of every scan. */
  readonly deferred: (((index: number) => boolean) | null)[] = FLOW_PROTO.map(() => null);
  /** Work of scans in which timers are due. */
  readonly timers: (((index: number, nowMs: number) => boolean) | null)[] = FLOW_PROTO.map(() =>
    null
  );

  /** Whether a flow can be of this type. */
  has(type: number): boolean {
    return type !== FlowType.NONE && this.protos[type] !== undefined;
  }

  /** Adds a type and returns its number; see {@linkcode FlowTable.defineType}. */
  define(name: string, proto: number): number {
    if (!Number.isInteger(proto) || proto < 0 || proto > MAX_PROTO) {
      throw new FlowError(-1, "", `define type "${name}": protocol ${proto} is not 0–${MAX_PROTO}`);
    }
    if (this.protos.length === MAX_TYPES) {
      throw new FlowError(-1, "", `define type "${name}": there are ${MAX_TYPES} already`);
    }
    this.deferred.push(null);
    this.timers.push(null);
    this.names.push(name);
    return this.protos.push(proto) - 1;
  }

  /** Replaces a type's work; see {@linkcode FlowTable.on}. */
  on(type: number, handlers: FlowHandlers): void {
    if (!this.has(type)) throw new FlowError(-1, "", `handlers: unknown type ${type}`);
    this.deferred[type] = handlers.deferred ?? null;
    this.timers[type] = handlers.timer ?? null;
  }

  /** Does the work of flow `index` in a scan. Returns whether the flow is closed. */
  work(type: number, index: number, timersDue: boolean, nowMs: number): boolean {
    const deferred = this.deferred[type];
    if (deferred !== null && deferred(index)) return true;
    if (!timersDue) return false;
    const timer = this.timers[type];
    return timer !== null && timer(index, nowMs);
  }
}
