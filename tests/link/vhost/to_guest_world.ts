// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A ring to a guest, with both of its ends.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { GSO, RX_FRAMES } from "../../../lib/link/link.ts";
import { Slots } from "../../../lib/link/slots.ts";
import { Queue } from "../../../lib/link/vhost/queue.ts";
import { ToGuest } from "../../../lib/link/vhost/to_guest.ts";
import { libc } from "../../../lib/sys/libc.ts";
import { Message } from "../../../lib/sys/message.ts";
import { AF_UNIX, SOCK_STREAM } from "../../../lib/sys/socket.ts";
import { VNET_HEADER_SIZE } from "../../../lib/sys/tun.ts";
import { Driver, TestMemory } from "./driver.ts";

export const HEADERS = 66;
export const slots = new Slots(VNET_HEADER_SIZE, RX_FRAMES);
export const message = new Message(1024);

export interface Options {
  eventIdx?: boolean;
  mergeable?: boolean;
  cuts?: number[];
  base?: number;
}

export class World {
  readonly memory: TestMemory;
  readonly driver: Driver;
  readonly queue: Queue;
  readonly to: ToGuest;
  /** By first descriptor: the buffers of each chain. */
  readonly chains = new Map<number, { off: number; length: number }[]>();
  #iovecs = 0;

  constructor(size = 64, options: Options = {}) {
    this.memory = new TestMemory(1 << 22, options.cuts);
    this.driver = new Driver(this.memory, size, options);
    this.queue = new Queue(this.memory);
    assertEquals(this.queue.start(this.driver.ring), "");
    this.to = new ToGuest(this.queue, this.memory, slots);
    this.to.mergeable = options.mergeable ?? true;
    this.to.kicked();
  }

  /** Makes a chain of empty buffers of these sizes available. */
  offer(...sizes: number[]): void {
    const buffers = sizes.map((length) => {
      const off = this.memory.alloc(length + 8, 1) + 3;
      this.memory.bytes(off - 3, length + 8).fill(0xee);
      return { off, length, write: true };
    });
    const head = this.driver.add(buffers);
    assert(head >= 0);
    this.chains.set(head, buffers);
  }

  offerMany(count: number, size: number): void {
    for (let k = 0; k < count; k++) this.offer(size);
  }

  /** Reserves room for payload. @returns number of iovecs */
  place(slot: number, length: number): number {
    if (slot === 0) this.#iovecs = 0;
    const n = this.to.place(message, this.#iovecs, slot, HEADERS, length);
    this.#iovecs += n;
    return n;
  }

  /** Has the kernel put payload where it belongs. */
  fill(payload: Uint8Array): void {
    const fds = new Int32Array(2);
    libc.socketpair(AF_UNIX, SOCK_STREAM, 0, fds);
    assertEquals(libc.write(fds[0], payload, payload.length), payload.length);
    message.setCount(this.#iovecs);
    assertEquals(libc.recvmsg(fds[1], message.header, 0), payload.length);
    for (const fd of fds) libc.close(fd);
  }

  /** Writes the start of `frame` to a slot, and sends the slot. */
  send(slot: number, frame: Uint8Array, written = frame.length): number {
    slots.arena.u8.fill(0x99, slots.txOffset[slot], slots.txOffset[slot] + frame.length);
    slots.arena.u8.set(frame.subarray(0, written), slots.txOffset[slot]);
    return this.to.send(slot, frame.length, HEADERS, 34, 16, GSO.TCPV4, 1448);
  }

  /** Takes one frame as a driver does. @returns null: none */
  take(): { header: DataView; frame: Uint8Array; lengths: number[] } | null {
    const lengths: number[] = [], bytes: number[] = [];
    let buffers = 1;
    for (let k = 0; k < buffers; k++) {
      const used = this.driver.take();
      if (!used) {
        assertEquals(k, 0, "part of a frame");
        return null;
      }
      let left = used.length;
      for (const { off, length } of this.chains.get(used.head)!) {
        const part = Math.min(left, length);
        bytes.push(...this.memory.bytes(off, part));
        const rest = this.memory.bytes(off + part, length - part + 5);
        assert(left === 0 || rest.subarray(-5).every((byte) => byte === 0xee), "beyond the buffer");
        left -= part;
      }
      assertEquals(left, 0, "more used than there is");
      lengths.push(used.length);
      if (k === 0) buffers = bytes[10] | bytes[11] << 8;
    }
    const all = Uint8Array.from(bytes);
    return {
      header: new DataView(all.buffer, 0, VNET_HEADER_SIZE),
      frame: all.subarray(VNET_HEADER_SIZE),
      lengths,
    };
  }
}
