// SPDX-License-Identifier: GPL-2.0-or-later
/** A link with a capture file on it: what tshark reads there is what went through. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import type { Arena } from "../../lib/sys/arena.ts";
import { GSO, TX_CONTROL } from "../../lib/link/link.ts";
import { ObservedLink, type Observer } from "../../lib/link/observed.ts";
import { PcapFile } from "../../lib/link/pcap.ts";
import { BaseHandler, getLogger } from "@std/log";
import { check, SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { installSignals } from "../../lib/sys/signal.ts";
import { pseudoSum } from "../../lib/wire/checksum.ts";
import { address } from "../helpers/fake_context.ts";
import { FakeLink } from "../helpers/fake_link.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { requirements } from "../helpers/require.ts";
import { must } from "../helpers/run.ts";
import { hex } from "../wire/scapy.ts";
import { buildSegment } from "../tcp/segment.ts";
import { udpFrame } from "../udp/guest.ts";
import { TO_GUEST } from "./real_tap.ts";

const NEEDS = requirements({ root: false, packages: ["tshark"] });
const TCP = 6, UDP = 17;
const GATEWAY = "192.0.2.1", GUEST = "192.0.2.2";
const L4 = 34;
const O_NONBLOCK = 0x800; // asm-generic/fcntl.h

/** Runs `body` with the path of a file that is not there yet. */
async function withPath(body: (path: string) => void | Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tubetti-pcap-" });
  try {
    await body(`${folder}/frames.pcap`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Each frame's bytes in hexadecimal, as tshark reads them. */
async function framesIn(path: string): Promise<string[]> {
  const text = await must(["tshark", "-n", "-r", path, "-T", "jsonraw"]);
  // deno-lint-ignore no-explicit-any
  return JSON.parse(text).map((frame: any) => frame._source.layers.frame_raw[0]);
}

const CHECKED = ["ip", "tcp", "udp"].flatMap((name) => ["-o", `${name}.check_checksum:TRUE`]);

/** For each frame whether tshark finds its UDP or TCP checksum right (1) or wrong (0). */
async function checksums(path: string): Promise<string[]> {
  const fields = ["-T", "fields", "-e", "udp.checksum.status", "-e", "tcp.checksum.status"];
  const text = await must(["tshark", "-n", "-r", path, ...CHECKED, ...fields]);
  return text.trimEnd().split("\n").map((line) => line.trim());
}

/** Replaces a frame's checksum by what is to be completed: the sum of the pseudo-header. */
function unfinished(
  frame: Uint8Array<ArrayBuffer>,
  proto: number,
  offset: number,
): Uint8Array<ArrayBuffer> {
  const copy = frame.slice(), view = new DataView(copy.buffer);
  const [from, to] = [address(GATEWAY), address(GUEST)];
  view.setUint16(L4 + offset, pseudoSum(from, 0, to, 0, proto, copy.length - L4));
  return copy;
}

const pattern = (n: number) => Uint8Array.from({ length: n }, (_, i) => i * 11);

Deno.test({
  name: "ObservedLink and PcapFile record what crosses the link, both ways and in order",
  ...NEEDS,
  fn: () =>
    withPath(async (path) => {
      const before = descriptors();
      const inner = new FakeLink(), link = new ObservedLink(inner, new PcapFile(path).open());
      const from = [1, 64, 1400].map((n) =>
        udpFrame(TO_GUEST, GUEST, 4000, GATEWAY, 53, pattern(n))
      );
      for (const frame of from) inner.inject(frame);
      assertEquals(link.receive(2), 2);
      const to = udpFrame(TO_GUEST, GATEWAY, 53, GUEST, 4000, pattern(33));
      link.arena.u8.set(to, link.txOffset[TX_CONTROL]!);
      assertEquals(link.send(TX_CONTROL, to.length, 0, 0, 0, GSO.NONE, 0), 0);
      assertEquals(link.receive(16), 1);
      assertEquals(link.receive(16), 0);
      link.close();
      assert(inner.closed);
      assertEquals(descriptors(), before);
      assertEquals(await framesIn(path), [from[0]!, from[1]!, to, from[2]!].map(hex));
      assertEquals(inner.take(), [to]);
    }),
});

Deno.test({
  name: "PcapFile completes checksums that are left to the guest's kernel, also of super-frames",
  ...NEEDS,
  fn: () =>
    withPath(async (path) => {
      const inner = new FakeLink(), link = new ObservedLink(inner, new PcapFile(path).open());
      const datagram = udpFrame(TO_GUEST, GATEWAY, 53, GUEST, 4000, pattern(501));
      const bytes = [192, 0, 2, 2], peer = [192, 0, 2, 1];
      const ends = { source: peer, dest: bytes, sport: 80, dport: 4000, seq: 1, flags: 16 };
      const segment = buildSegment({ ...ends, payload: pattern(20001) });
      // a checksum that comes out as 0 is sent as 0xffff in UDP
      const zero = udpFrame(TO_GUEST, GATEWAY, 53, GUEST, 4000, new Uint8Array(2));
      const view = new DataView(zero.buffer);
      view.setUint16(L4 + 8, view.getUint16(L4 + 6)); // what is missing to ffff goes into the payload
      view.setUint16(L4 + 6, 0xffff);
      for (
        const [frame, proto, offset] of [[datagram, UDP, 6], [segment, TCP, 16], [
          zero,
          UDP,
          6,
        ]] as const
      ) {
        const super_ = frame === segment;
        link.arena.u8.set(unfinished(frame, proto, offset), link.txOffset[0]!);
        const gso = super_ ? GSO.TCPV4 : GSO.NONE, data = L4 + (super_ ? 20 : 8);
        assertEquals(link.send(0, frame.length, data, L4, offset, gso, super_ ? 1460 : 0), 0);
      }
      link.close();
      assertEquals(await framesIn(path), [datagram, segment, zero].map(hex));
      assertEquals(await checksums(path), ["1", "1", "1"]);
    }),
});

Deno.test("PcapFile leaves a frame alone whose checksum would lie outside it", async () => {
  await withPath((path) => {
    const file = new PcapFile(path).open(), link = new FakeLink();
    const off = link.load(pattern(60));
    for (const [start, offset] of [[59, 0], [60, 6], [65535, 65535], [34, 26]] as const) {
      file.frame(true, link.arena, off, 60, start, offset);
    }
    file.close();
    const bytes = Deno.readFileSync(path);
    assertEquals(bytes.length, 24 + 4 * (16 + 60));
    for (let k = 0; k < 4; k++) {
      const at = 24 + k * 76 + 16;
      assertEquals(bytes.slice(at, at + 60), pattern(60));
    }
  });
});

Deno.test("a capture file is its owner's alone, and an old one is emptied", async () => {
  await withPath((path) => {
    const old = Deno.umask(0);
    try {
      new PcapFile(path).open().close();
    } finally {
      Deno.umask(old);
    }
    assertEquals(Deno.statSync(path).mode! & 0o777, 0o600);
    Deno.writeTextFileSync(path, "x".repeat(1000));
    new PcapFile(path).open().close();
    assertEquals(Deno.statSync(path).size, 24);
  });
});

Deno.test("PcapFile says which file it cannot write, and for which option", async () => {
  await withPath((path) => {
    const folder = path.replace(/\/[^/]*$/, "");
    const cases = [[`${path}/x`, "ENOENT"], [folder, "EISDIR"], [
      `${"n".repeat(300)}`,
      "ENAMETOOLONG",
    ]];
    for (const [bad, code] of cases) {
      const error = assertThrows(() => new PcapFile(bad!).open(), SysError);
      assertEquals(error.message, `--pcap: open ${bad}: ${code}`);
    }
  });
});

Deno.test("PcapFile records nothing, and makes no file, before it is opened", async () => {
  await withPath((path) => {
    const file = new PcapFile(path), link = new FakeLink(), off = link.load(pattern(60));
    file.frame(true, link.arena, off, 60, 0, 0);
    assertThrows(() => Deno.statSync(path), Deno.errors.NotFound);
    file.close();
  });
});

Deno.test("PcapFile.open() refuses a full disk, and a FIFO that nobody reads", async () => {
  const before = descriptors();
  const error = assertThrows(() => new PcapFile("/dev/full").open(), SysError);
  assertEquals(error.message, "--pcap: write /dev/full: ENOSPC");
  await withPath(async (path) => {
    await must(["mkfifo", path]);
    const error = assertThrows(() => new PcapFile(path).open(), SysError);
    const hint = "nobody reads this FIFO: start its reader first";
    assertEquals(error.message, `--pcap: open ${path}: ENXIO (${hint})`);
  });
  assertEquals(descriptors(), before);
});

Deno.test({
  name: "PcapFile.open() follows no symbolic link of somebody else",
  ...requirements({ root: true }),
  async fn() {
    await withPath((path) => {
      const target = `${path}.target`, nobody = 65534;
      Deno.writeTextFileSync(target, "dear");
      Deno.symlinkSync(target, path);
      check(libc.lchown(new TextEncoder().encode(`${path}\0`), nobody, nobody), "lchown");
      const error = assertThrows(() => new PcapFile(path).open(), SysError);
      assertStringIncludes(error.message, `--pcap: open ${path}: ELOOP (a symbolic link that`);
      assertEquals(Deno.readTextFileSync(target), "dear");
      Deno.removeSync(target);
    });
  },
});

Deno.test("PcapFile warns once when writing fails, and stops", async () => {
  const lines: string[] = [], log = getLogger(), { handlers } = log;
  class Memory extends BaseHandler {
    override log = (line: string) => void lines.push(line);
  }
  log.handlers = [new Memory("NOTSET")];
  // as in the program: a write to a FIFO that nobody reads any more says EPIPE
  const signals = installSignals([]);
  try {
    await withPath(async (path) => {
      await must(["mkfifo", path]);
      const reader = libc.open(new TextEncoder().encode(`${path}\0`), O_NONBLOCK, 0);
      const before = descriptors();
      const file = new PcapFile(path).open(), link = new FakeLink(), off = link.load(pattern(60));
      file.frame(true, link.arena, off, 60, 0, 0);
      assertEquals(libc.read(reader, new Uint8Array(200), 200), 24 + 16 + 60);
      libc.close(reader);
      for (let k = 0; k < 3; k++) file.frame(true, link.arena, off, 60, 0, 0);
      assertEquals(lines, [`--pcap: write ${path}: EPIPE, capturing ends here`]);
      assertEquals(descriptors(), before - 1);
      file.close();
      assertEquals(descriptors(), before - 1);
    });
  } finally {
    signals.restore();
    log.handlers = handlers;
  }
});

Deno.test("ObservedLink shows frames with their offload fields before they go", () => {
  const seen: unknown[][] = [];
  const observer: Observer = {
    frame: (fromGuest: boolean, _: Arena, ...rest: number[]) =>
      void seen.push([fromGuest, ...rest]),
    close: () => void seen.push(["closed"]),
  };
  const inner = new FakeLink({ tso: false }), link = new ObservedLink(inner, observer);
  assertEquals([link.tso, link.uso, link.arena], [false, true, inner.arena]);
  inner.inject(pattern(60));
  link.receive(16);
  inner.sendResult = -5;
  assertEquals(link.send(3, 100, 54, 34, 16, GSO.NONE, 0), -5);
  link.close();
  assertEquals(seen, [
    [true, inner.rxOffset[0], 60, 0, 0],
    [false, inner.txOffset[3], 100, 34, 16],
    ["closed"],
  ]);
});
