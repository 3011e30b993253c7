// SPDX-License-Identifier: GPL-2.0-or-later
/** Options that contradict each other, or the mode: which one counts, and what is refused. */
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError, type Options, parseOptions } from "../../lib/config/options.ts";
import { OPTIONS } from "../../lib/config/table.ts";
import { formatAddress } from "../../lib/wire/address.ts";

const text = (address: Int32Array | null) => address && formatAddress(address);
const families = (o: Options) => [o.v4.enabled, o.v6.enabled];
const namespaces = (o: Options) => [o.userns, o.netnsOnly];
const loopback = (o: Options) => [o.mapGateway, text(o.v4.mapHostLoopback)];

/** Two pieces of a command line, what to look at, what it is when they come in this order or in the other. */
const LAST: readonly [string, string, (o: Options) => unknown, unknown, unknown][] = [
  ["-4", "-6", families, [false, true], [true, false]],
  ["-q", "-d", (o) => o.logLevel, "DEBUG", "WARN"],
  ["-q", "--trace", (o) => o.logLevel, "TRACE", "WARN"],
  ["-d", "--trace", (o) => o.logLevel, "TRACE", "TRACE"],
  ["--userns /u", "--netns-only", namespaces, [null, true], ["/u", false]],
  ["--userns /u", "--userns /v", (o) => o.userns, "/v", "/u"],
  ["--netns /n", "--netns /o", (o) => o.target, path("/o"), path("/n")],
  ["-m 1400", "-m 1500", (o) => o.mtu, 1500, 1400],
  ["-m 1400", "--mtu=0", (o) => o.mtu, 0, 1400],
  ["-I a", "--ns-ifname b", (o) => o.nsInterface, "b", "a"],
  ["-i a", "-i b", (o) => o.interface, "b", "a"],
  ["--outbound-if4 a", "--outbound-if4 b", (o) => o.v4.outboundInterface, "b", "a"],
  ["-a 192.0.2.7", "-a 192.0.2.8", (o) => text(o.v4.address), "192.0.2.8", "192.0.2.7"],
  ["-a 192.0.2.7", "-a fd00::7", (o) => [text(o.v4.address), text(o.v6.address)], both(), both()],
  ["-g 192.0.2.7", "-g 192.0.2.8", (o) => text(o.v4.gateway), "192.0.2.8", "192.0.2.7"],
  ["-o 192.0.2.7", "-o 192.0.2.8", (o) => text(o.v4.outboundAddress), "192.0.2.8", "192.0.2.7"],
  ["-n 24", "-n 16", (o) => o.netmask, 16, 24],
  ["-l /a", "-l /b", (o) => o.logFile, "/b", "/a"],
  ["-l /a", "-e", (o) => o.logFile, "/a", "/a"],
  ["-p /a", "-p /b", (o) => o.pcap, "/b", "/a"],
  ["-P /a", "-P /b", (o) => o.pidFile, "/b", "/a"],
  ["--runas 1", "--runas 2", (o) => o.runas, "2", "1"],
  ["--log-size 50000", "--log-size 60000", (o) => o.logSize, 60000, 50000],
  ["-H a", "-H b", (o) => o.hostname, "b", "a"],
  ["--fqdn a.example", "--fqdn b.example", (o) => o.fqdn, "b.example", "a.example"],
  ["-D none", "-D 192.0.2.7", (o) => o.v4.dns.map(text), ["192.0.2.7"], []],
  ["-D none", "--dns-forward 192.0.2.7", (o) => text(o.v4.dnsForward), "192.0.2.7", null],
  ["-D none", "--dns-host 192.0.2.7", (o) => text(o.v4.dnsHost), "192.0.2.7", null],
  ["-S none", "-S a.example", (o) => o.search, ["a.example"], []],
  ["--no-map-gw", "--map-host-loopback 192.0.2.7", loopback, [false, "192.0.2.7"], [
    false,
    "192.0.2.7",
  ]],
  ["--map-host-loopback none", "--map-host-loopback 192.0.2.7", loopback, [false, "192.0.2.7"], [
    false,
    null,
  ]],
  [
    "--map-guest-addr none",
    "--map-guest-addr 192.0.2.7",
    (o) => text(o.v4.mapGuestAddr),
    "192.0.2.7",
    null,
  ],
  ["--no-splice", "--host-lo-to-ns-lo", (o) => [o.noSplice, o.hostLoToNsLo], [true, true], [
    true,
    true,
  ]],
];

function path(path: string) {
  return { kind: "path", path };
}

function both(): string[] {
  return ["192.0.2.7", "fd00::7"];
}

/** Command lines that are refused in either order of their first two pieces, with what the message has. */
const REFUSED: readonly [string, string, string][] = [
  ["-a 192.0.2.7/24", "-n 16", "the length was already given with -a"],
  ["-a 192.0.2.7", "-g 192.0.2.7", "the guest's own address"],
  ["-t none", "-t 22", "contradicts"],
  ["-T 22", "-T 20-30", "overlaps"],
  ["-u 53", "-u 53", "overlaps"],
];

/** Options and the words behind them, with the whole message; null: accepted. */
const TARGETS: readonly [string, string, string | null][] = [
  ["--netns /n", "", null],
  ["--netns /n", "1234", "1234: --netns takes neither PID nor command"],
  ["--netns /n", "ls -l", "ls: --netns takes neither PID nor command"],
  ["--userns /u", "1234", null],
  ["--netns-only", "1234", null],
  ["--netns /n --userns /u", "", null],
  ["--netns /n --netns-only", "", null],
  ["--no-netns-quit", "1234", null],
  ["-f", "1234", null],
  ["--no-copy-routes", "", "--no-copy-routes: needs --config-net"],
  ["--no-copy-addrs", "", "--no-copy-addrs: needs --config-net"],
  ["--config-net --no-copy-addrs --no-copy-routes", "", null],
];

const parse = (...pieces: string[]) =>
  parseOptions(["pasta", ...pieces.join(" ").split(" ").filter((word) => word !== "")]);

for (const [one, other, pick, expected, swapped] of LAST) {
  Deno.test(`parseOptions() lets the last one of ${one} and ${other} count`, () => {
    assertEquals(pick(parse(one, other)), expected);
    assertEquals(pick(parse(other, one)), swapped);
  });
}

for (const [one, other, message] of REFUSED) {
  Deno.test(`parseOptions() refuses ${one} together with ${other}`, () => {
    assertThrows(() => parse(one, other), ConfigError, message);
    assertThrows(() => parse(other, one), ConfigError, message);
  });
}

for (const [options, words, message] of TARGETS) {
  Deno.test(`parseOptions() ${message ? "refuses" : "takes"} ${options} with "${words}"`, () => {
    if (message === null) return void parse(options, words);
    assertEquals(assertThrows(() => parse(options, words), ConfigError).message, message);
  });
}

for (const { name, short, value, mode, set, needs } of OPTIONS) {
  if (name === "help" || name === "version") continue;
  const spellings = [`--${name}`, ...(short ? [`-${short}`] : [])];
  const argument = value === undefined ? [] : ["x"];
  const refusal = (mode: string, written: string) =>
    assertThrows(() => parseOptions([mode, written, ...argument]), ConfigError).message;

  if (mode !== undefined) {
    const other = mode === "pasta" ? "passt" : "pasta";
    Deno.test(`parseOptions() refuses --${name} in ${other} mode`, () => {
      for (const written of spellings) {
        assertEquals(refusal(other, written), `${written}: only for ${mode}, not for ${other}`);
      }
    });
  }
  if (set === undefined) {
    Deno.test(`parseOptions() says that --${name} is not available yet`, () => {
      for (const written of spellings) {
        assertEquals(refusal(mode ?? "pasta", written), `${written}: not available yet`);
      }
    });
  }
  if (needs !== undefined) {
    Deno.test(`parseOptions() refuses --${name} without --${needs}`, () => {
      assertEquals(refusal(mode ?? "pasta", `--${name}`), `--${name}: needs --${needs}`);
    });
  }
}
