// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The rules of one option of port forwarding, with the listeners that they have open.
 *
 * @module
 */
import type { ListenSpec } from "../forward/listener.ts";
import { MAX_PORT, mergeRules, type PortRule, rulesOverlap } from "../forward/ports.ts";
import { type Address, sameAddress } from "../wire/address.ts";
import { AutoPorts, emptyPorts, exclude, include, type PortSet } from "./port_set.ts";

/** No listener. */
export const CLOSED = -1;

/** What opens and closes the listeners of a protocol. */
export interface Ports {
  /** @returns index of the listener, or a negative errno */
  listen(spec: ListenSpec): number;
  unlisten(index: number): void;
  /** Ports that are bound still though they were closed: connections use them. Default: none. */
  kept?(pif: number): readonly number[];
}

/** A rule, and the listener of each of its ports; {@linkcode CLOSED}: it is not open. */
export class OpenRule {
  readonly listeners: Int32Array;

  constructor(readonly rule: PortRule, listeners?: Int32Array) {
    this.listeners = listeners ?? new Int32Array(rule.last - rule.first + 1).fill(CLOSED);
  }

  /** Ports `first…last` of this rule only, with their listeners. */
  part(first: number, last: number): OpenRule {
    const from = first - this.rule.first;
    const rule = { ...this.rule, first, last, to: this.rule.to + from };
    return new OpenRule(rule, this.listeners.slice(from, from + last - first + 1));
  }

  /** What is left without ports `first…last`. */
  without(first: number, last: number): OpenRule[] {
    const { rule } = this, left: OpenRule[] = [];
    if (first > rule.last || last < rule.first) return [this];
    if (first > rule.first) left.push(this.part(rule.first, first - 1));
    if (last < rule.last) left.push(this.part(last + 1, rule.last));
    return left;
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

function sameOrNone(a: Address | null, b: Address | null): boolean {
  return a && b ? sameAddress(a, 0, b, 0) : a === b;
}

/** Whether a rule is part of another: the same ports lead to the same place. */
function isPart(part: PortRule, whole: PortRule): boolean {
  return part.first >= whole.first && part.last <= whole.last &&
    part.to - part.first === whole.to - whole.first && part.device === whole.device &&
    sameOrNone(part.address, whole.address) && sameOrNone(part.target, whole.target);
}

/** One option. */
export class ForwardTable {
  /** Ports we listen on for it. */
  readonly listening: PortSet = emptyPorts();
  /** Those of {@linkcode followers}: any other rule comes before them. */
  readonly following: PortSet = emptyPorts();
  readonly auto: readonly AutoPorts[];
  readonly weak: readonly PortRule[];
  /** Rules that name their ports, as far as they are open. */
  named: OpenRule[] = [];
  /** Rules that follow TCP, likewise. */
  readonly followers: readonly OpenRule[];
  /** Listeners per port: as many as there are rules with addresses of their own. */
  readonly #counts: Uint16Array<ArrayBuffer> = new Uint16Array(MAX_PORT + 1);

  constructor(
    readonly option: string,
    readonly pif: number,
    readonly ports: Ports,
    readonly rules: readonly PortRule[],
    followers: readonly PortRule[] = [],
  ) {
    this.auto = rules.filter((rule) => rule.auto).map((rule) => new AutoPorts(rule));
    this.weak = rules.filter((rule) => rule.weak && !rule.auto);
    this.followers = followers.map((rule) => new OpenRule(rule));
  }

  get protocol(): string {
    return this.option.toLowerCase() === "-t" ? "TCP" : "UDP";
  }

  /** Notes that there is a listener more on a port. */
  opened(port: number): void {
    this.#counts[port]++;
    include(this.listening, port);
  }

  /** Closes a listener of a port. */
  close(port: number, listener: number): void {
    this.ports.unlisten(listener);
    if (--this.#counts[port] === 0) exclude(this.listening, port);
  }

  /** All that is in force: what follows as far as it is open, without its weakness. */
  inForce(): PortRule[] {
    const following = this.followers.flatMap((rule) => rule.open())
      .map((rule) => ({ ...rule, weak: false }));
    const named = this.named.map(({ rule }) => rule);
    const auto = this.auto.map(({ rule }) => rule);
    return mergeRules([...auto, ...this.weak, ...named, ...following]);
  }

  /** Whether all ports of a rule are named by rules that lead to the same place. */
  has(rule: PortRule): boolean {
    let left = [new OpenRule(rule)];
    for (const named of this.named) {
      if (!this.#meets(named, rule)) continue;
      left = left.flatMap((part) => part.without(named.rule.first, named.rule.last));
    }
    return left.length === 0;
  }

  /** Whether a named rule and another are about the same ports in part, and agree there. */
  #meets(named: OpenRule, { first, last, ...rest }: PortRule): boolean {
    const from = Math.max(first, named.rule.first), to = Math.min(last, named.rule.last);
    if (from > to) return false;
    return isPart({ ...rest, first: from, last: to, to: rest.to + from - first }, named.rule);
  }

  /** Takes the ports of a rule that {@linkcode has} is true for out of the named ones. @returns them */
  take(rule: PortRule): OpenRule[] {
    const taken: OpenRule[] = [];
    this.named = this.named.flatMap((named) => {
      if (!this.#meets(named, rule)) return [named];
      const first = Math.max(rule.first, named.rule.first);
      const last = Math.min(rule.last, named.rule.last);
      taken.push(named.part(first, last));
      return named.without(first, last);
    });
    return taken;
  }

  /** Finds out anew which ports follow TCP, and which ones `auto` rules leave to named ones. */
  settle(): void {
    this.#reserve();
    this.following.fill(0);
    for (const { rule, listeners } of this.followers) {
      listeners.forEach((listener, k) => {
        if (listener !== CLOSED) include(this.following, rule.first + k);
      });
    }
  }

  #reserve(): void {
    for (const auto of this.auto) {
      auto.taken.fill(0);
      for (const { rule } of this.named) {
        if (!rulesOverlap(rule, { ...auto.rule, first: rule.first, last: rule.last })) continue;
        for (let port = rule.first; port <= rule.last; port++) include(auto.taken, port);
      }
    }
  }
}

/** Ports that rules name. */
export function size(rules: readonly OpenRule[]): number {
  return rules.reduce((sum, { listeners }) => sum + listeners.length, 0);
}
