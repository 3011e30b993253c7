// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The command line: parses it, sets up logging, runs the mode it names.
 *
 * From here: `lib/config/options.ts` has the options, `lib/pasta.ts` the start of an instance,
 * `lib/loop.ts` the event loop and with it the way of every packet.
 *
 * @module
 */
import { ConsoleHandler, FileHandler, getLogger, setup } from "@std/log";
import { helpText, VERSION } from "./lib/config/help.ts";
import { ConfigError, type Options, parseOptions } from "./lib/config/options.ts";
import { CommandError } from "./lib/host/spawn.ts";
import { runPasta } from "./lib/pasta.ts";
import { SysError } from "./lib/sys/errno.ts";
import { PortSpecError } from "./lib/forward/ports.ts";

const PROGRAM = "tubetti";

function setUpLogging(options: Options): void {
  const handler = options.logFile === null
    ? new ConsoleHandler("NOTSET")
    : new FileHandler("NOTSET", { filename: options.logFile });
  setup({
    handlers: { default: handler },
    loggers: { default: { level: options.logLevel, handlers: ["default"] } },
  });
  handler.setup();
}

/** Runs the program. @returns its exit code */
function main(args: readonly string[]): number {
  const options = parseOptions(args);
  if (options.help || options.version) {
    console.log(options.help ? helpText(options.mode) : VERSION);
    return 0;
  }
  setUpLogging(options);
  return runPasta(options);
}

/** Prints an error that has a cause outside the program as one line. @returns the exit code */
function report(error: unknown): number {
  const known = error instanceof ConfigError || error instanceof SysError ||
    error instanceof CommandError || error instanceof PortSpecError;
  if (!known) throw error;
  getLogger().error(`${PROGRAM}: ${error.message}`);
  return error instanceof CommandError ? error.exitCode : 1;
}

if (import.meta.main) {
  let code: number;
  try {
    code = main(Deno.args);
  } catch (error) {
    code = report(error);
  }
  Deno.exit(code);
}
