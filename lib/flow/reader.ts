// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Reads a flow table that somebody else keeps changing: another thread, or another process that shares
 * the memory.
 *
 * Theory of operation: an entry is copied between two looks at its generation (`generations.ts`). When they
 * differ, another flow may have come to its place meanwhile, and the copy is made again; after some
 * attempts the entry is left out. Nothing that is read is trusted: a number that no table has written
 * becomes a text that says so, never an error. Only entries that were ever in use are looked at, so that
 * the memory of others stays untouched.
 *
 * @module
 */
import { formatAddress } from "../wire/address.ts";
import { inUse, useNumber } from "./generations.ts";
import {
  BYTES_INI,
  BYTES_TGT,
  COUNTERS,
  flowTableCapacity,
  type FlowViews,
  flowViews,
  HEADER_CAPACITY,
  HEADER_MAGIC,
  HEADER_USED,
  HEADER_VERSION,
  LAYOUT_VERSION,
  MAGIC,
  STARTED,
} from "./layout.ts";
import {
  INI,
  PIF_NAMES,
  SIDE_EADDR,
  SIDE_OADDR,
  SIDE_PIF,
  SIDE_PORTS,
  SIDE_WORDS,
  TGT,
} from "./side.ts";
import { FLOW_PHASES, type FlowSnapshot, Phase, type SideSnapshot } from "./snapshot.ts";
import { labelSlot, readText, typeSlot } from "./texts.ts";
import { FLOW_PROTO, FLOW_TYPE_NAMES } from "./types.ts";

const ATTEMPTS = 8; // more would mean that the entry never stays for a microsecond
const HEADER_WORDS = 4;
const PAIR_WORDS = 2 * SIDE_WORDS; // both sides

/** The capacity that a table's header says. @throws Error when it is not one that we can read */
function readCapacity(buffer: ArrayBufferLike): number {
  const most = flowTableCapacity(buffer.byteLength);
  const header = most > 0 ? new Int32Array(buffer, 0, HEADER_WORDS) : null;
  if (header === null || Atomics.load(header, HEADER_MAGIC) !== MAGIC) {
    throw new Error(`Buffer of ${buffer.byteLength} bytes: no flow table`);
  }
  const version = Atomics.load(header, HEADER_VERSION);
  if (version !== LAYOUT_VERSION) {
    throw new Error(`Flow table of layout version ${version}: ${LAYOUT_VERSION} is needed`);
  }
  const capacity = Atomics.load(header, HEADER_CAPACITY);
  if (capacity < 1 || capacity > most) {
    throw new Error(`Flow table of ${capacity} entries: ${buffer.byteLength} bytes hold ${most}`);
  }
  return capacity;
}

/**
 * Reads flows from the buffer of a {@linkcode FlowTable}. Allocates.
 *
 * @example
 * ```ts
 * import { FlowReader } from "./reader.ts";
 * import { FlowTable } from "./table.ts";
 * import { FlowType } from "./types.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const buffer = new SharedArrayBuffer(FlowTable.byteLength(100));
 * const table = new FlowTable({ capacity: 100, buffer, clock: () => 5000 });
 * const flow = table.alloc();
 * table.setType(flow, FlowType.PING4);
 * table.setLabel(flow, table.labelId("probe"));
 * table.activate(flow);
 *
 * const reader = new FlowReader(buffer); // in another thread
 * const [{ type, state, label, ageMs }] = reader.flows(6000);
 * assertEquals([type, state, label, ageMs], ["ICMP ping sequence", "opening", "probe", 1000]);
 * ```
 */
export class FlowReader {
  /** Number of entries. */
  readonly capacity: number;
  readonly #views: FlowViews;
  readonly #counterBits: BigInt64Array;
  // the copy
  readonly #sides: Int32Array<ArrayBuffer> = new Int32Array(PAIR_WORDS);
  readonly #counters: Float64Array<ArrayBuffer> = new Float64Array(COUNTERS);
  readonly #copiedBits: BigInt64Array<ArrayBuffer> = new BigInt64Array(this.#counters.buffer);
  #generation = 0;
  #type = 0;
  #phase = 0;
  #label = 0;

  /**
   * Makes a reader. The memory is never written to and may be mapped read-only.
   *
   * @throws Error when the buffer holds no table, or one of another layout
   */
  constructor(buffer: ArrayBufferLike) {
    this.capacity = readCapacity(buffer);
    this.#views = flowViews(buffer, this.capacity);
    const { byteOffset, length } = this.#views.counters;
    this.#counterBits = new BigInt64Array(buffer, byteOffset, length);
  }

  /**
   * The flows in operation, in the order of their places. Those that begin or end meanwhile may be left
   * out.
   *
   * @param nowMs time on the table's clock, for their age
   */
  *flows(nowMs: number): IterableIterator<FlowSnapshot> {
    const end = this.#used();
    for (let i = 0; i < end; i++) {
      const flow = this.snapshot(i, nowMs);
      if (flow !== null) yield flow;
    }
  }

  /** One flow; null when there is none in place `i`, or no two looks at it agreed. */
  snapshot(i: number, nowMs: number): FlowSnapshot | null {
    if (!Number.isInteger(i) || i < 0 || i >= this.#used() || !this.#copy(i)) return null;
    const counters = this.#counters, type = this.#type;
    return {
      index: i,
      generation: useNumber(this.#generation),
      type: FLOW_TYPE_NAMES[type] ?? this.#text(typeSlot(type)) ?? `type ${type}`,
      protocol: FLOW_PROTO[type] ?? 0,
      state: FLOW_PHASES[Math.min(this.#phase, Phase.CLOSED)],
      initiator: this.#side(INI),
      target: this.#side(TGT),
      bytesFromInitiator: counters[BYTES_INI],
      bytesFromTarget: counters[BYTES_TGT],
      ageMs: Math.max(0, nowMs - counters[STARTED]),
      label: this.#label === 0 ? null : this.#text(labelSlot(this.#label)),
    };
  }

  #text(slot: number): string | null {
    return readText(this.#views.texts, slot);
  }

  /** Entries that were ever in use. */
  #used(): number {
    return Math.min(Atomics.load(this.#views.header, HEADER_USED), this.capacity);
  }

  /** Copies a flow. Returns whether there was one and it stayed the same. */
  #copy(i: number): boolean {
    const { generations } = this.#views;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const generation = Atomics.load(generations, i);
      if (!inUse(generation)) return false;
      this.#copyOnce(i);
      if (Atomics.load(generations, i) === generation) {
        this.#generation = generation;
        return true;
      }
    }
    return false;
  }

  /** Every access is atomic: that keeps them in order, and doubles whole. */
  #copyOnce(i: number): void {
    const { sides, types, phases, labels } = this.#views;
    for (let k = 0; k < PAIR_WORDS; k++) {
      this.#sides[k] = Atomics.load(sides, i * PAIR_WORDS + k);
    }
    for (let k = 0; k < COUNTERS; k++) {
      this.#copiedBits[k] = Atomics.load(this.#counterBits, i * COUNTERS + k);
    }
    this.#type = Atomics.load(types, i);
    this.#phase = Atomics.load(phases, i);
    this.#label = Atomics.load(labels, i);
  }

  #side(s: number): SideSnapshot {
    const words = this.#sides, at = s * SIDE_WORDS;
    const pif = words[at + SIDE_PIF], ports = words[at + SIDE_PORTS];
    return {
      pif: PIF_NAMES[pif] ?? `${pif}`,
      address: formatAddress(words, at + SIDE_EADDR),
      port: ports >>> 16,
      ourAddress: formatAddress(words, at + SIDE_OADDR),
      ourPort: ports & 0xffff,
    };
  }
}
