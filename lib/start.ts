// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The start of the process that stays: from options to an exit code.
 *
 * Theory of operation: the order matters. The log and the process number's file are opened first: they may
 * be descriptors of the caller (/dev/fd/N), which are closed next, and may need root's rights, which are
 * given up after that. Everything that runs is loaded by then, because root's folders may hold it. Only
 * then are namespaces made (`pasta.ts`). Once all is ready, a process that was root before lets nobody
 * look into it: other processes of its new user could else read what only root may.
 *
 * @module
 */
import { ConfigError } from "./config/error.ts";
import type { Options } from "./config/options.ts";
import type { Decider } from "./forward/decider.ts";
import { type Background, foregroundReadiness, type Readiness } from "./host/background.ts";
import { CommandError } from "./host/command_error.ts";
import { closeInherited, tightenUmask } from "./host/hygiene.ts";
import { assumeIdentity, identityChange } from "./host/identity.ts";
import { finishLogging, setupLogging, switchToBackground } from "./host/logging.ts";
import { PidFile } from "./host/pid_file.ts";
import type { Surroundings } from "./instance.ts";
import type { Hypervisor } from "./link/hypervisor.ts";
import { hideMemory } from "./sys/credentials.ts";
import { raiseDescriptorLimit } from "./sys/rlimit.ts";
import { installSignals, SIG } from "./sys/signal.ts";

type Control = typeof import("./control/open.ts");
type PolicyFile = typeof import("./host/policy_file.ts");
type Passt = typeof import("./passt.ts");
type Pasta = typeof import("./pasta.ts");

/** A literal `import()` of one would have the runtime read them all. */
const PASST = "./passt.ts", PASTA = "./pasta.ts", CONTROL = "./control/open.ts";
const POLICY_FILE = "./host/policy_file.ts";

/** Keeps other processes of our user out once all is ready; until then we need our own files in /proc. */
function thenHidden(readiness: Readiness): Readiness {
  return {
    ready() {
      readiness.ready();
      hideMemory();
    },
  };
}

/**
 * Runs an instance in this process, to its end.
 *
 * @param background what the process that waits for us has given us; null in the foreground
 * @returns the exit code
 * @throws SysError, ConfigError or CommandError when it cannot be started; nothing is left behind
 */
export async function start(options: Options, background: Background | null): Promise<number> {
  const alone = options.control === null && options.flowTable === null;
  const opener: Control | null = alone ? null : await import(CONTROL);
  const control = opener?.openControl(options) ?? null;
  try {
    const sharedTable = opener?.openTable(options) ?? null;
    const code = await startWith(options, background, { control, sharedTable });
    control?.finish(opener!.closeNetwork);
    return code;
  } catch (error) {
    control?.failed(error);
    throw error;
  } finally {
    control?.close();
  }
}

/** Who decides on the guest's connections that no rule is about; null: nobody. */
async function openDecider(
  { policy }: Options,
  control: Surroundings["control"],
): Promise<Decider | null> {
  if (policy === null) return null;
  if (policy !== "-") {
    const { loadPolicy }: PolicyFile = await import(POLICY_FILE);
    return loadPolicy(policy);
  }
  if (control === null) throw new ConfigError("--policy -: needs --control");
  return control.decider;
}

/** As {@linkcode start}, with what the instance shares with its controller. */
async function startWith(
  options: Options,
  background: Background | null,
  shared: Pick<Surroundings, "control" | "sharedTable">,
): Promise<number> {
  const passt: Passt | null = options.mode === "passt" ? await import(PASST) : null;
  const pasta: Pasta | null = passt ? null : await import(PASTA);
  const signals = installSignals([SIG.HUP, SIG.INT, SIG.QUIT, SIG.TERM]); // before there is a file
  tightenUmask();
  setupLogging(options);
  const change = passt ? identityChange(options.runas, null) : identityChange(options.runas);
  const pidFile = options.pidFile === null ? null : PidFile.open(options.pidFile);
  let hypervisor: Hypervisor | null = null;
  try {
    closeInherited(options.fd === null ? [] : [options.fd]);
    const decider = await openDecider(options, shared.control);
    hypervisor = passt?.openHypervisor(options, change?.identity ?? null) ?? null;
    assumeIdentity(change);
    const told = background?.readiness(pidFile, switchToBackground) ??
      foregroundReadiness(pidFile);
    const readiness = change?.identity ? thenHidden(told) : told;
    const started = { ...shared, decider, signals, readiness, descriptors: raiseDescriptorLimit() };
    if (passt) return passt.runPasst(options, hypervisor!, started);
    return pasta!.runPasta(options, started);
  } catch (error) {
    if (error instanceof CommandError) pidFile?.undo();
    throw error;
  } finally {
    hypervisor?.close();
    pidFile?.close();
    signals.restore();
    finishLogging();
  }
}
