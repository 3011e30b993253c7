// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The command line as a plain object.
 *
 * Theory of operation: `scan.ts` finds options by the rules of getopt_long(3) and refuses unknown ones;
 * `parseArgs` of `@std/cli` collects them by name; then each option's entry in the table (`table.ts`)
 * reads its value (`values.ts`) into a field of {@linkcode Options}. A later option replaces an earlier
 * one of the same name, or of the same name and address family where there is one per family. Whatever
 * is wrong becomes one {@linkcode ConfigError} that names the option, the value and what is accepted.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { PortSpecError, readEphemeralPorts } from "../forward/ports.ts";
import { formatAddress, sameAddress } from "../wire/address.ts";
import { ConfigError, shown } from "./error.ts";
import { defaultOptions, type Options } from "./model.ts";
import { type Occurrence, scanArgs } from "./scan.ts";
import { OPTIONS, type OptionSpec } from "./table.ts";
import { ValueError } from "./values.ts";

export { ConfigError } from "./error.ts";
export type { FamilyOptions, Options } from "./model.ts";

const USAGE = "usage: tubetti pasta [OPTION]... [--] [COMMAND [ARG]...]";

/** Refuses what the mode does not have and what is not there yet. */
function checkMode(found: readonly Occurrence[], mode: string): void {
  for (const { spec, written } of found) {
    if (!spec.set) throw new ConfigError(`${written}: not available yet`);
    if (spec.mode && spec.mode !== mode) {
      throw new ConfigError(`${written}: only for ${spec.mode}, not for ${mode}`);
    }
  }
}

/** Pairs of options that contradict each other. */
const EXCLUSIVE: readonly (readonly [string, string])[] = [
  ["ipv4-only", "ipv6-only"],
  ["quiet", "debug"],
  ["quiet", "trace"],
  ["dhcp-dns", "no-dhcp-dns"],
  ["dhcp-search", "no-dhcp-search"],
];

function checkExclusive(found: readonly Occurrence[]): void {
  const writtenAs = (name: string) => found.find(({ spec }) => spec.name === name)?.written;
  for (const [one, other] of EXCLUSIVE) {
    const a = writtenAs(one), b = writtenAs(other);
    if (a && b) throw new ConfigError(`${a} and ${b}: only one of them can be given`);
  }
}

/** Lets one occurrence take effect. */
function apply(options: Options, spec: OptionSpec, written: string, text: string): void {
  try {
    spec.set!(options, text);
  } catch (error) {
    if (!(error instanceof ValueError || error instanceof PortSpecError)) throw error;
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

const isFlag = (spec: OptionSpec): boolean => spec.value === undefined;
const names = (specs: readonly OptionSpec[]): string[] => specs.map((spec) => spec.name);
const FLAGS = names(OPTIONS.filter(isFlag));
const WITH_VALUE = names(OPTIONS.filter((spec) => !isFlag(spec)));
const REPEATED = names(OPTIONS.filter((spec) => spec.repeat));

/** Values of one option as `parseArgs` collected them: none, one, or many; `[""]` for a flag. */
function collected(value: unknown): string[] {
  if (value === true) return [""];
  if (typeof value === "string") return [value];
  return Array.isArray(value) ? value : [];
}

/** Options of one mode, from the arguments behind the mode's name. */
function parseMode(
  mode: "pasta" | "passt",
  args: readonly string[],
  ephemeralPorts: readonly [number, number],
): Options {
  const { found, rest } = scanArgs(args);
  const options = { ...defaultOptions(mode), ephemeralPorts };
  const given = (name: string) => found.some(({ spec }) => spec.name === name);
  options.help = given("help");
  options.version = given("version");
  if (options.help || options.version) return options;
  checkMode(found, mode);
  checkExclusive(found);
  const parsed = parseArgs(
    found.map(({ spec, value }) => value === null ? `--${spec.name}` : `--${spec.name}=${value}`),
    { boolean: FLAGS, string: WITH_VALUE, collect: REPEATED },
  );
  for (const spec of OPTIONS) {
    const texts = collected(parsed[spec.name]);
    const written = found.findLast((occurrence) => occurrence.spec === spec)?.written ?? "";
    for (const text of texts) apply(options, spec, written, text);
  }
  applyNetmask(options, found);
  checkGateway(options);
  options.command = rest;
  return options;
}

function checkCommand(options: Options): void {
  const [first, ...others] = options.command;
  if (first === undefined) return;
  if (options.mode === "passt") {
    throw new ConfigError(`${shown(first)}: passt takes no command`);
  }
  if (others.length === 0 && /^\d+$/.test(first)) {
    throw new ConfigError(
      `${shown(first)}: joining the namespaces of a process is not available yet`,
    );
  }
  if (first === "") throw new ConfigError(`"": not a command`);
}

/**
 * Parses the arguments behind the program's name.
 *
 * @param args `pasta` or `passt`, options, command; `--help` and `--version` also without a mode
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
 * assertThrows(() => parseOptions(["pasta", "-m", "70000"]), ConfigError, "-m 70000: not an MTU");
 * ```
 */
export function parseOptions(
  args: readonly string[],
  ephemeralPorts: readonly [number, number] = readEphemeralPorts(),
): Options {
  const [mode, ...rest] = args;
  if (mode !== "pasta" && mode !== "passt") {
    const bare = mode === undefined || mode.startsWith("-");
    const options = bare ? parseMode("pasta", args, ephemeralPorts) : null;
    if (options?.help || options?.version) return options;
    throw new ConfigError(`${bare ? "no mode given" : `${shown(mode)}: not a mode`} (${USAGE})`);
  }
  const options = parseMode(mode, rest, ephemeralPorts);
  if (options.help || options.version) return options;
  checkCommand(options);
  if (mode === "passt") throw new ConfigError("passt: this mode is not available yet (pasta is)");
  return options;
}
