// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A hostile guest: the whole way of a frame through the event loop, against random and mutated frames
 * of every protocol. It runs in a network namespace that has a loopback interface and nothing else,
 * with servers there that answer.
 *
 * All memory in which frames lie is filled with a canary byte. It is neither in any frame to the guest
 * nor in anything the servers receive, unless something was read past a frame or sent unwritten.
 */
import { assert, assertEquals } from "@std/assert";
import { getLogger, LogLevels } from "@std/log";
import { E } from "../../lib/sys/errno.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import {
  acceptSocket,
  bindSocket,
  familyOf,
  MSG_NOSIGNAL,
  newSocket,
  SOCK_DGRAM,
  SOCK_STREAM,
  SOCKADDR_IN6_SIZE,
} from "../../lib/sys/socket.ts";
import { FlowType } from "../../lib/flow/types.ts";
import { LOOPBACK4, LOOPBACK6 } from "../../lib/wire/address.ts";
import { ETH_HEADER_SIZE, ETH_P_ARP, ETH_SOURCE, etherType } from "../../lib/wire/ethernet.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { descriptors, LoopDriver } from "../helpers/drive_loop.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { mac, OUR_MAC } from "../helpers/fake_context.ts";
import { FakeLink } from "../helpers/fake_link.ts";
import { requirements } from "../helpers/require.ts";
import { ACK, buildSegment, FIN, PSH, RST, SYN, URG } from "../tcp/segment.ts";
import { mutate, repair } from "../wire/mutate.ts";
import { seeded } from "../wire/random.ts";
import { BASE, buildSamples } from "../wire/samples.ts";
import { CANARY, leaks } from "./canary.ts";

const BATCH = 16;
/**
 * Frames, capacity of the flow table and batches after which all flows end: a table that suffices, and
 * one that is full nearly all the time, but has room for flows of each type now and then.
 */
const RUNS = [[200_000, 1024, 1024], [50_000, 8, 64]] as const;
const CHECK_EVERY = 256; // batches
const SLACK = 2048;
const RSS_LIMIT = 48 << 20;
const TCP = 6;
const UDP_PORT = 2, TCP_PORT = 80; // those of the samples
const CONVERSATIONS = 8, FIRST_PORT = 5000;

/** More frames to begin with: errors about packets of ours, and what is not served at all. */
const MORE = {
  error4:
    `${BASE.IP4}/ICMP(type=3, code=3)/IP(src="192.0.2.1", dst="10.0.0.2")/UDP(sport=2, dport=1)`,
  error6: `${BASE.IP6}/ICMPv6DestUnreach()/IPv6(src="2001:db8::1", dst="2001:db8::2")/UDP(sport=2)`,
  fragment: `${BASE.IP4.slice(0, -1)}, flags="MF", frag=0)/UDP(sport=1, dport=2)/Raw(b"x"*64)`,
  sctp: `${BASE.IP4.slice(0, -1)}, proto=132)/Raw(b"x"*32)`,
  jumbo: `${BASE.IP4}/UDP(sport=1, dport=2)/Raw(b"y"*1472)`,
};

const packet = new Packet();
const ourMac = mac(OUR_MAC);

/** A link that surrounds frames with canaries and looks at all that is sent. */
class CanaryLink extends FakeLink {
  /** What the guest knows of each conversation: its next sequence number, and the acknowledgement. */
  readonly next = new Uint32Array(CONVERSATIONS);
  readonly ack = new Uint32Array(CONVERSATIONS);

  constructor() {
    super();
    this.record = false;
    this.arena.u8.fill(CANARY);
  }

  override load(frame: Uint8Array, slot?: number): number {
    const off = super.load(frame, slot);
    this.arena.u8.fill(CANARY, off + frame.length, off + frame.length + SLACK);
    return off;
  }

  override send(slot: number, length: number, ...rest: [number, number, number, number, number]) {
    const off = this.txOffset[slot]!, { u8, dv } = this.arena;
    assert(!leaks(u8, off, off + length), "a frame to the guest has bytes that were not written");
    for (let k = 0; k < 6; k++) assertEquals(u8[off + ETH_SOURCE + k], ourMac[k]);
    if (etherType(dv, off) !== ETH_P_ARP) {
      assert(parseIp(dv, off, length, packet), "a frame to the guest is no IP packet");
      if (packet.proto === TCP) this.#note(packet.l4, packet.end);
    }
    const result = super.send(slot, length, ...rest);
    u8.fill(CANARY, off, off + length);
    return result;
  }

  #note(l4: number, end: number): void {
    const { dv } = this.arena, k = dv.getUint16(l4 + 2) - FIRST_PORT;
    if (k < 0 || k >= CONVERSATIONS) return;
    const flags = dv.getUint8(l4 + 13), payload = end - l4 - (dv.getUint8(l4 + 12) >>> 4) * 4;
    this.next[k] = dv.getUint32(l4 + 8);
    this.ack[k] = dv.getUint32(l4 + 4) + payload + (flags & SYN ? 1 : 0) + (flags & FIN ? 1 : 0);
  }
}

/** Servers on the loopback addresses: UDP answers, TCP reads, writes and closes as it likes. */
class Servers {
  readonly #udp = [LOOPBACK4, LOOPBACK6].map((at) => listen(at, SOCK_DGRAM, UDP_PORT));
  readonly #tcp = [LOOPBACK4, LOOPBACK6].map((at) => listen(at, SOCK_STREAM, TCP_PORT));
  readonly #open: number[] = [];
  readonly #buffer = new Uint8Array(65536);
  readonly #zeros = new Uint8Array(3000);
  readonly #name = new Uint8Array(SOCKADDR_IN6_SIZE);
  received = 0;

  #take(fd: number, length: Uint32Array<ArrayBuffer>): number {
    const n = libc.recvfrom(fd, this.#buffer, 65536, 0, this.#name, length);
    if (n < 0) return n;
    assert(!leaks(this.#buffer, 0, n), "a server has received bytes past a frame");
    this.received++;
    return n;
  }

  turn(random: (n: number) => number): void {
    const length = new Uint32Array(1);
    for (const fd of this.#udp) {
      for (;;) {
        length[0] = SOCKADDR_IN6_SIZE;
        const n = this.#take(fd, length);
        if (n < 0) break;
        libc.sendto(fd, this.#buffer, n, 0, this.#name, length[0]!);
      }
    }
    for (const fd of this.#tcp) {
      const words = new Int32Array(5);
      for (let got = 0; (got = acceptSocket(fd, words, 0, words.subarray(4))) >= 0;) {
        this.#open.push(got);
      }
    }
    for (let k = this.#open.length - 1; k >= 0; k--) {
      const fd = this.#open[k]!, n = this.#take(fd, length);
      const over = n === 0 || (n < 0 && errno() !== E.EAGAIN) || random(64) === 0;
      const answer = random(4) === 0 ? random(3000) : 0;
      if (!over && answer > 0) libc.send(fd, this.#zeros, answer, MSG_NOSIGNAL);
      if (!over) continue;
      libc.close(fd);
      this.#open.splice(k, 1);
    }
  }

  get open(): number {
    return this.#open.length;
  }

  close(): void {
    for (const fd of [...this.#udp, ...this.#tcp, ...this.#open]) libc.close(fd);
  }
}

function listen(at: Int32Array, type: number, port: number): number {
  const fd = newSocket(familyOf(at, 0), type, 0);
  assertEquals(bindSocket(fd, at, 0, port), 0);
  if (type === SOCK_STREAM) assertEquals(libc.listen(fd, 64), 0);
  return fd;
}

const FLAGS = [
  SYN,
  ACK,
  ACK,
  ACK | PSH,
  ACK | PSH,
  ACK | FIN,
  RST,
  RST | ACK,
  SYN | ACK,
  URG | ACK,
];

/** Makes frames; the same ones for the same seed. */
class Guest {
  readonly #samples: Uint8Array[];
  readonly #random: (n: number) => number;
  readonly #link: CanaryLink;

  constructor(samples: Uint8Array[], random: (n: number) => number, link: CanaryLink) {
    this.#samples = samples;
    this.#random = random;
    this.#link = link;
  }

  frame(): Uint8Array {
    const random = this.#random, kind = random(10);
    if (kind < 3) return this.#segment();
    if (kind === 3) return this.#noise();
    const sample = this.#samples[random(this.#samples.length)]!;
    if (kind === 4) return sample;
    const length = random(3) === 0
      ? ETH_HEADER_SIZE + 1 + random(sample.length - ETH_HEADER_SIZE - 1)
      : sample.length;
    const frame = sample.slice(0, length);
    mutate(frame, random);
    if (random(4) > 0) repair(frame);
    return frame;
  }

  #noise(): Uint8Array {
    const random = this.#random;
    const frame = new Uint8Array(ETH_HEADER_SIZE + random(1600)).map(() => random(256));
    frame[6] &= 0xfe; // no group address
    frame.set([[8, 0], [8, 6], [0x86, 0xdd]][random(3)]!, 12);
    return frame;
  }

  /** A TCP segment that fits one of the conversations, or nearly. */
  #segment(): Uint8Array {
    const random = this.#random, k = random(CONVERSATIONS), link = this.#link;
    const near = () => random(4) > 0 ? 0 : random(4000) - 2000;
    const options = Array.from(
      { length: 4 * random(4) },
      () => random(4) ? random(9) : random(256),
    );
    const frame = buildSegment({
      sport: FIRST_PORT + k,
      dport: TCP_PORT,
      seq: link.next[k]! + near() >>> 0,
      ack: link.ack[k]! + near() >>> 0,
      flags: random(16) === 0 ? random(256) : FLAGS[random(FLAGS.length)]!,
      window: random(3) === 0 ? 0 : random(65536),
      payload: new Uint8Array(random(3) === 0 ? random(1400) : 0).fill(0x3c),
      options,
      v6: random(2) === 0,
    });
    if (random(8) === 0) mutate(frame, random);
    return frame;
  }
}

/** Sends all frames; runs inside the namespace. */
function fuzz(samples: Uint8Array[], [frames, capacity, life]: (typeof RUNS)[number]): void {
  const random = seeded(frames), link = new CanaryLink(), before = descriptors();
  const driver = new LoopDriver({ link, capacity, mtu: 1500 });
  const { table } = driver.ctx, own = descriptors() - before;
  const servers = new Servers(), guest = new Guest(samples, random, link);
  const fixed = before + own + 4;
  let rss = 0;
  const batches = Math.ceil(frames / BATCH);
  for (let batch = 0; batch < batches; batch++) {
    for (let k = 0; k < BATCH; k++) {
      link.inject(guest.frame(), random(8) === 0 ? random(65536) : 0);
    }
    driver.turn(true);
    servers.turn(random);
    driver.ahead += 20;
    if (batch % CHECK_EVERY === 0) {
      table.verify();
      const open = descriptors() - fixed - servers.open;
      assert(open <= table.activeCount, `${open} descriptors for ${table.activeCount} flows`);
      assert(table.activeCount <= capacity);
    }
    if (batch % life === life - 1) driver.expire();
    if (batch === batches >> 2) rss = Deno.memoryUsage().rss;
  }
  const grown = Deno.memoryUsage().rss - rss;
  assert(grown < RSS_LIMIT, `memory has grown by ${grown} bytes`);
  const started = driver.takeStarted();
  for (const type of [FlowType.TCP, FlowType.UDP, FlowType.PING4, FlowType.PING6]) {
    assert(started.includes(type), `no flow of type ${type}`);
  }
  assert(link.sentCount > frames / 20, `${link.sentCount} answers`);
  assert(servers.received > frames / 100, `${servers.received} messages`);
  servers.close();
  driver.expire();
  assertEquals([table.activeCount, table.hashCount], [0, 0]);
  driver.close();
  assertEquals(descriptors(), before);
}

for (const run of RUNS) {
  const [frames, capacity] = run;
  Deno.test({
    name: `${frames} hostile frames through the loop with ${capacity} flows: no error, no leak`,
    ...requirements({ packages: ["iproute2", "python3-scapy"] }),
    async fn() {
      const samples = Object.values(await buildSamples(MORE));
      const logger = getLogger(), { level } = logger;
      await using namespace = await TestNamespace.create("link set lo up");
      logger.level = LogLevels.CRITICAL;
      try {
        namespace.enter(() => fuzz(samples, run));
      } finally {
        logger.level = level;
      }
    },
  });
}
