// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The flow table: one entry for each TCP connection, UDP flow or ping sequence.
 *
 * Theory of operation
 *
 * Deferred work visits all active flows again and again, so they should lie close together; but a flow
 * cannot be moved, as epoll references and the index name it by number. The compromise, which is that
 * of passt's flow table (David Gibson, Red Hat): unused entries are kept in clusters (`clusters.ts`)
 * that are skipped whole, and a new flow takes the lowest unused entry. To keep that cheap,
 *
 * - only one entry at a time is *nascent*, that is between NEW and TYPED. It becomes ACTIVE or is
 *   cancelled, both before the next scan;
 * - every other entry is freed by the scan, {@linkcode FlowTable.deferHandler}, which passes over the
 *   table in order anyway. It visits active entries and heads of clusters, nothing else.
 *
 * States: FREE → NEW → (INI → TGT →) TYPED → ACTIVE → FREE. INI and TGT record the two sides of a flow,
 * which can then be put in the index and found by what a packet or socket tells. A step out of order
 * throws {@linkcode FlowError}: it is a bug, never an input error. A full table is no error: `alloc`
 * returns -1.
 *
 * Storage is one buffer (`layout.ts`), none of it touched before it is used, which may be shared with
 * observers in other threads and processes: {@linkcode FlowReader} shows them the ACTIVE flows while the
 * table goes on (`generations.ts`). Only the constructor, `side`, `freeCluster`, new labels, log lines and
 * errors allocate memory.
 *
 * @module
 */
import { FreeClusters } from "./clusters.ts";
import { FlowEntries } from "./entries.ts";
import { Publication } from "./generations.ts";
import { SideIndex } from "./hash.ts";
import {
  clearFlow,
  clearRecord,
  COUNTERS,
  flowTableBytes,
  type FlowViews,
  flowViews,
  STARTED,
} from "./layout.ts";
import { type FlowHandlers, TypeRegistry } from "./registry.ts";
import { copySide, FlowSide, INI, SIDE_WORDS, TGT } from "./side.ts";
import { typeSlot, writeText } from "./texts.ts";
import {
  FLOW_STATE_NAMES,
  FlowError,
  type FlowObserver,
  FlowState,
  type FlowTableOptions,
  FlowType,
} from "./types.ts";
import { verifyFlowTable } from "./verify.ts";

export { BYTES_INI, BYTES_TGT, COUNTERS, DATA_WORDS, STARTED } from "./layout.ts";
export { FlowEntries } from "./entries.ts";
export type { FlowViews } from "./layout.ts";
export type { FlowHandlers } from "./registry.ts";
export type { FlowTableOptions } from "./types.ts";

/** Capacity unless another is asked for. */
export const DEFAULT_CAPACITY = 131071;
/** Timers run at most once per this many milliseconds. */
export const FLOW_TIMER_INTERVAL = 1000;

const NOBODY = -1; // no entry is nascent
const SCANNING = -2; // stands in for the nascent entry during a scan, so that nothing is allocated

/**
 * The table.
 *
 * @example
 * ```ts
 * import { FlowTable } from "./table.ts";
 * import { FlowState, FlowType } from "./types.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const table = new FlowTable({ capacity: 100 });
 * const flow = table.alloc();
 * table.setType(flow, FlowType.PING4);
 * table.activate(flow);
 * table.on(FlowType.PING4, { timer: (_flow, nowMs) => nowMs > 5000 });
 * table.deferHandler(1000);
 * assertEquals(table.stateOf(flow), FlowState.ACTIVE);
 * table.deferHandler(6000);
 * assertEquals(table.stateOf(flow), FlowState.FREE);
 * assertEquals(table.freeCluster(0), { n: 100, next: 100 });
 * ```
 */
export class FlowTable extends FlowEntries {
  /** Told of flows that begin and end. */
  observer: FlowObserver | null = null;
  /** Entries that the last scan visited. */
  scanVisits = 0;

  readonly #free: FreeClusters;
  readonly #states: Uint8Array;
  readonly #types: Uint8Array;
  readonly #hashed: Uint8Array;
  readonly #views: FlowViews;
  readonly #index: SideIndex;
  readonly #log: ((index: number, message: string) => void) | null;
  readonly #registry: TypeRegistry = new TypeRegistry();
  readonly #publication: Publication;
  readonly #clock: () => number;
  #nascent = NOBODY;
  #activeCount = 0;
  #timerRun = 0;

  /**
   * Makes an empty table.
   *
   * @throws RangeError for an impossible capacity, or a buffer that is too small or holds a table
   */
  constructor(options: FlowTableOptions = {}) {
    const { capacity = DEFAULT_CAPACITY, log = null, hashKey } = options;
    const buffer = options.buffer ?? new ArrayBuffer(flowTableBytes(capacity));
    const views = flowViews(buffer, capacity);
    super(views);
    this.#views = views;
    this.#free = new FreeClusters(views.free, capacity);
    this.#states = views.states;
    this.#types = views.types;
    this.#hashed = views.hashed;
    this.#index = new SideIndex(
      views.sides,
      2 * capacity,
      (sidx) => this.#registry.protos[this.#types[sidx >> 1]],
      hashKey,
    );
    this.#log = log;
    this.#publication = new Publication(views, options.buffer !== undefined);
    this.#clock = options.clock ?? (() => 0);
  }

  /** Index of the first free cluster's head; the capacity when the table is full. */
  get firstFree(): number {
    return this.#free.first;
  }

  /** Number of entries in state ACTIVE. */
  get activeCount(): number {
    return this.#activeCount;
  }

  /** Number of sides in the index. */
  get hashCount(): number {
    return this.#index.count;
  }

  /** Length and successor of the free cluster whose head is `i`; zeros for any other entry. */
  freeCluster(i: number): { n: number; next: number } {
    this.checkIndex(i);
    return { n: this.#free.lengthOf(i), next: this.#free.nextOf(i) };
  }

  /**
   * Takes the lowest free entry: FREE → NEW, its sides and data zeroed.
   *
   * @returns its index, or -1 when the table is full
   * @throws FlowError while another entry is nascent, or in a scan
   */
  alloc(): number {
    const free = this.#free, i = free.first;
    if (this.#nascent !== NOBODY) throw this.#nascentError("allocate");
    if (i >= this.capacity) return -1;
    const n = free.lengthOf(i);
    if (n < 1 || i + n > this.capacity || this.#states[i] !== FlowState.FREE) {
      throw this.error(i, `allocate: is no head of a free cluster (n is ${n})`);
    }
    free.take();
    clearFlow(this.#views, i);
    clearRecord(this.#views, i);
    this.#nascent = i;
    this.#setState(i, FlowState.NEW);
    return i;
  }

  /**
   * Frees the nascent entry `i`, whatever its state between NEW and TYPED. Its sides leave the index.
   *
   * @throws FlowError when `i` is not the nascent entry
   */
  allocCancel(i: number): void {
    if (i !== this.#nascent || i < 0) throw this.error(i, "cancel: is not the newest allocation");
    this.#release(i);
    this.#free.giveBack(i);
    this.#nascent = NOBODY;
  }

  /** Records the initiating side: NEW → INI. Throws FlowError unless `i` is nascent and NEW. */
  initiate(i: number, side: FlowSide): void {
    this.#expect(i, FlowState.NEW, "initiate");
    copySide(this.sides, (2 * i + INI) * SIDE_WORDS, side.words, 0);
    this.#setState(i, FlowState.INI);
  }

  /** Records the target side: INI → TGT. Throws FlowError unless `i` is nascent and INI. */
  target(i: number, side: FlowSide): void {
    this.#expect(i, FlowState.INI, "target");
    copySide(this.sides, (2 * i + TGT) * SIDE_WORDS, side.words, 0);
    this.#setState(i, FlowState.TGT);
  }

  /**
   * Sets the type: NEW or TGT → TYPED.
   *
   * @param _iniSide which side of the type's own data started the flow; types that need it keep it
   * @throws FlowError for an unknown type, or unless `i` is nascent and NEW or TGT
   */
  setType(i: number, type: number, _iniSide: number = INI): void {
    const state = this.#states[i];
    if (i !== this.#nascent || (state !== FlowState.NEW && state !== FlowState.TGT)) {
      throw this.error(i, "set type: must be the newest allocation, in state NEW or TGT");
    }
    if (!this.#registry.has(type)) throw this.error(i, `set type: unknown type ${type}`);
    this.#types[i] = type;
    this.#setState(i, FlowState.TYPED);
  }

  /** Puts a flow into operation: TYPED → ACTIVE. Throws FlowError unless `i` is nascent and TYPED. */
  activate(i: number): void {
    this.#expect(i, FlowState.TYPED, "activate");
    this.#nascent = NOBODY;
    this.#activeCount++;
    this.counters[i * COUNTERS + STARTED] = this.#clock();
    this.#setState(i, FlowState.ACTIVE);
    this.#publication.show(i);
    if (this.observer !== null) this.observer.opened(i);
  }

  /**
   * Puts side `s` of flow `i` into the index, under the protocol of the flow's type. The words of the
   * side must not change while it is there. It leaves the index when the flow is freed.
   *
   * @returns number of the side, `2 * i + s`
   * @throws FlowError when the flow has no type yet or the side is in the index already
   */
  hashInsert(i: number, s: number): number {
    this.checkSide(i, s);
    if (this.#states[i] < FlowState.TYPED) throw this.error(i, "index: has no type yet");
    if ((this.#hashed[i] >> s & 1) !== 0) throw this.error(i, `index: side ${s} is there already`);
    this.#hashed[i] |= 1 << s;
    this.#index.insert(2 * i + s);
    return 2 * i + s;
  }

  /** Takes side `s` of flow `i` out of the index; returns false when it was not there. */
  hashRemove(i: number, s: number): boolean {
    this.checkSide(i, s);
    if ((this.#hashed[i] >> s & 1) === 0) return false;
    if (!this.#index.remove(2 * i + s)) throw this.error(i, `index: side ${s} has changed`);
    this.#hashed[i] &= ~(1 << s);
    return true;
  }

  /**
   * Finds the flow a packet or socket belongs to.
   *
   * @param proto IP protocol number
   * @returns number of the side that equals `key`, `2 * i + s`; or -1
   */
  lookup(proto: number, key: FlowSide): number {
    return this.#index.find(proto, key.words);
  }

  /**
   * Sets the deferred and timed work of a type, instead of what was set before.
   *
   * @throws FlowError for an unknown type
   */
  on(type: number, handlers: FlowHandlers): void {
    this.#registry.on(type, handlers);
  }

  /**
   * Adds a type to this table.
   *
   * @param name as in log lines
   * @param proto IP protocol number under which the index keeps its sides: 0–255
   * @returns the type's number
   * @throws FlowError when there is no number left or the protocol is impossible
   */
  defineType(name: string, proto: number): number {
    const type = this.#registry.define(name, proto);
    writeText(this.#views.texts, typeSlot(type), name);
    return type;
  }

  /**
   * The scan: runs the deferred work of every active flow, and the timers when they are due; frees the
   * flows that are closed, and rebuilds the chain of free clusters, merging those that touch.
   *
   * A handler must not allocate, cancel or scan. When one throws, its flow stays active, the flows
   * after it wait for the next scan, the table is whole, and the error goes on to the caller.
   *
   * @param nowMs time on a clock that never goes back
   * @throws FlowError when an entry is still nascent
   */
  deferHandler(nowMs: number): void {
    if (this.#nascent !== NOBODY) throw this.#nascentError("scan");
    const timersDue = nowMs - this.#timerRun >= FLOW_TIMER_INTERVAL;
    if (timersDue) this.#timerRun = nowMs;
    this.#nascent = SCANNING;
    try {
      this.#scan(timersDue, nowMs);
    } finally {
      this.#nascent = NOBODY;
    }
  }

  #scan(timersDue: boolean, nowMs: number): void {
    const states = this.#states, free = this.#free;
    let visits = 0;
    free.beginScan();
    try {
      for (let i = 0; i < states.length; i++) {
        visits++;
        if (states[i] === FlowState.FREE) {
          if (free.lengthOf(i) < 1) throw this.error(i, "scan: is free but no head of a cluster");
          i += free.passCluster(i) - 1;
        } else if (states[i] !== FlowState.ACTIVE) {
          throw this.error(i, "scan: is incomplete");
        } else if (this.#registry.work(this.#types[i], i, timersDue, nowMs)) {
          if (this.observer !== null) this.observer.closed(i);
          this.#release(i);
          this.#activeCount--;
          free.passFreed(i);
        } else {
          free.passUsed();
        }
      }
    } finally {
      free.endScan();
      this.scanVisits = visits;
    }
  }

  /** `Flow N (TYPE): message`, or the state in place of the type before TYPED. Allocates. */
  logLine(i: number, message: string): string {
    const state = this.#states[i];
    const name = state < FlowState.TYPED
      ? FLOW_STATE_NAMES[state]
      : this.#registry.names[this.#types[i]];
    return `Flow ${i} (${name}): ${message}`;
  }

  /** Checks every invariant of the whole table, for tests. Throws FlowError for the first broken. */
  verify(): void {
    verifyFlowTable(this.#views, this, this.#nascent);
  }

  #setState(i: number, state: number): void {
    const old = this.#states[i];
    this.#states[i] = state;
    if (this.#log !== null) {
      this.#log(i, `${FLOW_STATE_NAMES[old]} -> ${FLOW_STATE_NAMES[state]}`);
    }
  }

  /** Takes an entry out of use; the caller puts it into a free cluster. */
  #release(i: number): void {
    if (this.#hashed[i] !== 0) {
      this.hashRemove(i, INI);
      this.hashRemove(i, TGT);
    }
    if (this.#states[i] === FlowState.ACTIVE) this.#publication.hide(i);
    this.#setState(i, FlowState.FREE);
    this.#types[i] = FlowType.NONE;
    clearFlow(this.#views, i);
  }

  #expect(i: number, state: number, what: string): void {
    if (i !== this.#nascent || this.#states[i] !== state) {
      throw this.error(
        i,
        `${what}: must be the newest allocation, in state ${FLOW_STATE_NAMES[state]}`,
      );
    }
  }

  #nascentError(what: string): FlowError {
    if (this.#nascent === SCANNING) return new FlowError(-1, "", `${what}: not during a scan`);
    return this.error(this.#nascent, `${what}: is neither active nor cancelled`);
  }
}
