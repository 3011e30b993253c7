// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Names of addresses, for a program that decides: which names the guest was told an address for.
 *
 * Theory of operation: as `dns_names.ts`, which hands over what it has believed, and whose limits hold here; but the
 * names are kept, as text, the {@linkcode NAMES_PER_ADDRESS} latest of each address. A program that looks for a
 * name finds it if the guest has asked for it lately: each answer brings its name to the front. Names with
 * other characters than letters, digits, hyphens and underscores are left out: as text, one with a dot
 * within a label would pass for another.
 *
 * @module
 */
import { DNS_MAX_NAME, type DnsName } from "../wire/dns.ts";
import { AddressTable } from "./address_table.ts";

/** Addresses that names are kept of. */
export const MAX_NAMED = 4096;
/** Names kept of each. */
export const NAMES_PER_ADDRESS = 8;

const MS_PER_SECOND = 1000;
const DOT = 0x2e, HYPHEN = 0x2d, DIGIT_0 = 0x30, DIGIT_9 = 0x39, UNDERSCORE = 0x5f;
const LOWER_A = 0x61, LOWER_Z = 0x7a;

/** Whether a byte of a name means itself. */
function isPlain(byte: number): boolean {
  return byte >= LOWER_A && byte <= LOWER_Z || byte >= DIGIT_0 && byte <= DIGIT_9 ||
    byte === HYPHEN || byte === UNDERSCORE;
}

const characters = new Uint8Array(DNS_MAX_NAME);
const decoder = new TextDecoder();

/**
 * A name as text, without the final dot.
 *
 * The text is made at once: of one that is put together character by character the runtime would keep all
 * beginnings, some kilobytes for each name.
 *
 * @returns null for the root, and for a name that text could not tell from another
 */
export function nameText({ bytes, length }: DnsName): string | null {
  let end = 0;
  for (let at = 0; at < length - 1; at += 1 + bytes[at]) {
    if (end > 0) characters[end++] = DOT;
    for (let k = 1; k <= bytes[at]; k++) {
      if (!isPlain(bytes[at + k])) return null;
      characters[end++] = bytes[at + k];
    }
  }
  return end === 0 ? null : decoder.decode(characters.subarray(0, end));
}

/** A name, until it expires. */
interface Named {
  readonly text: string;
  /** Second of the clock. */
  expires: number;
}

/** The names of one instance. Learning allocates; it happens once for each answer. */
export class KnownNames {
  readonly #table: AddressTable;
  /** Per place of the table, names of that address, latest first. */
  readonly #names: Named[][];

  /** @param capacity addresses that there is room for: a power of two, four at least */
  constructor(capacity: number = MAX_NAMED) {
    this.#table = new AddressTable(capacity);
    this.#names = Array.from({ length: capacity }, () => []);
  }

  /**
   * Makes a name the latest one of an address.
   *
   * @param expires second of the clock in which that ends, unless an earlier answer was good for longer
   */
  learn(text: string, words: Int32Array, at: number, expires: number): void {
    const place = this.#table.put(0, words, at, expires), names = this.#names[place];
    if (this.#table.isNew) names.length = 0;
    const known = names.findIndex((name) => name.text === text);
    const [name] = known < 0 ? [{ text, expires }] : names.splice(known, 1);
    name.expires = Math.max(name.expires, expires);
    names.unshift(name);
    if (names.length > NAMES_PER_ADDRESS) names.length = NAMES_PER_ADDRESS;
  }

  /** The names of an address, latest first. */
  of(words: Int32Array, at: number, nowMs: number): string[] {
    const place = this.#table.find(0, words, at, nowMs);
    if (place < 0) return [];
    return this.#names[place].filter(({ expires }) => nowMs / MS_PER_SECOND < expires)
      .map(({ text }) => text);
  }
}
