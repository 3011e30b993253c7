// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How the flow table lies in its buffer: one array after the other, each indexed by flow.
 *
 * The words of sides and data come first, so that every array is aligned whatever the capacity. An
 * observer that shares the buffer makes the same views and reads them; to walk the table it skips the
 * `n` entries of each free cluster, as the table itself does.
 *
 * @module
 */
import { SIDE_WORDS } from "./side.ts";

/** 32-bit words for the use of a flow's type. */
export const DATA_WORDS = 48;
/** Largest capacity: all byte offsets stay below 2³¹. */
export const MAX_CAPACITY = 1 << 22;

const WORD_BYTES = 4;
const SIDES = 2; // per flow: INI and TGT

/** Views of a table's buffer. */
export interface FlowViews {
  /** Words of side `s` of flow `i` start at `(i * 2 + s) * SIDE_WORDS`. */
  readonly sides: Int32Array;
  /** Type-specific words of flow `i` start at `i * DATA_WORDS`. */
  readonly data: Int32Array;
  /** {@linkcode sides} and {@linkcode data} eight bytes at a time, to clear them. */
  readonly sideDoubles: Float64Array;
  readonly dataDoubles: Float64Array;
  /** `n` and `next` of a free cluster that starts at `i`, at `2 * i` and `2 * i + 1`. */
  readonly free: Int32Array;
  /** State of each flow. */
  readonly states: Uint8Array;
  /** Type of each flow. */
  readonly types: Uint8Array;
  /** Per flow: bit `s` is set while side `s` is in the index. */
  readonly hashed: Uint8Array;
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
  return capacity * (WORD_BYTES * (SIDES * SIDE_WORDS + DATA_WORDS + 2) + 3);
}

/** Makes the views. Throws RangeError when the buffer is too small. */
export function flowViews(buffer: ArrayBufferLike, capacity: number): FlowViews {
  const needed = flowTableBytes(capacity);
  if (buffer.byteLength < needed) {
    throw new RangeError(
      `Buffer of ${buffer.byteLength} bytes: ${capacity} flows need ${needed}`,
    );
  }
  let at = 0;
  const words = (perFlow: number) => {
    const view = new Int32Array(buffer, at, capacity * perFlow);
    at += view.byteLength;
    return view;
  };
  const bytes = () => {
    const view = new Uint8Array(buffer, at, capacity);
    at += view.byteLength;
    return view;
  };
  const doubles = (view: Int32Array) => {
    return new Float64Array(buffer, view.byteOffset, view.byteLength / 8);
  };
  const sides = words(SIDES * SIDE_WORDS), data = words(DATA_WORDS);
  return {
    sides,
    data,
    sideDoubles: doubles(sides),
    dataDoubles: doubles(data),
    free: words(2),
    states: bytes(),
    types: bytes(),
    hashed: bytes(),
  };
}

/** Zeroes the sides and data of one flow; for so few bytes far faster than `fill`. */
export function clearFlow(views: FlowViews, i: number): void {
  const { sideDoubles, dataDoubles } = views;
  const sideAt = i * SIDES * SIDE_WORDS / 2, dataAt = i * DATA_WORDS / 2;
  for (let k = 0; k < SIDES * SIDE_WORDS / 2; k++) sideDoubles[sideAt + k] = 0;
  for (let k = 0; k < DATA_WORDS / 2; k++) dataDoubles[dataAt + k] = 0;
}
