// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Errors on their way from an instance to its controller: as records there, as errors of the same classes
 * here.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import { PolicyRuleError } from "../forward/policy_rules.ts";
import { PortSpecError } from "../forward/port_spec.ts";
import { COMMAND_NOT_EXECUTABLE, CommandError } from "../host/command_error.ts";
import { errnoName, SysError } from "../sys/errno.ts";
import type { ErrorRecord } from "./protocol.ts";

/** Prototypes of the classes that are made again, by name. Who asks in a wrong way has set something wrong. */
const PROTOTYPES: ReadonlyMap<string, Error> = new Map<string, Error>([
  ["CommandError", CommandError.prototype],
  ["ConfigError", ConfigError.prototype],
  ["PolicyRuleError", PolicyRuleError.prototype],
  ["PortSpecError", PortSpecError.prototype],
  ["RequestError", ConfigError.prototype],
  ["SysError", SysError.prototype],
]);

/**
 * What is sent of an error.
 *
 * @example
 * ```ts
 * import { errorRecord } from "./error_record.ts";
 * import { SysError } from "../sys/errno.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const record = errorRecord(new SysError("bind", "0.0.0.0:80", 13));
 * assertEquals(record, {
 *   name: "SysError",
 *   message: "bind 0.0.0.0:80: EACCES",
 *   call: "bind",
 *   errno: 13,
 * });
 * ```
 */
export function errorRecord(error: unknown): ErrorRecord {
  if (!(error instanceof Error)) return { name: "Error", message: String(error) };
  const { name, message } = error;
  if (error instanceof SysError) return { name, message, call: error.call, errno: error.errno };
  if (error instanceof CommandError) return { name, message, exitCode: error.exitCode };
  if (error instanceof ConfigError && error.code !== undefined) {
    return { name, message, code: error.code };
  }
  return { name, message };
}

/** Fields that a class has beside name and message. */
function fields({ name, call = "", errno = 0, code, exitCode }: ErrorRecord): object {
  if (name === "SysError") return { call, errno, code: errnoName(errno) };
  if (name === "CommandError") return { exitCode: exitCode ?? COMMAND_NOT_EXECUTABLE };
  return name === "ConfigError" && code !== undefined ? { code } : {};
}

/**
 * The error that a record is about, of its own class where that is one of ours.
 *
 * @example
 * ```ts
 * import { reviveError } from "./error_record.ts";
 * import { SysError } from "../sys/errno.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const error = reviveError({ name: "SysError", message: "bind: EACCES", call: "bind", errno: 13 });
 * assert(error instanceof SysError);
 * assertEquals([error.message, error.code], ["bind: EACCES", "EACCES"]);
 * ```
 */
export function reviveError(record: ErrorRecord): Error {
  const error = new Error(record.message);
  const prototype = PROTOTYPES.get(record.name);
  if (prototype) Object.setPrototypeOf(error, prototype);
  const name = prototype ? prototype.constructor.name : record.name;
  Object.defineProperty(error, "name", { value: name, enumerable: false });
  Object.assign(error, fields(record));
  Error.captureStackTrace(error, reviveError); // whose first line has the name
  return error;
}
