// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The command line as a plain object.
 *
 * Theory of operation: `scan.ts` finds options by the rules of getopt_long(3) and refuses unknown ones;
 * `parseArgs` of `@std/cli` collects them by name; then, in their order, each option's entry in the table
 * (`table.ts`) reads its value (`values.ts`) into a field of {@linkcode Options}. The last one counts:
 * a later option replaces an earlier one of the same name, or of the same name and address family where
 * there is one per family, and one that says the opposite. So a script's options can be appended to.
 * Whatever is wrong becomes one {@linkcode ConfigError} that names the option, the value and what is accepted.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { PolicyRuleError } from "../forward/policy_rules.ts";
import { PortSpecError, readEphemeralPorts } from "../forward/ports.ts";
import { formatAddress, sameAddress } from "../wire/address.ts";
import { ConfigError } from "./error.ts";
import { shown } from "../sys/text.ts";
import { defaultOptions, type Options, SHELLS } from "./model.ts";
import { type Occurrence, scanArgs } from "./scan.ts";
import type { Mode } from "./spec.ts";
import { suggest } from "./suggest.ts";
import { OPTIONS, type OptionSpec } from "./table.ts";
import { ValueError } from "./values.ts";

export { ConfigError } from "./error.ts";
export type { FamilyOptions, Options } from "./model.ts";

const USAGE =
  "usage: tubetti pasta [OPTION]... [--] [COMMAND [ARG]...], or tubetti passt [OPTION]...";
const MODES: readonly string[] = ["pasta", "passt"];
const COMPLETION = "completion";

const names = (specs: readonly OptionSpec[]): string[] => specs.map((spec) => spec.name);
const FLAGS = names(OPTIONS.filter((spec) => spec.value === undefined));
const WITH_VALUE = names(OPTIONS.filter((spec) => spec.value !== undefined));
const REPEATED = names(OPTIONS.filter((spec) => spec.repeat));

/** Refuses what the mode does not have, what is not there yet, and what lacks another option. */
function checkFound(found: readonly Occurrence[], mode: Mode): void {
  for (const { spec, written } of found) {
    if (spec.mode && spec.mode !== mode) {
      throw new ConfigError(`${written}: only for ${spec.mode}, not for ${mode}`);
    }
    if (!spec.set) throw new ConfigError(`${written}: not available yet`);
    if (spec.needs && !found.some((other) => other.spec.name === spec.needs)) {
      throw new ConfigError(`${written}: needs --${spec.needs}`);
    }
  }
}

/** Whether a value was refused, with words for the user. */
function isRefusal(error: unknown): error is Error {
  return error instanceof ValueError || error instanceof PortSpecError ||
    error instanceof PolicyRuleError;
}

/** Lets one occurrence take effect. */
function apply(options: Options, spec: OptionSpec, written: string, text: string): void {
  try {
    spec.set!(options, text);
  } catch (error) {
    if (!isRefusal(error)) throw error;
    throw new ConfigError(`${written} ${shown(text)}: ${error.message}`);
  }
}

/** -n completes -a, whichever came first. */
function applyNetmask(options: Options, found: readonly Occurrence[]): void {
  if (options.netmask === null) return;
  if (options.v4.prefixLength !== null) {
    const { written, value } = found.findLast(({ spec }) => spec.name === "netmask")!;
    throw new ConfigError(`${written} ${shown(value!)}: the length was already given with -a`);
  }
  options.v4.prefixLength = options.netmask;
}

/** The guest and its gateway are two. */
function checkGateway(options: Options): void {
  for (const { address, gateway } of [options.v4, options.v6]) {
    if (!address || !gateway || !sameAddress(address, 0, gateway, 0)) continue;
    throw new ConfigError(`-g ${formatAddress(gateway)}: this is the guest's own address (-a)`);
  }
}

/** Values of one option as `parseArgs` collected them: none, one, or many; `[""]` for a flag. */
function collected(value: unknown): string[] {
  if (value === true) return [""];
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value : [];
}

/** Lets what was found take effect in its order, and the last one only where one replaces another. */
function applyAll(options: Options, found: readonly Occurrence[]): void {
  const canonical = found.map(({ spec: { name }, value }) =>
    value === null ? `--${name}` : `--${name}=${value}`
  );
  const parsed = parseArgs(canonical, {
    boolean: FLAGS,
    string: WITH_VALUE,
    collect: REPEATED,
  });
  const waiting = new Map(OPTIONS.map((spec) => [spec, collected(parsed[spec.name])]));
  found.forEach(({ spec, written }, at) => {
    const replaced = !spec.repeat && found.slice(at + 1).some((later) => later.spec === spec);
    if (!replaced) apply(options, spec, written, waiting.get(spec)!.shift()!);
  });
}

/** Options of one mode, from the arguments behind the mode's name. */
function parseMode(
  mode: Mode,
  args: readonly string[],
  ephemeralPorts: readonly [number, number],
): Options {
  const { found, rest } = scanArgs(args);
  const options = { ...defaultOptions(mode), ephemeralPorts };
  const given = (name: string) => found.some(({ spec }) => spec.name === name);
  options.help = given("help");
  options.version = given("version");
  if (options.help || options.version) return options;
  checkFound(found, mode);
  applyAll(options, found);
  applyNetmask(options, found);
  checkGateway(options);
  options.command = rest;
  return options;
}

/** Largest process ID: PID_MAX_LIMIT of linux/threads.h. */
const MAX_PID = 1 << 22;

/** Checks the words behind the options: a command, or the process whose namespaces are meant. */
function takeTarget(options: Options): void {
  const [first, ...others] = options.command;
  if (first === undefined) return;
  if (options.mode === "passt") {
    throw new ConfigError(`${shown(first)}: passt takes no command`);
  }
  if (options.target.kind === "path") {
    throw new ConfigError(`${shown(first)}: --netns takes neither PID nor command`);
  }
  if (others.length === 0 && /^\d+$/.test(first)) {
    const pid = Number(first);
    if (pid < 1 || pid > MAX_PID) throw new ConfigError(`${shown(first)}: not a process ID`);
    options.target = { kind: "pid", pid };
    options.command = [];
    return;
  }
  if (first === "") throw new ConfigError(`"": not a command`);
}

/** `completion SHELL` */
function parseCompletion([shell, ...others]: readonly string[], options: Options): Options {
  const known = SHELLS.find((name) => name === shell);
  if (!known || others.length > 0) {
    throw new ConfigError(`usage: tubetti ${COMPLETION} ${SHELLS.join("|")}`);
  }
  options.completion = known;
  return options;
}

function noMode(word: string | undefined): never {
  if (word === undefined || word.startsWith("-")) throw new ConfigError(`no mode given (${USAGE})`);
  const near = suggest(word, [...MODES, COMPLETION]);
  throw new ConfigError(`${shown(word)}: not a mode (${near ? `did you mean ${near}?` : USAGE})`);
}

/**
 * Parses the arguments behind the program's name.
 *
 * @param args `pasta` or `passt`, options, command; or `completion` and a shell; `--help` and
 *   `--version` also without a mode
 * @param named the mode that the program's name stands for: `args` do not begin with one then
 * @param ephemeralPorts first and last port of the host that `all` and `auto` leave out; read from the
 *   system by default
 * @throws ConfigError for anything that cannot be used
 * @example
 * ```ts
 * import { ConfigError, parseOptions } from "./options.ts";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * const options = parseOptions(["pasta", "--config-net", "-m", "1500", "--", "ls", "-l"]);
 * assertEquals([options.configNet, options.mtu], [true, 1500]);
 * assertEquals(options.command, ["ls", "-l"]);
 * assertEquals(parseOptions(["-m", "1500"], "pasta").mtu, 1500);
 * assertThrows(() => parseOptions(["pasta", "-m", "70000"]), ConfigError, "-m 70000: not an MTU");
 * ```
 */
export function parseOptions(
  args: readonly string[],
  named: Mode | null = null,
  ephemeralPorts: readonly [number, number] = readEphemeralPorts(),
): Options {
  const [first, ...others] = args;
  const mode = named ?? (first === "pasta" || first === "passt" ? first : null);
  if (mode === null) {
    if (first === COMPLETION) return parseCompletion(others, defaultOptions("pasta"));
    const options = first?.startsWith("-") ? parseMode("pasta", args, ephemeralPorts) : null;
    return options?.help || options?.version ? options : noMode(first);
  }
  const options = parseMode(mode, named ? args : others, ephemeralPorts);
  if (options.help || options.version) return options;
  takeTarget(options);
  return options;
}
