// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * One side of a flow: the interface it is on, the remote party ("endpoint") as seen there, and the
 * address and port that we use towards it ("our").
 *
 * Example: the guest 10.0.0.2:4000 connects to 192.0.2.1:80. The initiating side is on the tap with
 * endpoint 10.0.0.2:4000 and our 192.0.2.1:80; the target side is on the host with endpoint
 * 192.0.2.1:80 and the source address and port that our socket uses.
 *
 * A side is ten 32-bit words, so that it can be copied, compared and hashed without allocation: four
 * of endpoint address, four of our address (IPv4 as v4-mapped, see `wire/address.ts`), both ports in
 * host order, and the interface.
 *
 * @module
 */
import { copyAddress, formatAddress, isV4 } from "../wire/address.ts";

/** 32-bit words of a side. */
export const SIDE_WORDS = 10;
/** First of the four words of the endpoint's address. */
export const SIDE_EADDR = 0;
/** First of the four words of our address. */
export const SIDE_OADDR = 4;
/** Word of the ports: endpoint's in the upper 16 bits, ours in the lower. */
export const SIDE_PORTS = 8;
/** Word of the interface, a {@linkcode Pif}. */
export const SIDE_PIF = 9;

/** The side that started a flow. */
export const INI = 0;
/** The side a flow goes to. */
export const TGT = 1;

/** Interfaces a side can be on. */
export const Pif = {
  /** not set */
  NONE: 0,
  /** the layer-2 link to the guest */
  TAP: 1,
  /** sockets of the host */
  HOST: 2,
  /** sockets in the guest's namespace */
  SPLICE: 3,
} as const;

/** Names of {@linkcode Pif}, by number. */
export const PIF_NAMES: readonly string[] = ["NONE", "TAP", "HOST", "SPLICE"];

/** Copies the words of a side. */
export function copySide(to: Int32Array, i: number, from: Int32Array, j: number): void {
  for (let k = 0; k < SIDE_WORDS; k++) to[i + k] = from[j + k];
}

function formatParty(words: Int32Array, at: number, port: number): string {
  const address = formatAddress(words, at);
  return isV4(words, at) ? `${address}:${port}` : `[${address}]:${port}`;
}

/**
 * One side of a flow. Made once and used again: nothing but the constructor and
 * {@linkcode FlowSide.toString} allocates.
 *
 * @example
 * ```ts
 * import { FlowSide, Pif } from "./side.ts";
 * import { parseAddress } from "../wire/address.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const side = new FlowSide();
 * side.pif = Pif.TAP;
 * side.setEndpoint(parseAddress("10.0.0.2")!, 0, 4000);
 * side.setOur(parseAddress("192.0.2.1")!, 0, 80);
 * assertEquals(side.toString(), "TAP 10.0.0.2:4000 <-> 192.0.2.1:80");
 * ```
 */
export class FlowSide {
  /** The {@linkcode SIDE_WORDS} words. */
  readonly words: Int32Array<ArrayBuffer> = new Int32Array(SIDE_WORDS);

  /** Interface, a {@linkcode Pif}. */
  get pif(): number {
    return this.words[SIDE_PIF];
  }
  set pif(pif: number) {
    this.words[SIDE_PIF] = pif;
  }

  /** Endpoint's port: 0–65535. */
  get eport(): number {
    return this.words[SIDE_PORTS] >>> 16;
  }
  set eport(port: number) {
    this.words[SIDE_PORTS] = port << 16 | this.words[SIDE_PORTS] & 0xffff;
  }

  /** Our port: 0–65535. */
  get oport(): number {
    return this.words[SIDE_PORTS] & 0xffff;
  }
  set oport(port: number) {
    this.words[SIDE_PORTS] = this.words[SIDE_PORTS] & ~0xffff | port & 0xffff;
  }

  /** Copies the endpoint's address from `address[at…]` and sets its port. */
  setEndpoint(address: Int32Array, at: number, port: number): void {
    copyAddress(this.words, SIDE_EADDR, address, at);
    this.eport = port;
  }

  /** Copies our address from `address[at…]` and sets our port. */
  setOur(address: Int32Array, at: number, port: number): void {
    copyAddress(this.words, SIDE_OADDR, address, at);
    this.oport = port;
  }

  /** Sets every word to zero. */
  clear(): void {
    for (let k = 0; k < SIDE_WORDS; k++) this.words[k] = 0;
  }

  /** `PIF endpoint:port <-> our:port`, for log lines. */
  toString(): string {
    const { words } = this;
    const endpoint = formatParty(words, SIDE_EADDR, this.eport);
    const our = formatParty(words, SIDE_OADDR, this.oport);
    return `${PIF_NAMES[this.pif] ?? this.pif} ${endpoint} <-> ${our}`;
  }
}
