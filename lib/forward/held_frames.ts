// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * First frames of flows that are not decided on yet.
 *
 * Theory of operation: what a guest sends first would have to be sent again once there is an answer: a SYN
 * after a second, a DNS query after five. So frames of flows that wait are copied, a few for each flow, and
 * come in again when their question is answered, as if they had just arrived: they are parsed and looked up
 * as any other, and take the decision by the same key. There is room for as many frames as for questions;
 * what finds none, or is longer than {@linkcode HELD_BYTES}, is lost, as on any network.
 *
 * @module
 */
import { ETH_HEADER_SIZE, type Link } from "../link/link.ts";
import type { Packet } from "../wire/packet.ts";
import { IPPROTO_TCP } from "../wire/ipv4.ts";
import { MAX_QUESTIONS, type Waiting } from "./questions.ts";

/** Longest frame that is kept. */
export const HELD_BYTES = 2048;
/** Frames that there is room for. */
export const HELD_FRAMES = 1024;
/** Frames of one flow: the two queries for a name (A, AAAA) that share a port, and some more. */
export const FRAMES_PER_FLOW = 4;

const NONE = -1;

/** Frames that wait, by the place of their question. */
export class HeldFrames implements Waiting {
  /** Made when the first frame is kept: most policies answer at once. */
  #memory: Uint8Array<ArrayBuffer> | null = null;
  readonly #lengths = new Int32Array(HELD_FRAMES);
  readonly #gsoSizes = new Int32Array(HELD_FRAMES);
  /** Per place, its first and last frame and their number; per frame, the next one, also of free ones. */
  readonly #first = new Int32Array(MAX_QUESTIONS).fill(NONE);
  readonly #last = new Int32Array(MAX_QUESTIONS).fill(NONE);
  readonly #counts = new Uint8Array(MAX_QUESTIONS);
  readonly #next = new Int32Array(HELD_FRAMES);
  #free = 0;
  /** Segment size of the frame that {@linkcode HeldFrames.take} has put back; 0: it is no super-frame. */
  gsoSize = 0;

  constructor() {
    for (let k = 0; k < HELD_FRAMES; k++) this.#next[k] = k + 1 < HELD_FRAMES ? k + 1 : NONE;
  }

  /** Keeps a copy of a received frame, if there is room. One that has come in again is not kept twice. */
  keep(place: number, link: Link, packet: Packet): void {
    const start = packet.l3 - ETH_HEADER_SIZE, length = packet.end - start;
    const frame = this.#free, count = this.#counts[place], received = receivedAt(link, start);
    if (received < 0) return;
    const most = packet.proto === IPPROTO_TCP ? 1 : FRAMES_PER_FLOW; // a SYN comes again as it was
    if (frame === NONE || length > HELD_BYTES || count >= most) return;
    this.#memory ??= new Uint8Array(HELD_FRAMES * HELD_BYTES);
    link.fetch(start, length);
    const { u8 } = link.arena, to = frame * HELD_BYTES;
    for (let k = 0; k < length; k++) this.#memory[to + k] = u8[start + k];
    this.#lengths[frame] = length;
    this.#gsoSizes[frame] = link.rxGsoSize[received];
    this.#free = this.#next[frame];
    this.#next[frame] = NONE;
    if (count === 0) this.#first[place] = frame;
    else this.#next[this.#last[place]] = frame;
    this.#last[place] = frame;
    this.#counts[place] = count + 1;
  }

  /**
   * Takes the frames of a question, for {@linkcode HeldFrames.take}: they are not its any more.
   *
   * @returns the first one, or -1
   */
  detach(place: number): number {
    const frame = this.#first[place];
    this.#first[place] = NONE;
    this.#counts[place] = 0;
    return frame;
  }

  /** The frame after one that {@linkcode HeldFrames.detach} has begun; to be asked before that is taken. */
  after(frame: number): number {
    return this.#next[frame];
  }

  /**
   * Copies a detached frame to where it can be handled, and lets go of it.
   *
   * @param start offset in the link's arena, with room for {@linkcode HELD_BYTES}
   * @returns its bytes
   */
  take(frame: number, link: Link, start: number): number {
    const { u8 } = link.arena, from = frame * HELD_BYTES, length = this.#lengths[frame];
    for (let k = 0; k < length; k++) u8[start + k] = this.#memory![from + k];
    this.gsoSize = this.#gsoSizes[frame];
    this.#release(frame);
    return length;
  }

  drop(place: number): void {
    for (let frame = this.detach(place); frame !== NONE;) {
      const next = this.#next[frame];
      this.#release(frame);
      frame = next;
    }
  }

  #release(frame: number): void {
    this.#next[frame] = this.#free;
    this.#free = frame;
  }
}

/** Number of the received frame at an offset, or -1. */
function receivedAt({ rxOffset }: Link, start: number): number {
  for (let k = 0; k < rxOffset.length; k++) if (rxOffset[k] === start) return k;
  return -1;
}
