// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The domain search list in wire form, encoded once per list and kept.
 *
 * @module
 */
import { encodeSearchList } from "../wire/dns_name.ts";

/**
 * An encoded list: entry `i` holds the first `i + 1` names, the last entry all of them. All entries
 * are views of the same bytes. No entries: no names.
 */
export type SearchList = readonly Uint8Array<ArrayBuffer>[];

/** Bytes of names that router advertisements and DHCPv6 messages have room for at 1280 bytes. */
const PLAIN_BUDGET = 640;

const compressed = new WeakMap<readonly string[], SearchList>();
const plain = new WeakMap<readonly string[], SearchList>();

function encode(names: readonly string[], compress: boolean, budget: number): SearchList {
  const good: string[] = [], ends: number[] = [];
  let bytes: Uint8Array<ArrayBuffer> = new Uint8Array(0);
  for (const name of names) {
    const longer = encodeSearchList([...good, name], { compress });
    if (longer === null || longer.length === bytes.length) continue; // not a name, or the root
    if (longer.length > budget) break;
    good.push(name);
    ends.push(longer.length);
    bytes = longer;
  }
  return ends.map((end) => bytes.subarray(0, end));
}

function cached(
  cache: WeakMap<readonly string[], SearchList>,
  names: readonly string[],
  compress: boolean,
  budget: number,
): SearchList {
  let list = cache.get(names);
  if (!list) cache.set(names, list = encode(names, compress, budget));
  return list;
}

/**
 * The list as DHCP has it: compressed (RFC 3397 §2), of any length. Names that cannot be encoded are
 * left out. Allocates at the first call for a list, which must not change afterwards.
 *
 * @example
 * ```ts
 * import { compressedSearchList } from "./search_list.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const list = compressedSearchList(["example.com", "lab.example.com"]);
 * assertEquals(list.map((names) => names.length), [13, 19]);
 * ```
 */
export function compressedSearchList(names: readonly string[]): SearchList {
  return cached(compressed, names, true, Infinity);
}

/** The list as RFC 8106 and RFC 8415 have it: not compressed, the first names up to 640 bytes. */
export function plainSearchList(names: readonly string[]): SearchList {
  return cached(plain, names, false, PLAIN_BUDGET);
}
