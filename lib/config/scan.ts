// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Command line to canonical arguments: the conventions of getopt_long(3) (`-m1500`, `-qf`, `--mtu=1500`,
 * `--mtu 1500`, and names cut short as long as they are clear), ended by `--` or by the first argument that is no option.
 *
 * @module
 */
import { OPTIONS, type OptionSpec } from "./table.ts";
import { ConfigError } from "./error.ts";
import { shown } from "../sys/text.ts";
import { suggest } from "./suggest.ts";

const namesOf = ({ name, aliases = [] }: OptionSpec): string[] => [name, ...aliases];
const byName = new Map(OPTIONS.flatMap((spec) => namesOf(spec).map((name) => [name, spec])));
const byShort = new Map(OPTIONS.flatMap((spec) => spec.short ? [[spec.short, spec]] : []));
const available = OPTIONS.filter((spec) => spec.set).flatMap(namesOf);

function unknown(written: string, name: string): never {
  const near = suggest(name, available);
  const advice = near ? `did you mean --${near}?` : "see --help";
  throw new ConfigError(`${shown(written)}: unknown option (${advice})`);
}

/** The option of a long name, or of the beginning of one only (getopt_long(3)). */
function longOption(written: string): OptionSpec {
  const name = written.slice(2);
  const exact = byName.get(name);
  if (exact) return exact;
  const longer = name === "" ? [] : [...byName.keys()].filter((other) => other.startsWith(name));
  const [first, ...others] = new Set(longer.map((other) => byName.get(other)!));
  if (!first) unknown(written, name);
  if (others.length === 0) return first;
  const list = longer.map((other) => `--${other}`).join(", ");
  throw new ConfigError(`${shown(written)}: not clear which of ${list} is meant`);
}

/** One occurrence: the option, how it was written, its value (flags: null). */
export interface Occurrence {
  readonly spec: OptionSpec;
  readonly written: string;
  readonly value: string | null;
}

/** What {@linkcode scanArgs} found. */
export interface Scanned {
  readonly found: Occurrence[];
  /** Everything behind the options. */
  readonly rest: string[];
}

function takesValue(spec: OptionSpec): boolean {
  return spec.value !== undefined;
}

function missing(spec: OptionSpec, written: string): never {
  throw new ConfigError(`${written}: needs a value (${spec.value})`);
}

/** `--name`, `--name=value`. @returns how many arguments were used */
function scanLong(args: readonly string[], at: number, found: Occurrence[]): number {
  const equals = args[at].indexOf("=");
  const written = equals < 0 ? args[at] : args[at].slice(0, equals);
  const spec = longOption(written);
  if (!takesValue(spec)) {
    if (equals >= 0) throw new ConfigError(`${shown(args[at])}: --${spec.name} takes no value`);
    found.push({ spec, written, value: null });
    return 1;
  }
  if (equals >= 0) {
    found.push({ spec, written, value: args[at].slice(equals + 1) });
    return 1;
  }
  if (at + 1 >= args.length) missing(spec, written);
  found.push({ spec, written, value: args[at + 1] });
  return 2;
}

/** `-q`, `-qf`, `-m1500`, `-m 1500`. @returns how many arguments were used */
function scanShort(args: readonly string[], at: number, found: Occurrence[]): number {
  const letters = [...args[at].slice(1)];
  for (let i = 0; i < letters.length; i++) {
    const written = `-${letters[i]}`;
    const spec = byShort.get(letters[i]) ?? unknown(written, args[at].slice(1));
    if (!takesValue(spec)) {
      found.push({ spec, written, value: null });
      continue;
    }
    const attached = letters.slice(i + 1).join("");
    if (attached === "" && at + 1 >= args.length) missing(spec, written);
    found.push({ spec, written, value: attached || args[at + 1] });
    return attached ? 1 : 2;
  }
  return 1;
}

/**
 * Splits a command line (without program and mode) into options and the rest.
 *
 * @throws ConfigError for an unknown option or a missing value
 * @example
 * ```ts
 * import { scanArgs } from "./scan.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const { found, rest } = scanArgs(["-qm1500", "--dns", "none", "ls", "-l"]);
 * assertEquals(found.map(({ spec, value }) => [spec.name, value]), [
 *   ["quiet", null],
 *   ["mtu", "1500"],
 *   ["dns", "none"],
 * ]);
 * assertEquals(rest, ["ls", "-l"]);
 * ```
 */
export function scanArgs(args: readonly string[]): Scanned {
  const found: Occurrence[] = [];
  let at = 0;
  while (at < args.length && args[at].startsWith("-") && args[at] !== "-") {
    if (args[at] === "--") {
      at++;
      break;
    }
    at += args[at].startsWith("--") ? scanLong(args, at, found) : scanShort(args, at, found);
  }
  return { found, rest: args.slice(at) };
}
