// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The flow table as one would write it without thinking of speed, and comparisons with the real one.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { DATA_WORDS, type FlowTable } from "../../lib/flow/table.ts";
import { FlowState, FlowType } from "../../lib/flow/types.ts";

/** As assertEquals(), but fast enough for millions of calls. */
export function assertSame(actual: number, expected: number, what: string, i: number): void {
  if (actual !== expected) assertEquals(actual, expected, `${what} of ${i}`);
}

/** Naive flow table. */
export class ModelTable {
  /** States and types by index. */
  readonly states: number[];
  readonly types: number[];
  /** Which flows the next scan closes. */
  readonly closing = new Set<number>();
  /** Start and length of each free cluster, the lowest last. */
  clusters: [start: number, n: number][];
  /** The entry between NEW and TYPED, or -1. */
  nascent = -1;
  active = 0;

  /** Makes an empty table. */
  constructor(readonly capacity: number) {
    this.states = Array(capacity).fill(FlowState.FREE);
    this.types = Array(capacity).fill(FlowType.NONE);
    this.clusters = [[0, capacity]];
  }

  /** Lowest free entry, or the capacity. */
  get firstFree(): number {
    return this.clusters.at(-1)?.[0] ?? this.capacity;
  }

  /** Takes the lowest free entry. */
  alloc(): number {
    const cluster = this.clusters.pop();
    if (!cluster) return -1;
    const [start, n] = cluster;
    if (n > 1) this.clusters.push([start + 1, n - 1]);
    this.states[start] = FlowState.NEW;
    return this.nascent = start;
  }

  /** Moves the nascent entry on. */
  advance(state: number, type: number): void {
    this.states[this.nascent] = state;
    this.types[this.nascent] = type;
    if (state === FlowState.ACTIVE) {
      this.nascent = -1;
      this.active++;
    }
  }

  /** Frees the nascent entry. */
  cancel(): void {
    this.clusters.push([this.nascent, 1]);
    this.#free(this.nascent);
    this.nascent = -1;
  }

  /** Frees what is closing and merges all clusters. Returns how many entries a scan must visit. */
  scan(): number {
    const visits = this.active + this.clusters.length;
    for (const i of this.closing) this.#free(i);
    this.active -= this.closing.size;
    this.closing.clear();
    this.clusters = [];
    for (let i = this.capacity - 1, n = 0; i >= 0; i--) {
      n = this.states[i] === FlowState.FREE ? n + 1 : 0;
      if (n === 0) continue;
      if (n > 1) this.clusters.pop();
      this.clusters.push([i, n]);
    }
    return visits;
  }

  #free(i: number): void {
    this.states[i] = FlowState.FREE;
    this.types[i] = FlowType.NONE;
  }

  /** Compares every entry with the real table, which also checks itself. */
  compareAll(table: FlowTable): void {
    table.verify();
    this.compareCounts(table);
    let next = this.capacity, k = 0;
    for (let i = this.capacity - 1; i >= 0; i--) {
      assertSame(table.stateOf(i), this.states[i], "state", i);
      assertSame(table.typeOf(i), this.types[i], "type", i);
      const head = k < this.clusters.length && this.clusters[k][0] === i;
      this.#compareCluster(table, i, head ? this.clusters[k][1] : 0, head ? next : 0);
      if (head) k++, next = i;
    }
  }

  /** Compares what an allocation or cancellation of `i` can have changed. */
  compareNear(table: FlowTable, i: number): void {
    this.compareCounts(table);
    const first = this.firstFree;
    if (first < this.capacity) {
      const next = this.clusters.at(-2)?.[0] ?? this.capacity;
      this.#compareCluster(table, first, this.clusters.at(-1)![1], next);
    }
    if (i < 0) return;
    assertSame(table.stateOf(i), this.states[i], "state", i);
    assertSame(table.typeOf(i), this.types[i], "type", i);
    if (this.states[i] !== FlowState.FREE) this.#compareCluster(table, i, 0, 0);
  }

  /** Compares what the table keeps beside its entries. */
  compareCounts(table: FlowTable): void {
    assertSame(table.firstFree, this.firstFree, "first free", -1);
    assertSame(table.activeCount, this.active, "active count", -1);
  }

  #compareCluster(table: FlowTable, i: number, n: number, next: number): void {
    const cluster = table.freeCluster(i);
    assertSame(cluster.n, n, "n", i);
    assertSame(cluster.next, next, "next", i);
  }
}

/** Marks an active flow in both tables, so that the next scan closes it. */
export function close(table: FlowTable, model: ModelTable, i: number): void {
  if (model.states[i] !== FlowState.ACTIVE) return;
  model.closing.add(i);
  table.data[i * DATA_WORDS] = 1;
}
