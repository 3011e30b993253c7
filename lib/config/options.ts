// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The command line as a plain object.
 *
 * Theory of operation: `scan.ts` finds options by the rules of getopt_long(3) and refuses unknown ones;
 * `parseArgs` of `@std/cli` collects them by name; then each value goes through its kind's parser
 * (`values.ts`) into a field of {@linkcode Options}. A later option replaces an earlier one of the same
 * name, or of the same name and address family where there is one per family. Whatever is wrong becomes
 * one {@linkcode ConfigError} that names the option, the value and what is accepted.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import type { LevelName } from "@std/log";
import { parsePortSpec, PortSpecError } from "../forward/ports.ts";
import { type Address, isV4 } from "../wire/address.ts";
import { ConfigError } from "./error.ts";
import { type Occurrence, scanArgs } from "./scan.ts";
import { OPTIONS, type OptionSpec } from "./table.ts";
import * as values from "./values.ts";

export { ConfigError } from "./error.ts";

/** What the options say about one address family; null: not given. */
export interface FamilyOptions {
  /** False with -6 (IPv4) or -4 (IPv6). */
  enabled: boolean;
  /** -a */
  address: Address | null;
  /** Length from -a or -n, 1–32 or 1–128. */
  prefixLength: number | null;
  /** -g */
  gateway: Address | null;
  /** -o */
  outboundAddress: Address | null;
  /** --outbound-if4/6 */
  outboundInterface: string | null;
  /** -D, addresses of this family. */
  dns: Address[];
  dnsForward: Address | null;
  dnsHost: Address | null;
  mapHostLoopback: Address | null;
  mapGuestAddr: Address | null;
}

/** The command line. */
export interface Options {
  mode: "pasta" | "passt";
  help: boolean;
  version: boolean;
  /** Command and arguments to run; empty: the user's shell. */
  command: string[];
  /** From -q, -d, --trace. */
  logLevel: LevelName;
  logFile: string | null;
  foreground: boolean;
  pcap: string | null;
  configNet: boolean;
  /** -n, 1–32; also in `v4.prefixLength`. */
  netmask: number | null;
  /** -i */
  interface: string | null;
  /** -I */
  nsInterface: string | null;
  /** --ns-mac-addr, 6 bytes */
  nsMac: Uint8Array<ArrayBuffer> | null;
  /** -M, 6 bytes */
  ourMac: Uint8Array<ArrayBuffer> | null;
  /** -m: 1280–65520; 0: set and announce none; null: not given. */
  mtu: number | null;
  /** False with --no-map-gw or --map-host-loopback none. */
  mapGateway: boolean;
  v4: FamilyOptions;
  v6: FamilyOptions;
  /** Whether -D was given: /etc/resolv.conf does not count then. */
  dnsGiven: boolean;
  /** -S; null: from /etc/resolv.conf. */
  search: string[] | null;
  /** Whether resolvers and search domains are handed to the guest. */
  announceDns: boolean;
  announceSearch: boolean;
  hostname: string;
  fqdn: string;
  /** -t, -u, -T, -U as written, for `parsePortSpec`. */
  tcpPorts: string[];
  udpPorts: string[];
  tcpNs: string[];
  udpNs: string[];
  /** False with --no-…. */
  tcp: boolean;
  udp: boolean;
  icmp: boolean;
  dhcp: boolean;
  dhcpv6: boolean;
  ndp: boolean;
  ra: boolean;
}

function familyDefaults(): FamilyOptions {
  return {
    enabled: true,
    address: null,
    prefixLength: null,
    gateway: null,
    outboundAddress: null,
    outboundInterface: null,
    dns: [],
    dnsForward: null,
    dnsHost: null,
    mapHostLoopback: null,
    mapGuestAddr: null,
  };
}

function defaults(mode: "pasta" | "passt"): Options {
  return {
    mode,
    help: false,
    version: false,
    command: [],
    logLevel: "INFO",
    logFile: null,
    foreground: false,
    pcap: null,
    configNet: false,
    netmask: null,
    interface: null,
    nsInterface: null,
    nsMac: null,
    ourMac: null,
    mtu: null,
    mapGateway: true,
    v4: familyDefaults(),
    v6: familyDefaults(),
    dnsGiven: false,
    search: null,
    announceDns: mode === "passt",
    announceSearch: mode === "passt",
    hostname: "",
    fqdn: "",
    tcpPorts: [],
    udpPorts: [],
    tcpNs: [],
    udpNs: [],
    tcp: true,
    udp: true,
    icmp: true,
    dhcp: true,
    dhcpv6: true,
    ndp: true,
    ra: true,
  };
}

type AddressField =
  | "gateway"
  | "outboundAddress"
  | "dnsForward"
  | "dnsHost"
  | "mapHostLoopback"
  | "mapGuestAddr";

const familyOf = (options: Options, address: Address): FamilyOptions =>
  isV4(address) ? options.v4 : options.v6;

function setAddress(options: Options, field: AddressField, address: Address): void {
  familyOf(options, address)[field] = address;
}

/** -D: `none` drops what came before, an address adds. */
function addDns(options: Options, text: string): void {
  options.dnsGiven = true;
  if (text === "none") {
    options.v4.dns = [];
    options.v6.dns = [];
    return;
  }
  const address = values.parseResolver(text);
  familyOf(options, address).dns.push(address);
}

function setGuestAddress(options: Options, text: string): void {
  const { address, prefixLength } = values.parsePrefix(text);
  const family = familyOf(options, address);
  family.address = address;
  family.prefixLength = prefixLength;
}

/** --map-host-loopback, --map-guest-addr: `none` applies to both families. */
function setMapping(options: Options, field: "mapHostLoopback" | "mapGuestAddr", text: string) {
  if (text !== "none") {
    setAddress(options, field, values.parseUnicast(text));
    return;
  }
  options.v4[field] = null;
  options.v6[field] = null;
  if (field === "mapHostLoopback") options.mapGateway = false;
}

function addPorts(list: string[], text: string): void {
  parsePortSpec(text); // throws when it is none
  list.push(text);
}

/** -T and -U: the namespace's ports are not forwarded yet, so only what needs nothing is accepted. */
function addNamespacePorts(list: string[], text: string): void {
  if (text !== "none" && text !== "auto") {
    throw new values.ValueError("not supported yet (accepted: none or auto)");
  }
  list.push(text);
}

/** What each option with a value does. */
const SETTERS: Readonly<Record<string, (options: Options, text: string) => void>> = {
  "log-file": (options, text) => options.logFile = values.parsePath(text),
  pcap: (options, text) => options.pcap = values.parsePath(text),
  address: setGuestAddress,
  gateway: (options, text) => setAddress(options, "gateway", values.parseUnicast(text)),
  mtu: (options, text) => options.mtu = values.parseMtu(text),
  "mac-addr": (options, text) => options.ourMac = values.parseMac(text),
  "map-host-loopback": (options, text) => setMapping(options, "mapHostLoopback", text),
  "map-guest-addr": (options, text) => setMapping(options, "mapGuestAddr", text),
  dns: addDns,
  "dns-forward": (options, text) => setAddress(options, "dnsForward", values.parseUnicast(text)),
  "dns-host": (options, text) => setAddress(options, "dnsHost", values.parseResolver(text)),
  search: (options, text) => options.search = values.parseSearch(text),
  hostname: (options, text) => options.hostname = values.parseDomain(text),
  fqdn: (options, text) => options.fqdn = values.parseDomain(text),
  interface: (options, text) => options.interface = values.parseInterface(text),
  outbound: (options, text) => setAddress(options, "outboundAddress", values.parseUnicast(text)),
  "outbound-if4": (options, text) => options.v4.outboundInterface = values.parseInterface(text),
  "outbound-if6": (options, text) => options.v6.outboundInterface = values.parseInterface(text),
  "tcp-ports": (options, text) => addPorts(options.tcpPorts, text),
  "udp-ports": (options, text) => addPorts(options.udpPorts, text),
  "tcp-ns": (options, text) => addNamespacePorts(options.tcpNs, text),
  "udp-ns": (options, text) => addNamespacePorts(options.udpNs, text),
  "ns-ifname": (options, text) => options.nsInterface = values.parseInterface(text),
  "ns-mac-addr": (options, text) => options.nsMac = values.parseMac(text),
  netmask: (options, text) => options.netmask = values.parseNetmask(text),
};

/** Longest piece of the command line repeated in a message. */
const MAX_SHOWN = 80;

/** A part of the command line, fit for a message. */
function shown(text: string): string {
  const cut = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}…` : text;
  // deno-lint-ignore no-control-regex
  return cut.replace(/[\x00-\x1f\x7f-\x9f]/g, "?") || '""';
}

function apply(
  options: Options,
  written: string,
  spec: OptionSpec,
  texts: readonly string[],
): void {
  // of those that replace each other only the last counts, but all must be right
  for (const text of texts) {
    try {
      SETTERS[spec.name](options, text);
    } catch (error) {
      if (!(error instanceof values.ValueError || error instanceof PortSpecError)) throw error;
      throw new ConfigError(`${written} ${shown(text)}: ${error.message}`);
    }
  }
}

/** Refuses what the mode does not have and what is not there yet. */
function checkMode(found: readonly Occurrence[], mode: string): void {
  for (const { spec, written } of found) {
    if (spec.later) throw new ConfigError(`${written}: not available yet`);
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

/** Flags to fields. */
function applyFlags(options: Options, has: (name: string) => boolean): void {
  options.help = has("help");
  options.version = has("version");
  options.foreground = has("foreground");
  options.configNet = has("config-net");
  if (has("quiet")) options.logLevel = "WARN";
  if (has("debug")) options.logLevel = "DEBUG";
  if (has("trace")) options.logLevel = "TRACE";
  if (has("no-map-gw")) options.mapGateway = false;
  options.v4.enabled = !has("ipv6-only");
  options.v6.enabled = !has("ipv4-only");
  if (has("dhcp-dns")) options.announceDns = true;
  if (has("no-dhcp-dns")) options.announceDns = false;
  if (has("dhcp-search")) options.announceSearch = true;
  if (has("no-dhcp-search")) options.announceSearch = false;
  for (const name of ["tcp", "udp", "icmp", "dhcp", "dhcpv6", "ndp", "ra"] as const) {
    options[name] = !has(`no-${name}`);
  }
}

const FLAGS = OPTIONS.filter((spec) => spec.kind === "flag").map((spec) => spec.name);
const WITH_VALUE = OPTIONS.filter((spec) => spec.kind !== "flag");
const VALUE_NAMES = WITH_VALUE.map((spec) => spec.name);

/** Options of one mode, from the arguments behind the mode's name. */
function parseMode(mode: "pasta" | "passt", args: readonly string[]): Options {
  const { found, rest } = scanArgs(args);
  const options = defaults(mode);
  const parsed = parseArgs(
    found.map(({ spec, value }) => value === null ? `--${spec.name}` : `--${spec.name}=${value}`),
    { boolean: FLAGS, string: VALUE_NAMES, collect: VALUE_NAMES },
  );
  applyFlags(options, (name) => parsed[name] === true);
  if (options.help || options.version) return options;
  checkMode(found, mode);
  checkExclusive(found);
  for (const spec of WITH_VALUE) {
    const written = found.findLast((occurrence) => occurrence.spec === spec)?.written;
    if (written) apply(options, written, spec, parsed[spec.name] as string[]);
  }
  applyNetmask(options, found);
  options.command = rest;
  return options;
}

function applyNetmask(options: Options, found: readonly Occurrence[]): void {
  if (options.netmask === null) return;
  if (options.v4.prefixLength !== null) {
    const last = found.findLast(({ spec }) => spec.name === "netmask")!;
    throw new ConfigError(
      `${last.written} ${shown(last.value!)}: the length was already given with -a`,
    );
  }
  options.v4.prefixLength = options.netmask;
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
export function parseOptions(args: readonly string[]): Options {
  const [mode, ...rest] = args;
  if (mode !== "pasta" && mode !== "passt") {
    if (mode?.startsWith("-")) {
      const options = parseMode("pasta", args);
      if (options.help || options.version) return options;
    }
    const what = mode === undefined || mode.startsWith("-")
      ? "no mode given"
      : `${shown(mode)}: not a mode`;
    throw new ConfigError(`${what} (usage: tubetti pasta [OPTION]... [--] [COMMAND [ARG]...])`);
  }
  const options = parseMode(mode, rest);
  if (options.help || options.version) return options;
  checkCommand(options);
  if (mode === "passt") throw new ConfigError("passt: this mode is not available yet (pasta is)");
  return options;
}
