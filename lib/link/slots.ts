// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The frame slots of a link: one arena, cut into equal slots for receiving and sending.
 *
 * A slot begins so that the payload of a TCP segment over IPv4 without options starts on a page
 * boundary, where the kernel copies fastest, and has room for a virtio network header before the frame.
 *
 * @module
 */
import { Arena, PAGE_SIZE } from "../sys/arena.ts";
import { ETH_HEADER_SIZE } from "../wire/ethernet.ts";
import { IPV4_HEADER_SIZE } from "../wire/ipv4.ts";
import { TCP_HEADER_SIZE } from "../wire/tcp.ts";
import { SLOT_FRAME_SIZE, TX_SLOTS } from "./link.ts";

const TCP4_HEADERS = ETH_HEADER_SIZE + IPV4_HEADER_SIZE + TCP_HEADER_SIZE; // without options
const FRAME_START = PAGE_SIZE - TCP4_HEADERS;
/** Bytes from one slot to the next. */
const SLOT_SIZE = Math.ceil((FRAME_START + SLOT_FRAME_SIZE) / PAGE_SIZE) * PAGE_SIZE;

/** Bytes of an arena that holds so many receive slots, and the transmit slots. */
export function slotBytes(rxSlots: number): number {
  return (rxSlots + TX_SLOTS) * SLOT_SIZE;
}

/** Receive and transmit slots with the views that system calls take. */
export class Slots {
  readonly arena: Arena;
  readonly rxOffset: Int32Array<ArrayBuffer>;
  readonly txOffset: Int32Array<ArrayBuffer> = new Int32Array(TX_SLOTS);
  /** Per receive slot: from `headroom` bytes before the frame to the slot's end. */
  readonly rxView: Uint8Array<ArrayBuffer>[] = [];
  /** Per transmit slot, likewise. */
  readonly txView: Uint8Array<ArrayBuffer>[] = [];

  /**
   * @param headroom bytes that the carrier puts before each frame
   * @param rxSlots number of receive slots
   * @param arena where to cut them from; default: an arena of their own
   */
  constructor(headroom: number, rxSlots: number, arena = new Arena(slotBytes(rxSlots))) {
    this.arena = arena;
    this.rxOffset = new Int32Array(rxSlots);
    this.#cut(this.rxOffset, this.rxView, headroom);
    this.#cut(this.txOffset, this.txView, headroom);
  }

  #cut(offsets: Int32Array, views: Uint8Array<ArrayBuffer>[], headroom: number): void {
    for (let k = 0; k < offsets.length; k++) {
      const slot = this.arena.alloc(SLOT_SIZE, PAGE_SIZE);
      offsets[k] = slot + FRAME_START;
      views.push(this.arena.view(offsets[k] - headroom, headroom + SLOT_FRAME_SIZE));
    }
  }
}
