// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The error for everything a user can set right: options, and a host that does not have what they
 * name.
 *
 * @module
 */

/** A configuration that cannot be used; the message is one line, without the program's name. */
export class ConfigError extends Error {
  /** Name of the class. */
  override readonly name = "ConfigError";
  /** Name of the kernel's reason, such as `EADDRINUSE`, where it was the kernel that refused. */
  readonly code?: string;

  /**
   * Makes an error.
   *
   * @param message one line
   * @param code see {@linkcode ConfigError.code}
   */
  constructor(message: string, code?: string) {
    super(message);
    if (code !== undefined) this.code = code;
  }
}
