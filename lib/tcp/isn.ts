// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Initial sequence numbers (RFC 6528 §3): a clock of 4 µs ticks plus a keyed hash of the connection,
 * so that nobody can guess them and an address and port pair used again gets a higher one.
 *
 * @module
 */
import { siphash24 } from "../flow/siphash.ts";
import { SIDE_PORTS } from "../flow/side.ts";

const KEY_WORDS = 4; // SipHash key of 128 bits
const BLOCKS = 4; // two addresses of 16 bytes
const LENGTH = 36 << 24; // addresses and ports, in the top byte of the last block
const TICKS_PER_MS = 250; // RFC 6528 §3: 4 µs

/** A generator with its own secret. */
export class InitialSequence {
  readonly #key: Int32Array<ArrayBuffer> = crypto.getRandomValues(new Int32Array(KEY_WORDS));

  /**
   * The sequence number for our SYN.
   *
   * @param sides flow side words; the side on the tap starts at `at`
   * @param nowMs monotonic time
   * @returns an int32
   */
  next(sides: Int32Array, at: number, nowMs: number): number {
    const hash = siphash24(this.#key, sides, at, BLOCKS, sides[at + SIDE_PORTS], LENGTH);
    return Math.floor(nowMs * TICKS_PER_MS) % 0x100000000 + hash | 0;
  }
}
