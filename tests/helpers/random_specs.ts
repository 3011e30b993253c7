// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Random port specifications, the same for the same seed.
 *
 * @module
 */

const LISTEN = ["", "", "", "", "192.0.2.1/", "192.0.2.2/", "0.0.0.0/", "::/", "[2001:db8::1]/"]
  .concat("2001:db8::2%eth0/", "192.0.2.1%eth1/", "%eth0/", "*/", "*%lo/", "127.0.0.1/");
const TARGETS = ["192.0.2.7", "198.51.100.9", "[2001:db8::7]", "[fd00::1:2]"];

/** What {@linkcode random} gives. */
export interface RandomSpecs {
  /** A number from 0 to `limit - 1`. */
  below(limit: number): number;
  /** First and last port of a range. */
  range(): [number, number];
  /** A specification, mostly a good one. */
  spec(): string;
}

/** Numbers by xorshift32, and texts made with them. */
export function random(seed: number): RandomSpecs {
  let state = seed * 0x9e3779b9 | 1;
  const below = (limit: number): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % limit;
  };
  const pick = (list: readonly string[]): string => list[below(list.length)];
  const range = (): [number, number] => {
    const first = 1 + below(65535);
    const length = below(4) === 0 ? below(30000) : below(20);
    return [first, Math.min(65535, first + length)];
  };
  const item = (): string => {
    const [first, last] = range();
    const ports = first === last ? `${first}` : `${first}-${last}`;
    const to = 1 + below(65535 - (last - first));
    const other = first === last ? `${to}` : `${to}-${to + last - first}`;
    switch (below(6)) {
      case 0:
        return `${ports}:${other}`;
      case 1:
        return `${ports}:${pick(TARGETS)}`;
      case 2:
        return `${ports}:${pick(TARGETS)}/${other}`;
      default:
        return ports;
    }
  };
  const exclusion = (): string => `~${range().join("-")}`;
  const many = (limit: number, make: () => string) => Array.from({ length: below(limit) }, make);
  const spec = (): string => {
    const words = below(4) === 0 ? ["auto"] : [];
    if (below(3) > 0) words.push(...many(5, item));
    else if (below(2) === 0) words.push(below(3) === 0 ? `all:${pick(TARGETS)}` : "all");
    words.push(...many(4, exclusion));
    return below(40) === 0 ? "none" : pick(LISTEN) + words.sort(() => below(3) - 1).join();
  };
  return { below, range, spec };
}
