// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Port forwarding rules: what `-t` and `-u` say, as data.
 *
 * Understood so far: `none`, `PORT`, `PORT:PORT` and comma-separated lists of those. A rule already
 * has the fields that the full grammar of passt(1) needs (a range, a bound address, a device), so
 * that listeners need not change when the rest is parsed.
 *
 * @module
 */
import type { Address } from "../wire/address.ts";

/** Largest port number (RFC 9293 §3.1). */
export const MAX_PORT = 65535;
/** Rules one specification may hold: a bound on what is kept in memory. */
export const MAX_RULES = 65535;

/** Ports `first…last` of the host go to ports `to…to + last - first` of the guest. */
export interface PortRule {
  /** First port to listen on. */
  readonly first: number;
  /** Last port to listen on, same as {@linkcode first} for a single one. */
  readonly last: number;
  /** Port of the guest that stands for {@linkcode first}. */
  readonly to: number;
  /** Address to listen on; null: all addresses, both families. */
  readonly address: Address | null;
  /** Interface to listen on; null: all. */
  readonly device: string | null;
}

/** What a specification may be, for messages. */
export const PORT_SPEC_FORM = "none, PORT or PORT:PORT, several separated by commas";

/** Text that is no port specification; the message says what is wrong and what is accepted. */
export class PortSpecError extends Error {
  override readonly name = "PortSpecError";
}

/** Characters that only the grammar still to come uses. */
const LATER = /[-~/%]/;

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > MAX_PORT) {
    throw new PortSpecError(`"${text}" is not a port (1 to ${MAX_PORT})`);
  }
  return port;
}

function parseRule(item: string): PortRule {
  if (item === "") throw new PortSpecError(`empty port (accepted: ${PORT_SPEC_FORM})`);
  if (item === "auto" || item === "all" || LATER.test(item)) {
    throw new PortSpecError(`"${item}" is not supported yet (accepted: ${PORT_SPEC_FORM})`);
  }
  const parts = item.split(":");
  if (parts.length > 2) {
    throw new PortSpecError(`"${item}" has more than two ports (accepted: ${PORT_SPEC_FORM})`);
  }
  const first = parsePort(parts[0]);
  const to = parts.length === 2 ? parsePort(parts[1]) : first;
  return { first, last: first, to, address: null, device: null };
}

/**
 * Parses one port specification.
 *
 * @returns the rules in the order given; none for `none`
 * @throws PortSpecError naming the part that is wrong
 * @example
 * ```ts
 * import { parsePortSpec } from "./ports.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const rules = parsePortSpec("22,8080:80");
 * assertEquals(rules.map((rule) => [rule.first, rule.to]), [[22, 22], [8080, 80]]);
 * assertEquals(parsePortSpec("none"), []);
 * ```
 */
export function parsePortSpec(text: string): PortRule[] {
  if (text === "none") return [];
  const items = text.split(",", MAX_RULES + 1);
  if (items.length > MAX_RULES) throw new PortSpecError(`more than ${MAX_RULES} ports`);
  const rules = items.map(parseRule);
  const seen = new Set<number>();
  for (const { first } of rules) {
    if (seen.has(first)) throw new PortSpecError(`port ${first} is given twice`);
    seen.add(first);
  }
  return rules;
}
