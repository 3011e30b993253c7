// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The error for everything a user can set right: options, and a host that does not have what they
 * name.
 *
 * @module
 */

/** A configuration that cannot be used; the message is one line, without the program's name. */
export class ConfigError extends Error {
  override readonly name = "ConfigError";
}
