// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How the flow table lies in its buffer: a header, texts, and then one array after the other, each
 * indexed by flow.
 *
 * What has the widest elements comes first, so that every array is aligned whatever the capacity. An
 * observer that shares the buffer needs nothing else: the header says the capacity, and how many
 * entries were ever in use. It reads through {@linkcode FlowReader}, which knows what may change while
 * it reads (`generations.ts`).
 *
 * @module
 */
import { SIDE_WORDS } from "./side.ts";

/** 32-bit words for the use of a flow's type. */
export const DATA_WORDS = 48;
/** Largest capacity: all byte offsets stay below 2³¹. */
export const MAX_CAPACITY = 1 << 22;

/** Counter of a flow: payload bytes that came from the initiating side. */
export const BYTES_INI = 0;
/** Counter of a flow: payload bytes that came from the target side. */
export const BYTES_TGT = 1;
/** Counter of a flow: when it became ACTIVE, in milliseconds of the table's clock. */
export const STARTED = 2;
/** Counters of each flow. */
export const COUNTERS = 3;

/** Word of the header that says what this is: {@linkcode MAGIC}. */
export const HEADER_MAGIC = 0;
/** Word of the header with the {@linkcode LAYOUT_VERSION}. */
export const HEADER_VERSION = 1;
/** Word of the header with the capacity. */
export const HEADER_CAPACITY = 2;
/** Word of the header with the number of entries that were ever ACTIVE: the highest index plus one. */
export const HEADER_USED = 3;
/** Word of the header with the number of the process that has taken shared memory for its table; else 0. */
export const HEADER_OWNER = 4;
/** "tbFL" in memory. */
export const MAGIC = 0x4c466274;
/** To be raised with every change of what is where. */
export const LAYOUT_VERSION = 1;

/** Most labels; their numbers begin at 1. */
export const MAX_LABELS = 1023;
/** Most types: they are stored in bytes. */
export const MAX_TYPES = 256;
/** Longest text, in bytes of UTF-8. */
export const MAX_TEXT_BYTES = 63;
/** Bytes of a text's slot: its length, then the text. */
export const TEXT_SLOT: number = 1 + MAX_TEXT_BYTES;

const HEADER_BYTES = 64; // so that with the labels it takes 64 KiB
const WORD_BYTES = 4;
const DOUBLE_BYTES = 8;
const SIDES = 2; // per flow: INI and TGT
const FLOW_WORDS = SIDES * SIDE_WORDS + DATA_WORDS + 2 + 1; // with cluster and generation
const FLOW_BYTES = COUNTERS * DOUBLE_BYTES + FLOW_WORDS * WORD_BYTES + 2 + 4;
const TEXT_BYTES = (MAX_LABELS + MAX_TYPES) * TEXT_SLOT;
const FIXED_BYTES = HEADER_BYTES + TEXT_BYTES;

/** Views of a table's buffer. */
export interface FlowViews {
  /** `HEADER_…` */
  readonly header: Int32Array;
  /** {@linkcode TEXT_SLOT} bytes for each text: its length, and so many bytes. First labels, then types. */
  readonly texts: Uint8Array;
  /** Counter `c` of flow `i` is at `i * COUNTERS + c`. */
  readonly counters: Float64Array;
  /** Words of side `s` of flow `i` start at `(i * 2 + s) * SIDE_WORDS`. */
  readonly sides: Int32Array;
  /** Type-specific words of flow `i` start at `i * DATA_WORDS`. */
  readonly data: Int32Array;
  /** {@linkcode sides} eight bytes at a time, to clear them. */
  readonly sideDoubles: Float64Array;
  /** {@linkcode data} eight bytes at a time, to clear them. */
  readonly dataDoubles: Float64Array;
  /** `n` and `next` of a free cluster that starts at `i`, at `2 * i` and `2 * i + 1`. */
  readonly free: Int32Array;
  /** Odd while a flow is ACTIVE, see `generations.ts`. */
  readonly generations: Int32Array;
  /** Number of each flow's label; 0: none. */
  readonly labels: Uint16Array;
  /** State of each flow. */
  readonly states: Uint8Array;
  /** Type of each flow. */
  readonly types: Uint8Array;
  /** Per flow: bit `s` is set while side `s` is in the index. */
  readonly hashed: Uint8Array;
  /** A {@linkcode Phase} of each flow. */
  readonly phases: Uint8Array;
}

/** Throws RangeError unless `capacity` can be that of a table. */
function checkCapacity(capacity: number): void {
  if (!Number.isInteger(capacity) || capacity < 1 || capacity > MAX_CAPACITY) {
    throw new RangeError(`Capacity ${capacity}: must be a whole number from 1 to ${MAX_CAPACITY}`);
  }
}

/** Bytes that a table of `capacity` entries needs. Throws RangeError for an impossible capacity. */
export function flowTableBytes(capacity: number): number {
  checkCapacity(capacity);
  return FIXED_BYTES + capacity * FLOW_BYTES;
}

/** The largest capacity for which so many bytes are enough; 0 when they are too few for any. */
export function flowTableCapacity(bytes: number): number {
  const capacity = Math.floor((bytes - FIXED_BYTES) / FLOW_BYTES);
  return Math.max(0, Math.min(capacity, MAX_CAPACITY));
}

/** Makes the views. Throws RangeError when the buffer is too small. */
export function flowViews(buffer: ArrayBufferLike, capacity: number): FlowViews {
  const needed = flowTableBytes(capacity);
  if (buffer.byteLength < needed) {
    throw new RangeError(
      `Buffer of ${buffer.byteLength} bytes: ${capacity} flows need ${needed}`,
    );
  }
  let at = FIXED_BYTES;
  const next = <T extends ArrayBufferView>(
    view: new (buffer: ArrayBufferLike, at: number, length: number) => T,
    perFlow: number,
  ) => {
    const made = new view(buffer, at, capacity * perFlow);
    at += made.byteLength;
    return made;
  };
  const doubles = (view: Int32Array) => {
    return new Float64Array(buffer, view.byteOffset, view.byteLength / DOUBLE_BYTES);
  };
  const counters = next(Float64Array, COUNTERS);
  const sides = next(Int32Array, SIDES * SIDE_WORDS), data = next(Int32Array, DATA_WORDS);
  return {
    header: new Int32Array(buffer, 0, HEADER_BYTES / WORD_BYTES),
    texts: new Uint8Array(buffer, HEADER_BYTES, TEXT_BYTES),
    counters,
    sides,
    data,
    sideDoubles: doubles(sides),
    dataDoubles: doubles(data),
    free: next(Int32Array, 2),
    generations: next(Int32Array, 1),
    labels: next(Uint16Array, 1),
    states: next(Uint8Array, 1),
    types: next(Uint8Array, 1),
    hashed: next(Uint8Array, 1),
    phases: next(Uint8Array, 1),
  };
}

/** Zeroes the sides and data of one flow; for so few bytes far faster than `fill`. */
export function clearFlow(views: FlowViews, i: number): void {
  const { sideDoubles, dataDoubles } = views;
  const sideAt = i * SIDES * SIDE_WORDS / 2, dataAt = i * DATA_WORDS / 2;
  for (let k = 0; k < SIDES * SIDE_WORDS / 2; k++) sideDoubles[sideAt + k] = 0;
  for (let k = 0; k < DATA_WORDS / 2; k++) dataDoubles[dataAt + k] = 0;
}

/** Zeroes what observers are told of one flow. */
export function clearRecord(views: FlowViews, i: number): void {
  for (let k = 0; k < COUNTERS; k++) views.counters[i * COUNTERS + k] = 0;
  views.labels[i] = 0;
  views.phases[i] = 0;
}
