// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Noticing that the name of a namespace has gone, which ends those who serve it.
 *
 * Theory of operation: a process's namespace goes with the process, of which a pidfd tells. A namespace
 * bound to a file, as ip-netns(8) and container engines do it, goes when the file is deleted or
 * unmounted: inotify tells of the one and the table of mounts of the other (poll(2) on
 * /proc/self/mountinfo, see proc_pid_mountinfo(5)). Where neither helps, links of procfs among them, a
 * timer does once a second. All these only say that it is time to look, and what counts is whether the
 * path still leads to the same inode. The descriptors are behind one epoll instance, which the loop
 * watches as it would any other descriptor.
 *
 * @module
 */
import { EPOLL, Epoll } from "../sys/epoll.ts";
import { SysError } from "../sys/errno.ts";
import { folderOf, leadsTo } from "../sys/file.ts";
import { DirectoryWatch } from "../sys/inotify.ts";
import { libc } from "../sys/libc.ts";
import { openNamespaceFile } from "../sys/namespace.ts";
import { Ticker } from "../sys/ticker.ts";

/** How often the path is looked at where nothing tells. */
const LOOK_MS = 1000;
/** Longest wait of {@linkcode Epoll.wait} that does not block. */
const NOW = 0;

/** Tells when a namespace has gone. */
export interface NamespaceWatch {
  /** Becomes readable when {@linkcode gone} is to be asked. */
  readonly fd: number;
  /** Whether it has gone. Does not block. */
  gone(): boolean;
  close(): void;
}

/** Watches a process. @param pidfd stays open; not ours to close */
export function watchProcess(pidfd: number): NamespaceWatch {
  const epoll = new Epoll(1);
  const result = epoll.add(pidfd, EPOLL.IN, 0, 0);
  if (result < 0) {
    epoll.close();
    throw new SysError("epoll_ctl", "pidfd", -result);
  }
  return {
    fd: epoll.fd,
    gone: () => epoll.wait(NOW) > 0,
    close: () => epoll.close(),
  };
}

/** Whether a path ends in one of the links by which procfs shows namespaces (namespaces(7)). */
function isProcLink(path: string): boolean {
  try {
    return /^[a-z_]+:\[\d+\]$/.test(Deno.readLinkSync(path));
  } catch {
    return false; // no link at all
  }
}

/** A source of events. */
interface Source {
  readonly fd: number;
  readonly events: number;
  clear(): void;
  close(): void;
}

/** The sources that tell of the end of a file, as many as there are. */
function sourcesOf(path: string): Source[] {
  if (!isProcLink(path)) {
    try {
      const directory = new DirectoryWatch(folderOf(path));
      return [source(directory, EPOLL.IN), mountTable()];
    } catch (error) {
      if (!(error instanceof SysError)) throw error; // no more watches allowed
    }
  }
  return [source(new Ticker(LOOK_MS), EPOLL.IN)];
}

function source(from: { fd: number; clear(): boolean; close(): void }, events: number): Source {
  return { fd: from.fd, events, clear: () => from.clear(), close: () => from.close() };
}

/**
 * Our mount table. Polling it tells of a change once, so that whoever watches us must do so before, and
 * ask {@linkcode NamespaceWatch.gone} once when it has begun.
 */
function mountTable(): Source {
  const fd = openNamespaceFile("/proc/self/mountinfo");
  return { fd, events: EPOLL.PRI, clear: () => {}, close: () => libc.close(fd) };
}

/**
 * Watches a path.
 *
 * @param path absolute
 * @param identity of the file that it leads to now (`../sys/file.ts`)
 * @throws SysError
 * @example
 * ```ts
 * import { watchPath } from "./namespace_watch.ts";
 * import { openNamed, statusOf } from "../sys/file.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const path = Deno.makeTempFileSync();
 * const fd = openNamed(path, 0, 0);
 * const watch = watchPath(path, statusOf(fd).identity);
 * assertEquals(watch.gone(), false);
 * Deno.removeSync(path);
 * assertEquals(watch.gone(), true);
 * watch.close();
 * ```
 */
export function watchPath(path: string, identity: string): NamespaceWatch {
  const sources = sourcesOf(path);
  const epoll = new Epoll(sources.length);
  const close = () => {
    for (const source of sources) source.close();
    epoll.close();
  };
  for (const { fd, events } of sources) {
    const result = epoll.add(fd, events, 0, 0);
    if (result === 0) continue;
    close();
    throw new SysError("epoll_ctl", path, -result);
  }
  return {
    fd: epoll.fd,
    gone() {
      for (const source of sources) source.clear();
      epoll.wait(NOW); // level-triggered: what was cleared leaves its list
      return !leadsTo(path, identity, true);
    },
    close,
  };
}
