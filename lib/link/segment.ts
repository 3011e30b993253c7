// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Frames as a link is asked to send them, made into frames that need nothing done to them any more:
 * checksums completed, super-frames cut into segments.
 *
 * Theory of operation: {@linkcode Segmenter.begin} looks at one frame, {@linkcode Segmenter.write} copies
 * one of its segments to where the link wants it. Payload is summed while it is copied. Of the headers,
 * what all segments have in common is summed once: the frame's own sum (with the sum of the
 * pseudo-header, which its checksum field holds), less those words that differ from one segment to the
 * next. In one's complement arithmetic subtracting a word is adding its complement (RFC 1071 §2).
 *
 * The segments are those that Linux makes (Documentation/networking/segmentation-offloads.rst): lengths
 * and the sequence number differ, the IPv4 identification counts up, FIN and PSH are on the last only,
 * CWR is on the first only.
 *
 * @module
 */
import { fold, invert, invertUdp, MAX_SUM_BYTES } from "../wire/checksum.ts";
import { ETH_HEADER_SIZE } from "../wire/ethernet.ts";
import { IPV4_CHECKSUM, IPV4_HEADER_SIZE, IPV4_ID, IPV4_TOTAL_LENGTH } from "../wire/ipv4.ts";
import { IPV6_HEADER_SIZE, IPV6_PAYLOAD_LENGTH } from "../wire/ipv6.ts";
import {
  TCP_CHECKSUM,
  TCP_DATA_OFFSET,
  TCP_FIN,
  TCP_HEADER_SIZE,
  TCP_PSH,
  TCP_SEQ,
  tcpHeaderSize,
} from "../wire/tcp.ts";
import { UDP_CHECKSUM, UDP_HEADER_SIZE, UDP_LENGTH } from "../wire/udp.ts";
import { GSO } from "./link.ts";
import type { Summing } from "./simd/checksum.ts";

const TCP_CWR = 0x80; // RFC 3168 §6.1.2
const WORD_MASK = 0xffff;

/** The sum of a 32-bit value's halves. */
function halves(value: number): number {
  return (value >>> 16) + (value & WORD_MASK);
}

/** What, when added, takes a word of 16 bits out of a sum. */
function without(word: number): number {
  return ~word & WORD_MASK;
}

/**
 * Cuts and completes frames in one arena.
 *
 * @example
 * ```ts
 * import { Segmenter } from "./segment.ts";
 * import { GSO } from "./link.ts";
 * import { newSumming } from "./simd/checksum.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const summing = newSumming(4096);
 * summing.arena.u8.fill(1, 0, 60);
 * const segmenter = new Segmenter(summing);
 * const count = segmenter.begin(0, 60, 0, 0, GSO.NONE, 0); // nothing to do but to copy it
 * assertEquals([count, segmenter.size(0), segmenter.write(0, 1000)], [1, 60, 60]);
 * ```
 */
export class Segmenter {
  readonly #view: DataView;
  readonly #sum: Summing["sum"];
  readonly #copySum: Summing["copySum"];
  // the frame
  #off = 0;
  #length = 0;
  #csumStart = 0;
  #csumOffset = 0;
  // a super-frame: bytes of headers and of payload per segment, number of segments; 0 for others
  #headers = 0;
  #mss = 0;
  #count = 0;
  #udp = false;
  #v4 = false;
  // sums of what is the same in all segments
  #ipSum = 0;
  #l4Sum = 0;
  #seq = 0;
  #flags = 0;

  /** @param summing the arena in which frames lie, and are written */
  constructor(summing: Summing) {
    this.#view = summing.arena.dv;
    this.#sum = summing.sum;
    this.#copySum = summing.copySum;
  }

  /** Bytes of all segments together, headers included. */
  get bytes(): number {
    return this.#length + (this.#count - 1) * this.#headers;
  }

  /**
   * Takes a frame, described as for `Link.send`. It is not changed.
   *
   * @param off offset of its Ethernet header
   * @returns the number of segments, 1 for what is no super-frame; 0 when the description does not fit
   *   the frame
   */
  begin(
    off: number,
    length: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number {
    this.#off = off;
    this.#length = length;
    this.#csumStart = csumStart;
    this.#csumOffset = csumOffset;
    this.#headers = this.#count = 0;
    if (length < ETH_HEADER_SIZE || length > MAX_SUM_BYTES) return 0;
    if (csumStart > 0 && csumStart + csumOffset + 2 > length) return 0;
    if (gsoType === GSO.NONE) return this.#count = 1;
    return this.#beginSuper(gsoType, gsoSize);
  }

  #beginSuper(gsoType: number, gsoSize: number): number {
    const view = this.#view, l4 = this.#off + this.#csumStart;
    this.#udp = gsoType === GSO.UDP_L4;
    this.#v4 = view.getUint8(this.#off + ETH_HEADER_SIZE) >>> 4 === 4;
    const least = this.#udp ? UDP_HEADER_SIZE : TCP_HEADER_SIZE;
    if (gsoSize < 1 || this.#csumStart < ETH_HEADER_SIZE + IPV4_HEADER_SIZE) return 0;
    if (this.#csumStart + least > this.#length) return 0;
    const l4Header = this.#udp ? least : tcpHeaderSize(view, l4);
    const headers = this.#csumStart + l4Header, payload = this.#length - headers;
    if (l4Header < least || payload < 1) return 0;
    this.#headers = headers;
    this.#mss = gsoSize;
    this.#sumCommon(l4, l4Header);
    return this.#count = Math.ceil(payload / gsoSize);
  }

  /** Sums what all segments have in common. */
  #sumCommon(l4: number, l4Header: number): void {
    const view = this.#view, l3 = this.#off + ETH_HEADER_SIZE;
    if (this.#v4) {
      this.#ipSum = this.#sum(l3, l4 - l3) + without(view.getUint16(l3 + IPV4_TOTAL_LENGTH)) +
        without(view.getUint16(l3 + IPV4_ID)) + without(view.getUint16(l3 + IPV4_CHECKSUM));
    }
    const length = this.#length - this.#csumStart; // in the pseudo-header
    const common = this.#sum(l4, l4Header) + without(fold(halves(length)));
    if (this.#udp) {
      this.#l4Sum = fold(common + without(view.getUint16(l4 + UDP_LENGTH)));
      return;
    }
    this.#seq = view.getInt32(l4 + TCP_SEQ);
    this.#flags = view.getUint16(l4 + TCP_DATA_OFFSET);
    this.#l4Sum = fold(common + without(fold(halves(this.#seq))) + without(this.#flags));
  }

  /** Bytes of segment `k`, headers included. */
  size(k: number): number {
    if (this.#headers === 0) return this.#length;
    return this.#headers + this.#payload(k);
  }

  #payload(k: number): number {
    const left = this.#length - this.#headers - k * this.#mss;
    return left < this.#mss ? left : this.#mss;
  }

  /**
   * Writes segment `k`, complete.
   *
   * @param to where its Ethernet header goes; it must not overlap the frame
   * @returns its bytes
   */
  write(k: number, to: number): number {
    if (this.#headers === 0) return this.#writeWhole(to);
    const headers = this.#headers, payload = this.#payload(k);
    this.#copySum(to, this.#off, headers);
    const from = this.#off + headers + k * this.#mss;
    const sum = this.#copySum(to + headers, from, payload);
    const l4Bytes = headers - this.#csumStart + payload;
    this.#finishIp(k, to, l4Bytes);
    if (this.#udp) this.#finishUdp(to, l4Bytes, sum);
    else this.#finishTcp(k, to, l4Bytes, sum);
    return headers + payload;
  }

  /** Copies a frame that is to be left in one piece, and completes its checksum. */
  #writeWhole(to: number): number {
    const start = this.#csumStart, length = this.#length;
    if (start === 0) {
      this.#copySum(to, this.#off, length);
      return length;
    }
    this.#copySum(to, this.#off, start);
    const sum = this.#copySum(to + start, this.#off + start, length - start);
    const checksum = this.#csumOffset === UDP_CHECKSUM ? invertUdp(sum) : invert(sum);
    this.#view.setUint16(to + start + this.#csumOffset, checksum);
    return length;
  }

  #finishIp(k: number, to: number, l4Bytes: number): void {
    const view = this.#view, l3 = to + ETH_HEADER_SIZE;
    const bytes = this.#csumStart - ETH_HEADER_SIZE + l4Bytes;
    if (!this.#v4) return view.setUint16(l3 + IPV6_PAYLOAD_LENGTH, bytes - IPV6_HEADER_SIZE);
    const id = view.getUint16(l3 + IPV4_ID) + k & WORD_MASK;
    view.setUint16(l3 + IPV4_TOTAL_LENGTH, bytes);
    view.setUint16(l3 + IPV4_ID, id);
    view.setUint16(l3 + IPV4_CHECKSUM, invert(fold(this.#ipSum + bytes + id)));
  }

  #finishUdp(to: number, l4Bytes: number, sum: number): void {
    const view = this.#view, l4 = to + this.#csumStart;
    view.setUint16(l4 + UDP_LENGTH, l4Bytes);
    const folded = fold(this.#l4Sum + 2 * l4Bytes + sum); // in the header and in the pseudo-header
    view.setUint16(l4 + UDP_CHECKSUM, invertUdp(folded));
  }

  #finishTcp(k: number, to: number, l4Bytes: number, sum: number): void {
    const view = this.#view, l4 = to + this.#csumStart;
    const seq = this.#seq + k * this.#mss | 0;
    let flags = this.#flags;
    if (k > 0) flags &= ~TCP_CWR;
    if (k < this.#count - 1) flags &= ~(TCP_FIN | TCP_PSH);
    view.setInt32(l4 + TCP_SEQ, seq);
    view.setUint16(l4 + TCP_DATA_OFFSET, flags);
    // headers of odd length do not exist: the payload's sum can be added as it is
    const folded = fold(this.#l4Sum + halves(seq) + flags + l4Bytes + sum);
    view.setUint16(l4 + TCP_CHECKSUM, invert(folded));
  }
}
