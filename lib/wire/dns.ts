// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * DNS messages (RFC 1035 §4): which name was asked for, and which addresses the answer gives it.
 *
 * Theory of operation: names are kept in wire form, lower case (RFC 4343), in buffers that are made once;
 * as text, a label with a dot in it could pass for two labels. Only what a question leads to counts: from its
 * name along the answer's CNAMEs, in whatever order they are, to the records of the asked type at the
 * end of the chain. Other records, such as those of the additional section, are nobody's answer.
 *
 * Messages may be hostile. Nothing is read beyond `end`; a compression pointer (RFC 1035 §4.1.4) must lead
 * to before the piece of the name that it ends, so that no name is read for ever; names, chains and
 * messages have a largest length. What is wrong anywhere before the end of the answers makes the whole
 * message unusable. Nothing is allocated.
 *
 * @module
 */
import { isV4, loadV4, loadV6 } from "./address.ts";

// Types of records (RFC 1035 §3.2.2, RFC 3596 §2.1), and the class of the Internet.
/** An IPv4 address. */
export const DNS_A = 1;
/** Another name for the same. */
export const DNS_CNAME = 5;
/** An IPv6 address. */
export const DNS_AAAA = 28;
/** The class of the Internet. */
export const DNS_IN = 1;
/** Bytes of the header (RFC 1035 §4.1.1). */
export const DNS_HEADER_SIZE = 12;
/** Longest name in wire form (RFC 1035 §2.3.4). */
export const DNS_MAX_NAME = 255;
/** Longest message that is looked at: resolvers do not announce more over UDP (RFC 6891 §6.2.5). */
export const DNS_MAX_MESSAGE = 4096;
/** Most addresses taken from one answer. */
export const DNS_MAX_ADDRESSES = 64;
/** Most CNAMEs that are followed. */
export const DNS_MAX_CHAIN = 16;

// Offsets in the header, bits of its second word (RFC 1035 §4.1.1).
const FLAGS = 2, QUESTIONS = 4, ANSWERS = 6;
const RESPONSE = 0x8000, OPCODE = 0x7800, RCODE = 0x000f;
/** Bytes of a question behind its name: type and class. */
const QUESTION_TAIL = 4;
/** A record behind its name (RFC 1035 §4.1.3): type, class, TTL, length; then the data. */
const RECORD_CLASS = 2, RECORD_TTL = 4, RECORD_LENGTH = 8, RECORD_DATA = 10;
const V4_BYTES = 4, V6_BYTES = 16;
/** Longest lifetime; a greater value means none (RFC 2181 §8). */
const MAX_TTL = 0x7fffffff;
/** Most pointers in a name: as many as it can have labels. */
const MAX_POINTERS = 128;
/** Upper two bits of a length: all set in a pointer, none in a label. */
const POINTER = 0xc0;
const UPPER_A = 0x41, UPPER_Z = 0x5a, TO_LOWER = 0x20;

/** A name in wire form, lower case, with its final zero. */
export class DnsName {
  /** Lengths and labels; what is behind {@linkcode length} means nothing. */
  readonly bytes: Uint8Array<ArrayBuffer> = new Uint8Array(DNS_MAX_NAME);
  /** Bytes in use; 0: none. */
  length = 0;

  /**
   * Reads a name that may be compressed.
   *
   * @param start where the message begins: pointers count from there
   * @param at where the name begins
   * @param end of the message
   * @returns where what follows it begins, or -1: it is not a name
   */
  read(view: DataView, start: number, at: number, end: number): number {
    const { bytes } = this;
    let next = -1, limit = at, n = 0, pointers = 0;
    this.length = 0;
    while (at < end) {
      const size = view.getUint8(at);
      if ((size & POINTER) === POINTER) {
        if (at + 1 >= end) return -1;
        const to = start + ((size & ~POINTER) << 8 | view.getUint8(at + 1));
        if (next < 0) next = at + 2;
        if (to >= limit || ++pointers > MAX_POINTERS) return -1;
        limit = at = to;
        continue;
      }
      if ((size & POINTER) !== 0 || at + 1 + size > end || n + 1 + size > DNS_MAX_NAME) return -1;
      bytes[n++] = size;
      if (size === 0) {
        this.length = n;
        return next < 0 ? at + 1 : next;
      }
      for (let k = 1; k <= size; k++) bytes[n++] = lower(view.getUint8(at + k));
      at += 1 + size;
    }
    return -1;
  }

  /** Whether both are the same name. */
  equals(other: DnsName): boolean {
    if (this.length !== other.length) return false;
    for (let k = 0; k < this.length; k++) if (this.bytes[k] !== other.bytes[k]) return false;
    return true;
  }

  /** Whether this is the name `wire`, or, with `below`, one below it (and not that one). */
  matches(wire: Uint8Array, below: boolean): boolean {
    const skipped = this.length - wire.length;
    if (skipped < 0 || below !== skipped > 0) return false;
    let at = 0;
    while (at < skipped) at += 1 + this.bytes[at];
    if (at !== skipped) return false; // no label begins there
    for (let k = 0; k < wire.length; k++) if (this.bytes[at + k] !== wire[k]) return false;
    return true;
  }

  /** Becomes the same as another. */
  copy(other: DnsName): void {
    this.length = other.length;
    for (let k = 0; k < other.length; k++) this.bytes[k] = other.bytes[k];
  }
}

function lower(byte: number): number {
  return byte >= UPPER_A && byte <= UPPER_Z ? byte | TO_LOWER : byte;
}

/**
 * One message, read again and again.
 *
 * @example
 * ```ts
 * import { DNS_A, DnsMessage } from "./dns.ts";
 * import { encodeDomainName } from "./dns_name.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const name = encodeDomainName("Example.com")!;
 * const query = Uint8Array.of(0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, ...name, 0, DNS_A, 0, 1);
 * const message = new DnsMessage();
 * assert(message.readQuestion(new DataView(query.buffer), 0, query.length));
 * assertEquals([message.id, message.response, message.type], [7, false, DNS_A]);
 * assert(message.name.matches(encodeDomainName("com")!, true));
 * ```
 */
export class DnsMessage {
  /** Identifier. */
  id = 0;
  /** Whether it is a response. */
  response = false;
  /** The response's code; 0: no error (RFC 1035 §4.1.1). */
  rcode = 0;
  /** Name of its one question. */
  readonly name: DnsName = new DnsName();
  /** Type of its one question, such as {@linkcode DNS_AAAA}. */
  type = 0;
  /** Addresses of {@linkcode readAnswers}, four words each. */
  readonly addresses: Int32Array<ArrayBuffer> = new Int32Array(4 * DNS_MAX_ADDRESSES);
  /** Their lifetimes in seconds. */
  readonly ttls: Int32Array<ArrayBuffer> = new Int32Array(DNS_MAX_ADDRESSES);
  /** Where the answers begin, and how many there are said to be. */
  #answersAt = 0;
  #answers = 0;
  readonly #owner = new DnsName();
  readonly #current = new DnsName();
  readonly #next = new DnsName();
  /** Lifetime of the chain so far. */
  #ttl = 0;

  /**
   * Reads header and question.
   *
   * @param start where the message begins in `view`
   * @param end where it ends; `view` reaches at least as far
   * @returns false unless it is an ordinary query, or response to one, with one question of the Internet
   */
  readQuestion(view: DataView, start: number, end: number): boolean {
    if (end - start < DNS_HEADER_SIZE || end - start > DNS_MAX_MESSAGE) return false;
    const flags = view.getUint16(start + FLAGS);
    if ((flags & OPCODE) !== 0 || view.getUint16(start + QUESTIONS) !== 1) return false;
    const at = this.name.read(view, start, start + DNS_HEADER_SIZE, end);
    if (at < 0 || at + QUESTION_TAIL > end || view.getUint16(at + 2) !== DNS_IN) return false;
    this.id = view.getUint16(start);
    this.response = (flags & RESPONSE) !== 0;
    this.rcode = flags & RCODE;
    this.type = view.getUint16(at);
    this.#answersAt = at + QUESTION_TAIL;
    this.#answers = view.getUint16(start + ANSWERS);
    return true;
  }

  /**
   * Reads the addresses that the answer gives the question's name, after {@linkcode readQuestion} of
   * the same message.
   *
   * @returns how many are in {@linkcode addresses}; 0 also for a message that is broken
   */
  readAnswers(view: DataView, start: number, end: number): number {
    if (this.type !== DNS_A && this.type !== DNS_AAAA) return 0;
    this.#current.copy(this.name);
    this.#ttl = MAX_TTL;
    for (let links = 0; links < DNS_MAX_CHAIN; links++) {
      const found = this.#scan(view, start, end);
      if (found >= 0) return found;
      if (this.#next.length === 0) return 0;
      this.#current.copy(this.#next);
    }
    return 0;
  }

  /**
   * Looks at all answers for the current name's addresses, or for another name that it stands for.
   *
   * @returns number of addresses; -1: there is a CNAME, or nothing when `#next` is empty
   */
  #scan(view: DataView, start: number, end: number): number {
    let at = this.#answersAt, found = 0, alias = false;
    this.#next.length = 0;
    for (let k = 0; k < this.#answers; k++) {
      const record = this.#owner.read(view, start, at, end);
      if (record < 0 || record + RECORD_DATA > end) return 0;
      const data = record + RECORD_DATA, size = view.getUint16(record + RECORD_LENGTH);
      at = data + size;
      if (at > end) return 0;
      if (view.getUint16(record + RECORD_CLASS) !== DNS_IN) continue;
      if (!this.#owner.equals(this.#current)) continue;
      const type = view.getUint16(record), ttl = view.getUint32(record + RECORD_TTL);
      if (type === this.type) found += this.#take(view, data, size, ttl, found);
      if (type !== DNS_CNAME || alias) continue;
      alias = true;
      if (this.#next.read(view, start, data, end) !== at) return 0;
      this.#shorten(ttl);
    }
    return alias ? -1 : found;
  }

  /** Takes an address. @returns 1, or 0 when it has another size or there are too many */
  #take(view: DataView, data: number, size: number, ttl: number, at: number): number {
    const v4 = this.type === DNS_A;
    if (size !== (v4 ? V4_BYTES : V6_BYTES) || at === DNS_MAX_ADDRESSES) return 0;
    if (v4) loadV4(view, data, this.addresses, 4 * at);
    else loadV6(view, data, this.addresses, 4 * at);
    if (isV4(this.addresses, 4 * at) !== v4) return 0; // v4-mapped: never on a wire (RFC 4291 §2.5.5.2)
    this.ttls[at] = Math.min(this.#ttl, ttl > MAX_TTL ? 0 : ttl);
    return 1;
  }

  /** The chain lives as long as its shortest link. */
  #shorten(ttl: number): void {
    this.#ttl = Math.min(this.#ttl, ttl > MAX_TTL ? 0 : ttl);
  }
}
