// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A hostile hypervisor: the whole way of a stream's bytes through the link and the event loop, against
 * mutated frames in torn, overlong and nonsensical framing, sudden ends, and a reader that pauses. It
 * runs in a network namespace that has a loopback interface and nothing else.
 *
 * The link's memory is filled with a canary byte whenever a hypervisor comes: it is in nothing that is
 * sent to it, unless something was read past a frame or sent unwritten.
 */
import { assert, assertEquals } from "@std/assert";
import { getLogger, LogLevels } from "@std/log";
import { Hypervisor } from "../../lib/link/hypervisor.ts";
import { type Link, SLOT_FRAME_SIZE } from "../../lib/link/link.ts";
import { StreamLink } from "../../lib/link/stream.ts";
import { watchLink } from "../../lib/loop.ts";
import { ETH_HEADER_SIZE, ETH_P_ARP, ETH_SOURCE, etherType } from "../../lib/wire/ethernet.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { descriptors, LoopDriver } from "../helpers/drive_loop.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { mac, OUR_MAC } from "../helpers/fake_context.ts";
import { FakeHypervisor, framed, joined } from "../helpers/fake_hypervisor.ts";
import type { FakeLink } from "../helpers/fake_link.ts";
import { requirements } from "../helpers/require.ts";
import { mutate, repair } from "../wire/mutate.ts";
import { seeded } from "../wire/random.ts";
import { buildSamples } from "../wire/samples.ts";
import { CANARY, leaks } from "./canary.ts";

const MUTATIONS = 100_000, GARBAGE = 10_000;
const BATCH = 16, CHECK_EVERY = 256, CAPACITY = 64;
const RSS_LIMIT = 48 << 20;
const LENGTHS = [0, 1, 13, SLOT_FRAME_SIZE + 1, 0x7fffffff, 0x80000000, 0xffffffff];

type Random = (n: number) => number;

const packet = new Packet(), ourMac = mac(OUR_MAC);

/** Checks a frame to the guest. */
function assertWhole(frame: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(frame.buffer);
  assert(!leaks(frame, 0, frame.length), "a frame to the guest has bytes that were not written");
  assertEquals(frame.subarray(ETH_SOURCE, ETH_SOURCE + 6), ourMac);
  if (etherType(view, 0) === ETH_P_ARP) return;
  assert(parseIp(view, 0, frame.length, packet), "a frame to the guest is no IP packet");
}

/** The loop over a stream link, and the one at its other end. */
class World {
  readonly driver: LoopDriver;
  readonly hypervisor: Hypervisor;
  readonly link: Link;
  other: FakeHypervisor;
  answers = 0;
  connections = 0;

  constructor(folder: string) {
    this.hypervisor = Hypervisor.listen(`${folder}/socket`, false);
    this.link = new StreamLink(this.hypervisor);
    const link = this.link as unknown as FakeLink; // nothing is asked of it that only the fake one has
    this.driver = new LoopDriver({ link, capacity: CAPACITY, mtu: 1500 });
    watchLink(this.driver.ctx);
    this.other = this.connect();
  }

  connect(): FakeHypervisor {
    this.connections++;
    this.link.arena.u8.fill(CANARY);
    this.other = FakeHypervisor.connect(this.hypervisor.path);
    this.driver.turn();
    return this.other;
  }

  /** Sends bytes, as many as are taken, and lets the loop run. */
  send(bytes: Uint8Array<ArrayBuffer>): void {
    this.other.send(bytes);
    do this.driver.turn(); while (this.link.pending);
    this.driver.ahead += 20;
  }

  /** Reads what came, and connects anew when the connection was ended. */
  read(): void {
    this.other.read();
    for (const frame of this.other.take()) {
      assertWhole(frame);
      this.answers++;
    }
    if (!this.other.ended) return;
    this.leave();
    this.connect();
  }

  leave(): void {
    this.other.close();
    this.driver.turn();
    this.driver.turn();
    assertEquals(this.hypervisor.fd, -1);
  }

  close(): void {
    this.leave();
    this.driver.expire();
    assertEquals(this.driver.ctx.table.activeCount, 0);
    this.driver.close();
    this.link.close();
  }
}

/** A frame that is nearly right. */
function mutated(samples: Uint8Array[], random: Random): Uint8Array<ArrayBuffer> {
  const sample = samples[random(samples.length)]!;
  const length = random(3) === 0
    ? ETH_HEADER_SIZE + 1 + random(sample.length - ETH_HEADER_SIZE - 1)
    : sample.length;
  const frame = sample.slice(0, length) as Uint8Array<ArrayBuffer>;
  if (random(5) > 0) mutate(frame, random);
  if (random(4) > 0) repair(frame);
  return frame;
}

/** Bytes of a batch: frames, seldom with a length that lies or makes no sense. */
function batch(samples: Uint8Array[], random: Random): Uint8Array<ArrayBuffer> {
  const pieces = Array.from({ length: BATCH }, () => {
    const frame = mutated(samples, random);
    if (random(500) > 0) return framed(frame);
    const lie = random(2) ? LENGTHS[random(LENGTHS.length)]! : frame.length + random(40) - 20;
    return framed(frame, lie >>> 0);
  });
  const bytes = joined(...pieces);
  if (random(50) === 0) bytes[random(bytes.length)] = random(256);
  return bytes;
}

function attack(world: World, samples: Uint8Array[], random: Random): void {
  const { driver, hypervisor } = world;
  let rss = 0;
  const batches = MUTATIONS / BATCH, fixed = descriptors();
  for (let k = 0; k < batches; k++) {
    const bytes = batch(samples, random), cut = random(bytes.length);
    if (random(3) === 0) {
      world.send(bytes.slice(0, cut));
      if (random(30) === 0) world.other.shutdown();
      world.send(bytes.slice(cut));
    } else world.send(bytes);
    if (random(8) > 0) world.read(); // else it pauses
    if (k % CHECK_EVERY === 0) {
      driver.ctx.table.verify();
      assert(hypervisor.fd >= 0);
      const open = descriptors() - fixed;
      assert(open <= driver.ctx.table.activeCount + 2, `${open} descriptors`);
    }
    if (k === batches >> 2) rss = Deno.memoryUsage().rss;
  }
  const grown = Deno.memoryUsage().rss - rss;
  assert(grown < RSS_LIMIT, `memory has grown by ${grown} bytes`);
  assert(world.answers > MUTATIONS / 20, `${world.answers} answers`);
  assert(world.connections > 50, `${world.connections} connections`);
}

/** Frames of no protocol that is served, and connections that end within a frame: no answer. */
function babble(world: World, random: Random): void {
  world.read();
  world.driver.expire();
  for (let k = 0; k < LENGTHS.length; k++) world.read();
  const { answers } = world;
  for (let k = 0; k < GARBAGE / BATCH; k++) {
    const frames = Array.from({ length: BATCH }, () => {
      const frame = new Uint8Array(ETH_HEADER_SIZE + random(200)).map(() => random(256));
      frame[6]! &= 0xfe; // no group address
      frame[12] = 0x88; // no EtherType of ours
      return framed(frame);
    });
    world.send(joined(...frames));
    if (k % 16 === 0) world.send(framed(new Uint8Array(40), LENGTHS[k % LENGTHS.length]));
    world.read();
  }
  assertEquals(world.answers, answers);
}

/** All of it; runs inside the namespace. */
function fuzz(samples: Uint8Array[], folder: string): void {
  const before = descriptors(), random = seeded(5), world = new World(folder);
  attack(world, samples, random);
  babble(world, random);
  world.close();
  assertEquals(descriptors(), before);
  assertEquals([...Deno.readDirSync(folder)], []);
}

Deno.test({
  name: `${MUTATIONS} mutations through a stream socket and the loop: no error, no leak`,
  ...requirements({ packages: ["iproute2", "python3-scapy"] }),
  async fn() {
    const samples = Object.values(await buildSamples({}));
    const logger = getLogger(), { level } = logger, folder = await Deno.makeTempDir();
    await using namespace = await TestNamespace.create("link set lo up");
    logger.level = LogLevels.CRITICAL;
    try {
      namespace.enter(() => fuzz(samples, folder));
    } finally {
      logger.level = level;
      await Deno.remove(folder);
    }
  },
});
