// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * inotify(7): a descriptor that becomes readable when names go from a directory.
 *
 * Only that something has gone is told, not what: whoever asks looks at the file itself, which is right
 * also after events that were merged or lost. Not every file system tells: procfs and those of a
 * network don't, and of a mount that is taken off a name there is no event either.
 *
 * @module
 */
import { check } from "./errno.ts";
import { libc } from "./libc.ts";

const IN_NONBLOCK_CLOEXEC = 0x800 | 0x80000; // sys/inotify.h: O_NONBLOCK | O_CLOEXEC
const IN_MOVED_FROM = 0x40; // linux/inotify.h
const IN_MOVED_TO = 0x80; // over a name that was there before
const IN_DELETE = 0x200;
const IN_DELETE_SELF = 0x400;
const IN_MOVE_SELF = 0x800;
const IN_ONLYDIR = 0x1000000;
const GONE = IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;

/** Room for many events; one has at most 16 + NAME_MAX + 1 bytes. */
const READ_SIZE = 4096;

/**
 * Watches one directory.
 *
 * @example
 * ```ts
 * import { DirectoryWatch } from "./inotify.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const folder = Deno.makeTempDirSync();
 * Deno.writeTextFileSync(`${folder}/name`, "");
 * const watch = new DirectoryWatch(folder);
 * assertEquals(watch.clear(), false);
 * Deno.removeSync(`${folder}/name`);
 * assertEquals(watch.clear(), true);
 * watch.close();
 * Deno.removeSync(folder);
 * ```
 */
export class DirectoryWatch {
  /** Readable when a name has gone, or the directory itself; non-blocking, close-on-exec. */
  readonly fd: number;

  /** @throws SysError when it is no directory, or no more can be watched (inotify(7), limits) */
  constructor(path: string) {
    this.fd = check(libc.inotify_init1(IN_NONBLOCK_CLOEXEC), "inotify_init1");
    const name = new TextEncoder().encode(`${path}\0`);
    try {
      check(libc.inotify_add_watch(this.fd, name, GONE), "inotify_add_watch", path);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Takes all events. @returns whether there were any */
  clear(): boolean {
    const events = new Uint8Array(READ_SIZE);
    let any = false;
    while (libc.read(this.fd, events, READ_SIZE) > 0) any = true;
    return any;
  }

  close(): void {
    libc.close(this.fd);
  }
}
