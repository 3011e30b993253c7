// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A {@linkcode Link} without a device: frames to receive are queued by the test, frames sent are
 * recorded, everything lies in a real arena, so that code above it cannot tell the difference.
 *
 * @module
 */
import { ETH_HEADER_SIZE, GSO, type Link, SLOT_FRAME_SIZE, TX_SLOTS } from "../../lib/link/link.ts";
import { ArenaLink } from "../../lib/link/arena_link.ts";
import { Arena } from "../../lib/sys/arena.ts";

/** Frames that one call of {@linkcode FakeLink.receive} returns at most. */
export const RX_SLOTS = 16;
/** Spare bytes before each slot, as a real link has for its own headers. */
const HEADROOM = 64;

/** One call of {@linkcode FakeLink.send}. */
export interface SentFrame {
  slot: number;
  /** The bytes, with the transport checksum completed when that was asked for. */
  frame: Uint8Array<ArrayBuffer>;
  headerLength: number;
  csumStart: number;
  csumOffset: number;
  gsoType: number;
  gsoSize: number;
}

/** Completes a checksum field that holds the pseudo-header's sum, as a kernel would. */
function completeChecksum(frame: Uint8Array, start: number, offset: number): void {
  let sum = 0;
  for (let i = start; i < frame.length; i += 2) sum += frame[i] << 8 | (frame[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  new DataView(frame.buffer, frame.byteOffset).setUint16(start + offset, (~sum & 0xffff) || 0xffff);
}

/** The link; see the module's description. */
export class FakeLink extends ArenaLink implements Link {
  readonly pending = false;
  /** Guests that have left. */
  guests = 0;
  /** Off: there is no room for bulk data. */
  writable = true;
  readonly arena: Arena = new Arena((RX_SLOTS + TX_SLOTS) * (SLOT_FRAME_SIZE + 2 * HEADROOM));
  /** May change, as where another driver takes over. */
  tso: boolean;
  readonly uso: boolean;
  readonly rxOffset: Int32Array = new Int32Array(RX_SLOTS);
  readonly rxLength: Int32Array = new Int32Array(RX_SLOTS);
  readonly rxGsoSize: Int32Array = new Int32Array(RX_SLOTS);
  readonly rxCsumStart: Int32Array = new Int32Array(RX_SLOTS);
  readonly rxCsumOffset: Int32Array = new Int32Array(RX_SLOTS);
  readonly txOffset: Int32Array = new Int32Array(TX_SLOTS);

  /** Frames sent, oldest first; empty it as you like. */
  sent: SentFrame[] = [];
  /** Number of frames sent, recorded or not. */
  sentCount = 0;
  /** Off: frames are only counted, and sending allocates nothing. */
  record = true;
  /** What send() returns; a negative errno makes it drop the frame (not counted). */
  sendResult = 0;
  /** Whether close() was called. */
  closed = false;
  readonly #queue: { frame: Uint8Array; gsoSize: number }[] = [];

  constructor(options: { tso?: boolean; uso?: boolean } = {}) {
    super();
    this.tso = options.tso ?? true;
    this.uso = options.uso ?? true;
    const slot = () => this.arena.alloc(HEADROOM + SLOT_FRAME_SIZE) + HEADROOM - ETH_HEADER_SIZE;
    for (let i = 0; i < RX_SLOTS; i++) this.rxOffset[i] = slot();
    for (let i = 0; i < TX_SLOTS; i++) this.txOffset[i] = slot();
  }

  /** Queues a frame for receive(). */
  inject(frame: Uint8Array, gsoSize = 0): void {
    this.#queue.push({ frame, gsoSize });
  }

  /** Puts a frame in receive slot `slot`, followed by 0xa5 up to the slot's end or 256 bytes.
   *
   * @returns the offset of its Ethernet header
   */
  load(frame: Uint8Array, slot = 0): number {
    const off = this.rxOffset[slot];
    this.arena.u8.set(frame, off);
    const end = off + Math.min(SLOT_FRAME_SIZE, frame.length + 256);
    this.arena.u8.fill(0xa5, off + frame.length, end); // what must not be read
    this.rxLength[slot] = frame.length;
    this.rxGsoSize[slot] = 0;
    this.rxCsumStart[slot] = 0;
    this.rxCsumOffset[slot] = 0;
    return off;
  }

  /** Takes all frames sent so far. */
  take(): Uint8Array<ArrayBuffer>[] {
    const frames = this.sent.map((sent) => sent.frame);
    this.sent = [];
    return frames;
  }

  watch(): void {
    // there is no descriptor
  }

  event(): boolean {
    return true;
  }

  flush(): void {
    // every frame was recorded at once
  }

  receive(max: number): number {
    const most = Math.min(max, RX_SLOTS);
    let n = 0;
    while (n < most && this.#queue.length > 0) {
      const { frame, gsoSize } = this.#queue.shift()!;
      this.load(frame, n);
      this.rxGsoSize[n++] = gsoSize;
    }
    return n;
  }

  send(
    slot: number,
    length: number,
    headerLength: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number {
    if (gsoType !== GSO.NONE && csumStart === 0) throw new Error("GSO without checksum offload");
    if (length < ETH_HEADER_SIZE || length > SLOT_FRAME_SIZE) throw new Error(`Length ${length}`);
    if (this.sendResult < 0) return this.sendResult;
    this.sentCount++;
    if (!this.record) return 0;
    const off = this.txOffset[slot];
    const frame = this.arena.u8.slice(off, off + length);
    if (csumStart > 0) completeChecksum(frame, csumStart, csumOffset);
    this.sent.push({ slot, frame, headerLength, csumStart, csumOffset, gsoType, gsoSize });
    return 0;
  }

  close(): void {
    this.closed = true;
  }
}
