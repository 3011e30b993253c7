// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `--pcap`: a capture file of every frame that crosses a link.
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
import { SLOT_FRAME_SIZE } from "./link.ts";
import type { Observer } from "./observed.ts";

const O_WRONLY_CREAT_TRUNC_CLOEXEC = 0x1 | 0x40 | 0x200 | 0x80000; // asm-generic/fcntl.h
const FILE_MODE = 0o600;

/** A capture file, open for writing. */
export class PcapFile implements Observer {
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

  frame(
    _fromGuest: boolean,
    arena: Arena,
    off: number,
    length: number,
    csumStart: number,
    csumOffset: number,
  ): void {
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
