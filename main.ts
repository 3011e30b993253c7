// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The command line: parses it, goes to the background if that is asked for, and starts an instance.
 *
 * From here: `lib/config/options.ts` has the options, `lib/start.ts` the start of the process that stays,
 * `lib/pasta.ts` that of an instance, `lib/loop.ts` the event loop and with it the way of every packet.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { invokedMode } from "./lib/config/name.ts";
import { ConfigError, parseOptions } from "./lib/config/options.ts";
import { PortSpecError } from "./lib/forward/ports.ts";
import { Background, needsBackground, runInBackground } from "./lib/host/background.ts";
import { CommandError } from "./lib/host/spawn.ts";
import { SysError } from "./lib/sys/errno.ts";

const PROGRAM = "tubetti";

/** Runs the program. @returns its exit code */
async function main(args: readonly string[]): Promise<number> {
  const named = invokedMode();
  const options = parseOptions(args, named);
  if (options.help || options.version || options.completion) {
    const { answer } = await import("./lib/config/answer.ts"); // who runs an instance does without
    console.log(answer(options, named));
    return 0;
  }
  if (options.printCapabilities) {
    const { capabilities } = await import("./lib/link/vhost/control.ts");
    console.log(capabilities());
    return 0;
  }
  const background = Background.take();
  if (!background && needsBackground(options)) return runInBackground();
  const { start } = await import("./lib/start.ts"); // the process that only waits does without
  return start(options, background);
}

/** Prints an error that has a cause outside the program as one line. @returns the exit code */
function report(error: unknown): number {
  const known = error instanceof ConfigError || error instanceof SysError ||
    error instanceof CommandError || error instanceof PortSpecError ||
    error instanceof Error && "code" in error; // the runtime's own, of a system call
  if (!known) throw error;
  getLogger().critical(`${PROGRAM}: ${error.message}`);
  return error instanceof CommandError ? error.exitCode : 1;
}

if (import.meta.main) {
  let code: number;
  try {
    code = await main(Deno.args);
  } catch (error) {
    code = report(error);
  }
  Deno.exit(code);
}
