// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Port forwarding of one instance: opens the ports that `-t`, `-u`, `-T` and `-U` name, and keeps those
 * of `auto` as the other side's.
 *
 * Theory of operation: each option is a table of rules with the listeners it has open. What a rule
 * names outright is opened once, at start: a port that cannot be had is an error, unless the rule is a
 * weak one (`all`), which takes what there is and leaves some descriptors for connections. Ports of an
 * `auto` rule are compared once a second with those that are bound on the other side: new ones are
 * opened, vanished ones closed; connections stay. What we have opened there ourselves is left out, or
 * both directions would feed each other for ever. UDP without rules of its own follows TCP.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { ConfigError } from "../config/error.ts";
import { Pif } from "../flow/side.ts";
import type { BoundPorts } from "../forward/bound_ports.ts";
import { formatPortRule, formatPortRules, type PortRule, rulesOverlap } from "../forward/ports.ts";
import { E, errnoName } from "../sys/errno.ts";
import { monotonicMs } from "../sys/clock.ts";
import { type Address, isV4 } from "../wire/address.ts";
import { ForwardTable, type Ports } from "./forward_table.ts";
import { OpenRule, size } from "./open_rules.ts";
import { outOfDescriptors, PortOpener } from "./port_opener.ts";
import { add, type AutoPorts, emptyPorts, exclude, forget, has, type PortSet } from "./port_set.ts";

export type { Ports } from "./forward_table.ts";

/** Descriptors that weak and `auto` rules leave for connections: at most, and as a share. */
const RESERVE = 1024;
const RESERVE_SHARE = 8;
/** Share of them that ports named outright leave for those of `auto`. */
const AUTO_SHARE = 8;
/** A scan may take this share of the time, but is not put off for longer than so many ms. */
const SCAN_SHARE = 100;
const MAX_SCAN_INTERVAL_MS = 4000;

/** Rules of the four options. */
export interface ForwardRules {
  readonly tcp: readonly PortRule[];
  readonly udp: readonly PortRule[];
  readonly tcpNs: readonly PortRule[];
  readonly udpNs: readonly PortRule[];
}

/** Where the forwarder gets everything from. */
export interface ForwarderOptions {
  readonly tcp: Ports;
  readonly udp: Ports;
  readonly rules: ForwardRules;
  /** Rules of `udp` and `udpNs` that only follow TCP: no message when they come to nothing. */
  readonly followers: { readonly udp: readonly PortRule[]; readonly udpNs: readonly PortRule[] };
  readonly freebind: boolean;
  /** Which families are enabled. */
  readonly ipv4: boolean;
  readonly ipv6: boolean;
  /** Number of descriptors the process may have. */
  readonly descriptors: number;
  /** Clock in milliseconds. Default: monotonic. */
  readonly clock?: () => number;
  /** Ports bound in the guest's namespace and in ours; null: nothing is found out (no `auto`). */
  readonly bound: { readonly guest: BoundPorts; readonly host: BoundPorts } | null;
}

/** The four options. */
export type ForwardOption = "t" | "u" | "T" | "U";

/** The port forwarding of one instance. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #tables: Record<ForwardOption, ForwardTable>;
  readonly #opener: PortOpener;
  /** Descriptors that they leave, of which named ones may take half while we run. */
  readonly #reserve: number;
  #warned = false;
  #scanAt = 0;
  readonly #more: PortSet = emptyPorts();
  readonly #bound: Record<"guestTcp" | "guestUdp" | "hostTcp" | "hostUdp", PortSet> = {
    guestTcp: emptyPorts(),
    guestUdp: emptyPorts(),
    hostTcp: emptyPorts(),
    hostUdp: emptyPorts(),
  };

  constructor(options: ForwarderOptions) {
    const { tcp, udp, rules, followers, descriptors } = options;
    this.#options = options;
    this.#tables = {
      t: new ForwardTable("-t", Pif.HOST, tcp, rules.tcp),
      u: new ForwardTable("-u", Pif.HOST, udp, rules.udp, followers.udp),
      T: new ForwardTable("-T", Pif.SPLICE, tcp, rules.tcpNs),
      U: new ForwardTable("-U", Pif.SPLICE, udp, rules.udpNs, followers.udpNs),
    };
    this.#reserve = Math.min(RESERVE, Math.floor(descriptors / RESERVE_SHARE));
    this.#opener = new PortOpener(descriptors - this.#reserve, options.freebind);
  }

  /** Whether {@linkcode Forwarder.scan} has anything to do. */
  get scans(): boolean {
    return this.#options.bound !== null &&
      Object.values(this.#tables).some(({ auto }) => auto.length > 0);
  }

  /**
   * Opens everything that is to be open at start.
   *
   * @param used descriptors that are open already
   * @throws ConfigError naming the first port that cannot be had
   */
  open(used: number): void {
    this.#opener.budget -= used;
    const tables = Object.values(this.#tables);
    for (const table of tables) {
      table.rules.forEach((rule) => this.#checkFamily(table, rule));
      const named = table.rules.filter(({ auto, weak }) => !auto && !weak);
      table.named.add(named.map((rule) => this.#opener.openAll(table, rule)));
    }
    const kept = this.scans ? Math.floor(this.#opener.budget / AUTO_SHARE) : 0;
    const groups = tables.flatMap((table) =>
      [[table, table.weak.map((rule) => new OpenRule(rule))], [table, table.followers]] as const
    )
      .filter(([, rules]) => rules.length > 0);
    groups.sort(([, a], [, b]) => sizeOf(a) - sizeOf(b)); // what the small ones leave is for the large
    groups.forEach(([table, rules], k) => {
      const share = Math.floor((this.#opener.budget - kept) / (groups.length - k));
      this.#openWeak(table, rules, Math.max(0, share));
    });
    this.scan();
  }

  /**
   * Forwards more ports.
   *
   * `auto` rules leave ports to those that are named, and so do UDP ports that follow TCP's. No packet moves
   * meanwhile: opening a port takes about 20 µs, mostly of the kernel, so 10,000 of them 0.2 s; closing
   * one no longer than that.
   *
   * @param rules of one text, plain ones
   * @throws PortSpecError when a rule overlaps one that is there, ConfigError when a port cannot be had:
   *   nothing is changed then
   */
  add(option: ForwardOption, rules: readonly PortRule[]): void {
    const table = this.#tables[option];
    table.checkOverlap(rules);
    rules.forEach((rule) => this.#checkFamily(table, rule));
    this.#checkBudget(table, size(rules));
    const followed = this.#giveWay(table, rules);
    const opened: OpenRule[] = [];
    try {
      for (const rule of rules) opened.push(this.#opener.openAll(table, rule));
      table.named.add(opened);
    } catch (error) {
      for (const rule of opened) this.#opener.closeAll(table, rule);
      for (const [rule, ports] of followed) this.#opener.reopen(table, rule, ports);
      throw error;
    } finally {
      table.settle();
    }
  }

  /** @throws ConfigError when too few descriptors would be left */
  #checkBudget(table: ForwardTable, count: number): void {
    if (count <= this.#opener.budget + this.#reserve / 2) return;
    throw new ConfigError(
      `${table.option}: ${count} ${table.protocol} ports more would leave too few of ` +
        `${this.#options.descriptors} descriptors (ulimit -n)`,
    );
  }

  /** Closes what gives way to named rules. @returns the followers among it, and their ports */
  #giveWay(table: ForwardTable, rules: readonly PortRule[]): [OpenRule, number[]][] {
    const followed: [OpenRule, number[]][] = [];
    for (const rule of rules) {
      for (const auto of table.auto) {
        if (!rulesOverlap(auto.rule, rule)) continue;
        for (let port = rule.first; port <= rule.last; port++) {
          if (auto.listeners.has(port)) this.#closeAuto(table, auto, port);
        }
      }
      for (const follower of table.followersOf(rule)) {
        const closed = this.#opener.closeAll(table, follower, rule.first, rule.last);
        followed.push([follower, closed]);
      }
    }
    return followed;
  }

  /**
   * Takes forwarded ports back. Connections stay.
   *
   * @param rules ports of plain rules, all of them or some
   * @throws ConfigError when one is not forwarded by such a rule: nothing is changed then
   */
  remove(option: ForwardOption, rules: readonly PortRule[]): void {
    const table = this.#tables[option];
    const missing = rules.find((rule) => !table.named.has(rule));
    if (missing) {
      const named = `${table.option} ${formatPortRule(missing)}`;
      throw new ConfigError(`${named}: there is no such rule${inForce(table, missing)}`);
    }
    for (const taken of table.named.take(rules)) this.#opener.closeAll(table, taken);
    table.settle();
  }

  /**
   * What is in force for an option, as texts.
   *
   * @param ephemeral ports that `all` and `auto` leave out
   */
  rules(option: ForwardOption, ephemeral: readonly [number, number]): string[] {
    const rules = this.#tables[option].inForce();
    return rules.length === 0 ? [] : formatPortRules(rules, ephemeral);
  }

  /** @throws ConfigError when a rule is about a family that is off */
  #checkFamily(table: ForwardTable, rule: PortRule): void {
    const { ipv4, ipv6 } = this.#options;
    const off = (address: Address | null) => address !== null && !(isV4(address) ? ipv4 : ipv6);
    for (const address of [rule.address, rule.target]) {
      if (!off(address)) continue;
      const name = isV4(address!) ? "IPv4" : "IPv6";
      throw new ConfigError(`${table.option} ${formatPortRule(rule)}: ${name} is disabled`);
    }
  }

  /** The ports of weak rules of a table, or of its followers, as far as they can be had. */
  #openWeak(table: ForwardTable, rules: readonly OpenRule[], budget: number): void {
    const { option, protocol } = table;
    const follows = rules === table.followers;
    const wanted = sizeOf(rules);
    const { opened, reason } = this.#opener.openSome(table, rules, budget);
    if (opened === 0 && !follows) {
      const why = reason === 0 ? "" : `: ${errnoName(reason)}`;
      throw new ConfigError(
        `${option}: none of ${wanted} ${protocol} ports can be forwarded${why}`,
      );
    }
    if (reason !== E.EMFILE) return;
    getLogger().warn(
      `${option}: ${opened} of ${wanted} ${protocol} ports are forwarded: ` +
        `more would leave too few of ${this.#options.descriptors} descriptors (ulimit -n)`,
    );
  }

  /** Opens and closes ports of `auto` rules as the other side's ports come and go. */
  scan(): void {
    const { bound, clock = monotonicMs } = this.#options;
    const now = clock();
    if (!bound || !this.scans || now < this.#scanAt) return;
    this.#find(bound);
    const { t, u, T, U } = this.#tables;
    const { guestTcp, guestUdp, hostTcp, hostUdp } = this.#bound;
    this.#followAll(t, guestTcp, null);
    this.#followAll(u, guestUdp, t);
    this.#followAll(T, hostTcp, null);
    this.#followAll(U, hostUdp, T);
    const took = clock() - now;
    this.#scanAt = now + Math.min(SCAN_SHARE * took, MAX_SCAN_INTERVAL_MS);
  }

  /** Finds the ports that are bound on both sides, without ours. */
  #find(bound: { readonly guest: BoundPorts; readonly host: BoundPorts }): void {
    const { t, u, T, U } = this.#tables;
    const { guestTcp, guestUdp, hostTcp, hostUdp } = this.#bound;
    if (t.auto.length > 0 || u.auto.length > 0) {
      bound.guest.scanTcp(guestTcp.fill(0));
      if (u.auto.length > 0) bound.guest.scanUdp(guestUdp.fill(0));
      forgetOurs(guestTcp, T);
      forgetOurs(guestUdp, U);
    }
    if (T.auto.length > 0 || U.auto.length > 0) {
      bound.host.scanTcp(hostTcp.fill(0));
      if (U.auto.length > 0) bound.host.scanUdp(hostUdp.fill(0));
      forgetOurs(hostTcp, t);
      forgetOurs(hostUdp, u);
    }
  }

  /** Follows the bound ports with all `auto` rules of a table, and with those of TCP for UDP. */
  #followAll(table: ForwardTable, bound: PortSet, tcp: ForwardTable | null): void {
    const more = tcp && tcp.auto.length > 0 && table.auto.length > 0 ? this.#more.fill(0) : null;
    if (more) { for (const { wanted } of tcp!.auto) add(more, wanted); }
    for (const auto of table.auto) this.#follow(table, auto, bound, more);
  }

  /** Makes the open ports of an `auto` rule those that are bound. */
  #follow(table: ForwardTable, auto: AutoPorts, bound: PortSet, more: PortSet | null): void {
    auto.compare(bound, more, (port, wanted) => {
      if (!wanted) {
        return this.#closeAuto(table, auto, port);
      }
      if (has(table.following, port)) return; // it is forwarded already
      const result = this.#opener.budget > 0
        ? this.#opener.listen(table, auto.rule, port)
        : -E.EMFILE;
      if (result >= 0) auto.opened(port, result);
      else if (outOfDescriptors(result)) this.#warnOnce(table);
    });
  }

  #closeAuto(table: ForwardTable, auto: AutoPorts, port: number): void {
    this.#opener.close(table, port, auto.listeners.get(port)!);
    auto.closed(port);
  }

  #warnOnce(table: ForwardTable): void {
    if (this.#warned) return;
    this.#warned = true;
    getLogger().warn(
      `${table.option}: not every port is forwarded: too few of ${this.#options.descriptors} ` +
        "descriptors are left (ulimit -n)",
    );
  }
}

/** Ports that open rules name. */
function sizeOf(rules: readonly OpenRule[]): number {
  return size(rules.map(({ rule }) => rule));
}

/** Rules that a message names. */
const MAX_NAMED = 3;

/** What plain rules there are for the ports of a rule, for a message. */
function inForce(table: ForwardTable, { first, last }: PortRule): string {
  const texts = table.named.between(first, last).map(({ rule }) => formatPortRule(rule));
  if (texts.length === 0) return "";
  if (texts.length > MAX_NAMED) texts.splice(MAX_NAMED, Infinity, "...");
  return `; in force: ${texts.join(", ")}`;
}

/** Removes the ports that a table has open where they were found. */
function forgetOurs(found: PortSet, { listening, ports, pif }: ForwardTable): void {
  forget(found, listening);
  for (const port of ports.kept?.(pif) ?? []) exclude(found, port);
}
