// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Changes its identity as the program does with `--runas ARGUMENT`, or without an argument, and tells
 * who it then is (TUN: the tun device, by default one that everybody may use): the identity of every thread, and whether it can look into its own /proc.
 *
 * @module
 */
import { ConfigError } from "../../lib/config/error.ts";
import { assumeIdentity, identityChange } from "../../lib/host/identity.ts";
import { SysError } from "../../lib/sys/errno.ts";

/** Identities, groups and effective capabilities of all threads, without repetition. */
function threads(): { count: number; identities: string[] } {
  const tasks = [...Deno.readDirSync("/proc/self/task")].map(({ name }) => name);
  const identities = tasks.map((task) => {
    const status = Deno.readTextFileSync(`/proc/self/task/${task}/status`);
    return [...status.matchAll(/^(?:Uid|Gid|Groups|CapEff|CapPrm):.*$/gm)]
      .map(([line]) => line.replace(/\s+/g, " ").trim()).join(", ");
  });
  return { count: tasks.length, identities: [...new Set(identities)] };
}

/** Whether we are the owner of our files in /proc: user namespaces are set up through them. */
function ownsProc(): boolean {
  try {
    Deno.readLinkSync("/proc/self/ns/net");
    return Deno.statSync("/proc/self/uid_map").uid === Deno.uid();
  } catch {
    return false;
  }
}

try {
  assumeIdentity(identityChange(Deno.args[0] ?? null, Deno.env.get("TUN") ?? "/dev/null"));
  console.log(JSON.stringify({ ...threads(), ownsProc: ownsProc() }));
} catch (error) {
  if (!(error instanceof SysError || error instanceof ConfigError)) throw error;
  console.error(error.message);
  Deno.exit(1);
}
