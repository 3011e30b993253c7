// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The option table: the one place where an option's names, value, group and help text stand. Parsing,
 * `--help` and error messages are all made from it.
 *
 * @module
 */

/** How an option's value is read; `flag` takes none. */
export type OptionKind =
  | "flag"
  | "prefix"
  | "unicast"
  | "unicast-or-none"
  | "resolver"
  | "resolver-or-none"
  | "netmask"
  | "mac"
  | "mtu"
  | "interface"
  | "path"
  | "ports"
  | "ports-ns"
  | "search"
  | "domain";

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
  /** Long name without dashes. */
  readonly name: string;
  /** One character. */
  readonly short?: string;
  readonly kind: OptionKind;
  /** What stands for the value in help; absent for flags. */
  readonly value?: string;
  readonly group: (typeof OPTION_GROUPS)[number];
  /** What it does, then its default. */
  readonly help: string;
  /**
   * `once`: a later one replaces an earlier one. `family`: one per address family, a later one of the
   * same family replaces. `list`: all count.
   */
  readonly repeat: "once" | "family" | "list";
  /** Modes that have it; absent: both. */
  readonly mode?: "pasta" | "passt";
  /** Known from passt(1), but not there yet. */
  readonly later?: true;
}

type Row = readonly [
  string,
  string,
  OptionKind,
  string,
  "once" | "family" | "list",
  string,
  ("pasta" | "passt" | "later")?,
];

function rows(group: OptionSpec["group"], list: readonly Row[]): OptionSpec[] {
  return list.map(([name, short, kind, value, repeat, help, note]) => ({
    name,
    kind,
    group,
    help,
    repeat,
    ...(short && { short }),
    ...(value && { value }),
    ...(note === "later" ? { later: true as const } : note && { mode: note }),
  }));
}

/** All options, in the order of help. */
export const OPTIONS: readonly OptionSpec[] = [
  ...rows("General", [
    ["help", "h", "flag", "", "once", "Show this help and exit"],
    ["version", "", "flag", "", "once", "Show the version and exit"],
    ["debug", "d", "flag", "", "once", "Show flows and service requests"],
    ["trace", "", "flag", "", "once", "Show packets too, implies --debug"],
    ["quiet", "q", "flag", "", "once", "Show warnings and errors only"],
    ["foreground", "f", "flag", "", "once", "Stay in the foreground"],
    [
      "stderr",
      "e",
      "flag",
      "",
      "once",
      "Accepted for compatibility: messages go to standard error",
    ],
    ["log-file", "l", "path", "FILE", "once", "Write messages to FILE instead of standard error"],
    ["pcap", "p", "path", "FILE", "once", "Write the guest's packets to FILE in pcap format"],
    ["pid", "P", "path", "FILE", "once", "Write the process number to FILE", "later"],
    ["log-size", "", "path", "BYTES", "once", "Largest size of the log file", "later"],
    ["runas", "", "path", "UID[:GID]", "once", "Run as another user", "later"],
  ]),
  ...rows("Guest addresses", [
    [
      "address",
      "a",
      "prefix",
      "ADDR[/LENGTH]",
      "family",
      "Address of the guest, once per family (default: the host's)",
    ],
    [
      "netmask",
      "n",
      "netmask",
      "MASK",
      "once",
      "IPv4 netmask, dotted or bits (default: the host's, or by the address's class)",
    ],
    [
      "gateway",
      "g",
      "unicast",
      "ADDR",
      "family",
      "Default gateway of the guest, once per family (default: the host's)",
    ],
    [
      "mtu",
      "m",
      "mtu",
      "MTU",
      "once",
      "MTU of the guest's interface, 1280 to 65520, 0 to set none (default: 65520)",
    ],
    [
      "mac-addr",
      "M",
      "mac",
      "MAC",
      "once",
      "Our MAC address as the guest sees it (default: 9a:55:9a:55:9a:55)",
    ],
    [
      "map-host-loopback",
      "",
      "unicast-or-none",
      "ADDR",
      "family",
      "Address that reaches the host's loopback, or none (default: the gateway)",
    ],
    ["no-map-gw", "", "flag", "", "once", "The gateway does not reach the host's loopback"],
    [
      "map-guest-addr",
      "",
      "unicast-or-none",
      "ADDR",
      "family",
      "Address that reaches the host's own address, or none (default: none)",
    ],
    ["ipv4-only", "4", "flag", "", "once", "No IPv6"],
    ["ipv6-only", "6", "flag", "", "once", "No IPv4"],
  ]),
  ...rows("Names and resolvers", [
    [
      "dns",
      "D",
      "resolver-or-none",
      "ADDR",
      "list",
      "Resolver for the guest, may be repeated, or none (default: those of /etc/resolv.conf)",
    ],
    [
      "dns-forward",
      "",
      "unicast",
      "ADDR",
      "family",
      "Address whose port 53 reaches the host's resolver, once per family",
    ],
    [
      "dns-host",
      "",
      "resolver",
      "ADDR",
      "family",
      "Resolver behind --dns-forward (default: the first of its family)",
    ],
    [
      "search",
      "S",
      "search",
      "LIST",
      "once",
      "Search domains separated by spaces, or none (default: those of /etc/resolv.conf)",
    ],
    ["dhcp-dns", "", "flag", "", "once", "Hand resolvers to the guest (default for passt)"],
    ["no-dhcp-dns", "", "flag", "", "once", "Hand out no resolvers (default for pasta)"],
    ["dhcp-search", "", "flag", "", "once", "Hand out search domains (default for passt)"],
    ["no-dhcp-search", "", "flag", "", "once", "Hand out no search domains (default for pasta)"],
    ["hostname", "H", "domain", "NAME", "once", "Host name that DHCP gives to the guest"],
    ["fqdn", "", "domain", "NAME", "once", "Fully qualified name that DHCP gives to the guest"],
  ]),
  ...rows("Host side", [
    [
      "interface",
      "i",
      "interface",
      "NAME",
      "once",
      "Interface to take addresses and routes from (default: that of the default route)",
    ],
    [
      "outbound",
      "o",
      "unicast",
      "ADDR",
      "family",
      "Source address of outbound sockets, once per family (default: the kernel's choice)",
    ],
    ["outbound-if4", "", "interface", "NAME", "once", "Interface of outbound IPv4 sockets"],
    ["outbound-if6", "", "interface", "NAME", "once", "Interface of outbound IPv6 sockets"],
  ]),
  ...rows("Port forwarding", [
    [
      "tcp-ports",
      "t",
      "ports",
      "SPEC",
      "list",
      "TCP ports of the host for the guest: PORT, PORT:GUESTPORT, lists with commas (default: none)",
    ],
    ["udp-ports", "u", "ports", "SPEC", "list", "UDP ports, in the same form (default: none)"],
    [
      "tcp-ns",
      "T",
      "ports-ns",
      "SPEC",
      "list",
      "TCP ports of the namespace for the host: none or auto",
      "pasta",
    ],
    ["udp-ns", "U", "ports-ns", "SPEC", "list", "UDP ports, in the same form", "pasta"],
  ]),
  ...rows("Protocols", [
    ["no-tcp", "", "flag", "", "once", "No TCP"],
    ["no-udp", "", "flag", "", "once", "No UDP"],
    ["no-icmp", "", "flag", "", "once", "No ICMP echo"],
    ["no-dhcp", "", "flag", "", "once", "No DHCP server"],
    ["no-dhcpv6", "", "flag", "", "once", "No DHCPv6 server"],
    ["no-ndp", "", "flag", "", "once", "No answers to neighbour and router solicitations"],
    ["no-ra", "", "flag", "", "once", "No router advertisements"],
  ]),
  ...rows("Namespace", [
    [
      "config-net",
      "",
      "flag",
      "",
      "once",
      "Give the namespace's interface its addresses and routes, and bring it up",
      "pasta",
    ],
    [
      "ns-ifname",
      "I",
      "interface",
      "NAME",
      "once",
      "Name of the namespace's interface (default: that of the host's)",
      "pasta",
    ],
    [
      "ns-mac-addr",
      "",
      "mac",
      "MAC",
      "once",
      "MAC address of the namespace's interface (default: the kernel's choice)",
      "pasta",
    ],
    ["userns", "", "path", "PATH", "once", "User namespace to join", "later"],
    ["netns", "", "path", "PATH|NAME", "once", "Network namespace to join", "later"],
    ["netns-only", "", "flag", "", "once", "Join or create no user namespace", "later"],
    ["no-netns-quit", "", "flag", "", "once", "Stay when the namespace's file goes", "later"],
    ["socket", "s", "path", "PATH", "once", "UNIX socket of the hypervisor", "later"],
    ["fd", "F", "path", "FD", "once", "Connected socket to use", "later"],
    ["one-off", "1", "flag", "", "once", "Leave after the first client", "later"],
  ]),
];

/** An option as the user would write it: the short form where there is one. */
export function optionLabel(spec: OptionSpec): string {
  return spec.short ? `-${spec.short}` : `--${spec.name}`;
}
