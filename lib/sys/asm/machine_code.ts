// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The project's machine code, as bytes: what the assembler makes of the `.S` files in this folder.
 *
 * `tests/sys/machine_code_test.ts` assembles them (binutils) and compares.
 *
 * @module
 */
import { PAGE_SIZE } from "../arena.ts";
import { check, lastError } from "../errno.ts";
import { libc } from "../libc_rare.ts";

/** Processor architectures there is machine code for. */
export type Architecture = "x86_64" | "aarch64";

/** Code of one architecture. */
export interface MachineCode {
  /** `script_*.S`: runs a table of system calls. */
  readonly script: string;
  /** `signal_*.S`: a signal handler that writes the signal number to a descriptor. */
  readonly signal: string;
}

/** Machine code of all architectures, hexadecimal. */
export const MACHINE_CODE: Readonly<Record<Architecture, MachineCode>> = {
  x86_64: {
    script: "535541544889fb4989fc4889f54885ed7479488b03488b7b08488b7310488b53184c8b53204c8b43" +
      "284c8b4b308b4b4485c97404498b3c0c0f058b5340f6c20174054885c07544f6c208740731ff4885" +
      "c07f2848894338f6c20474054885c07417f6c202741c4885c0791789d1c1e91048f7d84839c8740a" +
      "0fb6feb8e70000000f054883c34848ffcdeb82415c5d5bc3",
    signal: "57b8010000008b3d0c0000004889e6ba010000000f055fc300000000",
  },
  aarch64: {
    script: "f353bea9f50b00f9f30300aaf50300aaf40301aa140400b4680240f9608640a9628e41a9649642a9" +
      "694640b949000034a06a69f8010000d46a4240b94a000036a00200b56a0018361f0000f18c010054" +
      "601e00f94a001036e00000b46a0108364001f8b6eb0300cb4c7d10537f010cebc0000054403d0853" +
      "02000014000080d2c80b80d2010000d473220191940600d1e1ffff17f50b40f9f353c2a8c0035fd6",
    signal: "e00f1ff8080880d2c0000018e1030091220080d2010000d4ff430091c0035fd600000000",
  },
};

const PROT_READ_WRITE = 0x1 | 0x2; // mman.h
const PROT_READ_EXEC = 0x1 | 0x4; // mman.h
const MAP_PRIVATE_ANONYMOUS = 0x02 | 0x20; // mman.h
const MAP_FAILED = 0xffffffffffffffffn; // mmap(2)

/**
 * Places code in a page of its own, which is writable first and executable afterwards, never both.
 *
 * Changing the protection makes the kernel bring the instruction cache up to date, which aarch64 needs.
 *
 * @param hexadecimal the code
 * @param lastWord replaces the last 32-bit word (the handler keeps its descriptor there)
 * @returns its address
 * @throws SysError when the kernel refuses executable memory
 */
export function load(hexadecimal: string, lastWord?: number): bigint {
  const code = Uint8Array.fromHex(hexadecimal);
  if (lastWord !== undefined) {
    new DataView(code.buffer).setInt32(code.length - 4, lastWord, true);
  }
  const size = BigInt(PAGE_SIZE);
  const base = libc.mmap(0n, size, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0n);
  if (base === MAP_FAILED) throw lastError("mmap", "machine code");
  const page = Deno.UnsafePointerView.getArrayBuffer(Deno.UnsafePointer.create(base)!, PAGE_SIZE);
  new Uint8Array(page).set(code);
  check(libc.mprotect(base, size, PROT_READ_EXEC), "mprotect", "machine code");
  return base;
}
