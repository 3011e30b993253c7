// SPDX-License-Identifier: GPL-2.0-or-later
/** TCP over links that have no room at times, or leave payload where the guest has it. */
import { assert, assertEquals } from "@std/assert";
import type { Message } from "../../lib/sys/message.ts";
import { Arena } from "../../lib/sys/arena.ts";
import { FakeLink } from "../helpers/fake_link.ts";
import { acknowledge, end, payload } from "./exchange.ts";
import { ACK, FIN, RST } from "./segment.ts";
import { assertBytes, concat, connected, pattern, World } from "./world.ts";

const HEADERS = 54; // Ethernet, IPv4, TCP without options
const SLOT_GARBAGE = 0x5a;
const PIECE = 700;

/** A link whose frames' payload lies elsewhere, in pieces. */
class ScatteredLink extends FakeLink {
  readonly elsewhere = new Arena(1 << 22);
  /** Slots that {@linkcode ScatteredLink.place} has room for. */
  room = Infinity;

  override receive(max: number): number {
    const n = super.receive(max);
    for (let k = 0; k < n; k++) {
      const off = this.rxOffset[k], length = this.rxLength[k];
      this.elsewhere.u8.set(this.arena.u8.subarray(off, off + length), off);
      this.arena.u8.fill(SLOT_GARBAGE, off + HEADERS, off + length);
    }
    return n;
  }

  override gather(message: Message, piece: number, off: number, length: number): number {
    let n = 0;
    for (let done = 0; done < length; done += PIECE) {
      message.set(piece + n++, this.elsewhere, off + done, Math.min(PIECE, length - done));
    }
    return n;
  }

  override fetch(off = 0, length = 0): void {
    this.arena.u8.set(this.elsewhere.u8.subarray(off, off + length), off);
  }

  override place(
    message: Message,
    piece: number,
    slot: number,
    headers: number,
    length: number,
  ): number {
    if (slot >= this.room) return 0;
    return super.place(message, piece, slot, headers, length);
  }
}

Deno.test("a link without room stops data, costs nothing meanwhile, and goes on when it has room", () => {
  using world = new World();
  using pair = connected(world);
  world.link.writable = false;
  assertEquals(pair.server.send(pattern(100_000)), 100_000);
  for (let k = 0; k < 20; k++) world.turn(1);
  assertEquals(world.segments(), []);
  assert(world.tcp.timeoutMs() !== 0, "the loop would spin");
  acknowledge(world, pair.guest, pair.guest.ack); // looked after again: still no room
  assertEquals(world.segments(), []);
  world.link.writable = true;
  world.settle();
  const segments = world.segments();
  assertBytes(payload(segments), pattern(payload(segments).length));
  assert(payload(segments).length > 0);
});

Deno.test("a link that takes some frames only gets the others later, in order", () => {
  const link = new ScatteredLink();
  using world = new World({ link });
  using pair = connected(world, { window: 65535 });
  const { guest, server } = pair;
  assertEquals(server.send(pattern(150_000)), 150_000);
  const got: Uint8Array[] = [];
  for (let total = 0, round = 0; total < 150_000; round++) {
    assert(round < 1000, "it does not go on");
    link.room = round % 3; // none, one, two
    world.turn(1);
    const segments = world.segments().filter((segment) => segment.payload.length > 0);
    if (segments.length === 0) continue;
    got.push(payload(segments));
    total += got.at(-1)!.length;
    guest.ack = end(segments.at(-1)!);
    guest.send(ACK);
  }
  assertBytes(concat(got), pattern(150_000));
});

Deno.test("a flow that ends while it waits for room is freed", () => {
  const link = new ScatteredLink();
  using world = new World({ link });
  using pair = connected(world);
  link.room = 0;
  link.writable = false;
  assertEquals(pair.server.send(pattern(1000)), 1000);
  for (let k = 0; k < 5; k++) world.turn(1);
  pair.guest.send(RST, { seq: pair.guest.seq });
  world.pass(100);
  world.scan();
  assertEquals(world.table.activeCount, 1, "a list still names it");
  link.writable = true;
  world.pass(100);
  world.scan();
  assertEquals(world.table.activeCount, 0);
});

Deno.test("payload that lies elsewhere in pieces reaches the socket", () => {
  const link = new ScatteredLink();
  using world = new World({ link });
  using pair = connected(world);
  const { guest, server } = pair, bytes = pattern(60_000);
  for (let off = 0; off < bytes.length; off += 20_000) {
    guest.send(ACK, { payload: bytes.slice(off, off + 20_000) });
    guest.seq += 20_000;
  }
  world.settle();
  const got: Uint8Array[] = [];
  for (let total = 0; total < bytes.length;) {
    const part = server.receive(1 << 20) as Uint8Array;
    got.push(part);
    total += part.length;
  }
  assertBytes(concat(got), bytes);
});

Deno.test("payload that lies elsewhere is fetched when the socket is full", () => {
  const link = new ScatteredLink();
  using world = new World({ link });
  using pair = connected(world, { rcvbuf: 4096 });
  const { guest, server } = pair, bytes = pattern(2_000_000), step = 20_000;
  let sent = 0;
  const received: Uint8Array[] = [];
  for (let total = 0, round = 0; total < bytes.length; round++) {
    assert(round < 100_000, "it does not end");
    const acked = world.segments().at(-1);
    const window = acked ? acked.window << guest.theirShift : 65536;
    for (let k = 0; k < 3 && sent < bytes.length && window > step; k++) {
      const part = bytes.slice(sent, sent + step);
      guest.send(sent + step >= bytes.length ? ACK | FIN : ACK, { payload: part });
      guest.seq += part.length;
      sent += part.length;
    }
    world.turn(1);
    const part = server.receive(1 << 16);
    if (typeof part === "number") continue;
    received.push(part);
    total += part.length;
  }
  assertBytes(concat(received), bytes);
});
