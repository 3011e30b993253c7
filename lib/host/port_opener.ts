// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Opening and closing the listeners of port rules within a budget of descriptors.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import { Pif } from "../flow/side.ts";
import { formatPortRule, type PortRule } from "../forward/ports.ts";
import { E, errnoName } from "../sys/errno.ts";
import type { ForwardTable } from "./forward_table.ts";
import { CLOSED, OpenRule } from "./open_rules.ts";
import { include } from "./port_set.ts";

/** Ports below it are privileged (ip(7)). */
const LOW_PORT_LIMIT = 1024;
/** Interface that local connections in the namespace come from. */
const LOOPBACK_DEVICE = "lo";

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

/** Whether no listener could be had for want of descriptors. */
export function outOfDescriptors(result: number): boolean {
  return result === -E.EMFILE || result === -E.ENFILE;
}

/** Opens and closes the ports of one instance. */
export class PortOpener {
  /** Descriptors that weak and `auto` rules may still take. */
  budget: number;
  readonly #freebind: boolean;

  constructor(budget: number, freebind: boolean) {
    this.budget = budget;
    this.#freebind = freebind;
  }

  /** Opens one port for a table. @returns a negative errno when that fails, else its listener */
  listen(table: ForwardTable, rule: PortRule, port: number): number {
    const { pif } = table;
    const result = table.ports.listen({
      pif,
      address: rule.address,
      device: rule.device ?? (pif === Pif.SPLICE ? LOOPBACK_DEVICE : null),
      port,
      to: rule.to + port - rule.first,
      target: rule.target,
      freebind: this.#freebind,
    });
    if (result < 0) return result;
    table.opened(port);
    this.budget--;
    return result;
  }

  /** Opens all ports of a rule. @throws ConfigError when one cannot be had: none is open then */
  openAll(table: ForwardTable, rule: PortRule): OpenRule {
    const opened = new OpenRule(rule), { listeners } = opened;
    for (let port = rule.first; port <= rule.last; port++) {
      const result = this.listen(table, rule, port);
      listeners[port - rule.first] = Math.max(result, CLOSED);
      if (result >= 0) continue;
      this.closeAll(table, opened);
      const name = errnoName(-result), what = `${table.protocol} port ${port}`;
      throw new ConfigError(
        `${table.option} ${formatPortRule(rule)}: cannot listen on ${what}: ` + name +
          listenHint(-result, port),
        name,
      );
    }
    return opened;
  }

  /** Closes those of ports `first…last` of a rule that are open. @returns them */
  closeAll(
    table: ForwardTable,
    { rule, listeners }: OpenRule,
    first: number = rule.first,
    last: number = rule.last,
  ): number[] {
    const closed: number[] = [];
    for (let port = Math.max(first, rule.first); port <= Math.min(last, rule.last); port++) {
      const listener = listeners[port - rule.first];
      if (listener === CLOSED) continue;
      this.close(table, port, listener);
      listeners[port - rule.first] = CLOSED;
      closed.push(port);
    }
    return closed;
  }

  /** Opens ports of a rule again that {@linkcode closeAll} has closed, as far as they can be had. */
  reopen(table: ForwardTable, { rule, listeners }: OpenRule, ports: readonly number[]): void {
    for (const port of ports) {
      listeners[port - rule.first] = Math.max(this.listen(table, rule, port), CLOSED);
    }
  }

  /** Closes a listener of a port. */
  close(table: ForwardTable, port: number, listener: number): void {
    table.close(port, listener);
    this.budget++;
  }

  /** Opens what can be had, up to a number. @returns how many, and why not more (errno, or 0) */
  openSome(
    table: ForwardTable,
    rules: readonly OpenRule[],
    budget: number,
  ): { opened: number; reason: number } {
    let opened = 0, reason = 0;
    for (const { rule, listeners } of rules) {
      for (let port = rule.first; port <= rule.last; port++) {
        if (opened >= budget) return { opened, reason: E.EMFILE };
        const result = this.listen(table, rule, port);
        if (outOfDescriptors(result)) return { opened, reason: E.EMFILE };
        if (result < 0) reason = -result;
        else {
          opened++;
          listeners[port - rule.first] = result;
          if (rules === table.followers) include(table.following, port);
        }
      }
    }
    return { opened, reason };
  }
}
