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
import type { ListenSpec } from "../forward/listener.ts";
import { formatPortRule, MAX_PORT, type PortRule } from "../forward/ports.ts";
import { E, errnoName } from "../sys/errno.ts";
import { monotonicMs } from "../sys/clock.ts";
import { type Address, isV4 } from "../wire/address.ts";
import {
  add,
  AutoPorts,
  emptyPorts,
  exclude,
  forget,
  has,
  include,
  type PortSet,
} from "./port_set.ts";

/** Ports below it are privileged (ip(7)). */
const LOW_PORT_LIMIT = 1024;
/** Descriptors that weak and `auto` rules leave for connections: at most, and as a share. */
const RESERVE = 1024;
const RESERVE_SHARE = 8;
/** Share of them that ports named outright leave for those of `auto`. */
const AUTO_SHARE = 8;
/** A scan may take this share of the time, but is not put off for longer than so many ms. */
const SCAN_SHARE = 100;
const MAX_SCAN_INTERVAL_MS = 4000;
/** Interface that local connections in the namespace come from. */
const LOOPBACK_DEVICE = "lo";

/** What opens and closes the listeners of a protocol. */
export interface Ports {
  /** @returns index of the listener, or a negative errno */
  listen(spec: ListenSpec): number;
  unlisten(index: number): void;
  /** Ports that are bound still though they were closed: connections use them. Default: none. */
  kept?(pif: number): readonly number[];
}

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

/** One option. */
class Table {
  /** Ports we listen on for it. */
  readonly listening: PortSet = emptyPorts();
  /** Those of {@linkcode Table.followers}: any other rule comes before them. */
  readonly following: PortSet = emptyPorts();
  readonly auto: readonly AutoPorts[];
  readonly weak: readonly PortRule[];
  /** Listeners per port: as many as there are rules with addresses of their own. */
  readonly #counts: Uint16Array<ArrayBuffer> = new Uint16Array(MAX_PORT + 1);

  constructor(
    readonly option: string,
    readonly pif: number,
    readonly ports: Ports,
    readonly rules: readonly PortRule[],
    readonly followers: readonly PortRule[] = [],
  ) {
    this.auto = rules.filter((rule) => rule.auto).map((rule) => new AutoPorts(rule));
    this.weak = rules.filter((rule) => rule.weak && !rule.auto);
  }

  get protocol(): string {
    return this.option.toLowerCase() === "-t" ? "TCP" : "UDP";
  }

  opened(port: number): void {
    this.#counts[port]++;
    include(this.listening, port);
  }

  closed(port: number): void {
    if (--this.#counts[port] === 0) exclude(this.listening, port);
  }
}

/** What a user can do about a port that cannot be had. */
function listenHint(reason: number, port: number): string {
  switch (reason) {
    case E.EADDRINUSE:
      return " (the port is in use)";
    case E.EACCES:
      return port >= LOW_PORT_LIMIT
        ? ""
        : " (ports below 1024 need CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start)";
    case E.EMFILE:
      return " (more ports than descriptors: see ulimit -n)";
    case E.EADDRNOTAVAIL:
      return " (not an address of this host: see --freebind)";
    case E.ENODEV:
      return " (no such interface)";
  }
  return "";
}

function outOfDescriptors(result: number): boolean {
  return result === -E.EMFILE || result === -E.ENFILE;
}

/** The port forwarding of one instance. */
export class Forwarder {
  readonly #options: ForwarderOptions;
  readonly #tables: { t: Table; u: Table; T: Table; U: Table };
  /** Descriptors that weak and `auto` rules may still take. */
  #budget: number;
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
      t: new Table("-t", Pif.HOST, tcp, rules.tcp),
      u: new Table("-u", Pif.HOST, udp, rules.udp, followers.udp),
      T: new Table("-T", Pif.SPLICE, tcp, rules.tcpNs),
      U: new Table("-U", Pif.SPLICE, udp, rules.udpNs, followers.udpNs),
    };
    this.#budget = descriptors - Math.min(RESERVE, Math.floor(descriptors / RESERVE_SHARE));
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
    this.#budget -= used;
    const tables = Object.values(this.#tables);
    for (const table of tables) {
      table.rules.forEach((rule) => this.#checkFamily(table, rule));
      for (const rule of table.rules) if (!rule.auto && !rule.weak) this.#openAll(table, rule);
    }
    const kept = this.scans ? Math.floor(this.#budget / AUTO_SHARE) : 0;
    const groups = tables.flatMap((table) =>
      [[table, table.weak], [table, table.followers]] as const
    )
      .filter(([, rules]) => rules.length > 0);
    groups.sort(([, a], [, b]) => size(a) - size(b)); // what the small ones leave is for the large
    groups.forEach(([table, rules], k) => {
      const share = Math.floor((this.#budget - kept) / (groups.length - k));
      this.#openWeak(table, rules, Math.max(0, share));
    });
    this.scan();
  }

  /** @throws ConfigError when a rule is about a family that is off */
  #checkFamily(table: Table, rule: PortRule): void {
    const { ipv4, ipv6 } = this.#options;
    const off = (address: Address | null) => address !== null && !(isV4(address) ? ipv4 : ipv6);
    for (const address of [rule.address, rule.target]) {
      if (!off(address)) continue;
      const name = isV4(address!) ? "IPv4" : "IPv6";
      throw new ConfigError(`${table.option} ${formatPortRule(rule)}: ${name} is disabled`);
    }
  }

  /** Opens one port for a table. @returns a negative errno when that fails, else its listener */
  #listen(table: Table, rule: PortRule, port: number): number {
    const { pif } = table;
    const result = table.ports.listen({
      pif,
      address: rule.address,
      device: rule.device ?? (pif === Pif.SPLICE ? LOOPBACK_DEVICE : null),
      port,
      to: rule.to + port - rule.first,
      target: rule.target,
      freebind: this.#options.freebind,
    });
    if (result < 0) return result;
    table.opened(port);
    this.#budget--;
    return result;
  }

  #openAll(table: Table, rule: PortRule): void {
    for (let port = rule.first; port <= rule.last; port++) {
      const result = this.#listen(table, rule, port);
      if (result >= 0) continue;
      const hint = listenHint(-result, port);
      throw new ConfigError(
        `${table.option} ${
          formatPortRule(rule)
        }: cannot listen on ${table.protocol} port ${port}: ` +
          errnoName(-result) + hint,
      );
    }
  }

  /** The ports of weak rules of a table, or of its followers, as far as they can be had. */
  #openWeak(table: Table, rules: readonly PortRule[], budget: number): void {
    const { option, protocol } = table;
    const follows = rules === table.followers;
    const wanted = size(rules);
    const { opened, reason } = this.#openSome(table, rules, budget);
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

  /** Opens what can be had, up to a number. @returns how many, and why not more (errno, or 0) */
  #openSome(
    table: Table,
    rules: readonly PortRule[],
    budget: number,
  ): { opened: number; reason: number } {
    let opened = 0, reason = 0;
    for (const rule of rules) {
      for (let port = rule.first; port <= rule.last; port++) {
        if (opened >= budget) return { opened, reason: E.EMFILE };
        const result = this.#listen(table, rule, port);
        if (outOfDescriptors(result)) return { opened, reason: E.EMFILE };
        if (result < 0) reason = -result;
        else {
          opened++;
          if (rules === table.followers) include(table.following, port);
        }
      }
    }
    return { opened, reason };
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
  #followAll(table: Table, bound: PortSet, tcp: Table | null): void {
    const more = tcp && tcp.auto.length > 0 && table.auto.length > 0 ? this.#more.fill(0) : null;
    if (more) { for (const { wanted } of tcp!.auto) add(more, wanted); }
    for (const auto of table.auto) this.#follow(table, auto, bound, more);
  }

  /** Makes the open ports of an `auto` rule those that are bound. */
  #follow(table: Table, auto: AutoPorts, bound: PortSet, more: PortSet | null): void {
    auto.compare(bound, more, (port, wanted) => {
      if (!wanted) {
        table.ports.unlisten(auto.listeners.get(port)!);
        auto.closed(port);
        table.closed(port);
        this.#budget++;
        return;
      }
      if (has(table.following, port)) return; // it is forwarded already
      const result = this.#budget > 0 ? this.#listen(table, auto.rule, port) : -E.EMFILE;
      if (result >= 0) auto.opened(port, result);
      else if (outOfDescriptors(result)) this.#warnOnce(table);
    });
  }

  #warnOnce(table: Table): void {
    if (this.#warned) return;
    this.#warned = true;
    getLogger().warn(
      `${table.option}: not every port is forwarded: too few of ${this.#options.descriptors} ` +
        "descriptors are left (ulimit -n)",
    );
  }
}

/** Removes the ports that a table has open where they were found. */
function forgetOurs(found: PortSet, { listening, ports, pif }: Table): void {
  forget(found, listening);
  for (const port of ports.kept?.(pif) ?? []) exclude(found, port);
}

/** Ports that rules name. */
function size(rules: readonly PortRule[]): number {
  return rules.reduce((sum, { first, last }) => sum + last - first + 1, 0);
}
