// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Whom an instance serves: a command in namespaces of its own, or namespaces that were there before us.
 * The one ends with us and gives its exit code, the others are left as they are.
 *
 * @module
 */
import { getLogger } from "@std/log";
import type { Options } from "../config/options.ts";
import { libc } from "../sys/libc.ts";
import { closeNamespace, type Namespace, openNamespace } from "../sys/namespace.ts";
import { catches, sharesForeground, SIGNAL_BASE } from "../sys/process.ts";
import { SIG, type Signals } from "../sys/signal.ts";
import { attachGuest, openUserNamespace } from "./attach.ts";
import { type GuestProcess, spawnGuest } from "./spawn.ts";

/** A namespace to give a network to, and what it means for us when something happens to it. */
export interface Guest {
  /** Its namespaces; open until {@linkcode close}. */
  readonly namespace: Namespace;
  /** What could not be set up inside, though it can do without. */
  readonly warnings: readonly string[];
  /** Becomes readable when {@linkcode status} is to be asked; negative: never. */
  readonly fd: number;
  /**
   * The network is ready and {@linkcode fd} is watched: the guest may use it.
   *
   * @returns our exit code when the guest has gone meanwhile, else null
   * @throws CommandError when the command can't run
   */
  release(): number | null;
  /** Our exit code when the guest has gone, null while it is there. Does not block. */
  status(): number | null;
  /** Our exit code after a signal to us, null: we go on. */
  onSignal(signal: number): number | null;
  /** Our exit code when the guest's interface has been deleted, null: we go on. */
  onInterfaceLost(ifname: string): number | null;
  /** Lets go of it. A command, and all it has started, ends. */
  close(): void;
}

/** A guest that is a command of ours. */
class CommandGuest implements Guest {
  readonly namespace: Namespace;
  readonly #process: GuestProcess;

  constructor(process: GuestProcess) {
    this.#process = process;
    try {
      this.namespace = openNamespace(process.pid);
    } catch (error) {
      process.close();
      throw error;
    }
  }

  get warnings(): readonly string[] {
    return this.#process.warnings;
  }

  get fd(): number {
    return this.#process.pidfd;
  }

  release(): null {
    this.#process.release();
    return null;
  }

  status(): number | null {
    return this.#process.status();
  }

  /**
   * A signal ends us, unless it is the Ctrl-C of a terminal that has given it to the command too, and
   * the command handles it. A SIGINT from elsewhere looks the same while both are in the foreground:
   * it is SIGTERM that ends us in any case.
   */
  onSignal(signal: number): number | null {
    const { pid } = this.#process;
    if (signal === SIG.INT && sharesForeground(pid) && catches(pid, SIG.INT)) return null;
    return SIGNAL_BASE + signal;
  }

  /** The command goes on without a network, and its exit code counts. */
  onInterfaceLost(ifname: string): null {
    getLogger().warn(`Interface ${ifname} is gone, and the network of the command with it`);
    return null;
  }

  close(): void {
    closeNamespace(this.namespace);
    this.#process.close();
  }
}

/** How a command finds signals. */
export type CommandSignals = Pick<Signals, "ignored" | "mask">;

/**
 * The guest that the options name.
 *
 * @param signals those that a command finds ignored though we do not ignore them, and its mask
 * @throws ConfigError, SysError or CommandError; nothing is left behind
 */
export function openGuest(options: Options, { ignored, mask }: CommandSignals): Guest {
  const { target, userns, netnsOnly } = options;
  if (target.kind !== "command") return attachGuest(options);
  const spawn = { command: options.command, ignored, mask, sameUser: netnsOnly };
  if (userns === null) return new CommandGuest(spawnGuest(spawn));
  const userNamespace = openUserNamespace(userns);
  try {
    return new CommandGuest(spawnGuest({ ...spawn, userNamespace }));
  } finally {
    libc.close(userNamespace);
  }
}
