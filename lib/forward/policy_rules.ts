// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Policy rules: what `--allow-out` and `--deny-out` say, as data.
 *
 * ```text
 * RULE   = HOST [":" PORTS] ["/" PROTO] ["=" TARGET]
 * HOST   = "any" | NAME | "*." NAME | IPv4 ["/" LENGTH] | IPv6 ["/" LENGTH] | "[" IPv6 ["/" LENGTH] "]"
 * PORTS  = PORT ["-" PORT]
 * PROTO  = "tcp" | "udp" | "icmp"
 * TARGET = IPv4 [":" PORT] | "[" IPv6 "]" [":" PORT]
 * ```
 *
 * An IPv6 address with a port stands in brackets, one without may. Ports are those of TCP and UDP: a rule
 * with ports is not about pings. `*.example.com` is every name below `example.com`, at any depth, but not
 * that name itself. A target, for `--allow-out` only, is where the traffic goes instead; without a port
 * of its own the port stays.
 *
 * What is written is refused rather than guessed at: an address with bits behind its prefix, an IPv4
 * address in IPv6 form, a name that looks like a broken address. See `policy.ts` for what rules mean.
 *
 * @module
 */
import {
  type Address,
  isBroadcast,
  isMulticast,
  isUnspecified,
  isV4,
  parseAddress,
} from "../wire/address.ts";
import { encodeDomainName } from "../wire/dns_name.ts";
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from "../wire/ipv4.ts";
import { MAX_PORT, quoted } from "./port_spec.ts";

/** What becomes of a flow. */
export const Verdict = {
  /** It begins. */
  ALLOW: 0,
  /** Refused as a closed port would be: RST for TCP, ICMP "administratively prohibited" for others. */
  REJECT: 1,
  /** Refused by ICMP "administratively prohibited", TCP too. */
  PROHIBIT: 2,
  /** Nobody answers; but a port of the namespace (`-T`) accepts before it can be asked, and resets. */
  DROP: 3,
  /** Nobody is told anything yet: a `Decider` thinks about it. Of no rule. */
  HOLD: 4,
} as const;

/** Text that is no rule: one line that names the wrong part and what is accepted. */
export class PolicyRuleError extends Error {
  /** Name of the class. */
  override readonly name = "PolicyRuleError";
}

/** Names that a rule is about. */
export interface NamePattern {
  /** In wire form (RFC 1035 §3.1), lower case, with the final zero. */
  readonly wire: Uint8Array<ArrayBuffer>;
  /** Whether it is about the names below {@linkcode wire}, and not about that one. */
  readonly below: boolean;
}

/** One rule. */
export interface PolicyRule {
  /** As written; in log lines. */
  readonly text: string;
  /** What becomes of a flow that the rule is about, of {@linkcode Verdict}. */
  readonly verdict: number;
  /** `IPPROTO_TCP`, `IPPROTO_UDP` or `IPPROTO_ICMP` (which stands for ICMPv6 too); 0: all. */
  readonly protocol: number;
  /** Null: any name, or none. */
  readonly name: NamePattern | null;
  /** Null: any address of both families. */
  readonly address: Address | null;
  /** How many bits of {@linkcode address} count: 0–32 or 0–128. */
  readonly prefixLength: number;
  /** First port; 0: any, and pings. */
  readonly first: number;
  /** Last port; 0: as {@linkcode first}. */
  readonly last: number;
  /** Where the flow goes instead; null: where it was going. */
  readonly target: Address | null;
  /** Port it goes to instead; 0: the port it was going to. */
  readonly targetPort: number;
}

const PROTOCOLS: ReadonlyMap<string, number> = new Map([
  ["tcp", IPPROTO_TCP],
  ["udp", IPPROTO_UDP],
  ["icmp", IPPROTO_ICMP],
]);

/** Bits of an address. */
const BITS4 = 32, BITS6 = 128;
/** Longest rule in characters: a name of 255, ports, protocol and target, with room. */
const MAX_RULE = 512;
/** What may be meant for "any", and would be the name of a host. */
const ALMOST_ANY = /^(any|all|\*\.\*)\.?$/i;
/** Names that stand for the loopback interface (RFC 6761 §6.3): not learnt from anybody. */
const LOCAL_NAME = /(^|\.)localhost\.?$/i;
/** What the last label of a name is not (RFC 3696 §2): else the text is a broken address. */
const LIKE_NUMBER = /(^|\.)(\d+|0x[\da-f]*)$/i;

function refuse(message: string): never {
  throw new PolicyRuleError(message);
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= MAX_PORT) return port;
  refuse(`${quoted(text)} is not a port (1 to ${MAX_PORT})`);
}

/** `PORT` or `FIRST-LAST`; null: not given. */
function parsePorts(text: string | null): [number, number] {
  if (text === null) return [0, 0];
  const dash = text.indexOf("-");
  const first = parsePort(dash < 0 ? text : text.slice(0, dash));
  const last = dash < 0 ? first : parsePort(text.slice(dash + 1));
  if (last < first) refuse(`${quoted(text)} is a reversed range (FIRST-LAST)`);
  return [first, last];
}

/** An address; IPv4 written as v4-mapped IPv6 is refused as ambiguous. */
function parseIp(text: string): Address {
  const address = parseAddress(text);
  if (!address) refuse(`${quoted(text)} is not an IPv4 or IPv6 address`);
  if (text.includes(":") && isV4(address)) {
    refuse(`${quoted(text)} is an IPv4 address in IPv6 form`);
  }
  return address;
}

/** Cuts `HOST[:PORTS]`; an IPv6 address without brackets has no ports. */
function splitPorts(text: string): [host: string, ports: string | null] {
  if (text.startsWith("[")) {
    const close = text.indexOf("]");
    if (close < 0) refuse(`${quoted(text)} lacks the closing bracket`);
    const host = text.slice(1, close), rest = text.slice(close + 1);
    if (!host.includes(":")) refuse(`${quoted(host)} is not an IPv6 address`);
    if (rest === "") return [host, null];
    if (!rest.startsWith(":")) refuse(`${quoted(rest)}: only :PORTS can follow the bracket`);
    return [host, rest.slice(1)];
  }
  const colon = text.indexOf(":");
  if (colon < 0 || text.indexOf(":", colon + 1) >= 0) return [text, null];
  return [text.slice(0, colon), text.slice(colon + 1)];
}

/** Whether bits of an address behind its prefix are set. */
function exceeds(address: Address, prefixLength: number): boolean {
  const skipped = isV4(address) ? BITS6 - BITS4 : 0;
  for (let bit = skipped + prefixLength; bit < BITS6; bit++) {
    if ((address[bit >> 5] >>> 31 - (bit & 31) & 1) !== 0) return true;
  }
  return false;
}

/** `ADDRESS[/LENGTH]` */
function parsePrefix(host: string): Pick<PolicyRule, "address" | "prefixLength"> {
  const slash = host.indexOf("/");
  const address = parseIp(slash < 0 ? host : host.slice(0, slash));
  const bits = isV4(address) ? BITS4 : BITS6;
  if (slash < 0) {
    if (isUnspecified(address)) refuse(`${quoted(host)} is no destination; all are "any"`);
    return { address, prefixLength: bits };
  }
  const text = host.slice(slash + 1);
  const prefixLength = /^\d{1,3}$/.test(text) ? Number(text) : bits + 1;
  if (prefixLength > bits) refuse(`${quoted(text)} is not a prefix length (0 to ${bits})`);
  if (exceeds(address, prefixLength)) {
    refuse(`${quoted(host)} has bits set behind the first ${prefixLength}`);
  }
  return { address, prefixLength };
}

function parseName(host: string): NamePattern {
  const below = host.startsWith("*.");
  const text = below ? host.slice(2) : host;
  if (text.includes("*")) {
    refuse(`${quoted(host)}: an asterisk stands only before the first dot, as in "*.example.com"`);
  }
  if (text === "" || text === "." || LIKE_NUMBER.test(text.replace(/\.$/, ""))) {
    refuse(`${quoted(host)} is neither an address nor a name`);
  }
  if (LOCAL_NAME.test(text)) {
    refuse(`${quoted(host)}: the host's own loopback is written as 127.0.0.1 or [::1]`);
  }
  const wire = /[/:[\]]/.test(text) ? null : encodeDomainName(text.toLowerCase());
  if (wire === null) {
    refuse(`${quoted(host)} is neither an address nor a name (names beyond ASCII as "xn--...")`);
  }
  return { wire, below };
}

type Destination = Pick<PolicyRule, "name" | "address" | "prefixLength">;

function parseHost(host: string): Destination {
  if (host === "") refuse(`no destination (an address, a prefix, a name, or "any")`);
  if (host === "*") refuse(`"*" is not a destination; all are "any"`);
  if (host === "any") return { name: null, address: null, prefixLength: 0 };
  if (ALMOST_ANY.test(host)) refuse(`${quoted(host)} is not a destination; all are "any"`);
  if (host.includes(":") || /^[\d.]+(\/.*)?$/.test(host)) {
    return { name: null, ...parsePrefix(host) };
  }
  return { name: parseName(host), address: null, prefixLength: 0 };
}

/**
 * Parses where a flow goes instead: `ADDRESS`, `IPv4:PORT` or `[IPv6]:PORT`.
 *
 * @returns the address of one host, and the port; 0: none was given
 * @throws PolicyRuleError naming what is wrong
 */
export function parseTarget(text: string): { target: Address; targetPort: number } {
  if (text.length > MAX_RULE) refuse(`longer than ${MAX_RULE} characters`);
  const [host, port] = splitPorts(text);
  const target = parseIp(host);
  if (isUnspecified(target) || isMulticast(target) || isBroadcast(target)) {
    refuse(`${quoted(text)} is not the address of one host`);
  }
  return { target, targetPort: port === null ? 0 : parsePort(port) };
}

/** As {@linkcode parseTarget}, and `:PORT`, with which the address stays: there is no target then. */
export function parseTargetOrPort(
  text: string,
): { target: Address | null; targetPort: number } {
  if (text.lastIndexOf(":") !== 0) return parseTarget(text);
  return { target: null, targetPort: parsePort(text.slice(1)) };
}

/** A target that the rule's destination and protocol can have. */
function checkTarget(rule: PolicyRule): void {
  const { target, address, verdict, first, protocol, targetPort } = rule;
  if (target === null) return;
  if (verdict !== Verdict.ALLOW) refuse("what is denied goes nowhere: no =TARGET");
  if (address !== null && isV4(address) !== isV4(target)) {
    refuse("target and destination are of different families");
  }
  if (targetPort > 0 && first === 0 && protocol === IPPROTO_ICMP) {
    refuse("pings have no ports");
  }
}

/**
 * Parses one rule.
 *
 * @param verdict what becomes of flows that it is about, of {@linkcode Verdict}
 * @throws PolicyRuleError naming the part that is wrong
 * @example
 * ```ts
 * import { parsePolicyRule, Verdict } from "./policy_rules.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const { prefixLength, first, last } = parsePolicyRule("10.0.0.0/8:80-90/tcp", Verdict.REJECT);
 * assertEquals([prefixLength, first, last], [8, 80, 90]);
 * assertEquals(parsePolicyRule("*.example.com:443", Verdict.ALLOW).name?.below, true);
 * assertThrows(() => parsePolicyRule("10.0.0.1/8", Verdict.ALLOW), Error, "bits set behind");
 * ```
 */
export function parsePolicyRule(text: string, verdict: number): PolicyRule {
  if (text.length > MAX_RULE) refuse(`longer than ${MAX_RULE} characters`);
  const equals = text.indexOf("=");
  const left = equals < 0 ? text : text.slice(0, equals);
  const match = /^(.*)\/([a-z]+)$/i.exec(left);
  const protocol = match ? PROTOCOLS.get(match[2]) : 0;
  if (protocol === undefined) refuse(`${quoted(match![2])} is not a protocol (tcp, udp, icmp)`);
  const [host, ports] = splitPorts(match ? match[1] : left);
  const destination = parseHost(host);
  const [first, last] = parsePorts(ports);
  if (first > 0 && protocol === IPPROTO_ICMP) refuse("pings have no ports");
  const target = equals < 0 ? { target: null, targetPort: 0 } : parseTarget(text.slice(equals + 1));
  const rule = { text, verdict, protocol, first, last, ...destination, ...target };
  checkTarget(rule);
  return rule;
}
