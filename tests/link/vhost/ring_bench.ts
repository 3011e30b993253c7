// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a frame through the rings costs, without system calls: prints a line for each kind.
 * Run with `deno run -A`.
 *
 * @module
 */
import { GSO, RX_FRAMES } from "../../../lib/link/link.ts";
import { Slots } from "../../../lib/link/slots.ts";
import { FromGuest } from "../../../lib/link/vhost/from_guest.ts";
import { Queue } from "../../../lib/link/vhost/queue.ts";
import { ToGuest } from "../../../lib/link/vhost/to_guest.ts";
import { Message } from "../../../lib/sys/message.ts";
import { VNET_HEADER_SIZE } from "../../../lib/sys/tun.ts";
import { Driver, TestMemory } from "./driver.ts";
import { tcpFrame, udpFrame } from "./frames.ts";

const ROUNDS = 100_000;
const RING = 256;
const slots = new Slots(VNET_HEADER_SIZE, RX_FRAMES);
const message = new Message(1024);

/** The driver's work, done once: the same chains become available over and over. */
function up(name: string, frame: Uint8Array, layout: number[]): void {
  const memory = new TestMemory(1 << 22);
  const driver = new Driver(memory, RING);
  const count = Math.min(RX_FRAMES, RING / layout.length | 0);
  for (let k = 0; k < count; k++) {
    const off = memory.alloc(VNET_HEADER_SIZE + frame.length, 64);
    memory.bytes(off + VNET_HEADER_SIZE, frame.length).set(frame);
    let at = 0;
    driver.add(layout.map((length) => {
      const buffer = { off: off + at, length };
      at += length;
      return buffer;
    }));
  }
  const heads = [...driver.avail.subarray(2, 2 + count)];
  const queue = new Queue(memory);
  queue.start(driver.ring);
  const from = new FromGuest(queue, memory, slots);
  let frames = 0, pieces = 0;
  const round = () => {
    const n = from.receive(count);
    for (let k = 0; k < n; k++) {
      pieces += from.gather(message, 0, slots.rxOffset[k] + 54, frame.length - 54);
    }
    from.release();
    from.flush();
    frames += n;
    for (let k = 0; k < n; k++) driver.offer(heads[(frames + k) % count]);
  };
  measure(name, round, () => frames, () => pieces / frames);
}

function down(name: string, length: number, buffer: number, placed: boolean): void {
  const memory = new TestMemory(1 << 22);
  const driver = new Driver(memory, RING);
  for (let k = 0; k < RING; k++) {
    driver.add([{ off: memory.alloc(buffer, 64), length: buffer, write: true }]);
  }
  const queue = new Queue(memory);
  queue.start(driver.ring);
  const to = new ToGuest(queue, memory, slots);
  to.mergeable = true;
  let frames = 0, pieces = 0, given = 0;
  const round = () => {
    if (placed) pieces += to.place(message, 0, 0, 54, length - 54);
    if (to.send(0, length, 54, 34, 16, GSO.TCPV4, 1448) < 0) throw new Error("no room");
    to.flush();
    frames++;
    for (; given !== driver.used[1]; given = (given + 1) & 0xffff) {
      driver.offer(driver.usedWords[1 + given % RING * 2]);
    }
  };
  measure(name, round, () => frames, () => pieces / frames);
}

function measure(name: string, round: () => void, frames: () => number, pieces: () => number) {
  for (let k = 0; k < ROUNDS / 4; k++) round();
  const before = frames(), start = performance.now();
  for (let k = 0; k < ROUNDS; k++) round();
  const each = (performance.now() - start) * 1e6 / (frames() - before);
  console.log(`${name}: ${each.toFixed(0)} ns per frame, ${pieces().toFixed(1)} iovecs`);
}

const piecewise = (length: number) => {
  const all = [VNET_HEADER_SIZE + 66];
  for (let left = length - 66; left > 0; left -= 4096) all.push(Math.min(left, 4096));
  return all;
};
up("from guest, TCP 66 B", tcpFrame(66), [78]);
for (const size of [500, 1000, 1514, 9014, 65000]) {
  up(`from guest, TCP ${size} B`, tcpFrame(size), piecewise(size));
}
for (const size of [66, 500, 1000, 1514, 9014, 65000]) {
  up(`from guest, UDP ${size} B`, udpFrame(size), piecewise(size));
}
for (const size of [66, 1514, 65000]) {
  down(`to guest, placed ${size} B`, size, 1536, true);
  down(`to guest, copied ${size} B`, size, 1536, false);
}
