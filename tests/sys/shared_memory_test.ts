// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { E, errnoName, SysError } from "../../lib/sys/errno.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import {
  createMemory,
  isZero,
  reserve,
  sealSize,
  SharedMapping,
} from "../../lib/sys/shared_memory.ts";

const F_GETFD = 1, F_ADD_SEALS = 1033, F_GET_SEALS = 1034; // linux/fcntl.h
const FD_CLOEXEC = 1;
const F_SEAL_SEAL = 0x1, F_SEAL_SHRINK = 0x2, F_SEAL_GROW = 0x4, F_SEAL_WRITE = 0x8; // linux/fcntl.h
const O_RDONLY = 0, O_RDWR = 2;
const MFD_ALLOW_SEALING = 2; // linux/memfd.h
const MODULE = new URL("../../lib/sys/shared_memory.ts", import.meta.url).href;

function withMemory(bytes: number, use: (fd: number) => void): void {
  const fd = createMemory("test memory", bytes);
  try {
    use(fd);
  } finally {
    libc.close(fd);
  }
}

/** Has `use` work with the descriptor of a file that has a name, and so many bytes. */
function withFile(bytes: number, use: (fd: number, path: string) => void): void {
  const path = Deno.makeTempFileSync({ prefix: "tubetti-" });
  Deno.truncateSync(path, bytes);
  const fd = libc.open(new TextEncoder().encode(`${path}\0`), O_RDWR, 0);
  try {
    use(fd, path);
  } finally {
    libc.close(fd);
    Deno.removeSync(path);
  }
}

function countDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

Deno.test("createMemory() makes zeroes of a name and a size", () => {
  withMemory(10_000, (fd) => {
    const path = `/proc/self/fd/${fd}`;
    assert(Deno.readLinkSync(path).startsWith("/memfd:test memory"), Deno.readLinkSync(path));
    const { size, blocks, mode } = Deno.statSync(path);
    assertEquals([size, blocks], [10_000, 0]);
    assertEquals(Deno.readFileSync(path), new Uint8Array(10_000));
    const [major, minor] = Deno.osRelease().split(".").map(Number);
    if (major > 6 || major === 6 && minor >= 3) assertEquals(mode! & 0o111, 0);
  });
});

Deno.test("createMemory() is closed by execve(2)", () => {
  withMemory(1, (fd) => assertEquals(libc.fcntl(fd, F_GETFD, 0) & FD_CLOEXEC, FD_CLOEXEC));
});

Deno.test("createMemory() makes memory whose size nobody can change, and takes no more seals", () => {
  withMemory(8192, (fd) => {
    const wanted = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW;
    assertEquals(libc.fcntl(fd, F_GET_SEALS, 0) & wanted, wanted);
    for (
      const refused of [
        () => libc.ftruncate(fd, 4096n),
        () => libc.ftruncate(fd, 16384n),
        () => libc.fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE),
      ]
    ) {
      assertEquals([refused(), errnoName(errno())], [-1, "EPERM"]);
    }
    assertEquals(libc.pwrite(fd, new Uint8Array(1), 1, 8191n), 1);
  });
});

Deno.test("sealSize() keeps memory that allows it from being cut short", () => {
  const name = new TextEncoder().encode("test memory\0");
  const [open, closed] = [MFD_ALLOW_SEALING, 0].map((flags) => libc.memfd_create(name, flags));
  libc.ftruncate(open!, 8192n);
  assertEquals([sealSize(open!), sealSize(open!)], [true, true]);
  assertEquals([libc.ftruncate(open!, 4096n), errnoName(errno())], [-1, "EPERM"]);
  assertEquals(sealSize(closed!), false);
  libc.close(open!);
  libc.close(closed!);
  withMemory(1, (fd) => assertEquals(sealSize(fd), true));
  withFile(1, (fd) => assertEquals(sealSize(fd), false));
});

Deno.test("reserve() takes the room of a file, or says that there is none", () => {
  withFile(1 << 20, (fd, path) => {
    reserve(fd, 1 << 20);
    const { size, blocks } = Deno.statSync(path);
    assertEquals(size, 1 << 20);
    assert(blocks! * 512 >= 1 << 20 || blocks === 0, `${blocks}`); // not every file system can
    assertEquals(isZero(fd, 1 << 20), true);
  });
  withMemory(4096, (fd) => assertThrows(() => reserve(fd, 8192), SysError, "EPERM"));
});

Deno.test("isZero() finds any byte, in files with and without holes", () => {
  const bytes = 300_000;
  const put = (fd: number, at: number, value: number) =>
    libc.pwrite(fd, Uint8Array.of(value), 1, BigInt(at));
  const look = (fd: number) => {
    assertEquals(isZero(fd, bytes), true);
    for (const at of [0, 1, 4095, 65_535, 65_536, 131_073, bytes - 1]) {
      put(fd, at, 0x80);
      assertEquals([isZero(fd, at), isZero(fd, at + 1), isZero(fd, bytes)], [true, false, false]);
      put(fd, at, 0);
      assertEquals(isZero(fd, bytes), true);
    }
    put(fd, bytes, 1);
    assertEquals([isZero(fd, bytes), isZero(fd, 2 * bytes)], [true, false]);
  };
  withMemory(2 * bytes, look);
  withFile(2 * bytes, look);
  withFile(0, (fd, path) => {
    Deno.writeFileSync(path, new Uint8Array(2 * bytes));
    look(fd);
    libc.ftruncate(fd, 100n);
    assertEquals(isZero(fd, bytes), true);
  });
  assertThrows(() => isZero(-1, 1), SysError, "EBADF");
});

Deno.test("createMemory() throws the kernel's reason, and leaves no descriptor", () => {
  const before = countDescriptors();
  const long = assertThrows(() => createMemory("x".repeat(250), 1), SysError, "memfd_create");
  const negative = assertThrows(() => createMemory("negative", -1), SysError, "ftruncate");
  assertEquals([long.errno, negative.errno], [E.EINVAL, E.EINVAL]);
  assertEquals(countDescriptors(), before);
});

Deno.test("SharedMapping maps the whole file unless told", () => {
  withMemory(10_000, (fd) => {
    const whole = new SharedMapping(fd), end = new SharedMapping(fd, { offset: 8192n });
    const page = new SharedMapping(fd, { offset: 4096n, size: 4096n });
    assertEquals([whole.size, end.size, page.size], [10_000, 1808, 4096]);
    const [bytes, last] = [new Uint8Array(whole.buffer()), new Uint8Array(end.buffer(1800))];
    bytes[9999] = 7;
    bytes[4096] = 8;
    assertEquals([bytes.length, last.length, last[7]], [10_000, 8, 7]);
    assertEquals([...new Uint8Array(page.buffer(0, 2))], [8, 0]);
    for (const mapping of [whole, end, page]) mapping.unmap();
  });
});

Deno.test("SharedMapping refuses what does not lie in the file", () => {
  withMemory(10_000, (fd) => {
    for (
      const [options, code] of [
        [{ offset: 1n }, "EINVAL"],
        [{ offset: -4096n }, "EINVAL"],
        [{ offset: 12288n }, "EINVAL"],
        [{ size: 0n }, "EINVAL"],
        [{ size: 10_001n }, "EFBIG"],
        [{ offset: 4096n, size: 10_000n }, "EFBIG"],
      ] as const
    ) {
      assertEquals(assertThrows(() => new SharedMapping(fd, options), SysError).code, code);
    }
  });
  withMemory(0, (fd) => assertThrows(() => new SharedMapping(fd), SysError, "EINVAL"));
});

Deno.test("SharedMapping needs no right to write when it is to be read only", () => {
  withMemory(4096, (fd) => {
    const path = new TextEncoder().encode(`/proc/self/fd/${fd}\0`);
    const readable = libc.open(path, O_RDONLY, 0);
    assertThrows(() => new SharedMapping(readable), SysError, "EACCES");
    const theirs = new SharedMapping(readable, { readOnly: true }), ours = new SharedMapping(fd);
    libc.close(readable);
    new Int32Array(ours.buffer())[3] = -5;
    assertEquals(Atomics.load(new Int32Array(theirs.buffer()), 3), -5);
    ours.unmap();
    theirs.unmap();
  });
});

Deno.test("SharedMapping ends a process that writes to what is to be read only", () => {
  const program = `import { createMemory, SharedMapping } from ${JSON.stringify(MODULE)};
    const mapping = new SharedMapping(createMemory("test", 4096), { readOnly: true });
    console.log(new Uint8Array(mapping.buffer())[0]);
    new Uint8Array(mapping.buffer())[0] = 1;
    console.log("still here");`;
  const args = ["eval", "--ext=ts", program];
  const { signal, stdout } = new Deno.Command(Deno.execPath(), { args }).outputSync();
  assertEquals([signal, new TextDecoder().decode(stdout)], ["SIGSEGV", "0\n"]);
});
