// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A process that has flows begin and end in shared memory as fast as it can. The memory is descriptor 3; it
 * goes on until its standard input ends, and then prints how many flows there were.
 *
 * Everything in a flow is worked out from one number, so that a reader can tell whether what it sees is
 * one flow.
 *
 * @module
 */
import { FlowSide, Pif, SIDE_PORTS } from "../../lib/flow/side.ts";
import type { FlowSnapshot } from "../../lib/flow/snapshot.ts";
import { BYTES_INI, BYTES_TGT, COUNTERS, DATA_WORDS, FlowTable } from "../../lib/flow/table.ts";
import { FLOW_TYPE_NAMES } from "../../lib/flow/types.ts";
import { SharedMapping } from "../../lib/sys/shared_memory.ts";
import { formatAddress } from "../../lib/wire/address.ts";

/** Entries of the table. */
export const CAPACITY = 32;
/** The descriptor of the memory. */
export const MEMORY_FD = 3;

const TYPES = FLOW_TYPE_NAMES.length - 1;
const LABELS = 97; // no common divisor with TYPES
const NUMBERS = 1 << 21; // twice so many bits are exact in a double
const LONG_LIVES = 8; // one in so many flows lives longer than a round
const ROUNDS = 20_000; // between looks at standard input

/** A word that has little to do with those of other numbers. */
function wordOf(k: number): number {
  return Math.imul(k, 0x9e3779b1);
}

/** Text of label `k`; the first is none. */
function labelOf(k: number): string {
  return k === 0 ? "" : `label ${k}`;
}

/**
 * What a snapshot must be, going by when its flow began, which is its number; the reader's time is 0 on a
 * clock that goes backwards.
 */
export function expected({ index, generation, state, ageMs: k, ...flow }: FlowSnapshot) {
  const word = wordOf(k), address = formatAddress(new Int32Array(4).fill(word));
  const side = { address, port: word >>> 16, ourAddress: address, ourPort: word & 0xffff };
  const { bytesFromInitiator, bytesFromTarget } = flow;
  return {
    index,
    generation,
    type: FLOW_TYPE_NAMES[1 + k % TYPES],
    protocol: [6, 6, 1, 58, 17][k % TYPES],
    state,
    initiator: { pif: "TAP", ...side },
    target: { pif: "HOST", ...side },
    bytesFromInitiator,
    bytesFromTarget,
    ageMs: k,
    label: labelOf(k % LABELS) || null,
  };
}

/** Whether a counter is torn: its upper and lower half are written as the same number. */
export function isTorn(bytes: number): boolean {
  return Math.floor(bytes / 2 ** 32) !== bytes % 2 ** 32;
}

/** The table, and what drives it. */
class Churn {
  lives = 0;
  readonly #table: FlowTable;
  readonly #labels: number[];
  readonly #sides: [FlowSide, FlowSide] = [new FlowSide(), new FlowSide()];
  #number = 0;
  #round = 0;

  constructor(buffer: ArrayBuffer) {
    this.#table = new FlowTable({ capacity: CAPACITY, buffer, clock: () => -this.#number });
    this.#labels = Array.from({ length: LABELS }, (_, k) => this.#table.labelId(labelOf(k)));
    this.#sides[0].pif = Pif.TAP;
    this.#sides[1].pif = Pif.HOST;
    for (let type = 1; type <= TYPES; type++) {
      this.#table.on(type, { deferred: (i) => this.#work(i) });
    }
  }

  /** Fills the table and ends most flows, again and again. */
  run(rounds: number): void {
    for (let k = 0; k < rounds; k++) {
      while (this.#begin());
      this.#table.deferHandler(0);
      this.#round++;
    }
    this.#table.verify();
  }

  #begin(): boolean {
    const table = this.#table, k = this.#number, [ini, tgt] = this.#sides;
    const i = table.alloc();
    if (i < 0) return false;
    ini.words.fill(wordOf(k), 0, SIDE_PORTS + 1);
    tgt.words.fill(wordOf(k), 0, SIDE_PORTS + 1);
    table.initiate(i, ini);
    table.target(i, tgt);
    table.setType(i, 1 + k % TYPES);
    table.setLabel(i, this.#labels[k % LABELS]);
    table.data[i * DATA_WORDS] = k;
    table.activate(i);
    this.#number = (k + 1) % NUMBERS;
    this.lives++;
    return true;
  }

  /** Counts something, and tells whether the flow ends. */
  #work(i: number): boolean {
    const { counters, data } = this.#table, k = data[i * DATA_WORDS];
    const half = (k + this.#round) % NUMBERS, bytes = half * 2 ** 32 + half;
    counters[i * COUNTERS + BYTES_INI] = counters[i * COUNTERS + BYTES_TGT] = bytes;
    return k % LONG_LIVES !== 0 || half % 1000 === 0;
  }
}

if (import.meta.main) {
  const churn = new Churn(new SharedMapping(MEMORY_FD).buffer());
  let ended = false;
  Deno.stdin.readable.getReader().read().then(() => ended = true);
  console.log("ready");
  while (!ended) {
    churn.run(ROUNDS);
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  console.log(churn.lives);
}
