// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What `@std/cli` resolves to: `parseArgs` with the options that are used (`string`, `boolean`,
 * `collect`, `stopEarly`, `"--"`). README says how to switch to the JSR package. (`node:util` has such a
 * function, too, and takes 10 ms to load: a third of the time in which the runtime starts.)
 *
 * @module
 */
/** Options of {@linkcode parseArgs}, a subset of those of `@std/cli`. */
export interface ParseOptions {
  /** Names that take no value; absent ones come out as false. */
  boolean?: readonly string[];
  /** Names whose value is kept as text. */
  string?: readonly string[];
  /** Names that may be repeated; all values come out as an array, which is there even if empty. */
  collect?: readonly string[];
  /** Whether everything from the first argument that is no option on goes to `_`. */
  stopEarly?: boolean;
  /** Whether what follows `--` goes to a property of that name instead of `_`. */
  "--"?: boolean;
}

/** The result: a property per option, `_` for the rest. */
export interface Args {
  [name: string]: unknown;
  _: string[];
  "--"?: string[];
}

/** Index of the first argument that is neither an option nor an option's value. */
function firstNonOption(args: readonly string[], end: number, options: ParseOptions): number {
  for (let i = 0; i < end; i++) {
    if (!args[i].startsWith("-")) return i;
    const name = /^--([^=]+)$/.exec(args[i])?.[1];
    if (name !== undefined && options.string?.includes(name)) i++; // its value is the next argument
  }
  return end;
}

/** An option's name and, behind `=`, its value; or letters behind one dash. */
const OPTION = /^(?:--([^=]+)(?:=([^]*))?|-([^-][^]*))$/;

/** Takes options from `args` into `result`. @returns the other arguments */
function takeOptions(args: readonly string[], options: ParseOptions, result: Args): string[] {
  const others: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const [found, name, value, letters] = OPTION.exec(args[i]) ?? [];
    if (found === undefined) others.push(args[i]);
    else if (letters !== undefined) { for (const letter of letters) result[letter] = true; }
    else if (!options.string?.includes(name)) result[name] = value ?? true;
    else {
      const text = value ?? args[++i] ?? "";
      const list = result[name];
      result[name] = Array.isArray(list) ? [...list, text] : text;
    }
  }
  return others;
}

/**
 * Parses command line arguments: `--name`, `--name value`, `--name=value`.
 *
 * @example
 * ```ts
 * import { parseArgs } from "./cli.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const args = parseArgs(["--quiet", "--dns=192.0.2.1", "--dns", "none", "ls", "--all"], {
 *   boolean: ["quiet", "debug"],
 *   string: ["dns"],
 *   collect: ["dns"],
 *   stopEarly: true,
 * });
 * assertEquals(args.quiet, true);
 * assertEquals(args.debug, false);
 * assertEquals(args.dns, ["192.0.2.1", "none"]);
 * assertEquals(args._, ["ls", "--all"]);
 * ```
 */
export function parseArgs(args: readonly string[], options: ParseOptions = {}): Args {
  const dashes = args.indexOf("--");
  const behind = dashes < 0 ? args.length : dashes;
  const end = options.stopEarly ? firstNonOption(args, behind, options) : behind;
  // stopped early, "--" belongs to what is not looked at
  const rest = end < behind ? args.slice(end) : [];
  const after = end < behind ? [] : args.slice(behind + 1);
  const result: Args = { _: [] };
  for (const name of options.boolean ?? []) result[name] = false;
  for (const name of options.collect ?? []) result[name] = [];
  const others = takeOptions(args.slice(0, end), options, result);
  result._ = [...others, ...rest, ...(options["--"] ? [] : after)];
  if (options["--"]) result["--"] = after;
  return result;
}
