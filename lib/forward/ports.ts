// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Port forwarding rules: what `-t`, `-u`, `-T` and `-U` say, as data.
 *
 * | text | meaning |
 * | --- | --- |
 * | `none` | no ports |
 * | `all` | all ports but the ephemeral ones, as far as they can be had |
 * | `auto` | the same ports, each while somebody listens on the other side |
 * | `22`, `22-80` | these ports |
 * | `22:2222`, `22-80:122-180` | to other ports of the other side |
 * | `8080:192.0.2.7/80`, `8080:[2001:db8::7]` | to an address of the other side; same ports if none are given |
 * | `~25`, `~25-30` | but not these ports; without ranges beside it, all others |
 * | `22,80,8080-8090,~8085` | a list; `auto` in it makes its ranges automatic |
 * | `192.0.2.1/22`, `[2001:db8::1]/22`, `192.0.2.1%eth0/22`, `%eth0/22` | listen on this address and interface only; an asterisk stands for all addresses |
 *
 * A rule whose target has an address listens on the wildcard address of the target's family unless
 * another address was given: a client's address cannot be carried into the other family.
 *
 * Theory of operation: `port_spec.ts` cuts the text; here ranges become plain rules, exclusions applied,
 * sorted, neighbours of the same translation merged, so that two texts of the same meaning give the same
 * rules. What is printed by {@linkcode formatPortRules} gives the same rules again. Work is bounded by
 * the length of the text and the number of ports, whatever the text says.
 *
 * @module
 */
import {
  type Address,
  ANY4,
  ANY6,
  formatAddress,
  isUnspecified,
  isV4,
  sameAddress,
} from "../wire/address.ts";
import { DEFAULT_EPHEMERAL } from "./ephemeral.ts";
import { formatPortRule } from "./port_format.ts";
import {
  MAX_PORT,
  type PortItem,
  type PortSpec,
  quoted,
  readPortSpec,
  refuse,
} from "./port_spec.ts";

export { DEFAULT_EPHEMERAL, readEphemeralPorts } from "./ephemeral.ts";
export { formatPortRule, formatPortRules } from "./port_format.ts";
export { MAX_INTERFACE_NAME, MAX_PORT, PortSpecError } from "./port_spec.ts";

/** Ports `first…last` of one side go to ports `to…to + last - first` of the other. */
export interface PortRule {
  /** First port to listen on. */
  readonly first: number;
  /** Last port to listen on, same as {@linkcode first} for a single one. */
  readonly last: number;
  /** Port of the other side that stands for {@linkcode first}. */
  readonly to: number;
  /** Address to listen on; null: all addresses, both families. */
  readonly address: Address | null;
  /** Interface to listen on; null: all. */
  readonly device: string | null;
  /** Address of the other side; null: the usual one. */
  readonly target: Address | null;
  /** Ports that cannot be had are skipped; it is an error only if none can. */
  readonly weak: boolean;
  /** Each port only while somebody listens on its counterpart. */
  readonly auto: boolean;
}

/** How {@linkcode parsePortSpec} reads a text. */
export interface PortSpecOptions {
  /** First and last port that `all` and `auto` leave out; {@linkcode DEFAULT_EPHEMERAL}. */
  readonly ephemeral?: readonly [number, number];
  /** Whether `auto` is accepted; true. */
  readonly auto?: boolean;
  /** Whether a listening address or interface is accepted; true. */
  readonly bind?: boolean;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** Text that is the same for equal addresses. */
function nameOf(address: Address | null): string {
  return address ? formatAddress(address) : "";
}

/** What two rules must share to be merged, as text. */
function kindOf({ address, device, target, weak, auto }: PortRule): string {
  return `${nameOf(address)} ${device ?? ""} ${nameOf(target)} ${weak} ${auto}`;
}

/** Sorted by port and kind, and neighbours of the same kind and translation made one. */
export function mergeRules(rules: readonly PortRule[]): PortRule[] {
  const sorted = rules.map((rule): [string, PortRule] => [kindOf(rule), rule])
    .sort(([a, { first: i }], [b, { first: j }]) => i - j || (a < b ? -1 : 1));
  const latest = new Map<string, Mutable<PortRule>>();
  const result: PortRule[] = [];
  for (const [kind, rule] of sorted) {
    const before = latest.get(kind);
    const offset = before && rule.first - before.first;
    if (before && before.last + 1 === rule.first && rule.to - before.to === offset) {
      before.last = rule.last;
      continue;
    }
    const copy = { ...rule };
    latest.set(kind, copy);
    result.push(copy);
  }
  return result;
}

/** Refuses words that cannot stand together. */
function checkWords(items: readonly PortItem[], auto: boolean): void {
  const of = (kind: PortItem["kind"]) => items.filter((item) => item.kind === kind);
  const [all, autos, ports] = [of("all"), of("auto"), of("ports")];
  if (autos.length > 0 && !auto) {
    refuse(`"auto" is only for namespaces: what a virtual machine listens on cannot be seen`);
  }
  if (all.length > 1) refuse(`${quoted(all[1].text)}: all can be given only once`);
  if (autos.length > 1) refuse(`"auto" can be given only once`);
  if (all.length > 0 && ports.length > 0) {
    refuse(`${quoted(ports[0].text)} beside "all": only exclusions (~PORTS) can stand there`);
  }
}

/** A range of ports: first and last. */
type Range = readonly [first: number, last: number];

/** What is left of a range without others. @param excluded sorted by their first ports */
function without([first, last]: Range, excluded: readonly Range[]): Range[] {
  const left: Range[] = [];
  let next = first;
  for (const [from, to] of excluded) {
    if (to < next) continue;
    if (from > last) break;
    if (from > next) left.push([next, from - 1]);
    next = to + 1;
  }
  if (next <= last) left.push([next, last]);
  return left;
}

/** Address that an item listens on. */
function listenAddress(spec: PortSpec, item: PortItem): Address | null {
  const { target } = item;
  if (!target) return spec.address;
  if (!spec.address) return isV4(target) ? ANY4 : ANY6;
  if (isV4(spec.address) !== isV4(target)) {
    refuse(`${quoted(item.text)}: target and listening address are of different families`);
  }
  return spec.address;
}

/** Which item has each port, by family: 1 and its index; 0: none. */
class Claims {
  readonly #v4 = new Uint32Array(MAX_PORT + 1);
  readonly #v6 = new Uint32Array(MAX_PORT + 1);

  constructor(private readonly items: readonly PortItem[]) {}

  /** Claims a port for an item. @throws PortSpecError when another one has it */
  claim(port: number, index: number, address: Address | null): void {
    const v4 = address === null || isV4(address), v6 = address === null || !v4;
    const owner = v4 && this.#v4[port] || v6 && this.#v6[port];
    if (owner) {
      const [mine, other] = [this.items[index].text, this.items[owner - 1].text];
      refuse(`${quoted(mine)} overlaps ${quoted(other)} (port ${port})`);
    }
    if (v4) this.#v4[port] = index + 1;
    if (v6) this.#v6[port] = index + 1;
  }
}

/** Rules of items, without the excluded ports. */
function expand(
  spec: PortSpec,
  items: readonly PortItem[],
  excluded: readonly Range[],
): PortRule[] {
  const rules: PortRule[] = [];
  const claims = items.length > 1 ? new Claims(items) : null; // one alone overlaps nothing
  const auto = spec.items.some(({ kind }) => kind === "auto");
  items.forEach((item, index) => {
    const address = listenAddress(spec, item);
    const { target, kind } = item, { device } = spec;
    for (const [first, last] of without([item.first, item.last], excluded)) {
      for (let port = first; claims && port <= last; port++) claims.claim(port, index, address);
      const to = item.to + first - item.first;
      rules.push({ first, last, to, address, device, target, weak: kind !== "ports", auto });
    }
  });
  return rules;
}

/** Item for a text of exclusions or `auto` alone. */
const EVERYTHING: PortItem = {
  text: "all",
  kind: "all",
  first: 1,
  last: MAX_PORT,
  to: 1,
  target: null,
};

/**
 * Parses one port specification.
 *
 * @returns rules that do not overlap, sorted by port; none for `none`
 * @throws PortSpecError naming the part that is wrong
 * @example
 * ```ts
 * import { formatPortRules, parsePortSpec } from "./ports.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const rules = parsePortSpec("20-30,~25,8080:80");
 * assertEquals(rules.map(({ first, last, to }) => [first, last, to]), [
 *   [20, 24, 20],
 *   [26, 30, 26],
 *   [8080, 8080, 80],
 * ]);
 * assertEquals(formatPortRules(rules), ["20-24,26-30,8080:80"]);
 * assertEquals(parsePortSpec("none"), []);
 * ```
 */
export function parsePortSpec(text: string, options: PortSpecOptions = {}): PortRule[] {
  if (text === "none") return [];
  const spec = readPortSpec(text, options.bind ?? true);
  checkWords(spec.items, options.auto ?? true);
  const ranges = spec.items.filter(({ kind }) => kind === "ports");
  const everything = spec.items.find(({ kind }) => kind === "all") ?? EVERYTHING;
  const excluded = spec.items.filter(({ kind }) => kind === "excluded")
    .map(({ first, last }): Range => [first, last]);
  if (ranges.length === 0) excluded.push(options.ephemeral ?? DEFAULT_EPHEMERAL);
  excluded.sort(([a], [b]) => a - b);
  const items = ranges.length === 0 ? [everything] : ranges;
  const rules = expand(spec, items, excluded);
  if (rules.length === 0) refuse("every port is excluded");
  return mergeRules(rules);
}

/** Whether a socket of one address is reached through the other, too. */
function addressesMeet(a: Address | null, b: Address | null): boolean {
  if (!a || !b) return true;
  if (isV4(a) !== isV4(b)) return false;
  return isUnspecified(a) || isUnspecified(b) || sameAddress(a, 0, b, 0);
}

/** Whether two rules want the same port of the same address; only two given devices keep them apart. */
export function rulesOverlap(a: PortRule, b: PortRule): boolean {
  return a.first <= b.last && b.first <= a.last && addressesMeet(a.address, b.address) &&
    (a.device === b.device || a.device === null || b.device === null);
}

/** The rule of sorted, disjoint ones that overlaps `rule`, if any. */
function findOverlap(sorted: readonly PortRule[], rule: PortRule): PortRule | undefined {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = low + high >> 1;
    if (sorted[middle].last < rule.first) low = middle + 1;
    else high = middle;
  }
  return low < sorted.length && rulesOverlap(sorted[low], rule) ? sorted[low] : undefined;
}

/** A rule as its user knows it. */
function describe(rule: PortRule): string {
  return rule.weak ? rule.auto ? '"auto"' : '"all"' : `"${formatPortRule(rule)}"`;
}

/**
 * Refuses rules that overlap earlier ones.
 *
 * @param fresh of one text: sorted, and disjoint
 * @throws PortSpecError
 */
export function checkOverlap(earlier: readonly PortRule[], fresh: readonly PortRule[]): void {
  const families = [true, false].map((v4) =>
    fresh.filter(({ address }) => address === null || isV4(address) === v4)
  );
  for (const before of earlier) {
    const rule = families.map((sorted) => findOverlap(sorted, before)).find((found) => found);
    if (!rule) continue;
    const port = Math.max(rule.first, before.first);
    refuse(`${describe(rule)} overlaps ${describe(before)} given before (port ${port})`);
  }
}

/**
 * Adds a specification to those of the same protocol and direction that were given before.
 *
 * @param earlier rules so far; null: nothing was given; empty: `none` was
 * @returns all rules, sorted and merged
 * @throws PortSpecError naming both parts when they overlap, or when one of them is `none`
 * @example
 * ```ts
 * import { addPortSpec, formatPortRules } from "./ports.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const rules = addPortSpec(addPortSpec(null, "22"), "192.0.2.1/80");
 * assertEquals(formatPortRules(rules), ["22", "192.0.2.1/80"]);
 * assertThrows(() => addPortSpec(rules, "80-90"), Error, '"80-90" overlaps "192.0.2.1/80"');
 * ```
 */
export function addPortSpec(
  earlier: readonly PortRule[] | null,
  text: string,
  options: PortSpecOptions = {},
): PortRule[] {
  const fresh = parsePortSpec(text, options);
  if (earlier === null) return fresh;
  if (fresh.length === 0 && earlier.length > 0) {
    refuse(`"none" contradicts ${describe(earlier[0])} given before`);
  }
  if (earlier.length === 0 && fresh.length > 0) {
    refuse(`${describe(fresh[0])} contradicts "none" given before`);
  }
  checkOverlap(earlier, fresh);
  return mergeRules([...earlier, ...fresh]);
}
