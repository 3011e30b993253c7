// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The guest as namespaces that are there already: those of a process, or a network namespace by its
 * file.
 *
 * Theory of operation: a PID means the process's network namespace and its user namespace, unless
 * `--userns` names another or `--netns-only` none. A path means that network namespace, and no user
 * namespace unless `--userns` names one: then we need the rights for it already, as root has them, or
 * whoever is within the same user namespace (rootless container engines). Nothing inside is changed but
 * the loopback, which is brought up, and our own interface, which goes with us. We go when the
 * namespace's name does, that is with the process, or when the path is deleted or unmounted: it would
 * live on only because of us.
 *
 * A process is held by a pidfd before its files are opened and checked afterwards, so that its number
 * can't have become another one's in between.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";
import type { Options } from "../config/options.ts";
import { E, errnoName, SysError } from "../sys/errno.ts";
import { leadsTo, statusOf } from "../sys/file.ts";
import { libc } from "../sys/libc.ts";
import {
  closeNamespace,
  type Namespace,
  namespaceType,
  openNamespaceFile,
  reopenNamespace,
} from "../sys/namespace.ts";
import { openPidfd, SIGNAL_BASE } from "../sys/process.ts";
import { CLONE } from "../sys/script.ts";
import { SIG } from "../sys/signal.ts";
import type { Guest } from "./guest.ts";
import { type NamespaceWatch, watchPath, watchProcess } from "./namespace_watch.ts";

/** Exit code when we are told to end, or there is nobody left to serve. */
const ENDED = 0;
/** Exit code when the guest's interface has been deleted: nothing works any more. */
const FAILED = 1;
/** Signals by which a service is told to end; after others we end as if they had killed us. */
const STOP: readonly number[] = [SIG.TERM, SIG.QUIT];

/** Paths by which a process's network namespace is known. */
const PROC_PATH = /^\/proc\/([1-9]\d{0,9})\/ns\/net$/;

/** A namespace's file as the user knows it. */
interface NamespaceFile {
  readonly path: string;
  /** For messages: `PID 42`, `--netns NAME`. */
  readonly what: string;
  readonly type: number;
}

/** What a user can do about a namespace's file that can't be opened. */
function openHint(errno: number, path: string): string {
  const ofProcess = path.startsWith("/proc/");
  switch (errno) {
    case E.ENOENT:
      return ofProcess ? "no such process, or it has ended" : `there is no ${shown(path)}`;
    case E.EACCES:
    case E.EPERM:
      return ofProcess
        ? "only its owner, and root (--runas 0), may join a process's namespaces"
        : `no permission to open ${shown(path)}`;
    case E.ENOTDIR:
      return `there is no ${shown(path)}`;
  }
  return `cannot open ${shown(path)}: ${errnoName(errno)}`;
}

/** Opens a namespace's file. @throws ConfigError */
function open({ path, what, type }: NamespaceFile): number {
  let fd: number;
  try {
    fd = openNamespaceFile(path);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new ConfigError(`${what}: ${openHint(error.errno, path)}`);
  }
  if (namespaceType(fd) === type) return fd;
  libc.close(fd);
  const kind = type === CLONE.NEWNET ? "network" : "user";
  throw new ConfigError(`${what}: not a ${kind} namespace`);
}

/** What `--userns` names. */
function namedUserNamespace(path: string): NamespaceFile {
  return { path, what: `--userns ${shown(path)}`, type: CLONE.NEWUSER };
}

/** Opens the user namespace that `--userns` names. @throws ConfigError */
export function openUserNamespace(path: string): number {
  return open(namedUserNamespace(path));
}

/** Whether a namespace is one that we are in. */
function isOurs(fd: number, name: "net" | "user"): boolean {
  return leadsTo(`/proc/self/ns/${name}`, statusOf(fd).identity);
}

/** Opens the namespaces. @param user null: we have the rights that we need */
function openNamespaces(network: NamespaceFile, user: NamespaceFile | null): Namespace {
  const net = open(network);
  try {
    if (isOurs(net, "net")) {
      throw new ConfigError(
        `${network.what}: this is the network namespace that we are in ourselves`,
      );
    }
    const fd = user === null ? -1 : open(user);
    if (fd < 0 || !isOurs(fd, "user")) return { user: fd, net };
    libc.close(fd); // joining one's own is an error (setns(2)), and not needed
    return { user: -1, net };
  } catch (error) {
    libc.close(net);
    throw error;
  }
}

/** The files that the options name. */
function filesOf(options: Options): { network: NamespaceFile; user: NamespaceFile | null } {
  const { target, userns, netnsOnly } = options;
  const named = userns === null ? null : namedUserNamespace(userns);
  if (target.kind === "pid") {
    const what = `PID ${target.pid}`, folder = `/proc/${target.pid}/ns`;
    const own = netnsOnly ? null : { path: `${folder}/user`, what, type: CLONE.NEWUSER };
    return { network: { path: `${folder}/net`, what, type: CLONE.NEWNET }, user: named ?? own };
  }
  if (target.kind !== "path") throw new Error("No namespace is named");
  const what = `--netns ${shown(target.path)}`;
  const path = target.path.startsWith("/") ? target.path : `${Deno.cwd()}/${target.path}`;
  return { network: { path, what, type: CLONE.NEWNET }, user: named };
}

/** A pidfd of the process by which a namespace is known, or -1: there is none, or none to be had. */
function processOf(path: string): number {
  const pid = PROC_PATH.exec(path)?.[1];
  if (pid === undefined) return -1;
  try {
    return openPidfd(Number(pid));
  } catch (error) {
    if (error instanceof SysError) return -1; // a thread's number, an old kernel: the path is watched
    throw error;
  }
}

/** What is open for a guest. */
interface Hold {
  /** For messages. */
  readonly what: string;
  readonly namespace: Namespace;
  readonly watch: NamespaceWatch | null;
  readonly pidfd: number;
}

/** Opens the namespaces in a way that keeps nobody from unmounting them. */
function openJoined(network: NamespaceFile, user: NamespaceFile | null): Namespace {
  const named = openNamespaces(network, user);
  try {
    return reopenNamespace(named); // tells, too, whether we may join them
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new ConfigError(`${network.what}: ${error.message}`);
  } finally {
    closeNamespace(named);
  }
}

/** What tells of the namespace's end. */
function watch({ path }: NamespaceFile, net: number, pidfd: number): NamespaceWatch {
  return pidfd < 0 ? watchPath(path, statusOf(net).identity) : watchProcess(pidfd);
}

/** Opens everything. @throws ConfigError or SysError; nothing is left open then */
function hold(options: Options): Hold {
  const { network, user } = filesOf(options);
  const pidfd = processOf(network.path);
  let namespace: Namespace | null = null;
  try {
    namespace = openJoined(network, user);
    return {
      what: network.what,
      namespace,
      watch: options.netnsQuit ? watch(network, namespace.net, pidfd) : null,
      pidfd,
    };
  } catch (error) {
    if (namespace) closeNamespace(namespace);
    if (pidfd >= 0) libc.close(pidfd);
    throw error;
  }
}

/**
 * Takes hold of the namespaces that the options name.
 *
 * @param options with a `target` that is not a command
 * @throws ConfigError when they can't be had, in one line that says what is needed
 */
export function attachGuest(options: Options): Guest {
  const { what, namespace, watch, pidfd } = hold(options);
  const status = () => {
    if (!watch?.gone()) return null;
    getLogger().info(`${what} is gone: leaving`);
    return ENDED;
  };
  return {
    namespace,
    warnings: [],
    fd: watch?.fd ?? -1,
    release: status, // it may have gone before the loop began to watch
    status,
    onSignal: (signal) => STOP.includes(signal) ? ENDED : SIGNAL_BASE + signal,
    onInterfaceLost(ifname) {
      getLogger().error(`Interface ${ifname} is gone, and the network of the namespace with it`);
      return FAILED;
    },
    close() {
      watch?.close();
      closeNamespace(namespace);
      if (pidfd >= 0) libc.close(pidfd);
    },
  };
}
