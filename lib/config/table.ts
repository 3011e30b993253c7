// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The option table: the one place where an option's names, value, group, help text and effect stand.
 * Parsing, `--help` and error messages are all made from it.
 *
 * @module
 */
import { addDns, addPorts, setAddress, setGuestAddress, setMapping } from "./fields.ts";
import type { Options } from "./model.ts";
import {
  parseDomain,
  parseInterface,
  parseMac,
  parseMtu,
  parseNetmask,
  parseNewInterface,
  parsePath,
  parseResolver,
  parseSearch,
  parseUnicast,
} from "./values.ts";

/** Headings of `--help`, in order. */
export const OPTION_GROUPS = [
  "General",
  "Guest addresses",
  "Names and resolvers",
  "Host side",
  "Port forwarding",
  "Protocols",
  "Namespace",
] as const;

/** One option. */
export interface OptionSpec {
  readonly group: (typeof OPTION_GROUPS)[number];
  /** Long name without dashes. */
  readonly name: string;
  /** One character. */
  readonly short?: string;
  /** What stands for the value in help; absent: the option is a flag. */
  readonly value?: string;
  /** What it does, then its default. */
  readonly help: string;
  /**
   * `family`: once per address family, a later one of the same family replaces an earlier one. `list`:
   * all count. Absent: the last one counts.
   */
  readonly repeat?: "family" | "list";
  /** Mode that has it; absent: both. */
  readonly mode?: "pasta" | "passt";
  /** Does what it does. @throws ValueError or PortSpecError. Absent: known, but not there yet */
  readonly set?: (options: Options, text: string) => void;
}

/** Adds the group to options. */
function group(name: OptionSpec["group"], list: readonly Omit<OptionSpec, "group">[]) {
  return list.map((spec) => ({ ...spec, group: name }));
}

const GENERAL = group("General", [
  { name: "help", short: "h", help: "Show this help and exit", set: (o) => o.help = true },
  { name: "version", help: "Show the version and exit", set: (o) => o.version = true },
  {
    name: "quiet",
    short: "q",
    help: "Show warnings and errors only",
    set: (o) => o.logLevel = "WARN",
  },
  {
    name: "debug",
    short: "d",
    help: "Show flows and service requests",
    set: (o) => o.logLevel = "DEBUG",
  },
  {
    name: "trace",
    help: "Show packets too, implies --debug",
    set: (o) => o.logLevel = "TRACE",
  },
  {
    name: "foreground",
    short: "f",
    help: "Stay in the foreground",
    set: (o) => o.foreground = true,
  },
  {
    name: "stderr",
    short: "e",
    help: "Accepted for compatibility: messages go to standard error",
    set: () => {},
  },
  {
    name: "log-file",
    short: "l",
    value: "FILE",
    help: "Write messages to FILE instead of standard error",
    set: (o, text) => o.logFile = parsePath(text),
  },
  {
    name: "pcap",
    short: "p",
    value: "FILE",
    help: "Write the guest's packets to FILE in pcap format",
    set: (o, text) => o.pcap = parsePath(text),
  },
  { name: "pid", short: "P", value: "FILE", help: "Write the process number to FILE" },
  { name: "log-size", value: "BYTES", help: "Largest size of the log file" },
  { name: "runas", value: "UID[:GID]", help: "Run as another user" },
]);

const ADDRESSES = group("Guest addresses", [
  {
    name: "address",
    short: "a",
    value: "ADDR[/LENGTH]",
    repeat: "family",
    help: "Address of the guest, once per family (default: the host's)",
    set: setGuestAddress,
  },
  {
    name: "netmask",
    short: "n",
    value: "MASK",
    help: "IPv4 netmask, dotted or bits (default: the host's, or by the address's class)",
    set: (o, text) => o.netmask = parseNetmask(text),
  },
  {
    name: "gateway",
    short: "g",
    value: "ADDR",
    repeat: "family",
    help: "Default gateway of the guest, once per family (default: the host's)",
    set: (o, text) => setAddress(o, "gateway", parseUnicast(text)),
  },
  {
    name: "mtu",
    short: "m",
    value: "MTU",
    help: "MTU of the guest's interface, 1280 to 65520, 0 to set none (default: 65520)",
    set: (o, text) => o.mtu = parseMtu(text),
  },
  {
    name: "mac-addr",
    short: "M",
    value: "MAC",
    help: "Our MAC address as the guest sees it (default: 9a:55:9a:55:9a:55)",
    set: (o, text) => o.ourMac = parseMac(text),
  },
  {
    name: "no-map-gw",
    help: "The gateway does not reach the host's loopback",
    set: (o) => o.mapGateway = false,
  },
  {
    name: "map-host-loopback",
    value: "ADDR",
    repeat: "family",
    help: "Address that reaches the host's loopback, or none (default: the gateway)",
    set: (o, text) => setMapping(o, "mapHostLoopback", text),
  },
  {
    name: "map-guest-addr",
    value: "ADDR",
    repeat: "family",
    help: "Address that reaches the host's own address, or none (default: none)",
    set: (o, text) => setMapping(o, "mapGuestAddr", text),
  },
  { name: "ipv4-only", short: "4", help: "No IPv6", set: (o) => o.v6.enabled = false },
  { name: "ipv6-only", short: "6", help: "No IPv4", set: (o) => o.v4.enabled = false },
]);

const NAMES = group("Names and resolvers", [
  {
    name: "dns",
    short: "D",
    value: "ADDR",
    repeat: "list",
    help: "Resolver for the guest, may be repeated, or none (default: those of /etc/resolv.conf)",
    set: addDns,
  },
  {
    name: "dns-forward",
    value: "ADDR",
    repeat: "family",
    help: "Address whose port 53 reaches the host's resolver, once per family",
    set: (o, text) => setAddress(o, "dnsForward", parseUnicast(text)),
  },
  {
    name: "dns-host",
    value: "ADDR",
    repeat: "family",
    help: "Resolver behind --dns-forward (default: the first of its family)",
    set: (o, text) => setAddress(o, "dnsHost", parseResolver(text)),
  },
  {
    name: "search",
    short: "S",
    value: "LIST",
    help: "Search domains separated by spaces, or none (default: those of /etc/resolv.conf)",
    set: (o, text) => o.search = parseSearch(text),
  },
  {
    name: "dhcp-dns",
    help: "Hand resolvers to the guest (default for passt)",
    set: (o) => o.announceDns = true,
  },
  {
    name: "no-dhcp-dns",
    help: "Hand out no resolvers (default for pasta)",
    set: (o) => o.announceDns = false,
  },
  {
    name: "dhcp-search",
    help: "Hand out search domains (default for passt)",
    set: (o) => o.announceSearch = true,
  },
  {
    name: "no-dhcp-search",
    help: "Hand out no search domains (default for pasta)",
    set: (o) => o.announceSearch = false,
  },
  {
    name: "hostname",
    short: "H",
    value: "NAME",
    help: "Host name that DHCP gives to the guest",
    set: (o, text) => o.hostname = parseDomain(text),
  },
  {
    name: "fqdn",
    value: "NAME",
    help: "Fully qualified name that DHCP gives to the guest",
    set: (o, text) => o.fqdn = parseDomain(text),
  },
]);

const HOST = group("Host side", [
  {
    name: "interface",
    short: "i",
    value: "NAME",
    help: "Interface to take addresses and routes from (default: that of the default route)",
    set: (o, text) => o.interface = parseInterface(text),
  },
  {
    name: "outbound",
    short: "o",
    value: "ADDR",
    repeat: "family",
    help: "Source address of outbound sockets, once per family (default: the kernel's choice)",
    set: (o, text) => setAddress(o, "outboundAddress", parseUnicast(text)),
  },
  {
    name: "outbound-if4",
    value: "NAME",
    help: "Interface of outbound IPv4 sockets",
    set: (o, text) => o.v4.outboundInterface = parseInterface(text),
  },
  {
    name: "outbound-if6",
    value: "NAME",
    help: "Interface of outbound IPv6 sockets",
    set: (o, text) => o.v6.outboundInterface = parseInterface(text),
  },
]);

const PORTS = group("Port forwarding", [
  {
    name: "tcp-ports",
    short: "t",
    value: "SPEC",
    repeat: "list",
    help:
      "TCP ports of the host for the guest, as below, may be repeated (default: auto, none for passt)",
    set: (o, text) => addPorts(o, "tcpRules", text),
  },
  {
    name: "udp-ports",
    short: "u",
    value: "SPEC",
    repeat: "list",
    help: "UDP ports of the host, in the same form (default: as for TCP, and the numbers of TCP's)",
    set: (o, text) => addPorts(o, "udpRules", text),
  },
  {
    name: "tcp-ns",
    short: "T",
    value: "SPEC",
    repeat: "list",
    mode: "pasta",
    help: "TCP ports of the namespace's loopback for the host's, in the same form without ADDR/ " +
      "(default: auto)",
    set: (o, text) => addPorts(o, "tcpNsRules", text),
  },
  {
    name: "udp-ns",
    short: "U",
    value: "SPEC",
    repeat: "list",
    mode: "pasta",
    help:
      "UDP ports of the namespace's loopback, likewise (default: auto, and the numbers of TCP's)",
    set: (o, text) => addPorts(o, "udpNsRules", text),
  },
  {
    name: "freebind",
    help: "Listen on addresses, too, that the host does not have yet",
    set: (o) => o.freebind = true,
  },
  {
    name: "no-splice",
    mode: "pasta",
    help:
      "Local connections go through the guest's interface as others do, instead of from socket " +
      "to socket",
    set: (o) => o.noSplice = true,
  },
  {
    name: "host-lo-to-ns-lo",
    mode: "pasta",
    help: "Local connections of the host reach the namespace's loopback address (default: the " +
      "guest's own address)",
    set: (o) => o.hostLoToNsLo = true,
  },
]);

const PROTOCOLS = group("Protocols", [
  { name: "no-tcp", help: "No TCP", set: (o) => o.tcp = false },
  { name: "no-udp", help: "No UDP", set: (o) => o.udp = false },
  { name: "no-icmp", help: "No ICMP echo", set: (o) => o.icmp = false },
  { name: "no-dhcp", help: "No DHCP server", set: (o) => o.dhcp = false },
  { name: "no-dhcpv6", help: "No DHCPv6 server", set: (o) => o.dhcpv6 = false },
  {
    name: "no-ndp",
    help: "No answers to neighbour and router solicitations",
    set: (o) => o.ndp = false,
  },
  { name: "no-ra", help: "No router advertisements", set: (o) => o.ra = false },
]);

const NAMESPACE = group("Namespace", [
  {
    name: "config-net",
    mode: "pasta",
    help: "Give the namespace's interface its addresses and routes, and bring it up",
    set: (o) => o.configNet = true,
  },
  {
    name: "ns-ifname",
    short: "I",
    value: "NAME",
    mode: "pasta",
    help: "Name of the namespace's interface (default: that of the host's)",
    set: (o, text) => o.nsInterface = parseNewInterface(text),
  },
  {
    name: "ns-mac-addr",
    value: "MAC",
    mode: "pasta",
    help: "MAC address of the namespace's interface (default: the kernel's choice)",
    set: (o, text) => o.nsMac = parseMac(text),
  },
  { name: "userns", value: "PATH", help: "User namespace to join" },
  { name: "netns", value: "PATH|NAME", help: "Network namespace to join" },
  { name: "netns-only", help: "Join or create no user namespace" },
  { name: "no-netns-quit", help: "Stay when the namespace's file goes" },
  { name: "socket", short: "s", value: "PATH", help: "UNIX socket of the hypervisor" },
  { name: "fd", short: "F", value: "FD", help: "Connected socket to use" },
  { name: "one-off", short: "1", help: "Leave after the first client" },
]);

/** All options, in the order of help and of their effect. */
export const OPTIONS: readonly OptionSpec[] = [
  ...GENERAL,
  ...ADDRESSES,
  ...NAMES,
  ...HOST,
  ...PORTS,
  ...PROTOCOLS,
  ...NAMESPACE,
];
