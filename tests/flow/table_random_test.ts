// SPDX-License-Identifier: GPL-2.0-or-later
import { assert } from "@std/assert";
import { FlowSide } from "../../lib/flow/side.ts";
import { DATA_WORDS, FlowTable } from "../../lib/flow/table.ts";
import { FLOW_TYPE_NAMES, FlowState, FlowType } from "../../lib/flow/types.ts";
import { assertSame, close, ModelTable } from "./model.ts";
import { randomFrom } from "./random.ts";

const STEPS = 1_000_000;
const LONGEST_PHASE = 100_000; // steps in which flows mostly grow, or mostly shrink
const MOST_BETWEEN_SCANS = 16_000; // sixteenths of the steps between scans, on average
const SIDE = new FlowSide();

/** Both tables and what drives them. */
class Pair {
  readonly table: FlowTable;
  readonly model: ModelTable;
  readonly random: (below: number) => number;
  /** Whether the table was ever full. */
  wasFull = false;
  #growth = 8;
  #now = 0;

  constructor(readonly capacity: number, seed: number) {
    this.table = new FlowTable({ capacity });
    this.model = new ModelTable(capacity);
    this.random = randomFrom(seed);
    for (let type = FlowType.NONE + 1; type < FLOW_TYPE_NAMES.length; type++) {
      const work = (i: number) => this.table.data[i * DATA_WORDS] === 1;
      this.table.on(type, { deferred: work });
    }
  }

  /** One random step in both tables. Returns the entry it was about, or -1 after a scan. */
  step(): number {
    const { random, model, capacity } = this;
    if (random(Math.min(8 * capacity, LONGEST_PHASE)) === 0) this.#growth = 1 + random(10);
    if (model.nascent >= 0) return random(8) === 0 ? this.#cancel() : this.#advance();
    if (random(Math.min(capacity, MOST_BETWEEN_SCANS) + 16) < 16) return this.#scan();
    return random(10) < this.#growth ? this.#alloc() : this.#close();
  }

  #alloc(): number {
    const expected = this.model.alloc(), i = this.table.alloc();
    assertSame(i, expected, "allocated", i);
    if (i < 0) this.wasFull = true;
    else assertSame(this.table.data[i * DATA_WORDS], 0, "data", i);
    return i;
  }

  #cancel(): number {
    const i = this.model.nascent;
    this.table.allocCancel(i);
    this.model.cancel();
    return i;
  }

  #advance(): number {
    const { table, model, random } = this, i = model.nascent, state = model.states[i];
    const type = 1 + random(FLOW_TYPE_NAMES.length - 1);
    if (state === FlowState.TYPED) {
      table.activate(i);
      model.advance(FlowState.ACTIVE, model.types[i]);
    } else if (state === FlowState.TGT || (state === FlowState.NEW && random(2) === 0)) {
      table.setType(i, type, random(2));
      model.advance(FlowState.TYPED, type);
    } else if (state === FlowState.NEW) {
      table.initiate(i, SIDE);
      model.advance(FlowState.INI, FlowType.NONE);
    } else {
      table.target(i, SIDE);
      model.advance(FlowState.TGT, FlowType.NONE);
    }
    return i;
  }

  /** Closes a flow, or up to twenty neighbours. */
  #close(): number {
    const start = this.random(this.capacity), n = this.random(4) === 0 ? 1 + this.random(20) : 1;
    const end = Math.min(this.capacity, start + n);
    for (let i = start; i < end; i++) close(this.table, this.model, i);
    return start;
  }

  #scan(): number {
    this.#now += this.random(600);
    this.table.deferHandler(this.#now);
    assertSame(this.table.scanVisits, this.model.scan(), "scan visits", -1);
    return -1;
  }
}

for (const capacity of [1, 2, 3, 17]) {
  Deno.test(`FlowTable of ${capacity} equals the model after each of ${STEPS} steps`, () => {
    for (const seed of [1, 2, 3]) {
      const pair = new Pair(capacity, seed);
      for (let step = 0; step < STEPS; step++) {
        pair.step();
        pair.model.compareAll(pair.table);
      }
      assert(pair.wasFull);
    }
  });
}

// Here each step is compared where it can have changed something, and everything after each scan.
for (const capacity of [1000, 131071]) {
  Deno.test(`FlowTable of ${capacity} equals the model after each of ${STEPS} steps`, () => {
    for (const seed of [1, 2, 3]) {
      const pair = new Pair(capacity, seed);
      for (let step = 0; step < STEPS; step++) {
        const i = pair.step();
        if (i < 0) pair.model.compareAll(pair.table);
        else pair.model.compareNear(pair.table, i);
      }
      pair.model.compareAll(pair.table);
    }
  });
}
