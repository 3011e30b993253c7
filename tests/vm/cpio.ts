// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Archives in the "newc" form of cpio, as Linux takes them for its first file system: see
 * Documentation/driver-api/early-userspace/buffer-format.rst of the kernel's sources.
 *
 * Each entry is a header of thirteen hexadecimal numbers, a name that ends in a zero, and the
 * content; header with name, and content, are each filled up to a multiple of four bytes.
 *
 * @module
 */

/** What an entry is: bits of st_mode (inode(7)). */
const S_IFREG = 0o100000;
const S_IFDIR = 0o040000;
const S_IFLNK = 0o120000;
const S_IFCHR = 0o020000;

const MAGIC = "070701";
const TRAILER = "TRAILER!!!";
const ALIGNMENT = 4;
const FIELD_DIGITS = 8;
/** Hexadecimal numbers of a header, without the magic. */
const FIELDS = 13;

/** Writes an archive, entry by entry; folders must come before what is in them. */
export class CpioWriter {
  readonly #parts: Uint8Array[] = [];
  readonly #names = new Set<string>();
  #inode = 0;
  #length = 0;

  /** Adds a folder and those above it, unless it is there. */
  folder(path: string): void {
    const above = path.slice(0, Math.max(0, path.lastIndexOf("/")));
    if (above !== "") this.folder(above);
    if (this.has(path)) return;
    this.#entry(path, S_IFDIR | 0o755, new Uint8Array());
  }

  /** Whether there is an entry of this name. */
  has(path: string): boolean {
    return this.#names.has(path);
  }

  /** Adds a file, and the folders it is in. */
  file(path: string, content: Uint8Array | string, mode = 0o644): void {
    this.#above(path);
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    this.#entry(path, S_IFREG | mode, bytes);
  }

  /** Adds a symbolic link. */
  link(path: string, target: string): void {
    this.#above(path);
    this.#entry(path, S_IFLNK | 0o777, new TextEncoder().encode(target));
  }

  /** Adds a character device. */
  device(path: string, major: number, minor: number): void {
    this.#above(path);
    this.#entry(path, S_IFCHR | 0o600, new Uint8Array(), major, minor);
  }

  #above(path: string): void {
    const at = path.lastIndexOf("/");
    if (at > 0) this.folder(path.slice(0, at));
  }

  #entry(path: string, mode: number, content: Uint8Array, major = 0, minor = 0): void {
    const inode = ++this.#inode;
    this.#names.add(path);
    const name = new TextEncoder().encode(`${path}\0`);
    const fields = Array<number>(FIELDS).fill(0);
    fields[0] = inode;
    fields[1] = mode;
    fields[4] = 1; // links
    fields[6] = content.length;
    fields[9] = major;
    fields[10] = minor;
    fields[11] = name.length;
    const digits = fields.map((value) => value.toString(16).padStart(FIELD_DIGITS, "0"));
    this.#append(new TextEncoder().encode(MAGIC + digits.join("")));
    this.#append(name);
    this.#align();
    this.#append(content);
    this.#align();
  }

  #append(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#length += bytes.length;
  }

  #align(): void {
    const rest = this.#length % ALIGNMENT;
    if (rest !== 0) this.#append(new Uint8Array(ALIGNMENT - rest));
  }

  /** Ends the archive and returns all of it. */
  finish(): Uint8Array<ArrayBuffer> {
    this.#entry(TRAILER, 0, new Uint8Array());
    const all = new Uint8Array(this.#length);
    let at = 0;
    for (const part of this.#parts) {
      all.set(part, at);
      at += part.length;
    }
    return all;
  }
}
