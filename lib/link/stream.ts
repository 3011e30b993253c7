// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * QEMU's stream socket as link (`-netdev stream` and `-netdev socket`): a byte stream of Ethernet
 * frames, each behind its length, four bytes in network order.
 *
 * Theory of operation, from the guest: one recv(2) fills a large buffer, and frames are handed out where
 * they lie there. The rest of a torn frame stays, and is moved to the buffer's start only when there is
 * no room behind it. A length that no frame can have means that the two ends are out of step for good:
 * the connection is ended.
 *
 * To the guest: nothing on the way completes checksums or cuts super-frames, so `segment.ts` does, while
 * frames are copied into one large buffer. It is written when much has gathered and at the end of each
 * turn of the loop. When the hypervisor does not keep up, the rest waits for EPOLLOUT, which the kernel
 * gives when the socket is three quarters empty, and the link is not writable until all of it has gone
 * out. Single frames are still appended, as long as there is room.
 *
 * While no hypervisor is connected, frames to the guest are dropped as if the cable was out: who waits
 * for an answer waits in vain, and gives up in its own time.
 *
 * @module
 */
import { getLogger } from "@std/log";
import type { Arena } from "../sys/arena.ts";
import { monotonicMs } from "../sys/clock.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName, SysError } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import { Message } from "../sys/message.ts";
import { RateLimit } from "../sys/rate_limit.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL } from "../sys/socket.ts";
import { ETH_HEADER_SIZE } from "../wire/ethernet.ts";
import { ArenaLink } from "./arena_link.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { type Link, type LinkWatcher, RX_FRAMES, SLOT_FRAME_SIZE } from "./link.ts";
import { Segmenter } from "./segment.ts";
import { newSumming, type Summing } from "./simd/checksum.ts";
import { slotBytes, Slots } from "./slots.ts";

/** Bytes of the length before each frame. */
const LENGTH_SIZE = 4;
/** Bytes of a frame, whatever is in it. */
const MIN_FRAME = ETH_HEADER_SIZE, MAX_FRAME = SLOT_FRAME_SIZE;
/** What one recv(2) takes: more does not fit the processor's cache. */
const BATCH_BYTES = 256 * 1024;
/** A batch, the rest of a frame before it, and room so that the rest is seldom moved. */
const IN_SIZE = 2 * BATCH_BYTES;
/** What is gathered before it is written, when a turn of the loop is long. */
const FLUSH_BYTES = 128 * 1024;
/** Room for what is sent between the moment that the socket is full and that senders know. */
const OUT_SIZE = 1024 * 1024;
const WARNINGS_PER_SECOND = 1;

/** What is watched. */
const LISTEN = 0, DATA = 1;

/** A link to a hypervisor's stream socket. */
export class StreamLink extends ArenaLink implements Link {
  readonly arena: Arena;
  readonly tso = true;
  readonly uso = true;
  readonly rxOffset: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  readonly rxLength: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  readonly rxGsoSize: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES); // stays 0, as the others:
  readonly rxCsumStart: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES); // frames come complete
  readonly rxCsumOffset: Int32Array<ArrayBuffer> = new Int32Array(RX_FRAMES);
  readonly txOffset: Int32Array;
  readonly #hypervisor: Hypervisor;
  readonly #segmenter: Segmenter;
  readonly #view: DataView;
  readonly #message = new Message(1);
  readonly #warnings = new RateLimit(WARNINGS_PER_SECOND);
  #watcher: LinkWatcher | null = null;
  /** Input that was received and not handed out lies from `#inFirst` to `#inEnd`. */
  readonly #inStart: number;
  #inFirst: number;
  #inEnd: number;
  /** Output that was not written lies from `#outFirst` to `#outEnd`. */
  readonly #outStart: number;
  #outFirst: number;
  #outEnd: number;
  /** Whether output waits for EPOLLOUT. */
  #blocked = false;
  /** Whether it was said that the link is gone. */
  #told = false;

  /**
   * @param hypervisor owned by the link from now on
   * @param newArena makes the arena
   */
  constructor(hypervisor: Hypervisor, newArena: (size: number) => Summing = newSumming) {
    super();
    const summing = newArena(slotBytes(0) + IN_SIZE + OUT_SIZE);
    this.#hypervisor = hypervisor;
    this.arena = summing.arena;
    this.txOffset = new Slots(0, 0, this.arena).txOffset;
    this.#inStart = this.#inFirst = this.#inEnd = this.arena.alloc(IN_SIZE);
    this.#outStart = this.#outFirst = this.#outEnd = this.arena.alloc(OUT_SIZE);
    this.#segmenter = new Segmenter(summing);
    this.#view = this.arena.dv;
  }

  get writable(): boolean {
    return !this.#blocked;
  }

  get guests(): number {
    return this.#hypervisor.departures;
  }

  get pending(): boolean {
    return this.#frameAt(this.#inFirst) !== 0 || this.#hypervisor.over && !this.#told;
  }

  watch(watcher: LinkWatcher): void {
    const { listenFd, fd } = this.#hypervisor;
    this.#watcher = watcher;
    let result = listenFd < 0 ? 0 : watcher.add(listenFd, EPOLL.IN, LISTEN);
    if (result === 0 && fd >= 0) result = watcher.add(fd, EPOLL.IN, DATA);
    if (result < 0) throw new SysError("epoll_ctl", "hypervisor", -result);
  }

  event(kind: number, events: number): boolean {
    if (kind === LISTEN) {
      if (this.#hypervisor.gone) this.#left();
      if (this.#hypervisor.accept()) this.#connected();
      return false;
    }
    if (events & EPOLL.OUT && this.#blocked) this.#write();
    return (events & ~EPOLL.OUT) !== 0;
  }

  #connected(): void {
    const result = this.#watcher?.add(this.#hypervisor.fd, EPOLL.IN, DATA) ?? 0;
    if (result < 0) return this.#left(`: epoll_ctl: ${errnoName(-result)}`);
    getLogger().info("Hypervisor connected");
  }

  /** The hypervisor has left. */
  #left(why = ""): void {
    getLogger().info(`Hypervisor disconnected${why}`);
    this.#disconnect();
  }

  /** Lets go of the hypervisor, and of what lies in the buffers. */
  #disconnect(): void {
    this.#watcher?.remove(this.#hypervisor.fd);
    this.#hypervisor.disconnect();
    this.#inFirst = this.#inEnd = this.#inStart;
    this.#outFirst = this.#outEnd = this.#outStart;
    this.#blocked = false;
  }

  /** Bytes of the frame at `at` of the input: 0 when it is not all there, -1 when there is no such frame. */
  #frameAt(at: number): number {
    const there = this.#inEnd - at - LENGTH_SIZE;
    if (there < 0) return 0;
    const length = this.#view.getUint32(at);
    if (length < MIN_FRAME || length > MAX_FRAME) return -1;
    return length <= there ? length : 0;
  }

  receive(max: number): number {
    const most = Math.min(max, RX_FRAMES);
    let n = this.#handOut(most);
    if (n === 0 && this.#fill()) n = this.#handOut(most);
    if (n > 0 || !this.#hypervisor.over) return n;
    this.#told = true;
    return -1;
  }

  /** Hands out frames that are there. @returns how many */
  #handOut(most: number): number {
    let n = 0, at = this.#inFirst, length = 0;
    for (; n < most && (length = this.#frameAt(at)) > 0; n++) {
      this.rxOffset[n] = at + LENGTH_SIZE;
      this.rxLength[n] = length;
      at += LENGTH_SIZE + length;
    }
    this.#inFirst = at;
    if (n === 0 && length < 0) this.#outOfStep(); // else when the frames before have been dealt with
    return n;
  }

  #outOfStep(): void {
    const length = this.#view.getUint32(this.#inFirst);
    if (this.#warnings.allow(monotonicMs())) {
      getLogger().warn(`Hypervisor sends a frame of ${length} bytes: the connection is ended`);
    }
    this.#disconnect();
  }

  /** Receives behind what is there. @returns whether something came */
  #fill(): boolean {
    const { fd } = this.#hypervisor;
    if (fd < 0) return false;
    this.#makeRoomIn();
    const room = Math.min(this.#inStart + IN_SIZE - this.#inEnd, BATCH_BYTES);
    this.#message.set(0, this.arena, this.#inEnd, room);
    this.#message.setCount(1);
    const got = libc.recvmsg(fd, this.#message.header, MSG_DONTWAIT);
    if (got > 0) {
      this.#inEnd += got;
      return true;
    }
    const reason = got < 0 ? errno() : 0;
    if (got === 0 || reason === E.ECONNRESET) this.#left();
    else if (reason !== E.EAGAIN) this.#left(`: recvmsg: ${errnoName(reason)}`);
    return false;
  }

  /** Moves the rest of a frame to the buffer's start if a batch does not fit behind it. */
  #makeRoomIn(): void {
    const start = this.#inStart, first = this.#inFirst, end = this.#inEnd;
    if (first < end && start + IN_SIZE - end >= BATCH_BYTES) return;
    if (first < end) this.arena.u8.copyWithin(start, first, end);
    this.#inFirst = start;
    this.#inEnd = start + end - first;
  }

  send(
    slot: number,
    length: number,
    _headerLength: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number {
    if (this.#hypervisor.fd < 0) return 0;
    const segmenter = this.#segmenter, off = this.txOffset[slot];
    const count = segmenter.begin(off, length, csumStart, csumOffset, gsoType, gsoSize);
    if (count === 0) return -E.EINVAL;
    if (!this.#hasRoom(segmenter.bytes + count * LENGTH_SIZE)) return -E.ENOBUFS;
    let at = this.#outEnd;
    for (let k = 0; k < count; k++) {
      const bytes = segmenter.write(k, at + LENGTH_SIZE);
      this.#view.setUint32(at, bytes);
      at += LENGTH_SIZE + bytes;
    }
    this.#outEnd = at;
    if (!this.#blocked && at - this.#outFirst >= FLUSH_BYTES) this.#write();
    return 0;
  }

  /** Whether so many bytes fit behind the output that waits, which may be moved for it. */
  #hasRoom(bytes: number): boolean {
    const start = this.#outStart, first = this.#outFirst, end = this.#outEnd;
    if (end + bytes <= start + OUT_SIZE) return true;
    if (end - first + bytes > OUT_SIZE) return false;
    this.arena.u8.copyWithin(start, first, end);
    this.#outFirst = start;
    this.#outEnd = start + end - first;
    return true;
  }

  flush(): void {
    if (this.#outEnd > this.#outFirst && !this.#blocked) this.#write();
  }

  /** Writes what was gathered; what does not go out waits until there is room. */
  #write(): void {
    const bytes = this.#outEnd - this.#outFirst;
    this.#message.set(0, this.arena, this.#outFirst, bytes);
    this.#message.setCount(1);
    const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
    const sent = libc.sendmsg(this.#hypervisor.fd, this.#message.header, flags);
    if (sent === bytes) {
      this.#outFirst = this.#outEnd = this.#outStart;
      return this.#block(false);
    }
    const reason = sent < 0 ? errno() : 0;
    if (reason === E.EPIPE || reason === E.ECONNRESET) return this.#left();
    this.#outFirst += Math.max(sent, 0);
    this.#block(true);
  }

  /** Has it watched whether the hypervisor reads on, or not any more. */
  #block(blocked: boolean): void {
    if (this.#blocked === blocked) return;
    this.#blocked = blocked;
    const events = blocked ? EPOLL.IN | EPOLL.OUT : EPOLL.IN;
    this.#watcher?.modify(this.#hypervisor.fd, events, DATA);
  }

  close(): void {
    this.#hypervisor.close();
  }
}
