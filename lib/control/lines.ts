// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Lines out of a stream of bytes.
 *
 * @module
 */

/**
 * Collects bytes until they are lines.
 *
 * @example
 * ```ts
 * import { Lines } from "./lines.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const lines = new Lines(100), bytes = new TextEncoder().encode("one\ntwo\nth");
 * assertEquals(lines.take(bytes), ["one", "two"]);
 * assertEquals(lines.take(new TextEncoder().encode("ree\n")), ["three"]);
 * ```
 */
export class Lines {
  readonly #decoder = new TextDecoder();
  readonly #limit: number;
  /** Pieces of a line that has not ended. */
  #pieces: string[] = [];
  #length = 0;

  /** @param limit longest line, in UTF-16 code units */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /**
   * The lines that end in these bytes.
   *
   * @throws RangeError when one is too long
   */
  take(bytes: Uint8Array): string[] {
    const [first, ...others] = this.#decoder.decode(bytes, { stream: true }).split("\n");
    this.#append(first);
    const lines: string[] = [];
    for (const piece of others) {
      lines.push(this.#pieces.join(""));
      this.#pieces = [];
      this.#length = 0;
      this.#append(piece);
    }
    return lines;
  }

  #append(piece: string): void {
    this.#length += piece.length;
    if (this.#length > this.#limit) throw new RangeError("A line is too long");
    if (piece !== "") this.#pieces.push(piece);
  }
}
