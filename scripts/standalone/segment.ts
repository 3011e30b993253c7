// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The executable made of the stock runtime and one more segment.
 *
 * Theory of operation: the runtime's own executable needs arguments to run a program, and the caller's
 * are the program's. So it starts in code of ours (`stub.ts`), which puts `run`, our flags and a
 * module between argv[0] and the caller's arguments, in memory; the kernel, and so ps(1) and our
 * `/proc/self/cmdline`, still have what the caller gave. The module (`runner.ts`) is a `data:` URL of
 * less than 2 KiB: it reads the pieces of the program (`bundle.ts`) from the executable, as they are
 * needed, and runs them.
 *
 * ```text
 *  file    │ stock executable │ shared │ front │ rest │ stub, table, strings │
 *  memory  │ … as before …    │ the new segment, read and execute            │
 * ```
 *
 * No variable DENO_*, NODE_* or OTEL_DENO* of the caller is seen by the runtime, and its folder is one that
 * cannot be, so that nothing is written. Commands that the program starts get the caller's variables,
 * all and unchanged: they are taken from the kernel, too.
 *
 * @module
 */
import type { Bundle } from "./bundle.ts";
import { Elf } from "./elf.ts";
import { type Piece, runnerOf } from "./runner.ts";
import { ISOLATION, PERMISSIONS, V8_FLAGS } from "./settings.ts";
import { stub } from "./stub.ts";

/** Pieces of the program, in the order of the file. */
const PIECES: readonly Piece[] = ["shared", "front", "rest"];
/** Code is aligned to this. */
const CODE_ALIGN = 16;

/** Without the second, a TypeScript module (`--policy`) would take 150 ms for attempts to write a cache. */
const ENVIRONMENT: readonly string[] = [
  "DENO_DIR=/dev/null/none",
  "DENO_EMIT_CACHE_MODE=disable",
  "DENO_NO_PACKAGE_JSON=1",
  "DENO_NO_UPDATE_CHECK=1",
];

/** Where pieces are in the file. */
type Places = Readonly<Record<Piece, { offset: number; length: number }>>;

/** Reads a part of the executable as text. It needs /proc, as the program does. */
const READ = `const open=()=>{try{return Deno.openSync("/proc/self/exe")}catch({code}){` +
  `console.error("tubetti: open /proc/self/exe: "+code+" (is /proc mounted?)");Deno.exit(1)}};` +
  `const read=(offset,length)=>{using file=open();file.seekSync(offset,0);` +
  `const bytes=new Uint8Array(length);for(let at=0,n;at<length;at+=n)` +
  `if(!(n=file.readSync(bytes.subarray(at))))throw new Error("The executable has been cut off");` +
  `return new TextDecoder().decode(bytes)};`;

/**
 * The executable.
 *
 * @param runtime the stock executable, of any machine there is a stub for
 * @throws Error when it is not of the right form
 */
export function withProgram(runtime: Uint8Array, bundle: Bundle): Uint8Array<ArrayBuffer> {
  const elf = new Elf(runtime);
  const encoder = new TextEncoder();
  const texts = PIECES.map((name) => encoder.encode(bundle[name]));
  let size = 0;
  const placed = PIECES.map((name, index) => {
    const place = { offset: elf.next.offset + size, length: texts[index]!.length };
    size += place.length;
    return [name, place] as const;
  });
  const places = Object.fromEntries(placed) as Places;
  const text = (name: Piece) => `read(${places[name].offset},${places[name].length})`;
  const module = runnerOf(text, READ);
  const url = `data:text/javascript,${encodeURIComponent(module)}`;
  const entry = Math.ceil(size / CODE_ALIGN) * CODE_ALIGN;
  const code = stub(elf, elf.next.vaddr + entry, {
    args: ["run", "--quiet", ...PERMISSIONS, V8_FLAGS, ...ISOLATION, url],
    environment: ENVIRONMENT,
  });
  const segment = new Uint8Array(entry + code.length);
  placed.forEach(([, { offset }], i) => segment.set(texts[i]!, offset - elf.next.offset));
  segment.set(code, entry);
  return elf.withSegment(segment, entry);
}
