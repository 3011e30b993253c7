// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The start of the process that stays: from options to an exit code.
 *
 * Theory of operation: the order matters. What the caller left open is closed before anything of ours
 * is opened. The log and the process number's file, which may need root's rights, are opened before those are given up, and everything that
 * runs is loaded by then, because root's folders may hold it. Only then are namespaces made
 * (`pasta.ts`).
 *
 * @module
 */
import type { Options } from "./config/options.ts";
import { type Background, foregroundReadiness } from "./host/background.ts";
import { closeInherited, tightenUmask } from "./host/hygiene.ts";
import { assumeIdentity, identityChange } from "./host/identity.ts";
import { finishLogging, setupLogging, switchToBackground } from "./host/logging.ts";
import { PidFile } from "./host/pid_file.ts";
import type { Hypervisor } from "./link/hypervisor.ts";

type Passt = typeof import("./passt.ts");
type Pasta = typeof import("./pasta.ts");

/** A literal `import()` of either would have the runtime read both. */
const PASST = "./passt.ts", PASTA = "./pasta.ts";

/**
 * Runs an instance in this process, to its end.
 *
 * @param background what the process that waits for us has given us; null in the foreground
 * @returns the exit code
 * @throws SysError, ConfigError or CommandError when it cannot be started; nothing is left behind
 */
export async function start(options: Options, background: Background | null): Promise<number> {
  const passt: Passt | null = options.mode === "passt" ? await import(PASST) : null;
  const pasta: Pasta | null = passt ? null : await import(PASTA);
  closeInherited(options.fd === null ? [] : [options.fd]);
  tightenUmask();
  setupLogging(options);
  const change = passt ? identityChange(options.runas, null) : identityChange(options.runas);
  const pidFile = options.pidFile === null ? null : PidFile.open(options.pidFile);
  let hypervisor: Hypervisor | null = null;
  try {
    hypervisor = passt?.openHypervisor(options, change?.identity ?? null) ?? null;
    assumeIdentity(change);
    const readiness = background?.readiness(pidFile, switchToBackground) ??
      foregroundReadiness(pidFile);
    if (passt) return passt.runPasst(options, hypervisor!, readiness);
    return pasta!.runPasta(options, readiness);
  } finally {
    hypervisor?.close();
    pidFile?.close();
    finishLogging();
  }
}
