// SPDX-License-Identifier: GPL-2.0-or-later
/** The guest's memory: tables that are refused, and addresses that are found or not. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  GuestMemory,
  OVERLAP,
  type RegionDescription,
  WINDOW,
} from "../../../lib/link/vhost/memory.ts";
import { SysError } from "../../../lib/sys/errno.ts";
import { libc } from "../../../lib/sys/libc.ts";
import { descriptors } from "../../helpers/drive_loop.ts";
import { closeAll, FakeMemory, newEventfd, newMemfd } from "../../helpers/fake_vhost.ts";
import { seeded } from "../../wire/random.ts";
import { mappings } from "./world.ts";

const SIZE = 1 << 16, PAGE = 4096;
const GIB = 1 << 30;

function region(
  guestAddress: bigint,
  size: number | bigint = SIZE,
  { userAddress = guestAddress, mmapOffset = 0n } = {},
): RegionDescription {
  return { guestAddress, size: BigInt(size), userAddress, mmapOffset };
}

/** Runs a test with a file of `size`; nothing may stay mapped or open. */
function withMemory(fn: (memory: GuestMemory, fd: number) => void, size = SIZE): void {
  const before = descriptors(), mapped = mappings(), fd = newMemfd(size);
  const memory = new GuestMemory();
  try {
    fn(memory, fd);
  } finally {
    memory.clear();
    libc.close(fd);
  }
  assertEquals([descriptors(), mappings()], [before, mapped]);
}

/** Looks up a 64-bit address. */
function locate(memory: GuestMemory, address: bigint): number {
  return memory.locate(
    Number(BigInt.asIntN(32, address)),
    Number(BigInt.asIntN(32, address >> 32n)),
  );
}

const TOP = 1n << 64n;
const BAD: Record<string, [table: RegionDescription[], problem: string]> = {
  "nine regions": [
    Array.from({ length: 9 }, (_, k) => region(BigInt(k * SIZE))),
    "9 regions: EINVAL",
  ],
  "an empty region": [[region(0n, 0)], "an empty region: EINVAL"],
  "guest addresses that wrap": [[region(TOP - 4096n, SIZE)], "a region that wraps: EINVAL"],
  "user addresses that wrap": [
    [region(0n, SIZE, { userAddress: TOP - 4096n })],
    "a region that wraps: EINVAL",
  ],
  "an offset that wraps": [
    [region(0n, SIZE, { mmapOffset: TOP - 4096n })],
    "a region that wraps: EINVAL",
  ],
  "a size that wraps": [[region(4096n, TOP - 1n)], "a region that wraps: EINVAL"],
  "more than any guest has": [[region(0n, 1n << 45n)], "bytes of memory: EINVAL"],
  "regions that overlap": [
    [region(0n), region(BigInt(SIZE - PAGE))],
    "regions that overlap: EINVAL",
  ],
  "the same region twice": [[region(0n), region(0n)], "regions that overlap: EINVAL"],
  "a region larger than its file": [[region(0n, SIZE + 1)], "the file has 65536"],
  "a region behind its file's end": [
    [region(0n, PAGE, { mmapOffset: BigInt(SIZE) })],
    "the file has 65536",
  ],
  "an offset within a page": [[region(0n, PAGE, { mmapOffset: 16n })], "EINVAL"],
  "a good one and a bad one": [[region(0n), region(1n << 32n, SIZE + PAGE)], "the file has 65536"],
};

for (const [name, [table, problem]] of Object.entries(BAD)) {
  Deno.test(`GuestMemory.set() refuses ${name}, and keeps what it has`, () => {
    withMemory((memory, fd) => {
      memory.set([region(0x1000n)], [fd]);
      const had = mappings();
      assertThrows(() => memory.set(table, table.map(() => fd)), SysError, problem);
      assertEquals([mappings(), memory.count, locate(memory, 0x1000n)], [had, 1, 0]);
    });
  });
}

Deno.test("GuestMemory.set() refuses what is no file", () => {
  withMemory((memory) => {
    const pipe = new Int32Array(2);
    libc.pipe2(pipe, 0);
    const nul = libc.open(new TextEncoder().encode("/dev/zero\0"), 2, 0);
    const others = [newEventfd(), pipe[0], nul];
    for (const fd of others) {
      assertThrows(() => memory.set([region(0n)], [fd]), SysError, "ENODEV (no regular file)");
    }
    assertThrows(() => memory.set([region(0n)], [-1]), SysError, "EBADF");
    closeAll([...others, pipe[1]]);
  });
});

Deno.test("GuestMemory.set() refuses a file that cannot be written to", () => {
  const path = Deno.makeTempFileSync();
  Deno.writeFileSync(path, new Uint8Array(SIZE));
  withMemory((memory) => {
    const fd = libc.open(new TextEncoder().encode(`${path}\0`), 0, 0);
    assertThrows(() => memory.set([region(0n)], [fd]), SysError, "EACCES");
    libc.close(fd);
  });
  Deno.removeSync(path);
});

Deno.test("GuestMemory shows the file's bytes from the region's offset on", () => {
  const file = new FakeMemory(SIZE), memory = new GuestMemory();
  for (let k = 0; k < SIZE; k++) file.u8[k] = k * 7 + (k >> 8);
  const part = region(0x5000n, SIZE - PAGE, { userAddress: 0x9000n, mmapOffset: BigInt(PAGE) });
  memory.set([part], [file.fd]);
  assertEquals(locate(memory, 0x5123n), 0);
  assertEquals([memory.at, memory.room], [0x123, SIZE - PAGE - 0x123]);
  assertEquals(memory.views[0].getUint8(0x123), file.u8[PAGE + 0x123]);
  memory.views[0].setUint8(0x123, 0xaa);
  assertEquals(file.u8[PAGE + 0x123], 0xaa);
  const bytes = memory.user(0x9121n, 5)!;
  assertEquals([...bytes], [...file.u8.subarray(PAGE + 0x121, PAGE + 0x126)]);
  assertEquals(bytes.byteOffset % PAGE, 0x121); // as aligned as it is
  memory.clear();
  file.close();
});

Deno.test("GuestMemory.user() finds only what lies in one region", () => {
  withMemory((memory, fd) => {
    const next = { userAddress: 0x10000n + BigInt(SIZE) };
    memory.set([region(0n, SIZE, { userAddress: 0x10000n }), region(1n << 32n, SIZE, next)], [
      fd,
      fd,
    ]);
    assertEquals(memory.user(0x10000n, SIZE)?.length, SIZE);
    assertEquals(memory.user(0x10000n, SIZE + 1), null);
    assertEquals(memory.user(0x10000n + BigInt(SIZE) - 1n, 2), null);
    assertEquals(memory.user(0xffffn, 1), null);
    assertEquals(memory.user(TOP - 1n, 16), null);
    assertEquals(memory.user(0x10000n + BigInt(2 * SIZE), 0)?.length, 0);
    assertEquals(memory.user(0x10000n + BigInt(2 * SIZE), 1), null);
  });
});

Deno.test("GuestMemory.locate() finds the regions' bytes and no others, all over 64 bits", () => {
  withMemory((memory, fd) => {
    const starts = [0n, 0xffff_8000n, 0x7fff_ffff_0000_0000n, 0x8000_0000_0000_0000n - 0x8000n];
    const table = [...starts, TOP - 0x2_0000n].map((start) => region(start));
    memory.set(table, table.map(() => fd));
    const inside = (address: bigint) =>
      table.find(({ guestAddress, size }) =>
        address >= guestAddress && address < guestAddress + size
      );
    const random = seeded(5),
      edges = table.flatMap(({ guestAddress, size }) => [
        guestAddress,
        guestAddress + size,
      ]);
    for (let k = 0; k < 20_000; k++) {
      const near = edges[random(edges.length)] + BigInt(random(5) - 2) +
        (random(4) === 0 ? BigInt(random(SIZE)) : 0n) + (random(9) === 0 ? 1n << 32n : 0n);
      const address = BigInt.asUintN(64, near), found = inside(address);
      const window = locate(memory, address);
      assertEquals(window >= 0, found !== undefined, address.toString(16));
      if (!found) continue;
      assertEquals(BigInt(memory.at), address - found.guestAddress);
      assertEquals(memory.at + memory.room, SIZE);
      assertEquals(window, table.indexOf(found));
    }
  });
});

Deno.test("GuestMemory cuts a large region into windows that overlap", () => {
  const size = 3 * GIB + PAGE; // the file has holes: no page of it is there
  withMemory((memory, fd) => {
    memory.set([region(0xc000_0000n, size)], [fd]);
    assertEquals(memory.views.map(({ byteLength }) => byteLength), [
      WINDOW + OVERLAP,
      WINDOW + OVERLAP,
      WINDOW + PAGE,
      PAGE,
    ]);
    for (const offset of [0, GIB - 1, GIB, 2 * GIB + 5, 3 * GIB - 1, 3 * GIB, size - 1]) {
      const window = locate(memory, 0xc000_0000n + BigInt(offset));
      assertEquals([window, memory.at], [Math.floor(offset / WINDOW), offset % WINDOW]);
      const left = size - offset;
      assertEquals(memory.room, Math.min(left, memory.views[window].byteLength - memory.at));
    }
    assertEquals(locate(memory, 0xc000_0000n + BigInt(size)), -1);
    // what is written in the overlap is seen in the next window
    memory.views[0].setUint32(WINDOW + 8, 0x01020304);
    assertEquals(memory.views[1].getUint32(8), 0x01020304);
    assertEquals(memory.addresses[1] - memory.addresses[0], WINDOW);
  }, size);
});

Deno.test("GuestMemory is empty at first, and after clear()", () => {
  withMemory((memory, fd) => {
    assertEquals(locate(memory, 0n), -1);
    memory.set([region(0n)], [fd]);
    assert(locate(memory, 0n) === 0 && mappings() > 0);
    memory.clear();
    assertEquals([locate(memory, 0n), memory.count, memory.user(0n, 1)], [-1, 0, null]);
  });
});
