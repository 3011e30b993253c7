// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { SHELLS } from "../../lib/config/model.ts";
import { ConfigError, type Options, parseOptions } from "../../lib/config/options.ts";
import {
  DEFAULT_EPHEMERAL,
  formatPortRules,
  type PortRule,
  readEphemeralPorts,
} from "../../lib/forward/ports.ts";
import { formatAddress } from "../../lib/wire/address.ts";

/** Splits at spaces; `_` stands for a space within an argument, `''` for an empty one. */
function words(line: string): string[] {
  return line.split(" ").filter((word) => word !== "")
    .map((word) => word === "''" ? "" : word.replaceAll("_", " "));
}

const text = (address: Int32Array | null) => address && formatAddress(address);
const ports = (rules: PortRule[] | null) => rules && formatPortRules(rules);
const hex = (mac: Uint8Array | null) => mac && [...mac].map((b) => b.toString(16)).join(":");

/** Command line behind `pasta`, what to look at, what it must be. */
const GOOD: readonly [string, (options: Options) => unknown, unknown][] = [
  ["", (o) => [o.mode, o.command, o.configNet, o.mtu], ["pasta", [], false, null]],
  ["", (o) => [o.v4.enabled, o.v6.enabled, o.mapGateway, o.search], [true, true, true, null]],
  ["", (o) => [o.announceDns, o.announceSearch, o.logLevel], [false, false, "INFO"]],
  ["", (o) => [o.tcp, o.udp, o.icmp, o.dhcp, o.dhcpv6, o.ndp, o.ra].every(Boolean), true],
  ["--config-net", (o) => o.configNet, true],
  ["--config", (o) => o.configNet, true],
  ["--mt=1500 --no-splic", (o) => [o.mtu, o.noSplice], [1500, true]],
  ["--config-net --no-copy-routes", (o) => [o.copyRoutes, o.copyAddresses], [false, true]],
  ["--no-copy-addrs --config-net", (o) => [o.copyRoutes, o.copyAddresses], [true, false]],
  ["ls -l --color", (o) => o.command, ["ls", "-l", "--color"]],
  ["-q ls -q", (o) => [o.logLevel, o.command], ["WARN", ["ls", "-q"]]],
  ["-- -ls", (o) => o.command, ["-ls"]],
  ["-q -- ls -- -d", (o) => o.command, ["ls", "--", "-d"]],
  ["-", (o) => o.command, ["-"]],
  ["5 5", (o) => o.command, ["5", "5"]],
  ["-d", (o) => o.logLevel, "DEBUG"],
  ["--trace", (o) => o.logLevel, "TRACE"],
  ["-d --trace", (o) => o.logLevel, "TRACE"],
  ["-fe", (o) => o.foreground, true],
  ["-l /tmp/log", (o) => o.logFile, "/tmp/log"],
  ["--log-file=/tmp/log", (o) => o.logFile, "/tmp/log"],
  ["-p /tmp/x.pcap", (o) => o.pcap, "/tmp/x.pcap"],
  ["--pcap /tmp/x.pcap", (o) => o.pcap, "/tmp/x.pcap"],
  ["-m 1500", (o) => o.mtu, 1500],
  ["-m1500", (o) => o.mtu, 1500],
  ["-dm1500", (o) => [o.mtu, o.logLevel], [1500, "DEBUG"]],
  ["--mtu 1280", (o) => o.mtu, 1280],
  ["--mtu 68", (o) => o.mtu, 68],
  ["--mtu=65520", (o) => o.mtu, 65520],
  ["-m 0", (o) => o.mtu, 0],
  ["-m 1 -m 1500", (o) => o.mtu, 1500],
  ["-m 1400 -m 1500", (o) => o.mtu, 1500],
  ["-M 02:00:00:00:00:01", (o) => hex(o.ourMac), "2:0:0:0:0:1"],
  ["--mac-addr 2:0:0:a:B:c", (o) => hex(o.ourMac), "2:0:0:a:b:c"],
  ["--ns-mac-addr 02-00-00-00-00-0f", (o) => hex(o.nsMac), "2:0:0:0:0:f"],
  ["-a 192.0.2.9", (o) => [text(o.v4.address), o.v4.prefixLength], ["192.0.2.9", null]],
  ["-a 192.0.2.9/25", (o) => [text(o.v4.address), o.v4.prefixLength], ["192.0.2.9", 25]],
  ["-a 192.0.2.9/32", (o) => o.v4.prefixLength, 32],
  ["-a 2001:db8::9", (o) => [text(o.v6.address), o.v6.prefixLength], ["2001:db8::9", null]],
  ["-a 2001:db8::9/56", (o) => o.v6.prefixLength, 56],
  [
    "-a 192.0.2.9 -a 2001:db8::9",
    (o) => [text(o.v4.address), text(o.v6.address)],
    ["192.0.2.9", "2001:db8::9"],
  ],
  ["-a 192.0.2.9/24 -a 192.0.2.8", (o) => [text(o.v4.address), o.v4.prefixLength], [
    "192.0.2.8",
    null,
  ]],
  ["-n 24", (o) => o.v4.prefixLength, 24],
  ["-n 255.255.254.0", (o) => o.v4.prefixLength, 23],
  ["-n 255.255.255.255", (o) => o.v4.prefixLength, 32],
  ["-n 128.0.0.0", (o) => o.v4.prefixLength, 1],
  ["-n 8 -n 16", (o) => o.v4.prefixLength, 16],
  ["-n 24 -a 192.0.2.9", (o) => [text(o.v4.address), o.v4.prefixLength], ["192.0.2.9", 24]],
  ["-n 24 -a 2001:db8::9/56", (o) => [o.v4.prefixLength, o.v6.prefixLength], [24, 56]],
  ["-g 192.0.2.1", (o) => [text(o.v4.gateway), o.v6.gateway], ["192.0.2.1", null]],
  ["-g fe80::1 -g 192.0.2.1", (o) => [text(o.v4.gateway), text(o.v6.gateway)], [
    "192.0.2.1",
    "fe80::1",
  ]],
  ["-D 192.0.2.53", (o) => [o.dnsGiven, o.v4.dns.map(text)], [true, ["192.0.2.53"]]],
  ["-D 192.0.2.53 -D 2001:db8::53 -D 192.0.2.54", (o) => [o.v4.dns.map(text), o.v6.dns.map(text)], [
    ["192.0.2.53", "192.0.2.54"],
    ["2001:db8::53"],
  ]],
  ["-D none", (o) => [o.dnsGiven, o.v4.dns, o.v6.dns], [true, [], []]],
  ["-D 192.0.2.53 -D none", (o) => o.v4.dns, []],
  ["-D none -D 192.0.2.53", (o) => o.v4.dns.map(text), ["192.0.2.53"]],
  ["-D 127.0.0.53", (o) => o.v4.dns.map(text), ["127.0.0.53"]],
  ["--dns-forward 192.0.2.3", (o) => text(o.v4.dnsForward), "192.0.2.3"],
  ["--dns-forward fd00::3", (o) => text(o.v6.dnsForward), "fd00::3"],
  ["--dns-host 127.0.0.53", (o) => text(o.v4.dnsHost), "127.0.0.53"],
  ["-S example.com", (o) => o.search, ["example.com"]],
  ["-S a.example_b.example.", (o) => o.search, ["a.example", "b.example"]],
  ["-S a.example -S b.example", (o) => o.search, ["a.example", "b.example"]],
  ["-S a.example -S none", (o) => o.search, []],
  ["-S none -S a.example", (o) => o.search, ["a.example"]],
  ["-S none", (o) => o.search, []],
  ["-S none.", (o) => o.search, ["none"]],
  ["--dhcp-dns --dhcp-search", (o) => [o.announceDns, o.announceSearch], [true, true]],
  ["-H box --fqdn box.example.org", (o) => [o.hostname, o.fqdn], ["box", "box.example.org"]],
  ["--no-map-gw", (o) => [o.mapGateway, o.v4.mapHostLoopback], [false, null]],
  ["--map-host-loopback 192.0.2.4", (o) => [o.mapGateway, text(o.v4.mapHostLoopback)], [
    true,
    "192.0.2.4",
  ]],
  ["--map-host-loopback none", (o) => o.mapGateway, false],
  ["--map-guest-addr fd00::4", (o) => [text(o.v6.mapGuestAddr), o.v4.mapGuestAddr], [
    "fd00::4",
    null,
  ]],
  ["--map-guest-addr none", (o) => o.v4.mapGuestAddr, null],
  ["-4", (o) => [o.v4.enabled, o.v6.enabled], [true, false]],
  ["--ipv6-only", (o) => [o.v4.enabled, o.v6.enabled], [false, true]],
  ["-i eth0", (o) => o.interface, "eth0"],
  ["-ieth0", (o) => o.interface, "eth0"],
  ["-I tap0", (o) => o.nsInterface, "tap0"],
  ["-o 192.0.2.7 -o fd00::7", (o) => [text(o.v4.outboundAddress), text(o.v6.outboundAddress)], [
    "192.0.2.7",
    "fd00::7",
  ]],
  ["--outbound-if4 eth0 --outbound-if6 eth1", (o) => [
    o.v4.outboundInterface,
    o.v6.outboundInterface,
  ], ["eth0", "eth1"]],
  ["", (o) => [o.tcpRules, o.udpRules, o.tcpNsRules, o.udpNsRules], [null, null, null, null]],
  ["-t 22", (o) => [ports(o.tcpRules), ports(o.udpRules)], [["22"], null]],
  ["-t 22,8080:80 -u 53", (o) => [ports(o.tcpRules), ports(o.udpRules)], [["22,8080:80"], ["53"]]],
  ["-t 22 -t 80:22 -u 22", (o) => [ports(o.tcpRules), ports(o.udpRules)], [["22,80:22"], ["22"]]],
  ["-t none --tcp-ports none", (o) => o.tcpRules, []],
  ["-t all -u auto", (o) => [ports(o.tcpRules), ports(o.udpRules)], [["all"], ["auto"]]],
  ["-t ~22 -u auto,53", (o) => [ports(o.tcpRules), ports(o.udpRules)], [["all,~22"], ["auto,53"]]],
  ["-t 192.0.2.1%lo/20-30,~25", (o) => ports(o.tcpRules), ["192.0.2.1%lo/20-24,26-30"]],
  ["-t 192.0.2.1/22 --tcp-ports=::1/22", (o) => ports(o.tcpRules), ["192.0.2.1/22", "[::1]/22"]],
  ["-t 80:192.0.2.7/81", (o) => ports(o.tcpRules), ["80:192.0.2.7/81"]],
  ["-T none -U auto", (o) => [o.tcpNsRules, ports(o.udpNsRules)], [[], ["auto"]]],
  ["-T 22,80:8080 -T 23 -U all", (o) => [ports(o.tcpNsRules), ports(o.udpNsRules)], [
    ["22-23,80:8080"],
    ["all"],
  ]],
  ["-T 80:[2001:db8::7]", (o) => ports(o.tcpNsRules), ["80:[2001:db8::7]"]],
  ["", (o) => [o.freebind, o.noSplice, o.hostLoToNsLo], [false, false, false]],
  ["--freebind --no-splice --host-lo-to-ns-lo", (o) => [o.freebind, o.noSplice, o.hostLoToNsLo], [
    true,
    true,
    true,
  ]],
  ["--no-tcp --no-udp --no-icmp", (o) => [o.tcp, o.udp, o.icmp], [false, false, false]],
  ["--no-dhcp --no-dhcpv6 --no-ndp --no-ra", (o) => [o.dhcp, o.dhcpv6, o.ndp, o.ra], [
    false,
    false,
    false,
    false,
  ]],
  ["-h -m 1", (o) => o.help, true],
  ["--version", (o) => o.version, true],
];

/** Command line, the whole message. */
const BAD: readonly [string, string][] = [
  [
    "",
    "no mode given (usage: tubetti pasta [OPTION]... [--] [COMMAND [ARG]...], or tubetti passt [OPTION]...)",
  ],
  [
    "-q",
    "no mode given (usage: tubetti pasta [OPTION]... [--] [COMMAND [ARG]...], or tubetti passt [OPTION]...)",
  ],
  [
    "spaghetti",
    "spaghetti: not a mode (usage: tubetti pasta [OPTION]... [--] [COMMAND [ARG]...], or tubetti passt [OPTION]...)",
  ],
  ["passt --config-net", "--config-net: only for pasta, not for passt"],
  ["passt ls", "ls: passt takes no command"],
  ["pasta 0", "0: not a process ID"],
  ["pasta 99999999999", "99999999999: not a process ID"],
  ["pasta ''", '"": not a command'],
  ["pasta --confg-net", "--confg-net: unknown option (did you mean --config-net?)"],
  ["pasta --cnofig-net", "--cnofig-net: unknown option (did you mean --config-net?)"],
  ["pasta --sockte", "--sockte: unknown option (did you mean --socket?)"],
  [
    "pasta --dhcp",
    "--dhcp: not clear which of --dhcp-dns, --dhcp-search is meant",
  ],
  ["pasta --=x", "--: unknown option (see --help)"],
  ["past", "past: not a mode (did you mean pasta?)"],
  ["complition bash", "complition: not a mode (did you mean completion?)"],
  ["completion", "usage: tubetti completion bash|zsh|fish"],
  ["completion csh", "usage: tubetti completion bash|zsh|fish"],
  ["completion bash zsh", "usage: tubetti completion bash|zsh|fish"],
  ["pasta --mtuu 1500", "--mtuu: unknown option (did you mean --mtu?)"],
  ["pasta --frobnicate", "--frobnicate: unknown option (see --help)"],
  ["pasta --frobnicate=1", "--frobnicate: unknown option (see --help)"],
  ["pasta -z", "-z: unknown option (see --help)"],
  ["pasta -qz", "-z: unknown option (see --help)"],
  ["pasta -mtu", "-m tu: not an MTU (68 to 65520, or 0 to set none)"],
  ["pasta -trace", '-t race: "race" is not a port (1 to 65535), a range, all, auto or none'],
  ["pasta --quiet=1", "--quiet=1: --quiet takes no value"],
  ["pasta -m", "-m: needs a value (MTU)"],
  ["pasta -qm", "-m: needs a value (MTU)"],
  ["pasta --address", "--address: needs a value (ADDR[/LENGTH])"],
  ["pasta --stats 1", "--stats: not available yet"],
  ["passt --migrate-exit", "--migrate-exit: not available yet"],
  ["passt -F 2", "-F 2: not a descriptor of a socket (a number from 3 on)"],
  [
    "passt -t auto",
    '-t auto: "auto" is only for namespaces: what a virtual machine listens on cannot be seen',
  ],
  ["pasta -m 70000", "-m 70000: not an MTU (68 to 65520, or 0 to set none)"],
  ["pasta --mtu=67", "--mtu 67: not an MTU (68 to 65520, or 0 to set none)"],
  ["pasta -m 65521", "-m 65521: not an MTU (68 to 65520, or 0 to set none)"],
  ["pasta -m -1", "-m -1: not an MTU (68 to 65520, or 0 to set none)"],
  ["pasta -m 1500.0", "-m 1500.0: not an MTU (68 to 65520, or 0 to set none)"],
  ["pasta -m 0x5dc", "-m 0x5dc: not an MTU (68 to 65520, or 0 to set none)"],
  ["pasta -m ''", '-m "": not an MTU (68 to 65520, or 0 to set none)'],
  ["pasta -a 300.1.1.1", "-a 300.1.1.1: not an IPv4 or IPv6 address"],
  ["pasta -a example.com", "-a example.com: not an IPv4 or IPv6 address"],
  ["pasta -a 10.1", "-a 10.1: not an IPv4 or IPv6 address"],
  ["pasta -a ::ffff:192.0.2.1", "-a ::ffff:192.0.2.1: not an IPv4 or IPv6 address"],
  ["pasta -a 0.0.0.0", "-a 0.0.0.0: the unspecified address cannot be used here"],
  ["pasta -a ::", "-a ::: the unspecified address cannot be used here"],
  ["pasta -a 127.0.0.1", "-a 127.0.0.1: a loopback address cannot be used here"],
  ["pasta -a ::1", "-a ::1: a loopback address cannot be used here"],
  ["pasta -a 224.0.0.1", "-a 224.0.0.1: a multicast address cannot be used here"],
  ["pasta -a ff02::1", "-a ff02::1: a multicast address cannot be used here"],
  ["pasta -a 255.255.255.255", "-a 255.255.255.255: the broadcast address cannot be used here"],
  ["pasta -a 192.0.2.1/33", '-a 192.0.2.1/33: "/33" is not a prefix length (1 to 32)'],
  ["pasta -a 192.0.2.1/0", '-a 192.0.2.1/0: "/0" is not a prefix length (1 to 32)'],
  ["pasta -a 192.0.2.1/", '-a 192.0.2.1/: "/" is not a prefix length (1 to 32)'],
  ["pasta -a fd00::1/129", '-a fd00::1/129: "/129" is not a prefix length (1 to 128)'],
  ["pasta -n 33", "-n 33: not an IPv4 netmask (255.255.255.0 or 24, 1 to 32 bits)"],
  ["pasta -n 0", "-n 0: not an IPv4 netmask (255.255.255.0 or 24, 1 to 32 bits)"],
  [
    "pasta -n 255.0.255.0",
    "-n 255.0.255.0: not an IPv4 netmask (255.255.255.0 or 24, 1 to 32 bits)",
  ],
  ["pasta -n 0.0.0.0", "-n 0.0.0.0: not an IPv4 netmask (255.255.255.0 or 24, 1 to 32 bits)"],
  ["pasta -n ffff::", "-n ffff::: not an IPv4 netmask (255.255.255.0 or 24, 1 to 32 bits)"],
  ["pasta -a 192.0.2.1/24 -n 16", "-n 16: the length was already given with -a"],
  ["pasta -g 127.0.0.1", "-g 127.0.0.1: a loopback address cannot be used here"],
  ["pasta -a 192.0.2.7 -g 192.0.2.7", "-g 192.0.2.7: this is the guest's own address (-a)"],
  ["pasta -g fd00::7 -a fd00::7/64", "-g fd00::7: this is the guest's own address (-a)"],
  ["pasta -g gw", "-g gw: not an IPv4 or IPv6 address"],
  [
    "pasta -M 02:00:00:00:00",
    "-M 02:00:00:00:00: not a MAC address (such as 9a:55:9a:55:9a:55)",
  ],
  [
    "pasta -M 02:00:00:00:00:0g",
    "-M 02:00:00:00:00:0g: not a MAC address (such as 9a:55:9a:55:9a:55)",
  ],
  [
    "pasta -M 01:00:00:00:00:01",
    "-M 01:00:00:00:00:01: a multicast MAC address cannot be used here",
  ],
  [
    "pasta --ns-mac-addr 0:0:0:0:0:0",
    "--ns-mac-addr 0:0:0:0:0:0: the zero MAC address cannot be used here",
  ],
  ["pasta -D dns.example", "-D dns.example: not an IPv4 or IPv6 address"],
  ["pasta -D 0.0.0.0", "-D 0.0.0.0: the unspecified address cannot be used here"],
  ["pasta -D ff02::fb", "-D ff02::fb: not the address of one host"],
  ["pasta --dns-forward none", "--dns-forward none: not an IPv4 or IPv6 address"],
  ["pasta -S ''", '-S "": no domain given (domains separated by spaces, or none)'],
  ["pasta -S -bad", '-S -bad: "-bad" is not a domain name'],
  ["pasta -S a..b", '-S a..b: "a..b" is not a domain name'],
  [`pasta -H ${"x".repeat(64)}`, `-H ${"x".repeat(64)}: "${"x".repeat(64)}" is not a domain name`],
  ["pasta -i a_b", "-i a b: not an interface name (no spaces, /, : or %)"],
  ["pasta -i ..", "-i ..: not an interface name (no spaces, /, : or %)"],
  ["pasta -I 0123456789abcdef", "-I 0123456789abcdef: not an interface name (at most 15 bytes)"],
  ["pasta --outbound-if4 a/b", "--outbound-if4 a/b: not an interface name (no spaces, /, : or %)"],
  ["pasta -I lo", "-I lo: the namespace has a loopback interface of that name"],
  ["pasta -I all", "-I all: not an interface name (kept for sysctls)"],
  ["pasta -I default", "-I default: not an interface name (kept for sysctls)"],
  ["pasta -I eth%", "-I eth%: not an interface name (no spaces, /, : or %)"],
  ["pasta -I eth%d", "-I eth%d: not an interface name (no spaces, /, : or %)"],
  ["pasta -I a/b", "-I a/b: not an interface name (no spaces, /, : or %)"],
  ["pasta -I a_b", "-I a b: not an interface name (no spaces, /, : or %)"],
  ["pasta -I äöüäöüäö", "-I äöüäöüäö: not an interface name (at most 15 bytes)"],
  ["pasta -l ''", '-l "": not a file name'],
  ["pasta -t 0", '-t 0: "0" is not a port (1 to 65535)'],
  ["pasta -t 65536", '-t 65536: "65536" is not a port (1 to 65535)'],
  [
    "pasta -t http",
    '-t http: "http" is not a port (1 to 65535), a range, all, auto or none',
  ],
  ["pasta -u 53:", '-u 53:: "53:": "" is not a port (1 to 65535)'],
  ["pasta -t 22,", "-t 22,: a part of the list is empty"],
  [
    "pasta --udp-ports ''",
    '--udp-ports "": no ports given (none, all, auto, or ports such as 22,8080-8090:80-90)',
  ],
  ["pasta -t 80-22", '-t 80-22: "80-22" is a reversed range (FIRST-LAST)'],
  ["pasta -t 22,22", '-t 22,22: "22" overlaps "22" (port 22)'],
  ["pasta -t 22 -t 80,22:23", '-t 80,22:23: "22:23" overlaps "22" given before (port 22)'],
  ["pasta -u 53 -u none", '-u none: "none" contradicts "53" given before'],
  ["pasta -u none -u 53", '-u 53: "53" contradicts "none" given before'],
  ["pasta -t all -t 22", '-t 22: "22" overlaps "all" given before (port 22)'],
  ["pasta -t 300.1.1.1/22", '-t 300.1.1.1/22: "300.1.1.1" is not an IPv4 or IPv6 address'],
  [
    "pasta -t %0123456789abcdef/22",
    "-t %0123456789abcdef/22: " +
    '"%0123456789abcdef": "0123456789abcdef" is not an interface name (at most 15 bytes)',
  ],
  [
    "pasta -T 127.0.0.1/22",
    '-T 127.0.0.1/22: "127.0.0.1/": ports of the namespace have no listening address',
  ],
  ["pasta -U %lo/53", '-U %lo/53: "%lo/": ports of the namespace have no listening address'],
  ["pasta -T 22 -T 20-30", '-T 20-30: "20-30" overlaps "22" given before (port 22)'],
  [
    "passt -t auto",
    '-t auto: "auto" is only for namespaces: what a virtual machine listens on cannot be seen',
  ],
  [
    "passt -u auto,53",
    '-u auto,53: "auto" is only for namespaces: what a virtual machine listens on cannot be seen',
  ],
  ["passt -T 22", "-T: only for pasta, not for passt"],
  ["passt --no-splice", "--no-splice: only for pasta, not for passt"],
  ["passt --host-lo-to-ns-lo", "--host-lo-to-ns-lo: only for pasta, not for passt"],
  ["pasta --freebind=1", "--freebind=1: --freebind takes no value"],
];

for (const [line, pick, expected] of GOOD) {
  Deno.test(`parseOptions() accepts "pasta ${line}" giving ${JSON.stringify(expected)}`, () => {
    assertEquals(pick(parseOptions(["pasta", ...words(line)], null, DEFAULT_EPHEMERAL)), expected);
  });
}

for (const [line, message] of BAD) {
  Deno.test(`parseOptions() refuses "${line.slice(0, 60)}" in one line`, () => {
    const error = assertThrows(() => parseOptions(words(line)), ConfigError);
    assertEquals(error.message, message);
    assertEquals(error.message.includes("\n"), false);
  });
}

Deno.test("parseOptions() takes a mode that the program's name stands for", () => {
  assertEquals(parseOptions(["-m", "1500", "pasta"], "pasta").command, ["pasta"]);
  assertEquals(parseOptions([], "pasta").mode, "pasta");
  assertEquals(parseOptions(["completion", "bash"], "pasta").command, ["completion", "bash"]);
  assertEquals(parseOptions(["-t", "22"], "passt").mode, "passt");
});

Deno.test("parseOptions() accepts completion for a shell in place of a mode", () => {
  for (const shell of SHELLS) assertEquals(parseOptions(["completion", shell]).completion, shell);
});

Deno.test("parseOptions() accepts --help and --version without a mode", () => {
  assertEquals(parseOptions(["--help"]).help, true);
  assertEquals(parseOptions(["-h"]).help, true);
  assertEquals(parseOptions(["--version"]).version, true);
  assertEquals(parseOptions(["passt", "--help"]).mode, "passt");
});

Deno.test("parseOptions() shows a long or unprintable value cut and without control characters", () => {
  const error = assertThrows(() => parseOptions(["pasta", "-m", "\x1b[2J\n" + "9".repeat(500)]));
  const shown = error.message.slice("-m ".length, error.message.indexOf(": not an MTU"));
  assertEquals(shown, `?[2J?${"9".repeat(75)}…`);
});

Deno.test("parseOptions() leaves the ephemeral ports it is told out of -t all", () => {
  const { ephemeralPorts, tcpRules } = parseOptions(["pasta", "-t", "all"], null, [1024, 65535]);
  assertEquals(ephemeralPorts, [1024, 65535]);
  assertEquals(tcpRules!.map(({ first, last, weak }) => [first, last, weak]), [[1, 1023, true]]);
});

Deno.test("parseOptions() takes the system's ephemeral ports when it is told none", () => {
  assertEquals(parseOptions(["pasta"]).ephemeralPorts, readEphemeralPorts());
});
