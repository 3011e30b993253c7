// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Memory shared with another process: a part of a file that it has passed to us, mapped (mmap(2)).
 *
 * Theory of operation: an access behind the end of the file would be a SIGBUS, which nothing survives.
 * So the file must be long enough when it is mapped. Whoever passed it may still cut it short later,
 * unless it is sealed (F_SEAL_SHRINK, memfd_create(2)), and end us by that; it could as well kill us.
 *
 * Views of the memory must not be used any more after {@linkcode SharedMapping.unmap}: that is a
 * SIGSEGV. Whoever makes them keeps count of them.
 *
 * @module
 */
import { PAGE_SIZE } from "./arena.ts";
import { E, lastError, SysError } from "./errno.ts";
import { statx } from "./layout.ts";
import { libc } from "./libc.ts";

const PROT_READ_WRITE = 0x1 | 0x2; // mman.h
const MAP_SHARED = 0x01; // mman.h
const MAP_FAILED = 0xffffffffffffffffn; // mmap(2)
const AT_EMPTY_PATH = 0x1000; // linux/fcntl.h
const STATX_TYPE_SIZE = 0x1 | 0x200; // linux/stat.h
const S_IFMT = 0o170000; // linux/stat.h
const S_IFREG = 0o100000;
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
 * const mapping = new SharedMapping(fd, 4096n, 4096n);
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
  readonly #base: bigint;
  readonly #mapped: bigint;

  /**
   * Maps `size` bytes from `offset` of a file on. The descriptor can be closed afterwards.
   *
   * @param offset a multiple of the page size
   * @throws SysError EINVAL no such offset; ENODEV no regular file; EFBIG the file is too short; others
   *   as mmap(2)
   */
  constructor(fd: number, offset: bigint, size: bigint) {
    if (size === 0n || offset % BigInt(PAGE_SIZE) !== 0n) {
      throw new SysError("mmap", `${size} bytes at ${offset}`, E.EINVAL);
    }
    const shape = fileShape(fd), block = BigInt(shape.block);
    if (offset + size > shape.size) {
      const what = `${size} bytes at ${offset}`;
      throw new SysError("mmap", what, E.EFBIG, `the file has ${shape.size}`);
    }
    const ahead = offset % block; // pages of a hugetlbfs are mapped whole
    this.#mapped = (ahead + size + block - 1n) / block * block;
    this.#base = libc.mmap(0n, this.#mapped, PROT_READ_WRITE, MAP_SHARED, fd, offset - ahead);
    if (this.#base === MAP_FAILED) throw lastError("mmap", `${size} bytes at ${offset}`);
    this.address = Number(this.#base + ahead); // user addresses have 47 bits: exact
  }

  /** The memory from `offset` on as a buffer, which must be let go of before {@linkcode unmap}. */
  buffer(offset: number, bytes: number): ArrayBuffer {
    const pointer = Deno.UnsafePointer.create(BigInt(this.address + offset));
    return Deno.UnsafePointerView.getArrayBuffer(pointer!, bytes);
  }

  /** Gives the memory back. No view of it may be used afterwards. */
  unmap(): void {
    libc.munmap(this.#base, this.#mapped);
  }
}
