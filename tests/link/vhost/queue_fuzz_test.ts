// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Rings whose contents change at random, as a hostile guest would change them: nothing may throw, no
 * iovec may leave the guest's memory, no byte outside of it may be written.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { GSO, MAX_PIECES, RX_FRAMES, SLOT_FRAME_SIZE, TX_SLOTS } from "../../../lib/link/link.ts";
import { Slots } from "../../../lib/link/slots.ts";
import { FromGuest } from "../../../lib/link/vhost/from_guest.ts";
import { Queue } from "../../../lib/link/vhost/queue.ts";
import { ToGuest } from "../../../lib/link/vhost/to_guest.ts";
import { Arena } from "../../../lib/sys/arena.ts";
import { Message } from "../../../lib/sys/message.ts";
import { VNET_HEADER_SIZE } from "../../../lib/sys/tun.ts";
import { Driver, GUEST_BASE, TestMemory } from "./driver.ts";
import { tcpFrame } from "./frames.ts";

const ROUNDS = 100_000;
const MEMORY = 1 << 18;
const RING = 16;
const HEADERS = 54;
const slots = new Slots(VNET_HEADER_SIZE, RX_FRAMES);

/** xorshift32 (Marsaglia 2003), so that a failure can be repeated. */
class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  below(limit: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % limit;
  }
}

/** A message that looks where its pieces are. */
class CheckedMessage extends Message {
  bytes = 0;
  readonly #memory: TestMemory;
  constructor(memory: TestMemory) {
    super(MAX_PIECES);
    this.#memory = memory;
  }
  override set(_: number, arena: Arena, off: number, bytes: number): void {
    assert(arena === slots.arena && off >= 0 && bytes > 0 && off + bytes <= arena.size);
    this.bytes += bytes;
  }
  override setAddress(k: number, address: number, bytes: number): void {
    const off = address - this.#memory.addresses[0];
    assert(k < MAX_PIECES && bytes > 0 && off >= 0 && off + bytes <= MEMORY, `${off} ${bytes}`);
    this.bytes += bytes;
  }
}

/** Values that are likelier to hurt than others. */
const NASTY = [0, 1, 2, 3, 4, 7, 11, 12, 13, 15, 16, 17, 255, 256, 0x7fff, 0x8000, 0xffff];

class World {
  readonly memory = new TestMemory(MEMORY, [70_000, 140_000, 140_100]);
  readonly driver: Driver;
  readonly queue: Queue;
  readonly message: CheckedMessage;
  broken = 0;
  done = 0;
  readonly #buffers: number;
  readonly #random: Random;

  constructor(random: Random, eventIdx: boolean) {
    this.#random = random;
    this.driver = new Driver(this.memory, RING, { eventIdx });
    this.queue = new Queue(this.memory);
    this.message = new CheckedMessage(this.memory);
    this.#buffers = this.memory.alloc(0);
    assertEquals(this.queue.start(this.driver.ring), "");
    const frame = tcpFrame(4096);
    for (let at = this.#buffers; at + 4096 < MEMORY; at += 4096) {
      this.memory.bytes(at + VNET_HEADER_SIZE, 4000).set(frame.subarray(0, 4000));
      this.memory.bytes(at, VNET_HEADER_SIZE).fill(0);
    }
  }

  /** Makes a chain of random buffers available, without any book-keeping. */
  add(flags: number): void {
    const random = this.#random, { driver } = this;
    const count = 1 + random.below(4), first = random.below(RING);
    for (let k = 0; k < count; k++) {
      const at = this.#buffers + random.below((MEMORY - this.#buffers) / 4096 - 17 | 0) * 4096;
      const length = random.below(8) ? 1 + random.below(3000) : 60_000 + random.below(6000);
      const next = k + 1 < count ? 1 : 0;
      const place = (first + k) % RING;
      driver.describe(
        driver.desc,
        place,
        GUEST_BASE + at,
        length,
        flags | next,
        (place + 1) % RING,
      );
    }
    driver.offer(first);
  }

  /** Changes something in the ring or in the buffers. */
  mutate(): void {
    const random = this.#random, { ring, desc } = this.driver;
    const value = random.below(2) ? NASTY[random.below(NASTY.length)] : random.below(0x10000);
    switch (random.below(6)) {
      case 0:
        return desc.setUint16(random.below(desc.byteLength / 2) * 2, value, true);
      case 1:
        return desc.setUint16(random.below(RING) * 16 + 12, value & 7, true);
      case 2:
        this.driver.avail[random.below(this.driver.avail.length)] = value;
        return;
      case 3:
        ring.used[random.below(ring.used.length)] = value;
        return;
      case 4: { // an indirect table of what there is
        const at = this.#buffers + random.below(64) * 512;
        const flags = 4 | (random.below(4) ? 0 : 1);
        const length = random.below(2) ? 16 * random.below(20) : value;
        return this.driver.describe(desc, random.below(RING), GUEST_BASE + at, length, flags, 0);
      }
      default: {
        const at = this.#buffers + random.below(16) * 4096 + random.below(80);
        this.memory.bytes(at, 1)[0] = value;
      }
    }
  }

  /** After a violation, as a guest does that starts its device anew. */
  restart(): void {
    if (this.queue.running) return;
    this.broken++;
    const base = this.#random.below(0x10000);
    this.driver.availIndex = this.driver.avail[1] = base;
    assertEquals(this.queue.start({ ...this.driver.ring, base }), "");
  }
}

/** One turn of the receiving half. */
function receive(world: World, from: FromGuest, random: Random): void {
  const n = from.receive(1 + random.below(RX_FRAMES));
  world.done += n;
  for (let k = 0; k < n; k++) {
    const length = from.rxLength[k], off = slots.rxOffset[k];
    assert(length >= 14 && length <= SLOT_FRAME_SIZE);
    const start = random.below(length), bytes = 1 + random.below(length - start);
    if (random.below(4) === 0) from.fetch(off + start, bytes);
    world.message.bytes = 0;
    assert(from.gather(world.message, 0, off + start, bytes) <= MAX_PIECES);
    assertEquals(world.message.bytes, bytes);
    if (random.below(2)) world.mutate();
  }
  from.release();
  from.flush();
}

/** One turn of the sending half. */
function send(world: World, to: ToGuest, random: Random): void {
  to.mergeable = random.below(4) > 0;
  const placed = random.below(4), payload = 1 + random.below(random.below(4) ? 3000 : 65_000);
  for (let slot = 0; slot < placed; slot++) {
    world.message.bytes = 0;
    const n = to.place(world.message, 0, slot, HEADERS, payload);
    assert(n >= 0 && n <= MAX_PIECES);
    assertEquals(world.message.bytes, n > 0 ? payload : 0);
    if (random.below(4) === 0) world.mutate();
  }
  const sends = random.below(TX_SLOTS);
  for (let slot = 0; slot < sends; slot++) {
    const length = HEADERS + (random.below(2) ? payload : 1 + random.below(3000));
    const result = to.send(slot, length, HEADERS, 34, 16, GSO.NONE, 0);
    if (result === 0) world.done++;
  }
  to.flush();
  if (!to.writable || random.below(8) === 0) to.kicked();
}

for (const eventIdx of [true, false]) {
  Deno.test(`${ROUNDS} random changes do no harm (event index: ${eventIdx})`, () => {
    const random = new Random(eventIdx ? 0x2545f491 : 0x1b873593);
    const up = new World(random, eventIdx), down = new World(random, eventIdx);
    const from = new FromGuest(up.queue, up.memory, slots);
    const to = new ToGuest(down.queue, down.memory, slots);
    for (let round = 0; round < ROUNDS; round++) {
      for (let k = random.below(4); k >= 0; k--) {
        up.add(0);
        down.add(2);
      }
      (round % 2 ? up : down).mutate();
      receive(up, from, random);
      send(down, to, random);
      up.restart();
      down.restart();
      if (round % 1000 === 0) assert(up.memory.intact() && down.memory.intact());
    }
    assert(up.memory.intact() && down.memory.intact());
    for (const { done, broken } of [up, down]) {
      assert(
        done > ROUNDS / 100 && broken > ROUNDS / 100,
        `${done} frames, ${broken} times broken`,
      );
    }
  });
}
