// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What links have in common whose frames lie in their arena, all bytes of them.
 *
 * @module
 */
import type { Arena } from "../sys/arena.ts";
import type { Message } from "../sys/message.ts";

/** The part of `Link` that says where payload is: in the arena. */
export abstract class ArenaLink {
  abstract readonly arena: Arena;
  abstract readonly txOffset: Int32Array;

  /** As in `Link`: the place of frames is used again by the next `receive()`. */
  release(): void {}

  /** As in `Link`. */
  gather(message: Message, piece: number, off: number, length: number): number {
    message.set(piece, this.arena, off, length);
    return 1;
  }

  /** As in `Link`: all bytes are where they belong. */
  fetch(_off: number, _length: number): void {}

  /** As in `Link`. */
  place(message: Message, piece: number, slot: number, headers: number, length: number): number {
    message.set(piece, this.arena, this.txOffset[slot] + headers, length);
    return 1;
  }
}
