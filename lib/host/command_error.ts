// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A command that cannot be executed, and the exit codes that say so.
 *
 * @module
 */
import { E, SysError } from "../sys/errno.ts";

/** Exit status of a command that was not found, as sh(1) has it. */
export const COMMAND_NOT_FOUND = 127;
/** Exit status of a command that could not be executed, as sh(1) has it. */
export const COMMAND_NOT_EXECUTABLE = 126;

/** The command can't be executed. The message names it and the reason. */
export class CommandError extends Error {
  /** Name of the class. */
  override readonly name = "CommandError";
  /** 127 when there is no such command, else 126. */
  readonly exitCode: number;

  /**
   * Makes an error of what execve(2) said.
   *
   * @param command as the user wrote it, or its path
   * @param reason positive errno
   * @param hint what the user can do about it
   */
  constructor(command: string, reason: number, hint: string) {
    super(new SysError("execve", command, reason, hint).message);
    this.exitCode = reason === E.ENOENT ? COMMAND_NOT_FOUND : COMMAND_NOT_EXECUTABLE;
  }
}

/** What is wrong with a command the kernel refuses. */
export function executeHint(reason: number): string {
  if (reason === E.ENOENT) return "there is no such file, or its interpreter is missing";
  return reason === E.EACCES ? "not an executable file, or not permitted" : "";
}
