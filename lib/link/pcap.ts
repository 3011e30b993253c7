// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A link that writes every frame that crosses another link to a capture file.
 *
 * Frames are recorded as the guest's programs would see them on a link without offloads, but for their
 * size: a super-frame is one record, with the checksum completed over all of it.
 *
 * @module
 */
import type { Arena } from "../sys/arena.ts";
import { lastError } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import { invert, sum } from "../wire/checksum.ts";
import {
  PCAP_HEADER_SIZE,
  PCAP_RECORD_SIZE,
  writePcapHeader,
  writePcapRecord,
} from "../wire/pcap.ts";
import { UDP_CHECKSUM } from "../wire/udp.ts";
import { type Link, SLOT_FRAME_SIZE } from "./link.ts";

const O_WRONLY_CREAT_TRUNC_CLOEXEC = 0x1 | 0x40 | 0x200 | 0x80000; // asm-generic/fcntl.h
const FILE_MODE = 0o600;

/** A capture file, open for writing. */
export class PcapFile {
  readonly #fd: number;
  readonly #record: Uint8Array<ArrayBuffer> = new Uint8Array(PCAP_RECORD_SIZE + SLOT_FRAME_SIZE);
  readonly #view: DataView<ArrayBuffer> = new DataView(this.#record.buffer);

  /** Creates or empties the file. @throws SysError */
  constructor(path: string) {
    const name = new TextEncoder().encode(`${path}\0`);
    this.#fd = libc.open(name, O_WRONLY_CREAT_TRUNC_CLOEXEC, FILE_MODE);
    if (this.#fd < 0) throw lastError("--pcap: open", path);
    writePcapHeader(this.#view, 0, SLOT_FRAME_SIZE);
    libc.write(this.#fd, this.#record, PCAP_HEADER_SIZE);
  }

  /**
   * Writes one frame.
   *
   * @param csumStart as in {@linkcode Link.send}; 0: its checksum is complete
   */
  write(arena: Arena, off: number, length: number, csumStart: number, csumOffset: number): void {
    const now = performance.timeOrigin + performance.now();
    const seconds = Math.floor(now / 1000);
    const view = this.#view;
    writePcapRecord(view, 0, seconds, Math.floor(now * 1000 % 1_000_000), length, length);
    this.#record.set(arena.u8.subarray(off, off + length), PCAP_RECORD_SIZE);
    if (csumStart > 0 && csumStart + csumOffset + 2 <= length) {
      const start = PCAP_RECORD_SIZE + csumStart;
      const checksum = invert(sum(view, start, length - csumStart));
      const none = checksum === 0 && csumOffset === UDP_CHECKSUM; // RFC 768: 0 says "none"
      view.setUint16(start + csumOffset, none ? 0xffff : checksum);
    }
    libc.write(this.#fd, this.#record, PCAP_RECORD_SIZE + length);
  }

  close(): void {
    libc.close(this.#fd);
  }
}

/** Records what crosses `inner`. */
export class PcapLink implements Link {
  readonly fd: number;
  readonly arena: Arena;
  readonly tso: boolean;
  readonly uso: boolean;
  readonly rxOffset: Int32Array;
  readonly rxLength: Int32Array;
  readonly rxGsoSize: Int32Array;
  readonly rxCsumStart: Int32Array;
  readonly rxCsumOffset: Int32Array;
  readonly txOffset: Int32Array;
  readonly #inner: Link;
  readonly #file: PcapFile;

  constructor(inner: Link, file: PcapFile) {
    this.#inner = inner;
    this.#file = file;
    this.fd = inner.fd;
    this.arena = inner.arena;
    this.tso = inner.tso;
    this.uso = inner.uso;
    this.rxOffset = inner.rxOffset;
    this.rxLength = inner.rxLength;
    this.rxGsoSize = inner.rxGsoSize;
    this.rxCsumStart = inner.rxCsumStart;
    this.rxCsumOffset = inner.rxCsumOffset;
    this.txOffset = inner.txOffset;
  }

  receive(max: number): number {
    const n = this.#inner.receive(max);
    for (let k = 0; k < n; k++) {
      const { rxOffset, rxLength, rxCsumStart, rxCsumOffset } = this;
      this.#file.write(this.arena, rxOffset[k], rxLength[k], rxCsumStart[k], rxCsumOffset[k]);
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
    this.#file.write(this.arena, this.txOffset[slot], length, csumStart, csumOffset);
    return this.#inner.send(
      slot,
      length,
      headerLength,
      csumStart,
      csumOffset,
      gsoType,
      gsoSize,
    );
  }

  close(): void {
    this.#inner.close();
    this.#file.close();
  }
}
