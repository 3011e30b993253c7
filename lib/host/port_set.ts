// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Sets of ports as bitmaps, and what an `auto` rule has open.
 *
 * @module
 */
import { MAX_PORT, type PortRule } from "../forward/ports.ts";

/** A set of ports: bit `port & 31` of word `port >> 5`. */
export type PortSet = Uint32Array<ArrayBuffer>;

const WORDS = (MAX_PORT + 1) / 32;

/** A new set without ports. */
export function emptyPorts(): PortSet {
  return new Uint32Array(WORDS);
}

/** Whether a port is in a set. */
export function has(set: PortSet, port: number): boolean {
  return (set[port >> 5] & 1 << (port & 31)) !== 0;
}

/** Adds a port. */
export function include(set: PortSet, port: number): void {
  set[port >> 5] |= 1 << (port & 31);
}

/** Removes a port. */
export function exclude(set: PortSet, port: number): void {
  set[port >> 5] &= ~(1 << (port & 31));
}

/** Removes all ports of another set. */
export function forget(set: PortSet, other: PortSet): void {
  for (let w = 0; w < WORDS; w++) set[w] &= ~other[w];
}

/** Adds all ports of another set. */
export function add(set: PortSet, other: PortSet): void {
  for (let w = 0; w < WORDS; w++) set[w] |= other[w];
}

/** Calls `visit` for each port of a set from `first` to `last`. */
function eachBetween(
  set: PortSet,
  first: number,
  last: number,
  visit: (port: number) => void,
): void {
  for (let port = first; port <= last; port++) {
    if (set[port >> 5] === 0) port |= 31; // nothing in this word
    else if (has(set, port)) visit(port);
  }
}

/** An `auto` rule with the ports that it has open. */
export class AutoPorts {
  /** Listener of each open port. */
  readonly listeners: Map<number, number> = new Map();
  /** Ports that are to be open since the last comparison. */
  readonly wanted: PortSet = emptyPorts();
  /** Ports that a rule of their own has: they are not opened. */
  readonly taken: PortSet = emptyPorts();
  readonly #open: PortSet = emptyPorts();

  constructor(readonly rule: PortRule) {}

  /**
   * Calls `change` for each port of the rule that is to be opened (true) or closed (false), so that
   * those are open whose counterparts are in `bound`, or which are in `more` themselves.
   */
  compare(
    bound: PortSet,
    more: PortSet | null,
    change: (port: number, wanted: boolean) => void,
  ): void {
    const { first, last, to } = this.rule;
    const { taken } = this, wanted = this.wanted.fill(0);
    eachBetween(bound, to, to + last - first, (port) => include(wanted, first + port - to));
    if (more) eachBetween(more, first, last, (port) => include(wanted, port));
    for (let w = 0; w < WORDS; w++) {
      let differ = (wanted[w] & ~taken[w]) ^ this.#open[w];
      while (differ !== 0) {
        const bit = 31 - Math.clz32(differ);
        const port = w * 32 + bit;
        differ &= ~(1 << bit);
        change(port, !has(this.#open, port));
      }
    }
  }

  /** Notes a new listener. */
  opened(port: number, listener: number): void {
    include(this.#open, port);
    this.listeners.set(port, listener);
  }

  /** Notes that a listener is closed. */
  closed(port: number): void {
    exclude(this.#open, port);
    this.listeners.delete(port);
  }
}
