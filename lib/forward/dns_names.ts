// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Which addresses belong to the names of rules: learnt from the DNS answers that pass through us.
 *
 * Theory of operation: rules name patterns (`*.example.com`); an answer that gives a name of a pattern an
 * address puts (pattern, address) into a table of fixed size (`address_table.ts`), for as long as the answer is
 * good. Who floods it makes himself unreachable and opens nothing. The names themselves are not kept, nor is
 * anything about names that no rule is about; but where a program decides, it is told all of them
 * (`known_names.ts`).
 *
 * Whom to believe is the point. A guest can ask any server, its own among them, which would say that
 * `allowed.example` is 10.0.0.1. So a caller hands over only what passed on a flow through the tap that
 * leads to port 53 of a *configured* resolver of the host (`Policy.teaches`): there a connected socket
 * of the host's, which the guest cannot bind, send from or answer on, and a look at each sender (a socket has a
 * port before it has a peer) guarantee that the other end is the resolver. What comes from there must answer a query that the guest has sent on the same flow shortly
 * before: with its identifier, name and type; each query is answered once. Answers over TCP, TLS, HTTPS or
 * other ports teach nothing, nor do answers about addresses that a name on the network has no business
 * with: loopback (which the guest may reach by a mapped address), link-local (cloud metadata), multicast and
 * the unspecified address.
 *
 * What is left: an answer is as good as the resolver, and as the path to it. Someone on the network who
 * forges the resolver's address and guesses the port of our socket can teach what he likes, as he could
 * teach the host itself, and a guest in league with him tells him the identifier. A resolver on the
 * host, or one that checks signatures behind a path that nobody else writes to, closes that.
 *
 * @module
 */
import { isBroadcast, isLinkLocal, isLoopback, isMulticast } from "../wire/address.ts";
import { isUnspecified } from "../wire/address.ts";
import { DNS_A, DNS_AAAA, DnsMessage, type DnsName } from "../wire/dns.ts";
import { AddressTable, FNV_BASIS, FNV_PRIME } from "./address_table.ts";
import { type KnownNames, nameText } from "./known_names.ts";
import type { NamePattern } from "./policy_rules.ts";

/** Pairs of pattern and address that are kept at most. */
export const MAX_LEARNT = 16384;
/**
 * Shortest and longest time that a pair is kept, in seconds. A name must outlive the time that a program
 * takes from its answer to its connection; resolvers themselves keep nothing longer (unbound.conf(5),
 * cache-max-ttl).
 */
export const LEAST_SECONDS = 60;
export const MOST_SECONDS = 86400;
/** How long an answer may take: longer than resolver libraries wait (resolv.conf(5), timeout). */
export const ANSWER_SECONDS = 15;
/** Queries that are remembered at most. */
export const MAX_QUERIES = 512;

/** Words of a query: flow plus one (0: none), identifier and type, hash of the name, second. */
const QUERY_WORDS = 4, FLOW = 0, ID_AND_TYPE = 1, HASH = 2, ASKED_AT = 3;
const MS_PER_SECOND = 1000;

/** Names learnt by one instance. */
export class DnsNames {
  readonly #patterns: readonly NamePattern[];
  /** Addresses, tagged with the index of a pattern. */
  readonly #pairs: AddressTable;
  readonly #known: KnownNames | null;
  readonly #queries = new Int32Array(MAX_QUERIES * QUERY_WORDS);
  /** The query that is overwritten next. */
  #nextQuery = 0;
  readonly #message = new DnsMessage();
  readonly #seed = crypto.getRandomValues(new Int32Array(1))[0];

  /**
   * @param patterns what rules name; pairs refer to them by index
   * @param capacity pairs that there is room for: a power of two, four at least
   * @param known is told all names and their addresses; null: nobody is
   */
  constructor(
    patterns: readonly NamePattern[],
    capacity: number = MAX_LEARNT,
    known: KnownNames | null = null,
  ) {
    this.#patterns = patterns;
    this.#pairs = new AddressTable(capacity);
    this.#known = known;
  }

  /**
   * Takes note of a datagram from the guest to a resolver.
   *
   * @param flow index of its flow
   * @param start where its payload begins in `view`
   * @param end where it ends
   */
  asked(flow: number, view: DataView, start: number, end: number, nowMs: number): void {
    const message = this.#message;
    if (!message.readQuestion(view, start, end) || message.response) return;
    if (message.type !== DNS_A && message.type !== DNS_AAAA) return;
    if (!this.#concerns(message.name)) return;
    const at = this.#nextQuery * QUERY_WORDS;
    this.#nextQuery = (this.#nextQuery + 1) % MAX_QUERIES;
    this.#queries[at + FLOW] = flow + 1;
    this.#queries[at + ID_AND_TYPE] = message.id << 16 | message.type;
    this.#queries[at + HASH] = this.#hashName(message.name);
    this.#queries[at + ASKED_AT] = nowMs / MS_PER_SECOND;
  }

  /**
   * Learns from a datagram that a resolver has sent to the guest.
   *
   * @param flow index of its flow
   * @returns number of addresses in it that rules are about
   */
  answered(flow: number, view: DataView, start: number, end: number, nowMs: number): number {
    const message = this.#message;
    if (!message.readQuestion(view, start, end)) return 0;
    if (!message.response || message.rcode !== 0) return 0;
    if (!this.#concerns(message.name) || !this.#takeQuery(flow, nowMs)) return 0;
    const found = message.readAnswers(view, start, end);
    this.#tell(found, nowMs);
    let learnt = 0;
    for (let p = 0; p < this.#patterns.length && found > 0; p++) {
      const { wire, below } = this.#patterns[p];
      if (!message.name.matches(wire, below)) continue;
      for (let k = 0; k < found; k++) {
        if (!learnable(message.addresses, 4 * k)) continue;
        this.learn(p, message.addresses, 4 * k, message.ttls[k], nowMs);
        learnt++;
      }
    }
    return learnt;
  }

  /** Tells all addresses of the message that is being read. */
  #tell(found: number, nowMs: number): void {
    const { name, addresses, ttls } = this.#message;
    const text = found > 0 && this.#known !== null ? nameText(name) : null;
    if (text === null) return;
    for (let k = 0; k < found; k++) {
      if (!learnable(addresses, 4 * k)) continue;
      this.#known!.learn(text, addresses, 4 * k, expiry(ttls[k], nowMs));
    }
  }

  /** Whether a rule is about a name, or somebody wants all. */
  #concerns(name: DnsName): boolean {
    if (this.#known !== null) return true;
    for (let p = 0; p < this.#patterns.length; p++) {
      if (name.matches(this.#patterns[p].wire, this.#patterns[p].below)) return true;
    }
    return false;
  }

  /** Forgets the query that the message answers. @returns false when there is none */
  #takeQuery(flow: number, nowMs: number): boolean {
    const message = this.#message, queries = this.#queries;
    const idAndType = message.id << 16 | message.type, hash = this.#hashName(message.name);
    for (let at = 0; at < queries.length; at += QUERY_WORDS) {
      if (queries[at + FLOW] !== flow + 1 || queries[at + ID_AND_TYPE] !== idAndType) continue;
      if (queries[at + HASH] !== hash) continue;
      queries[at + FLOW] = 0;
      if (nowMs / MS_PER_SECOND - queries[at + ASKED_AT] <= ANSWER_SECONDS) return true;
    }
    return false;
  }

  /**
   * Puts a pair into the table, or prolongs it.
   *
   * @param pattern index of a pattern
   * @param ttl seconds that the answer is good for
   */
  learn(pattern: number, words: Int32Array, at: number, ttl: number, nowMs: number): void {
    this.#pairs.put(pattern, words, at, expiry(ttl, nowMs));
  }

  /** Whether an address belongs, now, to a name of a pattern. */
  has(pattern: number, words: Int32Array, at: number, nowMs: number): boolean {
    return this.#pairs.find(pattern, words, at, nowMs) >= 0;
  }

  #hashName(name: DnsName): number {
    let hash = this.#seed ^ FNV_BASIS;
    for (let k = 0; k < name.length; k++) hash = Math.imul(hash ^ name.bytes[k], FNV_PRIME);
    return hash;
  }
}

/** Second in which something ends that is good for `ttl` seconds. */
function expiry(ttl: number, nowMs: number): number {
  return Math.ceil(nowMs / MS_PER_SECOND) + Math.max(LEAST_SECONDS, Math.min(ttl, MOST_SECONDS));
}

/** Whether a name on the network can stand for an address. */
function learnable(words: Int32Array, at: number): boolean {
  return !isLoopback(words, at) && !isLinkLocal(words, at) && !isMulticast(words, at) &&
    !isBroadcast(words, at) && !isUnspecified(words, at);
}
