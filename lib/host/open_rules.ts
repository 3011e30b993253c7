// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Rules of port forwarding with the listeners of their ports, and sets of them.
 *
 * Theory of operation: rules that listen on the same address and interface have no port in common. So a set
 * keeps them apart by that, each lot sorted: one is found by its ports with a binary search, and all rules of
 * a text are taken out in one pass, however many of both there are.
 *
 * @module
 */
import type { PortRule } from "../forward/ports.ts";
import { type Address, formatAddress, sameAddress } from "../wire/address.ts";

/** No listener. */
export const CLOSED = -1;

/** A rule, and the listener of each of its ports; {@linkcode CLOSED}: it is not open. */
export class OpenRule {
  readonly listeners: Int32Array;

  constructor(readonly rule: PortRule, listeners?: Int32Array) {
    this.listeners = listeners ?? new Int32Array(rule.last - rule.first + 1).fill(CLOSED);
  }

  /** Ports `first…last` of this rule only, with their listeners. */
  part(first: number, last: number): OpenRule {
    const { rule } = this, from = first - rule.first;
    if (first === rule.first && last === rule.last) return this;
    const listeners = this.listeners.slice(from, from + last - first + 1);
    return new OpenRule({ ...rule, first, last, to: rule.to + from }, listeners);
  }

  /** The parts of it that are open, as rules. */
  open(): PortRule[] {
    const { rule, listeners } = this;
    const ports = [...listeners.keys()].filter((k) => listeners[k] !== CLOSED);
    return ports.map((k) => ({
      ...rule,
      first: rule.first + k,
      last: rule.first + k,
      to: rule.to + k,
    }));
  }
}

/** Ports that rules name. */
export function size(rules: readonly PortRule[]): number {
  return rules.reduce((sum, { first, last }) => sum + last - first + 1, 0);
}

/** What rules of one lot share: where they listen. */
function placeOf({ address, device }: PortRule): string {
  return `${address ? formatAddress(address) : ""}%${device ?? ""}`;
}

function sameOrNone(a: Address | null, b: Address | null): boolean {
  return a && b ? sameAddress(a, 0, b, 0) : a === b;
}

/** Whether the ports that two rules of a lot share lead to the same place. */
function agree(a: PortRule, b: PortRule): boolean {
  return a.to - a.first === b.to - b.first && sameOrNone(a.target, b.target);
}

/** Index of the first rule of a lot that does not end before a port. */
function indexFrom(lot: readonly OpenRule[], port: number): number {
  let low = 0, high = lot.length;
  while (low < high) {
    const middle = low + high >> 1;
    if (lot[middle].rule.last < port) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Takes ports out of a lot.
 *
 * @param rules sorted
 * @param taken what was taken is appended
 * @returns what is left
 */
function takeOut(lot: readonly OpenRule[], rules: PortRule[], taken: OpenRule[]): OpenRule[] {
  const left: OpenRule[] = [];
  let k = 0;
  for (const open of lot) {
    const { first, last } = open.rule;
    let next = first;
    while (k < rules.length && rules[k].last < first) k++;
    for (let j = k; j < rules.length && rules[j].first <= last; j++) {
      const from = Math.max(rules[j].first, next), to = Math.min(rules[j].last, last);
      if (from > to) continue;
      if (from > next) left.push(open.part(next, from - 1));
      taken.push(open.part(from, to));
      next = to + 1;
    }
    if (next <= last) left.push(open.part(next, last));
  }
  return left;
}

/**
 * A set of rules, of which those of one listening address and interface share no port.
 *
 * @example
 * ```ts
 * import { OpenRule, OpenRules } from "./open_rules.ts";
 * import { parsePortSpec } from "../forward/ports.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const rules = new OpenRules(parsePortSpec("80-90,8080:80").map((rule) => new OpenRule(rule)));
 * assertEquals(rules.has(parsePortSpec("82-83")[0]), true);
 * assertEquals(rules.has(parsePortSpec("8080")[0]), false); // leads elsewhere
 * rules.take(parsePortSpec("82-83"));
 * assertEquals(rules.all().map(({ first, last }) => [first, last]), [[80, 81], [84, 90], [8080, 8080]]);
 * ```
 */
export class OpenRules {
  readonly #lots = new Map<string, OpenRule[]>();

  constructor(rules: readonly OpenRule[] = []) {
    this.add(rules);
  }

  /** Adds rules, which share no ports with those that are there. */
  add(rules: readonly OpenRule[]): void {
    for (const [place, more] of Map.groupBy(rules, ({ rule }) => placeOf(rule))) {
      const lot = [...this.#lots.get(place) ?? [], ...more];
      this.#lots.set(place, lot.sort((a, b) => a.rule.first - b.rule.first));
    }
  }

  /** All of them, as rules. */
  all(): PortRule[] {
    return [...this.#lots.values()].flatMap((lot) => lot.map(({ rule }) => rule));
  }

  /** Whether all ports of a rule are here, and lead to the same place. */
  has(rule: PortRule): boolean {
    const lot = this.#lots.get(placeOf(rule)) ?? [];
    let next = rule.first;
    for (let k = indexFrom(lot, next); k < lot.length && next <= rule.last; k++) {
      const found = lot[k].rule;
      if (found.first > next || !agree(found, rule)) return false;
      next = found.last + 1;
    }
    return next > rule.last;
  }

  /** Takes out the ports of rules that {@linkcode has} is true for. @returns them, with their listeners */
  take(rules: readonly PortRule[]): OpenRule[] {
    const taken: OpenRule[] = [];
    for (const [place, gone] of Map.groupBy(rules, placeOf)) {
      gone.sort((a, b) => a.first - b.first);
      const left = takeOut(this.#lots.get(place) ?? [], gone, taken);
      if (left.length > 0) this.#lots.set(place, left);
      else this.#lots.delete(place);
    }
    return taken;
  }

  /** Those that have ports of `first…last`, on whatever address. */
  between(first: number, last: number): OpenRule[] {
    const found: OpenRule[] = [];
    for (const lot of this.#lots.values()) {
      for (let k = indexFrom(lot, first); k < lot.length && lot[k].rule.first <= last; k++) {
        found.push(lot[k]);
      }
    }
    return found;
  }
}
