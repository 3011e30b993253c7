// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A vhost-user link with a fake front-end on the other side, which has a guest with some memory and two
 * rings; what was opened and mapped must be closed and unmapped in the end.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { BaseHandler, getLogger, type LogRecord } from "@std/log";
import { Hypervisor } from "../../../lib/link/hypervisor.ts";
import { VhostLink } from "../../../lib/link/vhost/link.ts";
import { libc } from "../../../lib/sys/libc.ts";
import { connectUnix } from "../../../lib/sys/unix_socket.ts";
import { descriptors } from "../../helpers/drive_loop.ts";
import { LinkRig } from "../../helpers/fake_hypervisor.ts";
import {
  FakeFrontEnd,
  FakeMemory,
  type FakeRegion,
  FakeRing,
  kick,
  memoryTable,
  REQ,
  ringAddress,
  state,
  takeEvents,
  u64,
  V1_ACK,
  WRITE,
} from "../../helpers/fake_vhost.ts";

/** Where the memory lies: for the guest (4 GiB are crossed), and for the front-end. */
export const GUEST = 0xfffff000n, USER = 0x7f0000000000n;
export const MEMORY = 1 << 20;
/** Descriptors per ring, and where rings and buffers are in the memory. */
export const RING = 16;
const RING_PLACES = [0x1000, 0x2000], BUFFERS = 0x10000, BUFFER = 2048;
export const TO_GUEST = 0, FROM_GUEST = 1;
export const VNET = 12;
/** Some frame. */
export const FRAME: Uint8Array<ArrayBuffer> = Uint8Array.from({ length: 60 }, (_, k) => k * 3);

/** What QEMU's guest takes of a network device (linux/virtio_net.h), and vhost-user's bit 30. */
export const FEATURES = 0x170009983n;

/** The whole memory as one region. */
export const REGION: FakeRegion = {
  guest: GUEST,
  size: BigInt(MEMORY),
  user: USER,
  offset: 0n,
};

/** Keeps what is logged. */
class Lines extends BaseHandler {
  readonly lines: string[] = [];

  constructor() {
    super("DEBUG");
  }

  override handle({ levelName, msg }: LogRecord): void {
    this.lines.push(`${levelName} ${msg}`);
  }

  override log(): void {
    // lines are kept by handle()
  }
}

/** Mappings of guest memory that this process has. */
export function mappings(): number {
  return Deno.readTextFileSync("/proc/self/maps").split("memfd:guest").length - 1;
}

/** The link and who is connected to it. */
export class World {
  readonly link: VhostLink;
  readonly rig: LinkRig;
  readonly hypervisor: Hypervisor;
  readonly memory: FakeMemory = new FakeMemory(MEMORY);
  rings: FakeRing[] = [];
  front!: FakeFrontEnd;
  /** What was logged. */
  readonly lines: string[];

  constructor(hypervisor: Hypervisor, lines: string[], link: VhostLink) {
    this.hypervisor = hypervisor;
    this.lines = lines;
    this.link = link;
    this.rig = new LinkRig(this.link);
    this.renew();
  }

  /** Lines of warnings. */
  get warnings(): string[] {
    return this.lines.filter((line) => line.startsWith("WARNING ") || line.startsWith("WARN "));
  }

  /** A driver that begins anew. */
  renew(): void {
    for (const ring of this.rings) ring.close();
    this.memory.u8.fill(0);
    this.rings = RING_PLACES.map((at) => new FakeRing(this.memory, at, RING));
  }

  /** Connects to a link that listens. */
  connect(): void {
    this.front = new FakeFrontEnd(connectUnix(this.hypervisor.path));
    this.rig.settle();
  }

  /** Sends a message and has the link see it. */
  tell(...args: Parameters<FakeFrontEnd["send"]>): void {
    this.front.send(...args);
    this.rig.settle();
  }

  /** Sends a message with NEED_REPLY. @returns the answer: 0 for success */
  ask(request: number, payload?: Uint8Array, fds: readonly number[] = []): bigint {
    this.tell(request, payload, { flags: V1_ACK, fds });
    return this.front.number();
  }

  /** Agrees on features. */
  negotiate(features = FEATURES): void {
    this.tell(REQ.SET_OWNER);
    this.tell(REQ.SET_PROTOCOL_FEATURES, u64(8));
    this.tell(REQ.SET_FEATURES, u64(features));
  }

  /** Passes the memory. @returns the answer */
  setMemory(regions: readonly FakeRegion[] = [REGION], fds = [this.memory.fd]): bigint {
    return this.ask(REQ.SET_MEM_TABLE, memoryTable(regions), fds);
  }

  /** The user addresses of a ring. */
  place(index: number): { desc: bigint; avail: bigint; used: bigint } {
    const { desc, avail, used } = this.rings[index];
    return { desc: USER + BigInt(desc), avail: USER + BigInt(avail), used: USER + BigInt(used) };
  }

  /** Sets a ring up, up to its descriptors. */
  prepare(index: number, base = 0): void {
    this.tell(REQ.SET_VRING_NUM, state(index, RING));
    this.tell(REQ.SET_VRING_BASE, state(index, base));
    this.tell(REQ.SET_VRING_ADDR, ringAddress(index, this.place(index)));
    this.tell(REQ.SET_VRING_CALL, u64(index), { fds: [this.rings[index].call] });
    this.tell(REQ.SET_VRING_ERR, u64(index), { fds: [this.rings[index].err] });
  }

  /** Starts a ring. @returns the answer */
  start(index: number): bigint {
    return this.ask(REQ.SET_VRING_KICK, u64(index), [this.rings[index].kick]);
  }

  /** All that QEMU does before a guest can communicate. */
  setUp({ features = FEATURES, enable = true } = {}): void {
    this.negotiate(features);
    assertEquals(this.setMemory(), 0n);
    for (const index of [TO_GUEST, FROM_GUEST]) {
      this.prepare(index);
      assertEquals(this.start(index), 0n);
      if (enable) assertEquals(this.ask(REQ.SET_VRING_ENABLE, state(index, 1)), 0n);
    }
  }

  /** Guest address of buffer `k`, of 2048 bytes. */
  bufferAddress(k: number): number {
    return Number(GUEST) + BUFFERS + k * BUFFER;
  }

  /** Bytes of buffer `k`. */
  buffer(k: number): Uint8Array<ArrayBuffer> {
    return this.memory.u8.subarray(BUFFERS + k * BUFFER, BUFFERS + (k + 1) * BUFFER);
  }

  /** The guest sends a frame from buffer `k`, behind a header of zeros; the device is not told. */
  guestSends(frame: Uint8Array, k = 0): void {
    const buffer = this.buffer(k);
    buffer.fill(0, 0, VNET);
    buffer.set(frame, VNET);
    this.rings[FROM_GUEST].add([this.bufferAddress(k), VNET + frame.length, 0]);
  }

  /** The guest offers a buffer for frames; the device is not told. */
  guestOffers(k: number): void {
    this.rings[TO_GUEST].add([this.bufferAddress(k), BUFFER, WRITE]);
  }

  close(): void {
    this.rig.close();
    this.front?.close();
    this.memory.close();
    for (const ring of this.rings) ring.close();
  }
}

/** Runs a test with a front-end that is connected, and the only one. */
export function withWorld(fn: (world: World) => void): void {
  const { front, fd } = FakeFrontEnd.pair();
  checked(Hypervisor.connected(fd), (world) => {
    world.front = front;
    fn(world);
  }, 2);
}

/** Runs a test with a link that listens. */
export function withListening(fn: (world: World) => void, Kind = VhostLink): void {
  const folder = Deno.makeTempDirSync();
  checked(Hypervisor.listen(`${folder}/socket`, false), fn, 2, Kind);
  Deno.removeSync(folder);
}

/** Runs it, and looks that nothing is left over of it. @param opened descriptors opened before */
function checked(
  hypervisor: Hypervisor,
  fn: (world: World) => void,
  opened: number,
  Kind = VhostLink,
): void {
  const before = descriptors() - opened, mapped = mappings();
  const logger = getLogger(), { handlers } = logger, kept = new Lines();
  logger.handlers = [kept];
  const world = new World(hypervisor, kept.lines, new Kind(hypervisor));
  try {
    fn(world);
  } finally {
    world.close();
    logger.handlers = handlers;
  }
  assertEquals(mappings(), mapped);
  assertEquals(descriptors(), before);
}

/** Number of eventfds that this process has open. */
export function eventfds(): number {
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`) === "anon_inode:[eventfd]") count++;
    } catch {
      // the directory itself
    }
  }
  return count;
}

/** Closes a front-end as if its process had ended, and has the link see it. */
export function leave(world: World): void {
  libc.shutdown(world.front.fd, 2);
  world.rig.settle();
}

/** Whether frames cross both ways. */
export function assertWorks(world: World): void {
  const { rings, rig } = world;
  rig.take();
  takeEvents(rings[TO_GUEST].call);
  world.guestSends(FRAME, 0);
  kick(rings[FROM_GUEST].kick);
  world.guestOffers(1);
  kick(rings[TO_GUEST].kick);
  rig.settle();
  assertEquals(rig.take(), [FRAME]);
  assertEquals(rings[FROM_GUEST].takeUsed(), [0]);
  assertEquals(rig.send(FRAME), 0);
  rig.settle();
  assertEquals(rings[TO_GUEST].takeUsed(), [VNET + FRAME.length]);
  assertEquals(world.buffer(1).slice(VNET, VNET + FRAME.length), FRAME);
  assertEquals(takeEvents(rings[TO_GUEST].call), 1);
}

/** Whether no frame crosses, and nothing happens either. */
export function assertSilent(world: World): void {
  const { rings, rig } = world;
  world.guestSends(FRAME, 2);
  kick(rings[FROM_GUEST].kick);
  world.guestOffers(3);
  kick(rings[TO_GUEST].kick);
  rig.settle();
  rig.send(FRAME);
  rig.settle();
  assertEquals([rig.take(), rings[FROM_GUEST].takeUsed(), rings[TO_GUEST].takeUsed()], [
    [],
    [],
    [],
  ]);
  assert(world.link.writable);
}
