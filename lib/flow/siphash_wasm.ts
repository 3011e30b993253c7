// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Writes the WebAssembly module of `siphash.ts`: one function, `hash(blocks: i32): i32`, over one page
 * of memory. WebAssembly has 64-bit integers, of which a SipHash round is made; the same in halves of
 * 32 bits takes five times as long.
 *
 * Each function below returns the code of one step, so that the whole reads as the algorithm does.
 * Numbers of instructions and sections are those of the WebAssembly Core Specification, §5.
 *
 * @module
 */

/** Byte offsets in the module's memory. */
export const SIPHASH_KEY = 0, SIPHASH_BLOCKS = 16, SIPHASH_RESULT = 0x4000;

/** Bytes, in lists that may be nested. */
type Code = number | readonly Code[];

// value types, §5.3.1
const I32 = 0x7f, I64 = 0x7e;
// instructions, §5.4
const BLOCK = [0x02, 0x40],
  LOOP = [0x03, 0x40],
  END = [0x0b],
  RETRY = [0x0c, 0],
  LEAVE_IF = [0x0d, 1];
const I32_EQZ = [0x45], I32_ADD = [0x6a], I32_WRAP = [0xa7];
const I64_ADD = [0x7c], I64_XOR = [0x85], I64_ROTL = [0x89];
const I64_LOAD = [0x29, 3, 0], I64_STORE = [0x37, 3, 0]; // aligned to 2³, offset 0
const LIMITS_MIN = 0; // §5.3.7

// parameter and locals of the function
const COUNT = 0, AT = 1, V0 = 2, V1 = 3, V2 = 4, V3 = 5, M = 6;

/** Little-endian base 128, signed, §5.2.2. */
function leb(value: bigint): Code {
  const bytes: number[] = [];
  for (; value < -0x40n || value > 0x3fn; value >>= 7n) bytes.push(Number(value & 0x7fn) | 0x80);
  bytes.push(Number(value & 0x7fn));
  return bytes;
}

const get = (local: number): Code => [0x20, local];
const set = (local: number, value: Code): Code => [value, 0x21, local];
const i32 = (value: number): Code => [0x41, leb(BigInt(value))];
const i64 = (value: bigint): Code => [0x42, leb(BigInt.asIntN(64, value))];
const load = (address: Code): Code => [address, I64_LOAD];
const add = (to: number, from: number): Code => set(to, [get(to), get(from), I64_ADD]);
const xor = (to: number, value: Code): Code => set(to, [get(to), value, I64_XOR]);
const rotate = (v: number, bits: bigint): Code => set(v, [get(v), i64(bits), I64_ROTL]);

/** SipRound, §2.1 of the paper. */
const ROUND: Code = [
  [add(V0, V1), rotate(V1, 13n), xor(V1, get(V0)), rotate(V0, 32n)],
  [add(V2, V3), rotate(V3, 16n), xor(V3, get(V2))],
  [add(V0, V3), rotate(V3, 21n), xor(V3, get(V0))],
  [add(V2, V1), rotate(V1, 17n), xor(V1, get(V2)), rotate(V2, 32n)],
];

/** State from key: ASCII "somepseudorandomlygeneratedbytes". */
const INITIALIZE: Code = [
  set(V0, load(i32(SIPHASH_KEY))),
  set(V1, load(i32(SIPHASH_KEY + 8))),
  set(V2, get(V0)),
  set(V3, get(V1)),
  xor(V0, i64(0x736f6d6570736575n)),
  xor(V1, i64(0x646f72616e646f6dn)),
  xor(V2, i64(0x6c7967656e657261n)),
  xor(V3, i64(0x7465646279746573n)),
];

/** For each block: v3 ^= m, two rounds, v0 ^= m. */
const COMPRESS: Code = [
  set(AT, i32(SIPHASH_BLOCKS)),
  [BLOCK, LOOP],
  [get(COUNT), I32_EQZ, LEAVE_IF],
  set(M, load(get(AT))),
  xor(V3, get(M)),
  [ROUND, ROUND],
  xor(V0, get(M)),
  set(AT, [get(AT), i32(8), I32_ADD]),
  set(COUNT, [get(COUNT), i32(-1), I32_ADD]),
  [RETRY, END, END],
];

/** v2 ^= 255, four rounds; stores all 64 bits and returns the lower 32. */
const FINALIZE: Code = [
  xor(V2, i64(0xffn)),
  [ROUND, ROUND, ROUND, ROUND],
  [xor(V0, get(V1)), xor(V0, get(V2)), xor(V0, get(V3))],
  [i32(SIPHASH_RESULT), get(V0), I64_STORE],
  [get(V0), I32_WRAP],
];

const flatten = (code: Code): number[] => ([code] as unknown[]).flat(Infinity) as number[];

/** Content behind its length in bytes: unsigned, §5.2.2; all of ours are below 2¹⁴. */
function sized(content: Code): Code {
  const bytes = flatten(content), n = bytes.length;
  return [n < 0x80 ? n : [n & 0x7f | 0x80, n >> 7], bytes];
}

const text = (name: string): Code => sized([...name].map((letter) => letter.charCodeAt(0)));
const section = (id: number, items: number, content: Code): Code => [id, sized([items, content])];

/** The module's bytes. Exports `hash` and `memory`. */
export function siphashModule(): Uint8Array<ArrayBuffer> {
  const locals = [2, 1, I32, 5, I64]; // two runs: AT; V0…M
  const code = [
    [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    section(1, 1, [0x60, 1, I32, 1, I32]), // type 0: i32 to i32
    section(3, 1, 0), // function 0 is of type 0
    section(5, 1, [LIMITS_MIN, 1]), // memory 0 has one page
    section(7, 2, [text("hash"), 0, 0, text("memory"), 2, 0]), // exports
    section(10, 1, sized([locals, INITIALIZE, COMPRESS, FINALIZE, END])), // body of function 0
  ];
  return new Uint8Array(flatten(code));
}
