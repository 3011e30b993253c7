// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Command line to canonical arguments: the conventions of getopt_long(3) (`-m1500`, `-qf`, `--mtu=1500`,
 * `--mtu 1500`), ended by `--` or by the first argument that is no option.
 *
 * @module
 */
import { OPTIONS, type OptionSpec } from "./table.ts";
import { ConfigError, shown } from "./error.ts";

const byName = new Map(OPTIONS.map((spec) => [spec.name, spec]));
const byShort = new Map(OPTIONS.flatMap((spec) => spec.short ? [[spec.short, spec]] : []));

/** Edits (insert, delete, replace a character) between two names. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 0; i < a.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < b.length; j++) {
      const replaced = row[j] + (a[i] === b[j] ? 0 : 1);
      next.push(Math.min(replaced, row[j + 1] + 1, next[j] + 1));
    }
    row = next;
  }
  return row[b.length];
}

/** Longest unknown name worth comparing. */
const MAX_COMPARED = 40;

/** The option that was probably meant, or null. */
function nearMiss(name: string): OptionSpec | null {
  if (name.length < 2 || name.length > MAX_COMPARED) return null;
  const candidates = OPTIONS.filter((spec) => spec.set);
  const longer = candidates.filter((spec) => spec.name.startsWith(name));
  if (longer.length === 1) return longer[0];
  const scored = candidates.map((spec) => ({ spec, edits: distance(name, spec.name) }))
    .sort((a, b) => a.edits - b.edits);
  const limit = Math.max(1, Math.floor(name.length / 4));
  return scored[0].edits <= limit ? scored[0].spec : null;
}

function unknown(written: string, name: string): never {
  const near = nearMiss(name);
  const suggestion = near ? `did you mean --${near.name}?` : "see --help";
  throw new ConfigError(`${shown(written)}: unknown option (${suggestion})`);
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
  const spec = byName.get(written.slice(2)) ?? unknown(written, written.slice(2));
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
