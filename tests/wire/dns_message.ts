// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * DNS messages for tests, written out field by field.
 *
 * @module
 */
import { encodeDomainName } from "../../lib/wire/dns_name.ts";
import { parseAddress } from "../../lib/wire/address.ts";

/** Records as tests write them: `[owner, type, ttl, value]`; a value is an address or a name. */
export type Record = readonly [owner: string, type: number, ttl: number, value: string];

/** What a message says. */
export interface MessageSpec {
  id?: number;
  /** Second word of the header; a response without errors, unless `query`. */
  flags?: number;
  query?: boolean;
  name: string;
  type?: number;
  class?: number;
  answers?: readonly Record[];
  additional?: readonly Record[];
}

const QUERY = 0x0100, RESPONSE = 0x8180; // with "recursion desired" and "available"

const word = (value: number) => [value >> 8 & 255, value & 255];

function data(value: string): number[] {
  const address = parseAddress(value);
  if (!address) return [...encodeDomainName(value)!];
  const bytes = [...address].flatMap((w) => [...word(w >>> 16), ...word(w)]);
  return value.includes(":") ? bytes : bytes.slice(12);
}

function record([owner, type, ttl, value]: Record): number[] {
  const bytes = data(value);
  const head = [...encodeDomainName(owner)!, ...word(type), ...word(1)];
  return [...head, ...word(ttl >>> 16), ...word(ttl), ...word(bytes.length), ...bytes];
}

/** The message's bytes, names not compressed. */
export function dnsMessage(spec: MessageSpec): Uint8Array<ArrayBuffer> {
  const { id = 7, answers = [], additional = [], type = 1 } = spec;
  const flags = spec.flags ?? (spec.query ? QUERY : RESPONSE);
  const counts = [1, answers.length, 0, additional.length];
  return Uint8Array.from([
    ...[id, flags, ...counts].flatMap(word),
    ...encodeDomainName(spec.name)!,
    ...word(type),
    ...word(spec.class ?? 1),
    ...[...answers, ...additional].flatMap(record),
  ]);
}
