// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Memory shared with another process: a file that has no name (memfd_create(2)), and a part of a file that
 * was passed to us, mapped (mmap(2)).
 *
 * Theory of operation: an access behind the end of the file would be a SIGBUS, which nothing survives.
 * So the file must be long enough when it is mapped. Whoever passed it may still cut it short later,
 * unless it is sealed ({@linkcode sealSize}), and end us by that; it could as well kill us. An access to what
 * a full disk has no room for is a SIGBUS, too: {@linkcode reserve}.
 *
 * Views of the memory must not be used any more after {@linkcode SharedMapping.unmap}: that is a
 * SIGSEGV. Whoever makes them keeps count of them.
 *
 * @module
 */
import { PAGE_SIZE } from "./arena.ts";
import { check, E, lastError, SysError } from "./errno.ts";
import { statx } from "./layout.ts";
import { errno, libc } from "./libc_rare.ts";

const PROT_READ = 0x1, PROT_WRITE = 0x2; // mman.h
const MAP_SHARED = 0x01; // mman.h
const MAP_FAILED = 0xffffffffffffffffn; // mmap(2)
const AT_EMPTY_PATH = 0x1000; // linux/fcntl.h
const STATX_TYPE_SIZE = 0x1 | 0x200; // linux/stat.h
const S_IFMT = 0o170000; // linux/stat.h
const S_IFREG = 0o100000;
const MFD_CLOEXEC = 0x1, MFD_ALLOW_SEALING = 0x2; // linux/memfd.h
const MFD_NOEXEC_SEAL = 0x8; // linux/memfd.h, since Linux 6.3
const F_ADD_SEALS = 1033, F_GET_SEALS = 1034; // linux/fcntl.h
const F_SEAL_SEAL = 0x1, F_SEAL_SHRINK = 0x2, F_SEAL_GROW = 0x4; // linux/fcntl.h
const SEEK_DATA = 3, SEEK_HOLE = 4; // linux/fs.h
/** Bytes that are read at a time. */
const PIECE = 1 << 16;
/** Largest page of a hugetlbfs. */
const MAX_BLOCK = 1 << 30;

const status: Uint8Array<ArrayBuffer> = new Uint8Array(statx.size);
const statusView = new DataView(status.buffer);
const noPath: Uint8Array<ArrayBuffer> = new Uint8Array(1);

/** A regular file's size, and the pages it consists of, in bytes. @throws SysError */
function fileShape(fd: number): { size: bigint; block: number } {
  if (libc.statx(fd, noPath, AT_EMPTY_PATH, STATX_TYPE_SIZE, status) < 0) {
    throw lastError("statx", `${fd}`);
  }
  const mode = statusView.getUint16(statx.at.stx_mode, true);
  if ((mode & S_IFMT) !== S_IFREG) throw new SysError("mmap", "", E.ENODEV, "no regular file");
  const block = statusView.getUint32(statx.at.stx_blksize, true);
  const isPage = block > PAGE_SIZE && block <= MAX_BLOCK && (block & (block - 1)) === 0;
  const size = statusView.getBigUint64(statx.at.stx_size, true);
  return { size, block: isPage ? block : PAGE_SIZE };
}

/** memfd_create(2). @throws SysError */
function createFile(name: string): number {
  const path = new TextEncoder().encode(`${name}\0`), flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  const fd = libc.memfd_create(path, flags | MFD_NOEXEC_SEAL);
  if (fd >= 0) return fd;
  if (errno() !== E.EINVAL) throw lastError("memfd_create", name);
  return check(libc.memfd_create(path, flags), "memfd_create", name); // before Linux 6.3
}

/**
 * Makes memory that can be shared: a file of zeroes without a name, whose size cannot be changed any more.
 * Its pages come into being when they are written to. It is closed by execve(2).
 *
 * @param name for /proc/PID/fd and /proc/PID/maps: at most 249 bytes
 * @returns its descriptor
 * @throws SysError when there is no such file to be had
 * @example
 * ```ts
 * import { createMemory, SharedMapping } from "./shared_memory.ts";
 * import { assertEquals } from "@std/assert";
 * import { libc } from "./libc.ts";
 *
 * const fd = createMemory("numbers", 8192);
 * const [ours, theirs] = [new SharedMapping(fd), new SharedMapping(fd, { readOnly: true })];
 * libc.close(fd);
 * new Int32Array(ours.buffer())[2000] = 7;
 * assertEquals(new Int32Array(theirs.buffer())[2000], 7);
 * ours.unmap();
 * theirs.unmap();
 * ```
 */
export function createMemory(name: string, bytes: number): number {
  const fd = createFile(name);
  try {
    check(libc.ftruncate(fd, BigInt(bytes)), "ftruncate", `${bytes} bytes`);
    check(libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), "fcntl", "seals");
    return fd;
  } catch (error) {
    libc.close(fd);
    throw error;
  }
}

/**
 * Sees to it that a file is never made shorter, if it is one of memfd_create(2) that allows it.
 *
 * @returns false: it may be
 */
export function sealSize(fd: number): boolean {
  if (libc.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) === 0) return true;
  const seals = libc.fcntl(fd, F_GET_SEALS, 0);
  return seals >= 0 && (seals & F_SEAL_SHRINK) !== 0;
}

/**
 * Has a file take up the room for its first bytes, where its file system can do that.
 *
 * @throws SysError ENOSPC: there is none; EDQUOT; others of fallocate(2)
 */
export function reserve(fd: number, bytes: number): void {
  while (libc.fallocate(fd, 0, 0n, BigInt(bytes)) < 0) {
    if (errno() === E.EOPNOTSUPP) return;
    if (errno() !== E.EINTR) throw lastError("fallocate", `${bytes} bytes`);
  }
}

/** Whether the bytes of a file from `from` up to `end` are zeroes. @throws SysError */
function isZeroBetween(fd: number, from: number, end: number): boolean {
  const words = new Uint32Array(PIECE / Uint32Array.BYTES_PER_ELEMENT);
  const bytes = new Uint8Array(words.buffer);
  for (let at = from; at < end;) {
    const n = libc.pread(fd, bytes, Math.min(PIECE, end - at), BigInt(at));
    if (n === 0) return true; // the file has ended
    if (n < 0 && errno() === E.EINTR) continue;
    if (n < 0) throw lastError("pread", `${fd}`);
    bytes.fill(0, n);
    if (words.some((word) => word !== 0)) return false;
    at += n;
  }
  return true;
}

/**
 * Whether the first bytes of a file are all zero. Holes are not read; moves the file's position.
 *
 * @throws SysError
 * @example
 * ```ts
 * import { createMemory, isZero, SharedMapping } from "./shared_memory.ts";
 * import { assertEquals } from "@std/assert";
 * import { libc } from "./libc.ts";
 *
 * const fd = createMemory("numbers", 1 << 30), mapping = new SharedMapping(fd);
 * new Uint8Array(mapping.buffer())[100_000] = 1;
 * assertEquals([isZero(fd, 100_000), isZero(fd, 100_001)], [true, false]);
 * mapping.unmap();
 * libc.close(fd);
 * ```
 */
export function isZero(fd: number, bytes: number): boolean {
  for (let at = 0; at < bytes;) {
    const from = Number(libc.lseek(fd, BigInt(at), SEEK_DATA));
    if (from < 0 && errno() === E.ENXIO) return true; // nothing but a hole
    if (from < 0) return isZeroBetween(fd, at, bytes); // holes are not known of here
    const hole = Number(libc.lseek(fd, BigInt(from), SEEK_HOLE));
    const end = hole < 0 ? bytes : Math.min(hole, bytes);
    if (!isZeroBetween(fd, from, end)) return false;
    at = Math.max(end, from + 1);
  }
  return true;
}

/** What to map of a file. */
export interface MappingOptions {
  /** First byte, a multiple of the page size; 0 unless given. */
  offset?: bigint;
  /** Bytes; up to the end of the file unless given. */
  size?: bigint;
  /** A write to it is a SIGSEGV, then. The descriptor needs no right to write. */
  readOnly?: boolean;
}

/**
 * A mapped part of a file.
 *
 * @example
 * ```ts
 * import { SharedMapping } from "./shared_memory.ts";
 * import { assertEquals } from "@std/assert";
 * import { libc } from "./libc.ts";
 *
 * const path = Deno.makeTempFileSync();
 * Deno.writeFileSync(path, new Uint8Array(8192).fill(7));
 * const fd = libc.open(new TextEncoder().encode(`${path}\0`), 2, 0);
 * const mapping = new SharedMapping(fd, { offset: 4096n, size: 4096n });
 * libc.close(fd);
 * new Uint8Array(mapping.buffer(0, 2))[1] = 8;
 * mapping.unmap();
 * assertEquals([...Deno.readFileSync(path).subarray(4095, 4098)], [7, 7, 8]);
 * Deno.removeSync(path);
 * ```
 */
export class SharedMapping {
  /** Address of the first byte, exact as a number. */
  readonly address: number;
  /** Bytes that are mapped. */
  readonly size: number;
  readonly #base: bigint;
  readonly #mapped: bigint;

  /**
   * Maps a file, or a part of it. The descriptor can be closed afterwards.
   *
   * @throws SysError EINVAL no such offset; ENODEV no regular file; EFBIG the file is too short; others
   *   as mmap(2)
   */
  constructor(fd: number, options: MappingOptions = {}) {
    const shape = fileShape(fd), block = BigInt(shape.block);
    const { offset = 0n, size = shape.size - offset, readOnly = false } = options;
    const what = `${size} bytes at ${offset}`;
    if (offset < 0n || offset % BigInt(PAGE_SIZE) !== 0n || size <= 0n) {
      throw new SysError("mmap", what, E.EINVAL);
    }
    if (offset + size > shape.size) {
      throw new SysError("mmap", what, E.EFBIG, `the file has ${shape.size}`);
    }
    const protection = readOnly ? PROT_READ : PROT_READ | PROT_WRITE;
    const ahead = offset % block; // pages of a hugetlbfs are mapped whole
    this.#mapped = (ahead + size + block - 1n) / block * block;
    this.#base = libc.mmap(0n, this.#mapped, protection, MAP_SHARED, fd, offset - ahead);
    if (this.#base === MAP_FAILED) throw lastError("mmap", what);
    this.address = Number(this.#base + ahead); // user addresses have 47 bits: exact
    this.size = Number(size);
  }

  /** `bytes` from `offset` on as a buffer, which must be let go of before {@linkcode unmap}. */
  buffer(offset = 0, bytes: number = this.size - offset): ArrayBuffer {
    const pointer = Deno.UnsafePointer.create(BigInt(this.address + offset));
    return Deno.UnsafePointerView.getArrayBuffer(pointer!, bytes);
  }

  /** Gives the memory back. No view of it may be used afterwards. */
  unmap(): void {
    libc.munmap(this.#base, this.#mapped);
  }
}
