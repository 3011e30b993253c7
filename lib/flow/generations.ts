// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How another thread or process can read flows while the table's owner goes on changing them.
 *
 * Theory of operation: each entry has a generation, which counts how often it has become or ceased to be
 * ACTIVE. It is odd while it is. What a flow is (sides, type, start) is written before the generation
 * becomes odd and wiped after it has become even, so a reader that finds the same odd number before and
 * after copying has a copy of one flow (a sequence lock whose writer never waits). Counters, phase and
 * label go on changing in between; each is one aligned element, so it is whole by itself.
 *
 * That takes an order of memory accesses which processors other than x86 do not keep by themselves
 * (aarch64: Arm Architecture Reference Manual, B2.3). `Atomics.store` is a release, so all that was
 * written before is seen by whoever sees the new generation. Nothing holds *later* plain writes back
 * behind it, though; an `Atomics.load` after it does, as an acquire that itself is never ahead of an
 * earlier release. The reader's copy consists of `Atomics.load`s only, which keep their order.
 *
 * Where nobody else has the memory, plain stores do, which are 5 ns faster.
 *
 * @module
 */
import {
  type FlowViews,
  HEADER_CAPACITY,
  HEADER_MAGIC,
  HEADER_USED,
  HEADER_VERSION,
  LAYOUT_VERSION,
  MAGIC,
} from "./layout.ts";

/** Shows observers the flows of a table: the owner's part. */
export class Publication {
  readonly #header: Int32Array;
  readonly #generations: Int32Array;
  readonly #shared: boolean;
  #used = 0;

  /**
   * Makes zeroes a table without flows, that a reader can be made for.
   *
   * @param shared whether others have the memory
   * @throws RangeError when it is a table already
   */
  constructor({ header, generations }: FlowViews, shared: boolean) {
    if (header[HEADER_MAGIC] !== 0) throw new RangeError("The buffer is not zero-filled");
    this.#header = header;
    this.#generations = generations;
    this.#shared = shared;
    header[HEADER_VERSION] = LAYOUT_VERSION;
    header[HEADER_CAPACITY] = generations.length;
    Atomics.store(header, HEADER_MAGIC, MAGIC); // after the rest
  }

  /** Shows an entry: all that was written to it before is seen by whoever finds it in use. */
  show(i: number): void {
    const generation = this.#generations[i] + 1 | 1;
    if (this.#shared) Atomics.store(this.#generations, i, generation);
    else this.#generations[i] = generation;
    if (i >= this.#used) Atomics.store(this.#header, HEADER_USED, this.#used = i + 1);
  }

  /** Hides an entry: nothing that is written to it afterwards is taken for the flow that it was. */
  hide(i: number): void {
    const generation = (this.#generations[i] | 1) + 1;
    if (this.#shared) {
      Atomics.store(this.#generations, i, generation);
      Atomics.load(this.#generations, i); // holds back what follows, see above
    } else {
      this.#generations[i] = generation;
    }
  }
}

/** Whether an entry with this generation is in use. */
export function inUse(generation: number): boolean {
  return (generation & 1) !== 0;
}

/** Which use of its place it is: 1 for the first. */
export function useNumber(generation: number): number {
  return (generation >>> 1) + 1;
}
