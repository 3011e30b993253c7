// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The code that runs before the runtime's own: it adds arguments and variables to those of the caller.
 *
 * `stub_*.S` say what it does; `tests/ship/stub_test.ts` assembles them (binutils) and compares. A table
 * follows it: number of arguments, number of variables, entry point, slot of `environ`, offset of each
 * string. Every place in it is relative to the table, so that the code works wherever it is.
 *
 * @module
 */
import type { Elf } from "./elf.ts";

/** What the assembler makes of the sources, hexadecimal. */
export const STUB: Readonly<Record<Elf["machine"], string>> = {
  x86_64: "4c8d25090100004889e6488b0e4885c90f84eb000000488d7cce10488b074883c7084885c075f448" +
    "8b074883c7104885c075f44989fe4d8b14244d8b5c24084829f74b8d041a488d04c74829c44883e4" +
    "f04889e7fc4a8d041148ab4883c60848a5498d5c24204d85d27411488b034c01e048ab4883c30849" +
    "ffcaebeaf348a54989fd49b9434f4d504c45544549b84f54454c5f44454e48ad4885c0742c8b0881" +
    "f944454e4f740881f94e4f444575068078045f74e14c390074dc4c390875068078083d74d148abeb" +
    "cd4d85db7411488b034c01e048ab4883c30849ffcbebea31c048ab4c89f14829f148c1e903f348a5" +
    "498b4424184885c07407498b04044c8928498b4424104c01e031edffe00f1f00",
  aarch64: "490a0010e1030091220040f9c20800b4230c028b63400091648440f8e4ffffb5640441f8e4ffffb5" +
    "251940a9640001cba700068b840c078b240004cb84ec7c929f000091e70304aa4400058be48400f8" +
    "248c40f821200091e48400f828810091c50000b4048540f88400098be48400f8a50400d1fbffff17" +
    "248440f8e48400f8c4ffffb5ea0307aa4b0500184f0500184d0500586e050058248440f8440200b4" +
    "8c0040b99f010b6b84114f7a810000548c1040399f7d017100ffff548c0040f99f010eeba0feff54" +
    "9f010deb810000548c2040399ff5007100feff54e48400f8eeffff17c60000b4048540f88400098b" +
    "e48400f8c60400d1fbffff17ff8400f83f0003eb80000054248440f8e48400f8fcffff17240d40f9" +
    "640000b4246964f88a0000f9300940f91002098b00021fd644454e4f4e4f4445434f4d504c455445" +
    "4f54454c5f44454e",
};

const WORD = 8;
/** Words of the table before the strings' offsets. */
const FIXED = 4;

/** What the program is to get. */
export interface Added {
  /** Arguments, after argv[0]. */
  readonly args: readonly string[];
  /** Variables, as NAME=VALUE. */
  readonly environment: readonly string[];
}

/**
 * The code with its table and strings.
 *
 * @param address where it will be
 * @param executable whose entry point it is to go to
 * @throws Error when variables are to be added and nothing in the executable says where they are
 *
 * @example
 * ```ts
 * import { stub, STUB } from "./stub.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const executable = { machine: "x86_64", entry: 0x1000, slotOf: () => 0x2000 } as const;
 * const bytes = stub(executable, 0x9000, { args: ["run"], environment: ["A=1"] });
 * const table = new DataView(bytes.buffer, STUB.x86_64.length / 2);
 * assertEquals(table.getBigUint64(0, true), 1n);
 * assertEquals(new TextDecoder().decode(bytes.subarray(-8)), "run\0A=1\0");
 * ```
 */
export function stub(
  executable: Pick<Elf, "machine" | "entry" | "slotOf">,
  address: number,
  { args, environment }: Added,
): Uint8Array<ArrayBuffer> {
  const code = Uint8Array.fromHex(STUB[executable.machine]);
  const slot = executable.slotOf("environ");
  if (slot === null && environment.length > 0) throw new Error("Executable: no slot of environ");
  const encoder = new TextEncoder();
  const strings = [...args, ...environment].map((text) => encoder.encode(`${text}\0`));
  const here = address + code.length;
  const words = [args.length, environment.length, executable.entry - here, slot ? slot - here : 0];
  let end = (FIXED + strings.length) * WORD;
  for (const { length } of strings) {
    words.push(end);
    end += length;
  }
  const bytes = new Uint8Array(code.length + end);
  bytes.set(code);
  const table = new DataView(bytes.buffer, code.length);
  words.forEach((word, index) => table.setBigInt64(index * WORD, BigInt(word), true));
  strings.forEach((string, index) => bytes.set(string, code.length + words[FIXED + index]!));
  return bytes;
}
