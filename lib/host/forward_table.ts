// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The rules of one option of port forwarding, with the listeners that they have open.
 *
 * @module
 */
import type { ListenSpec } from "../forward/listener.ts";
import {
  checkOverlap,
  MAX_PORT,
  mergeRules,
  type PortRule,
  rulesOverlap,
} from "../forward/ports.ts";
import { CLOSED, OpenRule, OpenRules } from "./open_rules.ts";
import { AutoPorts, emptyPorts, exclude, has, include, type PortSet } from "./port_set.ts";

/** What opens and closes the listeners of a protocol. */
export interface Ports {
  /** @returns index of the listener, or a negative errno */
  listen(spec: ListenSpec): number;
  unlisten(index: number): void;
  /** Ports that are bound still though they were closed: connections use them. Default: none. */
  kept?(pif: number): readonly number[];
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
  readonly named: OpenRules = new OpenRules();
  /** Rules that follow TCP, likewise. */
  readonly followers: readonly OpenRule[];
  readonly #followers: OpenRules;
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
    this.#followers = new OpenRules(this.followers);
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
    const auto = this.auto.map(({ rule }) => rule);
    return mergeRules([...auto, ...this.weak, ...this.named.all(), ...following]);
  }

  /**
   * Refuses rules that overlap others; `auto` rules and those that follow give way.
   *
   * @param fresh of one text
   * @throws PortSpecError
   */
  checkOverlap(fresh: readonly PortRule[]): void {
    checkOverlap(this.weak, fresh);
    if (fresh.some((rule) => this.#listens(rule))) checkOverlap(this.named.all(), fresh);
  }

  /** Whether we listen on a port of a rule, on any address. */
  #listens({ first, last }: PortRule): boolean {
    for (let port = first; port <= last; port++) if (has(this.listening, port)) return true;
    return false;
  }

  /** Rules which follow TCP that overlap a rule. */
  followersOf(rule: PortRule): OpenRule[] {
    return this.#followers.between(rule.first, rule.last)
      .filter((follower) => rulesOverlap(follower.rule, rule));
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
    if (this.auto.length === 0) return;
    const named = this.named.all();
    for (const auto of this.auto) {
      const everywhere = { ...auto.rule, first: 0, last: MAX_PORT };
      auto.taken.fill(0);
      for (const rule of named) {
        if (!rulesOverlap(rule, everywhere)) continue;
        for (let port = rule.first; port <= rule.last; port++) include(auto.taken, port);
      }
    }
  }
}
