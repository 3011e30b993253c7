// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Moves a million frames through the rings and prints by how many bytes the heap has grown. A program
 * of its own, so that nothing but this is on the heap; the driver's side is as bare as can be. Needs
 * `--v8-flags=--expose-gc` and young generations so large that nothing is collected meanwhile.
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

const FRAMES = 1_000_000;
const BATCH = 32, RING = 64, USED_RING = 1, AVAIL_RING = 2;
const SIZES = [66, 600, 1514, 9000];
const HEADERS = 66;
const gc = (globalThis as unknown as { gc: () => void }).gc;
const slots = new Slots(VNET_HEADER_SIZE, RX_FRAMES);
const message = new Message(1024);

const up = new TestMemory(1 << 20), down = new TestMemory(1 << 20);
const upDriver = new Driver(up, RING), downDriver = new Driver(down, RING);
const upQueue = new Queue(up), downQueue = new Queue(down);
upQueue.start(upDriver.ring);
downQueue.start(downDriver.ring);
const from = new FromGuest(upQueue, up, slots), to = new ToGuest(downQueue, down, slots);
to.mergeable = true;
for (let k = 0; k < BATCH; k++) {
  const length = SIZES[k % SIZES.length];
  const frame = k % 8 === 2 ? udpFrame(length) : tcpFrame(length);
  const off = up.alloc(VNET_HEADER_SIZE + length);
  up.bytes(off + VNET_HEADER_SIZE, length).set(frame);
  const first = VNET_HEADER_SIZE + HEADERS;
  const rest = { off: off + first, length: length - HEADERS };
  upDriver.add(rest.length > 0 ? [{ off, length: first }, rest] : [{ off, length: first }]);
}
for (let k = 0; k < RING; k++) {
  downDriver.add([{ off: down.alloc(1536), length: 1536, write: true }]);
}

/** Frames from the guest, which makes the same chains available again and again. */
function receive(frames: number): void {
  for (let done = 0; done < frames;) {
    const n = from.receive(RX_FRAMES);
    for (let k = 0; k < n; k++) {
      const length = from.rxLength[k];
      if (length > HEADERS) {
        from.gather(message, 0, slots.rxOffset[k] + HEADERS, length - HEADERS);
      }
      if (k % 16 === 3) from.fetch(slots.rxOffset[k] + HEADERS, length - HEADERS);
    }
    from.release();
    from.flush();
    giveBack(upDriver);
    from.kicked();
    done += n;
  }
}

/** Frames to the guest, placed and not. */
function send(frames: number): void {
  for (let done = 0; done < frames; done++) {
    const length = SIZES[done % SIZES.length];
    if (done % 2 === 0) to.place(message, 0, 0, HEADERS, Math.max(1, length - HEADERS));
    to.send(0, length, HEADERS, 34, 16, GSO.TCPV4, 1448);
    to.flush();
    if (done % 4 === 3) giveBack(downDriver);
  }
}

let given = 0;
/** Makes available again what was used. */
function giveBack(driver: Driver): void {
  const { used, usedWords, avail } = driver;
  given = driver.lastUsed;
  while (given !== used[1]) {
    avail[AVAIL_RING + driver.availIndex % RING] = usedWords[USED_RING + given % RING * 2];
    driver.availIndex = (driver.availIndex + 1) & 0xffff;
    given = (given + 1) & 0xffff;
  }
  driver.lastUsed = given;
  Atomics.store(avail, 1, driver.availIndex);
}

receive(50_000);
send(50_000);
gc();
gc();
const before = Deno.memoryUsage().heapUsed;
receive(FRAMES / 2);
send(FRAMES / 2);
const grown = Deno.memoryUsage().heapUsed - before; // garbage included
gc();
gc();
const kept = Deno.memoryUsage().heapUsed - before;
console.log(JSON.stringify({ grown, kept, running: upQueue.running && downQueue.running }));
