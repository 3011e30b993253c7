// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The option table: the one place where an option's names, value, group, help text and effect stand.
 * Parsing, error messages, `--help`, the manual page and the shells' completions are all made from it.
 *
 * @module
 */
import { setFd, setNetnsOnly, setSocketPath, setUserns } from "./fields.ts";
import { group, type OptionSpec } from "./spec.ts";
import { ADDRESSES, HOST, NAMES } from "./table_network.ts";
import { POLICY, PORTS, PROTOCOLS } from "./table_traffic.ts";
import {
  parseFd,
  parseLogSize,
  parseMac,
  parseNetns,
  parseNewInterface,
  parsePath,
  parseRunAs,
} from "./values.ts";

export { OPTION_GROUPS, type OptionSpec } from "./spec.ts";

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
    more: "The output is large, and meant for finding out what went wrong.",
    set: (o) => o.logLevel = o.logLevel === "TRACE" ? "TRACE" : "DEBUG",
  },
  {
    name: "trace",
    help: "Show packets too, implies --debug",
    more: "Each packet takes a line.",
    set: (o) => o.logLevel = "TRACE",
  },
  {
    name: "foreground",
    short: "f",
    help: "Stay in the foreground",
    more: "A command is always waited for: this is about PID and --netns, where the program " +
      "goes to the background as soon as all is ready, unless this is given.",
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
    complete: "file",
    help: "Write messages to FILE instead of standard error",
    set: (o, text) => o.logFile = parsePath(text),
  },
  {
    name: "pcap",
    short: "p",
    value: "FILE",
    complete: "file",
    help: "Write the guest's packets to FILE in pcap format",
    set: (o, text) => o.pcap = parsePath(text),
  },
  {
    name: "pid",
    short: "P",
    value: "FILE",
    complete: "file",
    help: "Write the process number to FILE once all is ready, and remove it at the end",
    set: (o, text) => o.pidFile = parsePath(text),
  },
  {
    name: "log-size",
    value: "BYTES",
    help: "Largest size of the log file, oldest lines are dropped (default: 1048576)",
    more: "The file never gets larger: when it is full, its oldest lines make room. The least " +
      "is 40960.",
    set: (o, text) => o.logSize = parseLogSize(text),
  },
  {
    name: "runas",
    value: "UID[:GID]",
    complete: "user",
    help: "Run as another user, by number or name (default: nobody when started as root)",
    more: "This needs the rights to do so. Files of -l and -P are opened before; namespaces are " +
      "joined, and the file of -p is opened, as the new user. Where only root may use " +
      "/dev/net/tun, root stays root unless this option is given; so it does with --runas 0, " +
      "which the namespaces of root need.",
    set: (o, text) => o.runas = parseRunAs(text),
  },
  {
    name: "chroot-fallback",
    help: "Accepted for compatibility: the root directory is never changed",
    set: () => {},
  },
  {
    name: "control",
    value: "FD",
    help: "Connected UNIX socket of a program that steers this one, inherited as descriptor FD",
    more:
      "Both sides say JSON, a line each: forwarded ports can be changed, flows be watched. To open " +
      "or close a port takes about 20 microseconds, in which no packet moves. When the other side " +
      "closes the socket, or no longer reads, we end. It keeps us in the foreground. What stops " +
      "the start is said there, too; what is wrong with options only if this is the first one.",
    set: (o, text) => o.control = parseFd(text),
  },
  {
    name: "flow-table",
    value: "FD",
    help:
      "Keep the table of flows in a file of zeroes, inherited as descriptor FD, which others can map",
    more:
      "Each instance needs a new one. It should be of memfd_create(2) with MFD_ALLOW_SEALING: then " +
      "we seal it against shrinking. Any other file must not be cut short while we run: that would " +
      "end us. Its size limits the number of flows, which is 131071 at most.",
    set: (o, text) => o.flowTable = parseFd(text, "file"),
  },
  { name: "stats", value: "SECONDS", help: "Show counts of events, with -f only" },
  {
    name: "conf-path",
    short: "c",
    value: "PATH",
    complete: "file",
    help: "UNIX socket for changes while running",
  },
]);

const NAMESPACE = group("Namespace", [
  {
    name: "config-net",
    mode: "pasta",
    help: "Give the namespace's interface its addresses and routes, and bring it up",
    more: "Without it, the interface is there but down, and a DHCP client in the namespace can " +
      "configure it.",
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
  {
    name: "userns",
    value: "PATH",
    mode: "pasta",
    complete: "file",
    help: "User namespace to join (default: that of PID, or none with --netns)",
    set: setUserns,
  },
  {
    name: "netns",
    value: "PATH|NAME",
    mode: "pasta",
    complete: "netns",
    help: "Network namespace to join, by path or by its name in ip-netns(8)",
    more: "A name is a file below /run/netns. There cannot be a PID or a command, too.",
    set: (o, text) => o.target = { kind: "path", path: parseNetns(text) },
  },
  {
    name: "netns-only",
    mode: "pasta",
    help: "Join or make no user namespace (default with --netns, unless --userns is given)",
    more: "The last one of this and --userns counts.",
    set: setNetnsOnly,
  },
  {
    name: "no-netns-quit",
    mode: "pasta",
    help: "Stay when the process or the path of the joined namespace has gone",
    more: "Otherwise the program ends with it.",
    set: (o) => o.netnsQuit = false,
  },
  {
    name: "no-copy-routes",
    mode: "pasta",
    needs: "config-net",
    help: "Of the host's routes, give the default route only",
    more: "Accepted for compatibility: -g means the same for its family.",
    set: (o) => o.copyRoutes = false,
  },
  {
    name: "no-copy-addrs",
    mode: "pasta",
    needs: "config-net",
    help: "Of the host's addresses, give the first of each family only",
    more: "Accepted for compatibility: -a means the same for its family.",
    set: (o) => o.copyAddresses = false,
  },
]);

const MACHINE = group("Virtual machine", [
  {
    name: "socket",
    short: "s",
    aliases: ["socket-path"],
    value: "PATH",
    mode: "passt",
    complete: "file",
    help: "UNIX socket that the hypervisor connects to (default: /tmp/passt_N.socket)",
    more: "N is the first number from 1 to 64 that is free. A socket that nobody listens on any " +
      "more is used again. The last one of this and -F counts.",
    set: setSocketPath,
  },
  {
    name: "fd",
    short: "F",
    value: "FD",
    mode: "passt",
    help: "Connected UNIX socket to use, inherited as descriptor FD; implies --one-off",
    set: setFd,
  },
  {
    name: "one-off",
    short: "1",
    mode: "passt",
    help: "Leave when the first client does",
    more: "Otherwise the next client is waited for.",
    set: (o) => o.oneOff = true,
  },
  {
    name: "vhost-user",
    mode: "passt",
    help: "Serve the hypervisor by vhost-user, over shared memory",
    more: "The guest's memory has to be shared: in QEMU, -object memory-backend-memfd with " +
      "share=on.",
    set: (o) => o.vhostUser = true,
  },
  {
    name: "print-capabilities",
    mode: "passt",
    help: "Show what --vhost-user can do, as JSON, and exit",
    set: (o) => o.printCapabilities = true,
  },
  {
    name: "repair-path",
    value: "PATH",
    mode: "passt",
    complete: "file",
    help: "UNIX socket of passt-repair(1)",
  },
  { name: "migrate-exit", mode: "passt", help: "Leave after a migration to another host" },
  { name: "migrate-no-linger", mode: "passt", help: "Close sockets after a migration" },
]);

/** All options, in the order of help. */
export const OPTIONS: readonly OptionSpec[] = [
  ...GENERAL,
  ...ADDRESSES,
  ...NAMES,
  ...HOST,
  ...PORTS,
  ...POLICY,
  ...PROTOCOLS,
  ...NAMESPACE,
  ...MACHINE,
];
