// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Port rules as text, in the one form that `ports.ts` documents.
 *
 * @module
 */
import { type Address, formatAddress, isUnspecified, isV4 } from "../wire/address.ts";
import { DEFAULT_EPHEMERAL } from "./ephemeral.ts";
import { MAX_PORT } from "./port_spec.ts";
import type { PortRule } from "./ports.ts";

function formatIp(address: Address): string {
  return isV4(address) ? formatAddress(address) : `[${formatAddress(address)}]`;
}

function formatRange(first: number, last: number): string {
  return first === last ? `${first}` : `${first}-${last}`;
}

/** `ADDRESS%INTERFACE/`, or nothing where that is what holds anyway. */
function formatListen({ address, device, target }: PortRule): string {
  const implied = !address ||
    target !== null && isUnspecified(address) && isV4(address) === isV4(target);
  const where = `${implied ? "" : formatIp(address)}${device ? `%${device}` : ""}`;
  return where && `${where}/`;
}

/** `PORTS:ADDRESS/PORTS` as short as it can be. */
function formatPorts({ first, last, to, target }: PortRule): string {
  const ports = formatRange(first, last);
  const targetPorts = first === to ? "" : formatRange(to, to + last - first);
  if (!target) return targetPorts ? `${ports}:${targetPorts}` : ports;
  return `${ports}:${formatIp(target)}${targetPorts && `/${targetPorts}`}`;
}

/**
 * One rule for messages: its addresses, interface and ports. That it is weak or automatic is not shown.
 *
 * @example
 * ```ts
 * import { formatPortRule, parsePortSpec } from "./ports.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const [rule] = parsePortSpec("2001:DB8::1%eth0/80-90:[2001:db8::7]/180-190");
 * assertEquals(formatPortRule(rule), "[2001:db8::1]%eth0/80-90:[2001:db8::7]/180-190");
 * ```
 */
export function formatPortRule(rule: PortRule): string {
  return formatListen(rule) + formatPorts(rule);
}

/** Whether `all` can stand for a rule: weak, no other ports, none of the ephemeral ones. */
function fromAll(rule: PortRule, [low, high]: readonly [number, number]): boolean {
  const { first, last, to, weak } = rule;
  return weak && first === to && (last < low || first > high);
}

/** Exclusions that leave just the ports of sorted rules of `all`. */
function formatExclusions(
  rules: readonly PortRule[],
  [low, high]: readonly [number, number],
): string[] {
  const excluded: string[] = [];
  const exclude = (first: number, last: number) => {
    if (first <= last) excluded.push(`~${formatRange(first, last)}`);
  };
  let next = 1;
  for (const { first, last } of [...rules, { first: MAX_PORT + 1, last: MAX_PORT + 1 }]) {
    exclude(next, Math.min(first, low) - 1);
    exclude(Math.max(next, high + 1), first - 1);
    next = last + 1;
  }
  return excluded;
}

/**
 * Rules as texts, one for each listening address and kind of rule, that give the same rules when they are
 * parsed as repeated options; `none` for no rules.
 *
 * @param rules as {@linkcode parsePortSpec} gives them. A weak rule that no text gives (translated, or
 *   of ephemeral ports) is printed as a plain one.
 * @param ephemeral what the texts are to be parsed with
 * @example
 * ```ts
 * import { formatPortRules, parsePortSpec } from "./ports.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(formatPortRules(parsePortSpec("~22")), ["all,~22"]);
 * assertEquals(formatPortRules(parsePortSpec("8080:80,auto,22")), ["auto,22,8080:80"]);
 * ```
 */
export function formatPortRules(
  rules: readonly PortRule[],
  ephemeral: readonly [number, number] = DEFAULT_EPHEMERAL,
): string[] {
  if (rules.length === 0) return ["none"];
  const groups = Map.groupBy(rules, (rule) => {
    const all = fromAll(rule, ephemeral);
    const target = all && rule.target ? formatIp(rule.target) : "";
    return `${formatListen(rule)} ${rule.auto} ${all} ${target}`;
  });
  return [...groups.values()].map((group) => {
    const { auto, target } = group[0];
    const sorted = group.toSorted((a, b) => a.first - b.first);
    const all = fromAll(group[0], ephemeral);
    const parts = all ? formatExclusions(sorted, ephemeral) : sorted.map(formatPorts);
    if (all && (target || !auto)) parts.unshift(target ? `all:${formatIp(target)}` : "all");
    if (auto) parts.unshift("auto");
    return formatListen(group[0]) + parts.join(",");
  });
}
