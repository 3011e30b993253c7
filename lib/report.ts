// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * How the program ends when it cannot do what it is told: one line, and an exit code.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { ConfigError } from "./config/error.ts";
import { PortSpecError } from "./forward/ports.ts";
import { CommandError } from "./host/command_error.ts";
import { SysError } from "./sys/errno.ts";

const PROGRAM = "tubetti";

/**
 * Prints an error that has a cause outside the program as one line.
 *
 * @returns the exit code
 * @throws the error itself where the cause is in the program
 */
export function report(error: unknown): number {
  const known = error instanceof ConfigError || error instanceof SysError ||
    error instanceof CommandError || error instanceof PortSpecError ||
    error instanceof Error && "code" in error; // the runtime's own, of a system call
  if (!known) throw error;
  getLogger().critical(`${PROGRAM}: ${error.message}`);
  return error instanceof CommandError ? error.exitCode : 1;
}
