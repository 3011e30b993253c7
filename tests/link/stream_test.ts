// SPDX-License-Identifier: GPL-2.0-or-later
/** The stream socket as link, driven by a hypervisor that does what it likes. */
import { assert, assertEquals } from "@std/assert";
import { BaseHandler, getLogger, type LogRecord } from "@std/log";
import { Hypervisor } from "../../lib/link/hypervisor.ts";
import { GSO, SLOT_FRAME_SIZE } from "../../lib/link/link.ts";
import { plainSumming, wasmSumming } from "../../lib/link/simd/checksum.ts";
import { StreamLink } from "../../lib/link/stream.ts";
import { E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { AF_UNIX, SOCK_NONBLOCK, SOCK_STREAM } from "../../lib/sys/socket.ts";
import { pseudoSum } from "../../lib/wire/checksum.ts";
import { address } from "../helpers/fake_context.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { FakeHypervisor, framed, joined, LinkRig } from "../helpers/fake_hypervisor.ts";
import { buildSegment, GATEWAY4, GUEST4 } from "../tcp/segment.ts";
import { seeded } from "../wire/random.ts";

const MIN_FRAME = 14;
const OUT_LIMIT = 1 << 20;

const random = seeded(11);

/** A frame whose bytes tell where in it they are, and which frame it is. */
function frameOf(length: number, mark = random(256)): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length }, (_, k) => k * 31 + (k >> 8) + mark);
}

/** Keeps what is logged, instead of writing it. */
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

interface World {
  /** What was logged. */
  lines: string[];
  rig: LinkRig;
  hypervisor: Hypervisor;
  /** Connects one more. */
  connect(): FakeHypervisor;
}

/** Runs a test with a link that listens; all that was opened must be closed afterwards. */
function withLink(
  fn: (world: World) => void,
  { oneOff = false, summing = wasmSumming } = {},
): void {
  const before = descriptors(), folder = Deno.makeTempDirSync();
  const logger = getLogger(), { handlers } = logger, kept = new Lines();
  logger.handlers = [kept];
  const hypervisor = Hypervisor.listen(`${folder}/socket`, oneOff);
  const rig = new LinkRig(new StreamLink(hypervisor, summing));
  const others: FakeHypervisor[] = [];
  const connect = () => {
    const other = FakeHypervisor.connect(hypervisor.path);
    others.push(other);
    return other;
  };
  try {
    fn({ rig, hypervisor, connect, lines: kept.lines });
  } finally {
    logger.handlers = handlers;
    rig.close();
    for (const other of others) other.close();
    Deno.removeSync(folder);
  }
  assertEquals(descriptors(), before);
}

/** Connects, and has the link notice. */
function connected({ rig, connect }: World): FakeHypervisor {
  const other = connect();
  rig.settle();
  return other;
}

for (
  const [kind, summing] of [["WebAssembly", wasmSumming], ["TypeScript", plainSumming]] as const
) {
  Deno.test(`frames go both ways as they are, ${kind}`, () => {
    withLink((world) => {
      const { rig } = world, other = connected(world);
      const frames = [14, 60, 61, 1514, 9014, SLOT_FRAME_SIZE].map((length) => frameOf(length));
      for (const frame of frames) {
        other.send(framed(frame));
        rig.settle();
        assertEquals(rig.take(), [frame]);
        assertEquals(rig.send(frame), 0);
        rig.settle();
        other.read();
        assertEquals(other.take(), [frame]);
      }
    }, { summing });
  });
}

Deno.test("receive() puts frames together that are torn at any byte", () => {
  withLink((world) => {
    const { rig } = world, other = connected(world);
    const frames = [frameOf(14), frameOf(40), frameOf(15)],
      bytes = joined(...frames.map((f) => framed(f)));
    for (let cut = 1; cut < bytes.length; cut++) {
      other.send(bytes.slice(0, cut));
      rig.settle();
      other.send(bytes.slice(cut));
      rig.settle();
      assertEquals(rig.take(), frames, `cut at ${cut}`);
    }
    for (const byte of bytes) {
      other.send(Uint8Array.of(byte));
      rig.settle();
    }
    assertEquals(rig.take(), frames);
  });
});

Deno.test("receive() hands out many frames of one write in order, however few at a time", () => {
  withLink((world) => {
    const { rig } = world, other = connected(world);
    const frames = Array.from({ length: 300 }, (_, k) => frameOf(14 + random(200), k));
    for (const most of [1, 7, 64, 1000]) {
      other.send(joined(...frames.map((frame) => framed(frame))));
      let turns = 0;
      while (rig.turn(most)) turns++;
      assertEquals(rig.take(), frames);
      assert(turns >= frames.length / most);
    }
  });
});

Deno.test("receive() gets megabytes in pieces of random sizes", () => {
  withLink((world) => {
    const { rig } = world, other = connected(world);
    const frames = Array.from(
      { length: 400 },
      () => frameOf(14 + random(random(2) ? 1500 : 65_000)),
    );
    const bytes = joined(...frames.map((frame) => framed(frame)));
    for (let at = 0; at < bytes.length;) {
      const sent = other.send(bytes.slice(at, at + 1 + random(200_000)));
      if (sent > 0) at += sent;
      if (random(3) > 0) rig.turn(1 + random(64));
    }
    rig.settle();
    const got = rig.take();
    assertEquals(got.length, frames.length);
    for (const [k, frame] of frames.entries()) assertEquals(got[k], frame);
  });
});

for (const length of [0, 1, 13, SLOT_FRAME_SIZE + 1, 0x7fffffff, 0x80000000, 0xffffffff]) {
  Deno.test(`a frame of ${length} bytes ends the connection, after those before it`, () => {
    withLink((world) => {
      const { rig, hypervisor, lines } = world, other = connected(world), frame = frameOf(64);
      lines.length = 0;
      other.send(joined(framed(frame), framed(new Uint8Array(20), length), framed(frame)));
      rig.settle();
      assertEquals([rig.take(), rig.gone, hypervisor.fd], [[frame], false, -1]);
      const line = `WARN Hypervisor sends a frame of ${length} bytes: the connection is ended`;
      assertEquals(lines, [line]);
      other.read();
      assert(other.ended);
      const next = connected(world);
      next.send(framed(frame));
      rig.settle();
      assertEquals(rig.take(), [frame]);
    });
  });
}

Deno.test("a hypervisor that leaves at any byte leaves nothing to the next", () => {
  withLink((world) => {
    const { rig } = world, frames = [frameOf(20), frameOf(30)];
    const bytes = joined(...frames.map((frame) => framed(frame)));
    for (let cut = 0; cut <= bytes.length; cut++) {
      const other = world.connect();
      if (cut & 1) rig.settle();
      if (cut > 0) other.send(bytes.slice(0, cut));
      if (cut & 2) rig.settle();
      cut & 4 ? other.shutdown() : libc.shutdown(other.fd, 2);
      rig.settle();
      const whole = cut === bytes.length ? 2 : cut >= 24 ? 1 : 0;
      assertEquals(rig.take(), frames.slice(0, whole), `cut at ${cut}`);
      assertEquals([rig.gone, rig.link.pending, rig.link.writable], [false, false, true]);
      assertEquals(rig.link.guests, cut + 1);
    }
  });
});

Deno.test("a second hypervisor is sent away, the first one stays", () => {
  withLink((world) => {
    const { rig, lines } = world, first = connected(world), second = connected(world);
    const line = "WARN Another hypervisor was sent away: we serve one at a time";
    assertEquals(lines, ["INFO Hypervisor connected", line]);
    second.read();
    assert(second.ended);
    const frame = frameOf(99);
    first.send(framed(frame));
    rig.send(frame);
    rig.settle();
    first.read();
    assertEquals([rig.take(), first.take(), first.ended], [[frame], [frame], false]);
  });
});

Deno.test("frames are dropped without a hypervisor, and none of them reaches the next", () => {
  withLink((world) => {
    const { rig } = world;
    for (let k = 0; k < 100; k++) assertEquals(rig.send(frameOf(SLOT_FRAME_SIZE)), 0);
    const other = connected(world), frame = frameOf(50);
    rig.send(frame);
    rig.settle();
    other.read();
    assertEquals([other.take(), other.rest], [[frame], 0]);
  });
});

Deno.test("receive() returns -1 when the only hypervisor has left, whoever notices", () => {
  const leave = [
    (other: FakeHypervisor, rig: LinkRig) => {
      libc.shutdown(other.fd, 2);
      rig.settle();
    },
    (other: FakeHypervisor, rig: LinkRig) => {
      libc.shutdown(other.fd, 2);
      assertEquals(rig.send(frameOf(60)), 0);
      rig.link.flush(); // EPIPE
      assert(rig.link.pending);
      rig.settle();
    },
    (other: FakeHypervisor, rig: LinkRig) => {
      other.send(framed(new Uint8Array(0)));
      rig.settle();
    },
  ];
  for (const way of leave) {
    withLink((world) => {
      const { rig } = world;
      assertEquals(rig.gone, false);
      way(connected(world), rig);
      assertEquals(world.lines.length, 2);
      assertEquals([rig.gone, rig.link.pending], [true, false]);
      assertEquals(rig.send(frameOf(60)), 0);
    }, { oneOff: true });
  }
});

Deno.test("a given descriptor is served from the start, and its end is the link's", () => {
  const before = descriptors(), fds = new Int32Array(2);
  libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds);
  const rig = new LinkRig(new StreamLink(Hypervisor.connected(fds[0]!)));
  const other = new FakeHypervisor(fds[1]!), frame = frameOf(70);
  other.send(framed(frame));
  rig.send(frame);
  rig.settle();
  other.read();
  assertEquals([rig.take(), other.take()], [[frame], [frame]]);
  other.close();
  rig.settle();
  assert(rig.gone);
  rig.close();
  assertEquals(descriptors(), before);
});

/** Sends marked frames until the link has no room. @returns the frames that it has taken */
function stuff(rig: LinkRig, length: number): Uint8Array<ArrayBuffer>[] {
  const taken: Uint8Array<ArrayBuffer>[] = [];
  for (let k = 0; k < 1_000_000; k++) {
    const frame = frameOf(length, taken.length);
    const result = rig.send(frame);
    if (result < 0) {
      assertEquals(result, -E.ENOBUFS);
      return taken;
    }
    taken.push(frame);
    if (k % 16 === 0) rig.turn();
  }
  throw new Error("there is always room");
}

for (const length of [60, 1514, 60_000]) {
  Deno.test(`a hypervisor that does not read: bounded, at rest, then whole and in order, ${length}`, () => {
    withLink((world) => {
      const { rig } = world, other = connected(world);
      const frames = stuff(rig, length);
      assertEquals(rig.link.writable, false);
      const { events } = rig;
      for (let k = 0; k < 100; k++) rig.turn();
      assertEquals(rig.events, events, "woken although nothing can be done");
      const got: Uint8Array<ArrayBuffer>[] = [];
      for (let idle = 0; idle < 3;) {
        const bytes = other.read(1 + random(300_000));
        got.push(...other.take());
        idle = !rig.turn() && bytes === 0 ? idle + 1 : 0;
      }
      assertEquals([got.length, other.rest, rig.link.writable], [frames.length, 0, true]);
      for (const [k, frame] of frames.entries()) assertEquals(got[k], frame);
      assert(frames.length * (length + 4) > OUT_LIMIT - 70_000);
      const after = rig.events;
      for (let k = 0; k < 10; k++) rig.turn();
      assertEquals(rig.events, after, "EPOLLOUT is watched for nothing");
    });
  });
}

Deno.test("a hypervisor that leaves while output waits makes the link writable", () => {
  withLink((world) => {
    const { rig } = world, other = connected(world);
    stuff(rig, 1514);
    libc.shutdown(other.fd, 2);
    rig.settle();
    assert(rig.link.writable);
    const next = connected(world), frame = frameOf(60);
    rig.send(frame);
    rig.settle();
    next.read();
    assertEquals([next.take(), next.rest], [[frame], 0]);
  });
});

Deno.test("frames still come in while output waits", () => {
  withLink((world) => {
    const { rig } = world, other = connected(world), frame = frameOf(1000);
    stuff(rig, 1514);
    other.send(framed(frame));
    rig.settle();
    assertEquals([rig.take(), rig.link.writable], [[frame], false]);
  });
});

Deno.test("super-frames arrive as segments, the rest of what was sent around them", () => {
  withLink((world) => {
    const { rig } = world, other = connected(world), payload = frameOf(10_000);
    const frame = buildSegment({
      source: GATEWAY4,
      dest: GUEST4,
      sport: 80,
      dport: 5000,
      seq: 1,
      ack: 1,
      flags: 0x18,
      payload,
      v6: false,
    });
    const words = (bytes: Iterable<number>) => address([...bytes].join("."));
    const sum = pseudoSum(words(GATEWAY4), 0, words(GUEST4), 0, 6, frame.length - 34);
    new DataView(frame.buffer).setUint16(34 + 16, sum);
    const small = frameOf(MIN_FRAME);
    const how = { csumStart: 34, csumOffset: 16, gsoType: GSO.TCPV4, gsoSize: 1460 };
    assertEquals([rig.send(small), rig.send(frame, how), rig.send(small)], [0, 0, 0]);
    rig.settle();
    other.read();
    const got = other.take();
    assertEquals(got.map((bytes) => bytes.length), [14, ...Array(6).fill(1514), 54 + 1240, 14]);
    assertEquals(joined(...got.slice(1, -1).map((bytes) => bytes.subarray(54))), payload);
    assertEquals(rig.send(frame, { ...how, gsoSize: 0 }), -E.EINVAL);
  });
});

Deno.test("a million frames allocate nothing to speak of", () => {
  withLink((world) => {
    const { rig, rig: { link } } = world, other = connected(world);
    const frames = joined(...Array.from({ length: 32 }, () => framed(frameOf(60))));
    const sink = new Uint8Array(1 << 16);
    const round = () => {
      libc.send(other.fd, frames, frames.length, 0);
      link.event(1, 1);
      const n = link.receive(64);
      for (let k = 0; k < n; k++) link.send(0, 60, 0, 0, 0, 0, 0);
      link.release();
      link.flush();
      libc.recv(other.fd, sink, sink.length, 0);
      return n;
    };
    rig.settle();
    for (let k = 0; k < 3000; k++) assertEquals(round(), 32);
    const { heapUsed } = Deno.memoryUsage();
    for (let k = 0; k < 31_250; k++) round();
    const grown = Deno.memoryUsage().heapUsed - heapUsed;
    assert(grown < 1 << 20, `${grown} bytes`);
  });
});
