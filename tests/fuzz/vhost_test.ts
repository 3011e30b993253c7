// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A hostile front-end with a hostile guest: messages, descriptors and rings that are changed at random,
 * over a real socket and memory that is really shared. Nothing may throw, be left open or mapped, or
 * be answered that has no answer; nothing outside of the memory that was passed may be written to.
 */
import { assert, assertEquals } from "@std/assert";
import { MAX_PIECES, SLOT_FRAME_SIZE, TX_SLOTS } from "../../lib/link/link.ts";
import { VhostLink } from "../../lib/link/vhost/link.ts";
import { libc } from "../../lib/sys/libc.ts";
import { Message } from "../../lib/sys/message.ts";
import { AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM } from "../../lib/sys/socket.ts";
import {
  closeAll,
  kick,
  memoryTable,
  message,
  newEventfd,
  newMemfd,
  REQ,
  ringAddress,
  state,
  u64,
  V1,
  V1_ACK,
} from "../helpers/fake_vhost.ts";
import {
  FEATURES,
  FROM_GUEST,
  MEMORY,
  REGION,
  RING,
  TO_GUEST,
  withListening,
  World,
} from "../link/vhost/world.ts";
import { seeded } from "../wire/random.ts";

const MUTATIONS = 100_000;
/** What is passed of the memory; there are canaries behind it. */
const PASSED = MEMORY - 0x1000;
const CANARY = 0xc3;
const HEADER = 12, REPLY = 5, REPLY_BYTES = 8;
const RSS_LIMIT = 48 << 20;
const RINGS_START = 0x1000, RINGS_END = 0x3000;
const CHECK_EVERY = 1024;
/** Requests that are answered as they are. */
const ANSWERED: readonly number[] = [1, 11, 15, 17, 42, 43];
const LAST_REQUEST = 43;
const NASTY = [0, 1, 2, 3, 7, 8, 15, 16, 17, 0x7f, 0x80, 0xff];
const NASTY_WORDS = [0, 1, 2, 4, 5, 0x7fff, 0x8000, 0xffff, 12, 11, 13, 16, 0x1000];

const random = seeded(20);

/** What came of it: the test would be worth little if there was little of each. */
const seen = { received: 0, sent: 0, replies: 0, connections: 0 };
const ENOUGH = 1000;

/** Bytes go through this: sent to nobody, and received from nobody. */
const sink = new Int32Array(2);
const pieces = new Message(MAX_PIECES);

/** A link whose frames are looked at in every way there is. */
class PryingLink extends VhostLink {
  override receive(max: number): number {
    const n = super.receive(max);
    if (n > 0) seen.received += n;
    for (let k = 0; k < n; k++) {
      const off = this.rxOffset[k], length = this.rxLength[k], skip = random(length);
      const bytes = 1 + random(length - skip);
      pieces.setCount(this.gather(pieces, 0, off + skip, bytes));
      const sent = libc.sendmsg(sink[0], pieces.header, MSG_DONTWAIT);
      assert(sent === bytes || sent < 0);
      if (sent >= 0) libc.recv(sink[1], new Uint8Array(1), 1, MSG_DONTWAIT);
      this.fetch(off + random(length), 1);
      this.fetch(off, length);
    }
    return n;
  }
}

/** Some descriptors of some kinds. */
function someFds(world: World, made: number[]): number[] {
  const count = random(3) === 0 ? [2, 3, 7, 8, 9, 20][random(6)] : random(2);
  return Array.from({ length: count }, () => {
    switch (random(6)) {
      case 0:
        return world.memory.fd;
      case 1:
        return world.front.fd;
      case 2:
        return sink[random(2)];
      case 3:
        made.push(newMemfd(random(4) * 4096));
        return made.at(-1)!;
      default:
        made.push(newEventfd());
        return made.at(-1)!;
    }
  });
}

/** The messages of a set-up, with what belongs to them. */
function samples(world: World): [Uint8Array<ArrayBuffer>, number[]][] {
  const flags = random(2) ? V1 : V1_ACK, index = random(2);
  const { kick, call, err } = world.rings[index];
  const region = { ...REGION, size: BigInt(PASSED) };
  const two = [{ ...region, size: 0x8000n }, { ...region, guest: 0n, user: 0n }];
  return [
    [message(REQ.GET_FEATURES, undefined, { flags }), []],
    [message(REQ.SET_FEATURES, u64(FEATURES), { flags }), []],
    [message(REQ.SET_PROTOCOL_FEATURES, u64(8), { flags }), []],
    [message(REQ.SET_MEM_TABLE, memoryTable([region]), { flags }), [world.memory.fd]],
    [message(REQ.SET_MEM_TABLE, memoryTable(two), { flags }), [world.memory.fd, world.memory.fd]],
    [message(REQ.SET_VRING_NUM, state(index, RING), { flags }), []],
    [message(REQ.SET_VRING_BASE, state(index, 0), { flags }), []],
    [message(REQ.SET_VRING_ADDR, ringAddress(index, world.place(index)), { flags }), []],
    [message(REQ.SET_VRING_CALL, u64(index), { flags }), [call]],
    [message(REQ.SET_VRING_ERR, u64(index), { flags }), [err]],
    [message(REQ.SET_VRING_KICK, u64(index), { flags }), [kick]],
    [message(REQ.SET_VRING_ENABLE, state(index, 1), { flags }), []],
    [message(REQ.GET_VRING_BASE, state(index, 0), { flags }), []],
  ];
}

/** Whether this request may be answered at all. */
function answerable(bytes: Uint8Array<ArrayBuffer>): boolean {
  const [request, flags] = new Uint32Array(bytes.buffer, 0, 2);
  if (request < 1 || request > LAST_REQUEST || (flags & ~8) !== V1) return false;
  return flags === V1_ACK || ANSWERED.includes(request);
}

/** Looks at what came back for a message. */
function checkReplies(world: World, bytes: Uint8Array<ArrayBuffer>): void {
  const back = world.front.takeBytes();
  if (back.length === 0) return;
  seen.replies++;
  assert(answerable(bytes), `${bytes} is answered ${back}`);
  const words = new Uint32Array(back.buffer, 0, 3);
  assertEquals([...words], [bytes[0], REPLY, REPLY_BYTES]);
  assertEquals(back.length, HEADER + REPLY_BYTES);
}

/** Connects, and sets everything up. */
function begin(world: World): void {
  seen.connections++;
  world.renew();
  world.memory.u8.fill(CANARY, PASSED);
  world.connect();
  world.negotiate(random(4) ? FEATURES : FEATURES & ~[2n, 1n << 15n, 1n << 29n][random(3)]);
  assertEquals(world.setMemory([{ ...REGION, size: BigInt(PASSED) }]), 0n);
  for (const index of [TO_GUEST, FROM_GUEST]) {
    world.prepare(index);
    assertEquals(world.start(index), 0n);
    world.tell(REQ.SET_VRING_ENABLE, state(index, 1));
  }
}

/** A message that is changed, torn, or beside wrong descriptors; now and then a good one. */
function sendMessage(world: World): void {
  const list = samples(world), made: number[] = [];
  let [bytes, fds] = list[random(list.length)];
  const kind = random(8);
  if (kind < 4) {
    for (let n = 1 + random(3); n > 0; n--) {
      const at = random(3) === 0 ? random(HEADER) : random(bytes.length);
      if (random(2) === 0) bytes[at] = NASTY[random(NASTY.length)];
      else bytes[at] ^= 1 << random(8);
    }
  }
  if (kind === 4) fds = someFds(world, made);
  if (kind === 5) bytes = bytes.map(() => random(256));
  if (kind === 6) bytes = bytes.slice(0, 1 + random(bytes.length));
  world.front.raw(bytes, fds);
  world.rig.settle();
  if (bytes.length >= HEADER) checkReplies(world, bytes);
  // whose size is wrong takes the next one for its rest: the connection has had its day
  const torn = bytes.length < HEADER ||
    new Uint32Array(bytes.buffer, 0, 3)[2] !== bytes.length - HEADER;
  if (torn || kind >= 5) end(world);
  closeAll(made);
}

function end(world: World): void {
  world.front.close();
  world.rig.settle();
  assertEquals(world.hypervisor.fd, -1);
}

/** Changes the rings and buffers, and has the device look. */
function changeRings(world: World): void {
  const { u8, dv } = world.memory;
  for (let n = 1 + random(4); n > 0; n--) {
    const ring = world.rings[random(2)];
    switch (random(6)) {
      case 0:
        dv.setUint16(RINGS_START + random(RINGS_END - RINGS_START), random(65536), true);
        break;
      case 1: // a field of a descriptor
        dv.setUint16(ring.desc + random(RING * 8) * 2, NASTY_WORDS[random(13)], true);
        break;
      case 2:
        u8[ring.avail + random(6 + 2 * RING)] ^= 1 << random(8);
        break;
      case 3:
        ring.offer(random(RING + 1));
        break;
      default: // something good
        if (ring === world.rings[TO_GUEST]) world.guestOffers(random(100));
        else {world.guestSends(
            Uint8Array.from({ length: 14 + random(1900) }, () => 0x45),
            random(100),
          );}
    }
  }
  for (const ring of world.rings) kick(ring.kick);
  world.rig.turn();
}

/** Sends a frame in one of the ways there are. */
function sendFrame(world: World): void {
  const { link } = world, slot = random(TX_SLOTS), headers = 54;
  const length = 60 + random(random(4) ? 1400 : SLOT_FRAME_SIZE - 60);
  if (random(2) === 0) {
    const count = link.place(pieces, 0, random(4) ? 0 : slot, headers, length - headers);
    assert(count >= 0 && count <= MAX_PIECES);
    if (count === 0) return;
    pieces.setCount(count);
    libc.send(sink[0], new Uint8Array(2000), 2000, MSG_DONTWAIT);
    libc.recvmsg(sink[1], pieces.header, MSG_DONTWAIT);
  }
  const csumStart = random(2) ? 34 : 0;
  if (link.send(random(4) ? 0 : slot, length, headers, csumStart, 16, 0, 0) === 0) seen.sent++;
  link.flush();
}

Deno.test(`${MUTATIONS} mutations of messages, descriptors and rings do no harm`, () => {
  libc.socketpair(AF_UNIX, SOCK_DGRAM, 0, sink);
  const canary = new Uint8Array(MEMORY - PASSED).fill(CANARY);
  withListening((world) => {
    let rss = 0;
    for (let k = 0; k < MUTATIONS; k++) {
      if (world.hypervisor.fd < 0) {
        world.front?.close();
        begin(world);
      }
      const kind = random(8);
      if (kind < 2) sendMessage(world);
      else if (kind < 7) changeRings(world);
      else sendFrame(world);
      world.rig.take();
      if (k % CHECK_EVERY === 0) {
        world.lines.length = 0;
        assertEquals(world.memory.u8.slice(PASSED), canary);
      }
      if (k === MUTATIONS / 4) rss = Deno.memoryUsage().rss;
    }
    assert(Deno.memoryUsage().rss - rss < RSS_LIMIT, `${rss} ${Deno.memoryUsage().rss}`);
  }, PryingLink);
  closeAll([...sink]);
  assert(Object.values(seen).every((count) => count > ENOUGH), JSON.stringify(seen));
});
