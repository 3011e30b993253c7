// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Who we run as: `--runas`, and away from root where nobody asked for it.
 *
 * Theory of operation: what moves packets needs no rights, so root is given up before any namespace is
 * made: then the machine's root is not the root of the guest either. Files that only root can open
 * (the log, the process number's) are open by then. Root of a user namespace is an ordinary user
 * outside, often without any other user to become, and stays. `--runas 0` keeps root where it is needed,
 * such as for the namespaces of others. Where only root may use the tun device, nobody could not make a
 * tap: then root stays, too, and is told.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";
import {
  becomeUser,
  currentIdentity,
  findGroup,
  findUser,
  type Identity,
  inInitialUserNamespace,
} from "../sys/credentials.ts";
import { TUN_DEVICE } from "../sys/tun.ts";

/** The user without rights, where the system has no entry for it (kernel.overflowuid). */
const NOBODY: Identity = { uid: 65534, gid: 65534 };
const OTHERS_READ_WRITE = 0o006; // inode(7)
/** 2^32 - 1 means "no change" to setresuid(2). */
const MAX_ID = 0xfffffffe;

function parseId(text: string): number | null {
  if (!/^\d{1,10}$/.test(text)) return null;
  const id = Number(text);
  return id <= MAX_ID ? id : null;
}

function unknown(option: string, what: string, name: string): never {
  throw new ConfigError(`--runas ${shown(option)}: no ${what} ${shown(name)} here`);
}

/**
 * The identity that a value of `--runas` names: `UID`, `LOGIN`, with `:GID` or `:GROUP` or without.
 * The group of a login is its main one, and that of a bare number the same number.
 *
 * @throws ConfigError when there is no such user or group
 * @example
 * ```ts
 * import { identityOf } from "./identity.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(identityOf("1000"), { uid: 1000, gid: 1000 });
 * assertEquals(identityOf("1000:65534"), { uid: 1000, gid: 65534 });
 * assertEquals(identityOf("root:7"), { uid: 0, gid: 7 });
 * ```
 */
export function identityOf(option: string): Identity {
  const [user, group] = option.split(":", 2);
  const number = parseId(user);
  const { uid, gid } = number === null
    ? findUser(user) ?? unknown(option, "user", user)
    : { uid: number, gid: number };
  if (group === undefined) return { uid, gid };
  return { uid, gid: parseId(group) ?? findGroup(group) ?? unknown(option, "group", group) };
}

/** Whether everybody may use a device, if there is one. */
function isForAll(device: string): boolean {
  try {
    return ((Deno.statSync(device).mode ?? 0) & OTHERS_READ_WRITE) === OTHERS_READ_WRITE;
  } catch {
    return true; // it is missing: what that means is said when it is opened
  }
}

/** Who we are to be. */
export interface IdentityChange {
  /** Null: root has to stay. */
  readonly identity: Identity | null;
  /** Whether nobody asked for it. */
  readonly unasked: boolean;
}

/**
 * The change of identity that is due, or null: none.
 *
 * @param runas value of `--runas`, or null
 * @param tun the tun device; null: none is needed
 * @throws ConfigError when there is no such user or group
 */
export function identityChange(
  runas: string | null,
  tun: string | null = TUN_DEVICE,
): IdentityChange | null {
  const current = currentIdentity();
  if (runas !== null) {
    const identity = identityOf(runas);
    const same = identity.uid === current.uid && identity.gid === current.gid;
    return same ? null : { identity, unasked: false };
  }
  if (current.uid !== 0 || !inInitialUserNamespace()) return null;
  return {
    identity: tun === null || isForAll(tun) ? findUser("nobody") ?? NOBODY : null,
    unasked: true,
  };
}

/**
 * Changes to the identity that is due. Nothing that only the identity before can read may be needed
 * afterwards, such as modules that are not loaded yet.
 *
 * @throws SysError when it is not permitted
 */
export function assumeIdentity(change: IdentityChange | null): void {
  if (change === null) return;
  if (change.identity === null) {
    getLogger().info(`Started as root, and stays root: nobody else may use ${TUN_DEVICE}`);
    return;
  }
  if (change.unasked) {
    getLogger().info("Started as root: running as nobody (--runas 0 stays root)");
  }
  becomeUser(change.identity);
}
