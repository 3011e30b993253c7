// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * One more segment for an executable that is already linked.
 *
 * Theory of operation: what the kernel maps is listed in the program headers, a table near the start of
 * the file that has no room to grow. One kind of its entries only points out notes for tools and debuggers,
 * PT_NOTE: such an entry is made a PT_LOAD for bytes that are appended to the file, at the first
 * addresses behind all others. Entries of kind PT_LOAD have to be in order of their addresses, so a
 * note behind the last of them is taken. The entry point is moved into the new segment. Everything else
 * stays as and where it was.
 *
 * Names and figures: elf(5), elf.h.
 *
 * @module
 */

/** Machines there is a stub for, by e_machine. */
export const MACHINES: Readonly<Record<number, "x86_64" | "aarch64">> = {
  62: "x86_64", // EM_X86_64
  183: "aarch64", // EM_AARCH64
};
/** Relocation that puts a symbol's address into a slot of the global offset table. */
const GLOB_DAT = { x86_64: 6, aarch64: 1025 } as const; // R_X86_64_GLOB_DAT, R_AARCH64_GLOB_DAT

const MAGIC = 0x464c457f; // ELFMAG
const ELFCLASS64 = 2, ELFDATA2LSB = 1;
const ET_DYN = 3; // position-independent
const PT_LOAD = 1, PT_DYNAMIC = 2, PT_NOTE = 4;
const PF_READ_EXEC = 0x4 | 0x1;
const DT_STRTAB = 5, DT_SYMTAB = 6, DT_RELA = 7, DT_RELASZ = 8;
/** Offsets in Elf64_Ehdr. */
const EH = { class: 4, data: 5, type: 16, machine: 18, entry: 24, phoff: 32, phnum: 56, size: 64 };
/** Offsets in Elf64_Phdr. */
const PH = {
  type: 0,
  flags: 4,
  offset: 8,
  vaddr: 16,
  paddr: 24,
  filesz: 32,
  memsz: 40,
  align: 48,
  size: 56,
};
const DYN_SIZE = 16; // Elf64_Dyn: tag, value
const RELA = { offset: 0, type: 8, symbol: 12, size: 24 }; // Elf64_Rela
const SYM_SIZE = 24; // Elf64_Sym, which begins with the name's offset

interface Header {
  /** Where in the file the entry is. */
  readonly at: number;
  readonly type: number;
  readonly offset: number;
  readonly vaddr: number;
  readonly filesz: number;
  readonly memsz: number;
  readonly align: number;
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/**
 * A 64-bit little-endian, position-independent executable.
 *
 * @example
 * ```ts
 * import { Elf } from "./elf.ts";
 * import { assertThrows } from "@std/assert";
 *
 * assertThrows(() => new Elf(new TextEncoder().encode("#!/bin/sh")), Error, "not a 64-bit");
 * ```
 */
export class Elf {
  readonly machine: "x86_64" | "aarch64";
  /** Where it starts: the address before it is moved to a random place. */
  readonly entry: number;
  /** Where the new segment will be: in the file, and in memory. */
  readonly next: { readonly offset: number; readonly vaddr: number };
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #headers: readonly Header[];
  readonly #align: number;

  /** @throws Error when the bytes are something else, or damaged */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const machine = this.#check();
    this.machine = machine;
    this.entry = this.#u64(EH.entry);
    this.#headers = this.#readHeaders();
    const loads = this.#headers.filter(({ type }) => type === PT_LOAD);
    if (loads.length === 0) throw new Error("Executable: nothing to load");
    this.#align = Math.max(...loads.map(({ align }) => align));
    const end = Math.max(...loads.map(({ vaddr, memsz }) => vaddr + memsz));
    this.next = {
      offset: roundUp(bytes.length, this.#align),
      vaddr: roundUp(end, this.#align),
    };
  }

  #check(): "x86_64" | "aarch64" {
    const bytes = this.#bytes;
    const fits = bytes.length >= EH.size && this.#u32(0) === MAGIC &&
      bytes[EH.class] === ELFCLASS64 && bytes[EH.data] === ELFDATA2LSB &&
      this.#u16(EH.type) === ET_DYN;
    if (!fits) throw new Error("Executable: not a 64-bit, little-endian, position-independent ELF");
    const number = this.#u16(EH.machine), machine = MACHINES[number];
    if (!machine) throw new Error(`Executable: no stub for machine ${number}`);
    return machine;
  }

  #u16(offset: number): number {
    return this.#view.getUint16(offset, true);
  }

  #u32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  #u64(offset: number): number {
    return Number(this.#view.getBigUint64(offset, true));
  }

  #readHeaders(): Header[] {
    const first = this.#u64(EH.phoff), count = this.#u16(EH.phnum);
    return Array.from({ length: count }, (_, index) => {
      const at = first + index * PH.size;
      return {
        at,
        type: this.#u32(at + PH.type),
        offset: this.#u64(at + PH.offset),
        vaddr: this.#u64(at + PH.vaddr),
        filesz: this.#u64(at + PH.filesz),
        memsz: this.#u64(at + PH.memsz),
        align: this.#u64(at + PH.align),
      };
    });
  }

  /** Where in the file an address comes from. */
  #offsetOf(address: number): number {
    const load = this.#headers.find(({ type, vaddr, filesz }) =>
      type === PT_LOAD && address >= vaddr && address < vaddr + filesz
    );
    if (!load) throw new Error(`Executable: address 0x${address.toString(16)} is not in the file`);
    return address - load.vaddr + load.offset;
  }

  /** Values of the dynamic section, by tag. */
  #dynamic(): Map<number, number> {
    const found = new Map<number, number>();
    const section = this.#headers.find(({ type }) => type === PT_DYNAMIC);
    if (!section) return found;
    for (let at = section.offset; this.#u64(at) !== 0; at += DYN_SIZE) {
      found.set(this.#u64(at), this.#u64(at + 8));
    }
    return found;
  }

  /** The slot that the dynamic linker fills with the address of a symbol; null: there is none. */
  slotOf(symbol: string): number | null {
    const dynamic = this.#dynamic();
    const [rela, size] = [dynamic.get(DT_RELA), dynamic.get(DT_RELASZ)];
    const [names, symbols] = [dynamic.get(DT_STRTAB), dynamic.get(DT_SYMTAB)];
    if (!rela || !size || !names || !symbols) return null;
    const [table, text, first] = [symbols, names, rela].map((address) => this.#offsetOf(address));
    const wanted = new TextEncoder().encode(`${symbol}\0`);
    for (let at = first!; at < first! + size; at += RELA.size) {
      if (this.#u32(at + RELA.type) !== GLOB_DAT[this.machine]) continue;
      const name = text! + this.#u32(table! + this.#u32(at + RELA.symbol) * SYM_SIZE);
      if (wanted.every((byte, i) => this.#bytes[name + i] === byte)) return this.#u64(at);
    }
    return null;
  }

  /**
   * The executable with one more segment, which can be read and executed.
   *
   * @param segment its bytes, which will be at {@linkcode next}
   * @param entry offset in it at which to start
   * @throws Error when there is no entry to be had for it
   */
  withSegment(segment: Uint8Array, entry: number): Uint8Array<ArrayBuffer> {
    const note = this.#headers.findLast(({ type }) => type === PT_NOTE);
    const last = this.#headers.findLast(({ type }) => type === PT_LOAD)!;
    if (!note || note.at < last.at) {
      throw new Error("Executable: no PT_NOTE behind the last PT_LOAD");
    }
    const { offset, vaddr } = this.next;
    const bytes = new Uint8Array(offset + segment.length);
    bytes.set(this.#bytes);
    bytes.set(segment, offset);
    const view = new DataView(bytes.buffer);
    const put = (at: number, value: number) => view.setBigUint64(at, BigInt(value), true);
    put(EH.entry, vaddr + entry);
    view.setUint32(note.at + PH.type, PT_LOAD, true);
    view.setUint32(note.at + PH.flags, PF_READ_EXEC, true);
    put(note.at + PH.offset, offset);
    for (const field of [PH.vaddr, PH.paddr]) put(note.at + field, vaddr);
    for (const field of [PH.filesz, PH.memsz]) put(note.at + field, segment.length);
    put(note.at + PH.align, this.#align);
    return bytes;
  }
}
