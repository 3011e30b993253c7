// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * resolv.conf(5): the host's resolvers and search domains.
 *
 * Theory of operation: only `nameserver`, `search` and `domain` lines count; of the last two the last
 * one wins. Other keywords, comments (`#`, `;`) and lines that make no sense are passed over: the file
 * may be written for another resolver library. What is read is bounded.
 *
 * @module
 */
import { type Address, isMulticast, isUnspecified, isV4, parseAddress } from "../wire/address.ts";

/** Resolvers taken per family (MAXNS, resolv.h). */
export const MAX_NAMESERVERS = 3;
/** Bytes of the file that are looked at. */
const MAX_FILE = 65536;
/** Search domains taken, and the longest domain (RFC 1035 §2.3.4). */
const MAX_SEARCH = 64;
const MAX_DOMAIN = 253;

/** What the file says. */
export interface ResolvConf {
  /** IPv4 resolvers, in order. */
  readonly v4: Address[];
  /** IPv6 resolvers, in order; a `%scope` is cut off, it means nothing to the guest. */
  readonly v6: Address[];
  /** Search domains without final dot. */
  readonly search: string[];
}

function addNameserver(result: ResolvConf, text: string | undefined): void {
  const address = text === undefined ? null : parseAddress(text.split("%", 1)[0]);
  // 0.0.0.0 and :: mean this host to the C library, nothing to a guest
  if (!address || isUnspecified(address) || isMulticast(address)) return;
  const list = isV4(address) ? result.v4 : result.v6;
  if (list.length < MAX_NAMESERVERS) list.push(address);
}

function domains(words: readonly string[]): string[] {
  return words.map((word) => word.endsWith(".") ? word.slice(0, -1) : word)
    .filter((word) => word !== "" && word.length <= MAX_DOMAIN)
    .slice(0, MAX_SEARCH);
}

/**
 * Parses the text of resolv.conf(5).
 *
 * @example
 * ```ts
 * import { parseResolvConf } from "./resolv_conf.ts";
 * import { formatAddress } from "../wire/address.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { v4, v6, search } = parseResolvConf(
 *   "# home\nsearch a.example b.example.\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n",
 * );
 * assertEquals(v4.map((a) => formatAddress(a)), ["192.0.2.53"]);
 * assertEquals(v6.map((a) => formatAddress(a)), ["fe80::1"]);
 * assertEquals(search, ["a.example", "b.example"]);
 * ```
 */
export function parseResolvConf(text: string): ResolvConf {
  const result: ResolvConf = { v4: [], v6: [], search: [] };
  let search: string[] = [];
  for (const line of text.slice(0, MAX_FILE).split("\n")) {
    const [keyword, ...words] = line.replace(/[#;].*$/, "").trim().split(/\s+/);
    if (keyword === "nameserver") addNameserver(result, words[0]);
    else if (keyword === "search" && words.length > 0) search = domains(words);
    else if (keyword === "domain" && words.length > 0) search = domains(words.slice(0, 1));
  }
  return { ...result, search };
}

/** Reads a resolv.conf(5). @returns empty lists when there is none or it cannot be read */
export function readResolvConf(path = "/etc/resolv.conf"): ResolvConf {
  try {
    using file = Deno.openSync(path);
    const bytes = new Uint8Array(MAX_FILE);
    let used = 0;
    for (;;) {
      const n = file.readSync(bytes.subarray(used));
      if (!n) break;
      used += n;
    }
    return parseResolvConf(new TextDecoder().decode(bytes.subarray(0, used)));
  } catch {
    return { v4: [], v6: [], search: [] };
  }
}
