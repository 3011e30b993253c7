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
import { shown } from "./lib/config/error.ts";
import { ConfigError, type Options, parseOptions } from "./lib/config/options.ts";
import { CommandError } from "./lib/host/spawn.ts";
import { runPasta } from "./lib/pasta.ts";
import { SysError } from "./lib/sys/errno.ts";
import { PortSpecError } from "./lib/forward/ports.ts";

const PROGRAM = "tubetti";

/** The log file of -l, open. @throws ConfigError */
function openLogFile(filename: string): FileHandler {
  const handler = new FileHandler("NOTSET", { filename });
  try {
    handler.setup();
  } catch (error) {
    const reason = error instanceof Error && "code" in error ? error.code : error;
    throw new ConfigError(`-l ${shown(filename)}: cannot open the log file: ${reason}`);
  }
  return handler;
}

/** Where messages go: with -l to the file, and what ends the program to standard error too. */
function setUpLogging(options: Options): void {
  const handlers = options.logFile === null
    ? { console: new ConsoleHandler("NOTSET") }
    : { file: openLogFile(options.logFile), console: new ConsoleHandler("CRITICAL") };
  setup({
    handlers,
    loggers: { default: { level: options.logLevel, handlers: Object.keys(handlers) } },
  });
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
  getLogger().critical(`${PROGRAM}: ${error.message}`);
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
