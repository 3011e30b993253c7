// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Policy: which flows of the guest may begin, and where they go instead.
 *
 * Theory of operation: every flow that the guest starts is decided on once, when its other side is known and
 * before anything is done for it: TCP, UDP and pings through the tap, and what comes by the ports of its
 * namespace (`-T`, `-U`). Packets of a flow that has begun are never looked at again, and go on when a name
 * that let it begin has expired. Flows towards the guest are not concerned: `-t` and `-u` say which there are.
 *
 * Rules are looked at in their order; the first that is about a flow decides, as in a chain of iptables(8).
 * What none is about is denied when there is a rule that allows something, and otherwise allowed. So
 * one `--allow-out` makes a list of exceptions to "nothing", `--deny-out` alone one of exceptions to
 * "everything", and `--allow-out any` at the end says so of a mixture.
 *
 * - *Addresses* are real ones. A guest may call the host's loopback by the gateway's address
 *   (`--map-host-loopback`) or reach it by the splice path: a rule that allows says 127.0.0.1, and one for
 *   the gateway's address does not open the host. A rule that denies is about a flow already when either
 *   address fits, the real one or the one that the guest uses, so that what is forbidden under one name
 *   is forbidden. The same goes for ports.
 * - *Names* are those learnt by `dns_names.ts`, whose limits hold here. A name is its addresses: who may
 *   reach `allowed.example` may reach all that is served from the same address, and its owner can point it
 *   into the network that the host is in: rules that deny that network belong before it. To deny a name hides it
 *   only from those who do not know its addresses.
 * - *Resolvers*: while a rule allows a name and the rest is denied, port 53 (UDP and TCP) of the
 *   configured resolvers is allowed after all rules, or no name could ever be learnt. Thus data can still
 *   leave as names that somebody looks up; a rule that denies the resolver's address ends that, and names.
 * - *Sources* play no part, so that a forged one gains nothing.
 *
 * A program (`decider.ts`) may decide instead on what no rule is about, port 53 of resolvers included unless a
 * rule allows a name. It is asked by `deciding.ts`, once for each flow, and may take its time: the flow is
 * held meanwhile.
 *
 * A rule with a target sends its flows there; a flow of the other family is denied then. The target itself
 * is not subject to rules.
 *
 * Whoever begins a flow asks {@linkcode admit}, makes what the flow needs, and says {@linkcode admitted} when it
 * begins: only then a program's permission is used up, and its label given.
 *
 * @module
 */
import { shown } from "../sys/text.ts";
import { getLogger, LogLevels } from "../std/log.ts";
import type { Context, Family } from "../context.ts";
import type { FlowTable } from "../flow/table.ts";
import { type FlowSide, Pif, SIDE_EADDR, SIDE_OADDR } from "../flow/side.ts";
import { type Address, formatAddress, isV4, sameAddress } from "../wire/address.ts";
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from "../wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "../wire/ipv6.ts";
import type { Decider, Decision } from "./decider.ts";
import type { FlowAnswer } from "./question.ts";
import { Deciding } from "./deciding.ts";
import { DnsNames } from "./dns_names.ts";
import { KnownNames } from "./known_names.ts";
import { type NamePattern, type PolicyRule, Verdict } from "./policy_rules.ts";
import type { Packet } from "../wire/packet.ts";

export type { Decider } from "./decider.ts";
export { parsePolicyRule, type PolicyRule, PolicyRuleError, Verdict } from "./policy_rules.ts";

/** Port of resolvers (RFC 1035 §4.2). */
export const DNS_PORT = 53;
/** Values of {@linkcode Policy.rule} that are no rule's index. */
export const BY_DEFAULT = -1;
export const AS_RESOLVER = -2;
export const BY_PROGRAM = -3;
const V4_MAPPED_BITS = 96; // RFC 4291 §2.5.5.2

/** Where flows go instead. */
type Redirection = Pick<Decision, "target" | "targetPort">;

/** A rule as decisions need it. */
interface Prepared {
  readonly rule: PolicyRule;
  /** Index of its name among the patterns; -1: none. */
  readonly pattern: number;
  /** Bits of the four words that count; -1: any address. */
  readonly bits: number;
}

/**
 * Decides on a flow of the guest: the one question that everything asks that begins one.
 *
 * @param protocol as in {@linkcode Policy.decide}
 * @param ini, tgt as in {@linkcode Policy.apply}
 * @returns one of {@linkcode Verdict}; without a policy, that it may begin
 */
export function admit(ctx: Context, protocol: number, ini: FlowSide, tgt: FlowSide): number {
  return ctx.policy === null ? Verdict.ALLOW : ctx.policy.apply(ctx, protocol, ini, tgt);
}

/**
 * Keeps a packet of the guest that {@linkcode admit} has just said {@linkcode Verdict}.HOLD about, for when
 * there is an answer.
 *
 * @param packet in the link's arena, where it was received
 */
export function hold({ policy, link }: Context, packet: Packet): void {
  const deciding = policy?.deciding;
  if (deciding) deciding.frames.keep(deciding.place, link, packet);
}

/**
 * The flow that {@linkcode admit} has just let begin does so, as entry `i` of the table: it gets its label, and the
 * decision is used up. To be called right before its activation, also for flows that the guest does not start.
 */
export function admitted({ policy, table }: Context, i: number, ini: FlowSide): void {
  if (policy !== null && ini.pif !== Pif.HOST) policy.begun(table, i);
}

/** Whether the first `bits` bits of two addresses, four words each, are the same. */
function samePrefix(a: Int32Array, i: number, b: Int32Array, j: number, bits: number): boolean {
  const whole = bits >> 5, rest = bits & 31;
  for (let k = 0; k < whole; k++) if (a[i + k] !== b[j + k]) return false;
  return rest === 0 || (a[i + whole] ^ b[j + whole]) >>> 32 - rest === 0;
}

/** The resolvers that are believed: those handed to the guest, and the one that its queries are sent on to. */
export function trustedResolvers(families: readonly (Family | null)[]): Address[] {
  return families.flatMap((family) => {
    if (!family) return [];
    return family.dnsHost ? [...family.dns, family.dnsHost] : family.dns;
  });
}

function prepare(rules: readonly PolicyRule[], patterns: NamePattern[]): Prepared[] {
  return rules.map((rule) => {
    const { name, address, prefixLength } = rule;
    const skipped = address && isV4(address) ? V4_MAPPED_BITS : 0;
    const bits = address ? skipped + prefixLength : -1;
    return { rule, pattern: name ? patterns.push(name) - 1 : -1, bits };
  });
}

/**
 * The rules of one instance. Decisions allocate nothing.
 *
 * @example
 * ```ts
 * import { parsePolicyRule, Policy, Verdict } from "./policy.ts";
 * import { parseAddress } from "../wire/address.ts";
 * import { IPPROTO_TCP } from "../wire/ipv4.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const policy = new Policy([
 *   parsePolicyRule("192.0.2.0/24:22", Verdict.DROP),
 *   parsePolicyRule("192.0.2.0/24", Verdict.ALLOW),
 * ]);
 * const address = parseAddress("192.0.2.7")!, other = parseAddress("198.51.100.1")!;
 * assertEquals(policy.decide(IPPROTO_TCP, address, 0, 22, 0), Verdict.DROP);
 * assertEquals(policy.decide(IPPROTO_TCP, address, 0, 80, 0), Verdict.ALLOW);
 * assertEquals(policy.decide(IPPROTO_TCP, other, 0, 80, 0), Verdict.REJECT);
 * ```
 */
export class Policy {
  /** What becomes of a flow that no rule is about, of {@linkcode Verdict}. */
  readonly fallback: number;
  /** Names of rules, and those that a program is told; null: there are none. */
  readonly names: DnsNames | null;
  /** The program that decides on what no rule is about; null: there is none. */
  readonly deciding: Deciding | null;
  /** Where the last decision came from: index of a rule, {@linkcode BY_DEFAULT}, {@linkcode AS_RESOLVER} or {@linkcode BY_PROGRAM}. */
  rule = BY_DEFAULT;
  /** What the flow of the last {@linkcode Policy.apply} is to be called; "": nothing, also when it may not begin. */
  label = "";
  /** Whether it was said that there are too many labels. */
  #told = false;
  readonly #rules: readonly Prepared[];
  /** Whether there are names in rules. */
  readonly #named: boolean;
  readonly #resolvers: readonly Address[];
  /** Whether resolvers may be asked although no rule says so. */
  readonly #asks: boolean;

  /**
   * @param rules in the order in which they are looked at
   * @param resolvers whose answers are believed
   * @param fallback of {@linkcode Verdict}; by default it depends on whether a rule allows something
   * @param decider decides instead of `fallback` in {@linkcode Policy.apply}
   */
  constructor(
    rules: readonly PolicyRule[],
    resolvers: readonly Address[] = [],
    fallback?: number,
    decider: Decider | null = null,
  ) {
    const allowing = rules.filter(({ verdict }) => verdict === Verdict.ALLOW);
    const patterns: NamePattern[] = [];
    this.#rules = prepare(rules, patterns);
    this.#resolvers = resolvers;
    this.fallback = fallback ?? (allowing.length > 0 ? Verdict.REJECT : Verdict.ALLOW);
    this.#named = patterns.length > 0;
    const known = decider && new KnownNames();
    this.names = this.#named || known ? new DnsNames(patterns, undefined, known) : null;
    this.#asks = allowing.some(({ name }) => name !== null);
    this.deciding = decider && new Deciding(decider, {
      namesOf: (words, at, nowMs) => known!.of(words, at, nowMs),
      leadsToResolver: (protocol, tgt) => this.#leadsToResolver(protocol, tgt),
    });
  }

  /** Whether there are names in rules, but nobody who could tell their addresses. */
  get unresolvable(): boolean {
    return this.#named && this.#resolvers.length === 0;
  }

  /**
   * Decides on a flow, and leaves in {@linkcode Policy.rule} what decided.
   *
   * @param protocol `IPPROTO_TCP`, `IPPROTO_UDP`, `IPPROTO_ICMP` or `IPPROTO_ICMPV6`
   * @param real real destination, `real[realAt…]`, and its port; of a ping, any port
   * @param named the same as the guest has it, if that is different
   * @returns one of {@linkcode Verdict}
   */
  decide(
    protocol: number,
    real: Int32Array,
    realAt: number,
    port: number,
    nowMs: number,
    named: Int32Array = real,
    namedAt: number = realAt,
    namedPort: number = port,
  ): number {
    const kind = protocol === IPPROTO_ICMPV6 ? IPPROTO_ICMP : protocol;
    for (let k = 0; k < this.#rules.length; k++) {
      const prepared = this.#rules[k], { verdict } = prepared.rule;
      if (prepared.rule.protocol !== 0 && prepared.rule.protocol !== kind) continue;
      const either = verdict !== Verdict.ALLOW;
      if (
        this.#concerns(prepared, kind, real, realAt, port, nowMs) ||
        either && this.#concerns(prepared, kind, named, namedAt, namedPort, nowMs)
      ) {
        this.rule = k;
        return verdict;
      }
    }
    const resolver = this.#asks && port === DNS_PORT && kind !== IPPROTO_ICMP &&
      this.#isResolver(real, realAt);
    this.rule = resolver ? AS_RESOLVER : BY_DEFAULT;
    return resolver ? Verdict.ALLOW : this.fallback;
  }

  /** Whether a rule is about a destination. */
  #concerns(
    { rule, pattern, bits }: Prepared,
    kind: number,
    words: Int32Array,
    at: number,
    port: number,
    nowMs: number,
  ): boolean {
    if (rule.first > 0 && (kind === IPPROTO_ICMP || port < rule.first || port > rule.last)) {
      return false;
    }
    if (pattern >= 0) return this.names!.has(pattern, words, at, nowMs);
    if (rule.address === null) return true;
    return isV4(rule.address) === isV4(words, at) && samePrefix(rule.address, 0, words, at, bits);
  }

  #leadsToResolver(protocol: number, { words, eport }: FlowSide): boolean {
    return eport === DNS_PORT && (protocol === IPPROTO_UDP || protocol === IPPROTO_TCP) &&
      this.#isResolver(words, SIDE_EADDR);
  }

  #isResolver(words: Int32Array, at: number): boolean {
    for (let k = 0; k < this.#resolvers.length; k++) {
      if (sameAddress(this.#resolvers[k], 0, words, at)) return true;
    }
    return false;
  }

  /**
   * Decides on a flow of the guest whose sides are known, and redirects it where its rule says so.
   *
   * @param ini the guest's side, with the destination as the guest has it as our address
   * @param tgt side of the real destination; may be given another endpoint
   * @returns one of {@linkcode Verdict}
   */
  apply(ctx: Context, protocol: number, ini: FlowSide, tgt: FlowSide): number {
    const { words } = ini, { nowMs } = ctx, to = tgt.words;
    let verdict = this.decide(
      protocol,
      to,
      SIDE_EADDR,
      tgt.eport,
      nowMs,
      words,
      SIDE_OADDR,
      ini.oport,
    );
    this.label = "";
    this.deciding?.forget();
    let rule: Redirection | null = null;
    if (this.rule >= 0) rule = this.#rules[this.rule].rule;
    else if (this.rule === BY_DEFAULT && this.deciding !== null) {
      verdict = this.deciding.decide(nowMs, protocol, ini, tgt);
      this.rule = BY_PROGRAM;
      rule = this.deciding.decision;
      if (verdict === Verdict.ALLOW) this.label = this.deciding.decision.label;
    }
    if (getLogger().level <= LogLevels.DEBUG) this.#log(verdict, protocol, tgt);
    return rule !== null && verdict === Verdict.ALLOW
      ? this.#redirect(rule, protocol, tgt)
      : verdict;
  }

  /** Sends an allowed flow where it goes instead, if anywhere. @returns its verdict */
  #redirect(rule: Redirection, protocol: number, tgt: FlowSide): number {
    const { target } = rule, { words } = tgt;
    const port = this.#targetPort(rule, protocol, tgt);
    if (target === null) {
      if (port !== tgt.eport) tgt.setEndpoint(words, SIDE_EADDR, port);
      return Verdict.ALLOW;
    }
    if (isV4(target) !== isV4(words, SIDE_EADDR)) return Verdict.REJECT;
    tgt.setEndpoint(target, 0, port);
    return Verdict.ALLOW;
  }

  /** The flow of the last {@linkcode Policy.apply} begins, see {@linkcode admitted}. */
  begun(table: FlowTable, i: number): void {
    this.deciding?.begun();
    if (this.label === "") return;
    const id = table.labelId(this.label);
    table.setLabel(i, id);
    if (id > 0 || this.#told) return;
    this.#told = true;
    getLogger().warn(`Policy: no room for label ${shown(this.label)}: only known ones are given`);
  }

  /**
   * Gives an answer that the {@linkcode Decider} has promised. The loop goes on with the flow in its next turn.
   *
   * @param id of the question
   * @param answer is checked: a wrong one rejects the flow
   * @returns false when no flow is waiting for it: it came twice, or too late
   */
  answered(id: number, answer: FlowAnswer): boolean {
    return this.deciding?.answered(id, answer) ?? false;
  }

  /** Port of a redirected flow; a ping keeps its identifier. */
  #targetPort({ targetPort }: Redirection, protocol: number, tgt: FlowSide): number {
    const ports = protocol === IPPROTO_TCP || protocol === IPPROTO_UDP;
    return ports && targetPort > 0 ? targetPort : tgt.eport;
  }

  #log(verdict: number, protocol: number, { words, eport }: FlowSide): void {
    const said = verdict === Verdict.ALLOW
      ? "allowed"
      : verdict === Verdict.HOLD
      ? "held"
      : "denied";
    const why = this.rule === BY_DEFAULT
      ? "no rule"
      : this.rule === AS_RESOLVER
      ? "resolver"
      : this.rule === BY_PROGRAM
      ? "program"
      : this.#rules[this.rule].rule.text;
    const where = `${formatAddress(words, SIDE_EADDR)} port ${eport}`;
    getLogger().debug(`Policy: protocol ${protocol} to ${where} ${said} (${why})`);
  }

  /** Whether what passes on a flow is to be handed to {@linkcode Policy.names}. */
  teaches(protocol: number, ini: FlowSide, tgt: FlowSide): boolean {
    return this.names !== null && protocol === IPPROTO_UDP && ini.pif === Pif.TAP &&
      tgt.pif === Pif.HOST && this.#leadsToResolver(protocol, tgt);
  }
}
