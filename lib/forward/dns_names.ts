// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Which addresses belong to the names of rules: learnt from the DNS answers that pass through us.
 *
 * Theory of operation: rules name patterns (`*.example.com`); an answer that gives a name of a pattern an
 * address puts (pattern, address) into a table, for as long as the answer is good. The names themselves are
 * not kept, nor is anything about names that no rule is about. The table is of fixed size: four places
 * for each value of a hash; when all are taken the one that expires first gives way. So nobody can make it
 * grow, and who floods it makes himself unreachable and opens nothing.
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
import { isUnspecified, sameAddress } from "../wire/address.ts";
import { DNS_A, DNS_AAAA, DnsMessage, type DnsName } from "../wire/dns.ts";
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

/** Words of a pair: address, pattern plus one (0: unused), second in which it expires. */
const WORDS = 6, PATTERN = 4, EXPIRES = 5;
/** Places per value of the hash. */
const WAYS = 4;
/** Words of a query: flow plus one (0: none), identifier and type, hash of the name, second. */
const QUERY_WORDS = 4, FLOW = 0, ID_AND_TYPE = 1, HASH = 2, ASKED_AT = 3;
// FNV-1a of Fowler, Noll and Vo, 32 bits: prime and basis; every instance mixes in a word of its own
const FNV_PRIME = 0x01000193, FNV_BASIS = 0x811c9dc5 | 0;

/** Names learnt by one instance. */
export class DnsNames {
  readonly #patterns: readonly NamePattern[];
  readonly #sets: number;
  readonly #pairs: Int32Array<ArrayBuffer>;
  readonly #queries = new Int32Array(MAX_QUERIES * QUERY_WORDS);
  /** The query that is overwritten next. */
  #nextQuery = 0;
  readonly #message = new DnsMessage();
  readonly #seed = crypto.getRandomValues(new Int32Array(1))[0];

  /**
   * @param patterns what rules name; pairs refer to them by index
   * @param capacity pairs that there is room for: a power of two, four at least
   */
  constructor(patterns: readonly NamePattern[], capacity: number = MAX_LEARNT) {
    this.#patterns = patterns;
    this.#sets = capacity / WAYS;
    this.#pairs = new Int32Array(capacity * WORDS);
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
    this.#queries[at + ASKED_AT] = nowMs / 1000;
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

  /** Whether a rule is about a name. */
  #concerns(name: DnsName): boolean {
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
      if (nowMs / 1000 - queries[at + ASKED_AT] <= ANSWER_SECONDS) return true;
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
    const seconds = Math.max(LEAST_SECONDS, Math.min(ttl, MOST_SECONDS));
    const expires = Math.ceil(nowMs / 1000) + seconds;
    const pairs = this.#pairs;
    let place = this.#find(pattern, words, at);
    if (place >= 0) {
      if (expires > pairs[place + EXPIRES]) pairs[place + EXPIRES] = expires;
      return;
    }
    place = this.#oldest(this.#setOf(pattern, words, at));
    for (let k = 0; k < 4; k++) pairs[place + k] = words[at + k];
    pairs[place + PATTERN] = pattern + 1;
    pairs[place + EXPIRES] = expires;
  }

  /** Whether an address belongs, now, to a name of a pattern. */
  has(pattern: number, words: Int32Array, at: number, nowMs: number): boolean {
    const place = this.#find(pattern, words, at);
    return place >= 0 && nowMs / 1000 < this.#pairs[place + EXPIRES];
  }

  /** Where a pair lies, expired or not; -1: nowhere. */
  #find(pattern: number, words: Int32Array, at: number): number {
    const pairs = this.#pairs, first = this.#setOf(pattern, words, at);
    for (let place = first; place < first + WAYS * WORDS; place += WORDS) {
      if (pairs[place + PATTERN] === pattern + 1 && sameAddress(pairs, place, words, at)) {
        return place;
      }
    }
    return -1;
  }

  /** Of the places of one hash, the one that expires first; unused ones have expired at 0. */
  #oldest(first: number): number {
    const pairs = this.#pairs;
    let oldest = first;
    for (let place = first; place < first + WAYS * WORDS; place += WORDS) {
      if (pairs[place + EXPIRES] < pairs[oldest + EXPIRES]) oldest = place;
    }
    return oldest;
  }

  /** Where the places that a pair can have begin. */
  #setOf(pattern: number, words: Int32Array, at: number): number {
    let hash = this.#seed ^ FNV_BASIS ^ pattern;
    for (let k = 0; k < 4; k++) hash = mix(Math.imul(hash ^ words[at + k], FNV_PRIME));
    return (hash >>> 0) % this.#sets * WAYS * WORDS;
  }

  #hashName(name: DnsName): number {
    let hash = this.#seed ^ FNV_BASIS;
    for (let k = 0; k < name.length; k++) hash = Math.imul(hash ^ name.bytes[k], FNV_PRIME);
    return hash;
  }
}

/** Brings the upper bits, which a multiplication fills, down to the lower ones. */
function mix(hash: number): number {
  return hash ^ hash >>> 15;
}

/** Whether a name on the network can stand for an address. */
function learnable(words: Int32Array, at: number): boolean {
  return !isLoopback(words, at) && !isLinkLocal(words, at) && !isMulticast(words, at) &&
    !isBroadcast(words, at) && !isUnspecified(words, at);
}
