// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `--pcap`: a capture file of every frame that crosses a link.
 *
 * Frames are recorded as the guest's programs would see them on a link without offloads, but for their
 * size: a super-frame is one record, with the checksum completed over all of it.
 *
 * @module
 */
import { getLogger } from "@std/log";
import type { Arena } from "../sys/arena.ts";
import { E, errnoName, SysError } from "../sys/errno.ts";
import { linkHint, openNamed } from "../sys/file.ts";
import { errno, libc } from "../sys/libc.ts";
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

// asm-generic/fcntl.h
const O_WRONLY_CREAT_TRUNC_CLOEXEC = 0x1 | 0x40 | 0x200 | 0x80000;
const O_EXCL = 0x80;
const O_NONBLOCK = 0x800;
const F_SETFL = 4;
const FILE_MODE = 0o600;

function openHint(number: number): string {
  return number === E.ENXIO ? "nobody reads this FIFO: start its reader first" : linkHint(number);
}

/** A capture file. Frames before {@linkcode PcapFile.open}, or after a failed write, are not recorded. */
export class PcapFile implements Observer {
  readonly #path: string;
  #fd = -1;
  readonly #record: Uint8Array<ArrayBuffer> = new Uint8Array(PCAP_RECORD_SIZE + SLOT_FRAME_SIZE);
  readonly #view: DataView<ArrayBuffer> = new DataView(this.#record.buffer);

  /** Whether the file is ours to remove. */
  #made = false;

  constructor(path: string) {
    this.#path = path;
  }

  /** Creates or empties the file. @returns itself @throws SysError */
  open(): this {
    const path = this.#path;
    // non-blocking: a FIFO without a reader would hold us where no signal is heard
    const flags = O_WRONLY_CREAT_TRUNC_CLOEXEC | O_NONBLOCK;
    let fd = openNamed(path, flags | O_EXCL, FILE_MODE);
    this.#made = fd >= 0;
    if (fd === -E.EEXIST) fd = openNamed(path, flags, FILE_MODE);
    if (fd < 0) throw new SysError("--pcap: open", path, -fd, openHint(-fd));
    libc.fcntl(fd, F_SETFL, 0); // whole records
    writePcapHeader(this.#view, 0, SLOT_FRAME_SIZE);
    const written = libc.write(fd, this.#record, PCAP_HEADER_SIZE);
    if (written !== PCAP_HEADER_SIZE) {
      const reason = written < 0 ? errno() : E.ENOSPC;
      libc.close(fd);
      throw new SysError("--pcap: write", path, reason);
    }
    this.#fd = fd;
    return this;
  }

  /** Closes the file, and removes it if it was made: for a start that comes to nothing. */
  discard(): void {
    this.close();
    if (this.#made) libc.unlink(new TextEncoder().encode(`${this.#path}\0`));
    this.#made = false;
  }

  /** Writes the first `bytes` bytes of the record. The first failure ends the capture. */
  #write(bytes: number): void {
    const written = libc.write(this.#fd, this.#record, bytes);
    if (written === bytes) return;
    const reason = written < 0 ? errnoName(errno()) : "no space left";
    this.close();
    getLogger().warn(`--pcap: write ${this.#path}: ${reason}, capturing ends here`);
  }

  frame(
    _fromGuest: boolean,
    arena: Arena,
    off: number,
    length: number,
    csumStart: number,
    csumOffset: number,
  ): void {
    if (this.#fd < 0) return;
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
    this.#write(PCAP_RECORD_SIZE + length);
  }

  close(): void {
    if (this.#fd >= 0) libc.close(this.#fd);
    this.#fd = -1;
  }
}
