// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The entries of a flow table: what its types, and those who count and label flows, read and write.
 *
 * Which entries there are, and how they come and go, is `table.ts`'s business.
 *
 * @module
 */
import { flowTableBytes, flowTableCapacity, type FlowViews } from "./layout.ts";
import { copySide, FlowSide, INI, SIDE_WORDS, TGT } from "./side.ts";
import { FlowLabels } from "./texts.ts";
import { FLOW_STATE_NAMES, FlowError } from "./types.ts";

/** What a {@linkcode FlowTable} is, beside the life of its flows. */
export class FlowEntries {
  /** Number of entries. */
  readonly capacity: number;
  /** Words of side `s` of flow `i` start at `(i * 2 + s) * SIDE_WORDS`. */
  readonly sides: Int32Array;
  /** Type-specific words of flow `i` start at `i * DATA_WORDS`; zero when allocated. */
  readonly data: Int32Array;
  /**
   * Counter `c` of flow `i` is at `i * COUNTERS + c`: payload bytes from either side ({@linkcode BYTES_INI},
   * {@linkcode BYTES_TGT}), for its type to count, and when it began ({@linkcode STARTED}).
   */
  readonly counters: Float64Array;
  /** A {@linkcode Phase} of each flow, for its type to set; OPENING when allocated. */
  readonly phases: Uint8Array;
  /** Number of each flow's label; 0: none. Read only: {@linkcode setLabel} sets it. */
  readonly labels: Uint16Array;

  readonly #states: Uint8Array;
  readonly #types: Uint8Array;
  readonly #labels: FlowLabels;

  /** Bytes of the buffer for `capacity` entries. Throws RangeError for an impossible capacity. */
  static byteLength(capacity: number): number {
    return flowTableBytes(capacity);
  }

  /** Largest capacity of a table in so many bytes; 0 when they are too few for any. */
  static capacityOf(bytes: number): number {
    return flowTableCapacity(bytes);
  }

  /**
   * Takes the entries of a buffer.
   *
   * @param views of that buffer
   */
  constructor(views: FlowViews) {
    this.capacity = views.states.length;
    this.sides = views.sides;
    this.data = views.data;
    this.counters = views.counters;
    this.phases = views.phases;
    this.labels = views.labels;
    this.#states = views.states;
    this.#types = views.types;
    this.#labels = new FlowLabels(views.texts);
  }

  /** State of an entry, a {@linkcode FlowState}. */
  stateOf(i: number): number {
    this.checkIndex(i);
    return this.#states[i];
  }

  /** Type of an entry, a {@linkcode FlowType} or one of {@linkcode defineType}; NONE before TYPED. */
  typeOf(i: number): number {
    this.checkIndex(i);
    return this.#types[i];
  }

  /**
   * The number of a label, which is defined when it is new. Of a longer text than 63 bytes of UTF-8 as many
   * whole characters as fit are kept.
   *
   * @returns 1–1023; 0 (no label) for an empty text, or when there is no room for another label
   */
  labelId(text: string): number {
    return this.#labels.idOf(text);
  }

  /** Labels entry `i`, from its allocation on; `id` is one of {@linkcode labelId}, 0 takes it away. */
  setLabel(i: number, id: number): void {
    Atomics.store(this.labels, i, id);
  }

  /** Copy of side `s` ({@linkcode INI} or {@linkcode TGT}) of flow `i`. Allocates. */
  side(i: number, s: number): FlowSide {
    const side = new FlowSide();
    this.loadSide(i, s, side);
    return side;
  }

  /** Copies side `s` of flow `i` into an existing {@linkcode FlowSide}. */
  loadSide(i: number, s: number, into: FlowSide): void {
    this.checkSide(i, s);
    copySide(into.words, 0, this.sides, (2 * i + s) * SIDE_WORDS);
  }

  /** Throws FlowError when there is no entry `i`. */
  protected checkIndex(i: number): void {
    if (this.#states[i] === undefined) throw this.error(i, `no such entry of ${this.capacity}`);
  }

  /** Throws FlowError when there is no entry `i`, or no side `s`. */
  protected checkSide(i: number, s: number): void {
    this.checkIndex(i);
    if (s !== INI && s !== TGT) throw this.error(i, `no such side: ${s}`);
  }

  /** The error of something tried with entry `i`. */
  protected error(i: number, tried: string): FlowError {
    return new FlowError(i, FLOW_STATE_NAMES[this.#states[i]] ?? "no such entry", tried);
  }
}
