// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Options about traffic: ports that are forwarded, protocols that are left out.
 *
 * @module
 */
import { addPolicyRule, addPorts } from "./fields.ts";
import { group } from "./spec.ts";
import { parsePath } from "./values.ts";

export const PORTS = group("Port forwarding", [
  {
    name: "tcp-ports",
    short: "t",
    value: "SPEC",
    repeat: "list",
    complete: ["none", "all", "auto"],
    help:
      "TCP ports of the host for the guest, as below, may be repeated (default: auto, none for passt)",
    more: "Occurrences add up. They must not overlap, and none stands alone.",
    set: (o, text) => addPorts(o, "tcpRules", text),
  },
  {
    name: "udp-ports",
    short: "u",
    value: "SPEC",
    repeat: "list",
    complete: ["none", "all", "auto"],
    help: "UDP ports of the host, in the same form (default: as for TCP, and the numbers of TCP's)",
    more: "Unless this is given, the UDP ports with the numbers of forwarded TCP ports are " +
      "forwarded, too, to the same numbers, as far as they can be had.",
    set: (o, text) => addPorts(o, "udpRules", text),
  },
  {
    name: "tcp-ns",
    short: "T",
    value: "SPEC",
    repeat: "list",
    mode: "pasta",
    complete: ["none", "all", "auto"],
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
    complete: ["none", "all", "auto"],
    help:
      "UDP ports of the namespace's loopback, likewise (default: auto, and the numbers of TCP's)",
    set: (o, text) => addPorts(o, "udpNsRules", text),
  },
  {
    name: "freebind",
    help: "Listen on addresses, too, that the host does not have yet",
    more: "See IP_FREEBIND in ip(7).",
    set: (o) => o.freebind = true,
  },
  {
    name: "no-splice",
    mode: "pasta",
    help:
      "Local connections go through the guest's interface as others do, instead of from socket " +
      "to socket",
    more: "Connections from the host's own loopback address otherwise skip the guest's " +
      "interface: data goes from one socket straight to the other.",
    set: (o) => o.noSplice = true,
  },
  {
    name: "splice-only",
    mode: "pasta",
    help: "No interface at all, only local connections from socket to socket",
  },
  {
    name: "host-lo-to-ns-lo",
    mode: "pasta",
    help: "Local connections of the host reach the namespace's loopback address (default: the " +
      "guest's own address)",
    set: (o) => o.hostLoToNsLo = true,
  },
]);

export const POLICY = group("Policy", [
  {
    name: "allow-out",
    value: "RULE",
    repeat: "list",
    help: "The guest may start connections that RULE is about, may be repeated; others that no " +
      "rule is about are refused (default: all are allowed)",
    more: "RULE is any, an address, a prefix, a name, or *.NAME for the names below it; then, if " +
      "wanted, :PORT or :PORT-PORT, /tcp, /udp or /icmp (pings), and =ADDRESS or =ADDRESS:PORT " +
      "where the connection goes instead. IPv6 before a port stands in brackets. Examples: " +
      "10.0.0.0/8, *.example.com:443/tcp, [2001:db8::1]:80=[::1]:8080. The first rule of this " +
      "and --deny-out that is about a connection decides, once. The host's own loopback is " +
      "127.0.0.1 or ::1, by whatever address or port the guest reaches it. Addresses of names " +
      "are those that the configured resolvers have told the guest, by UDP: who shares such an " +
      "address is reached, too, and who owns a name decides where it leads: to deny your own " +
      "network, say so first. With names, port 53 of these resolvers is allowed unless denied; " +
      "data can leave in what is asked there.",
    set: (o, text) => addPolicyRule(o, "ALLOW", text),
  },
  {
    name: "deny-out",
    value: "RULE",
    repeat: "list",
    help: "Connections of the guest that RULE is about are refused, may be repeated; without " +
      "--allow-out, others are allowed",
    more: "RULE is as for --allow-out, without =ADDRESS, and is about a connection also by the " +
      "address that the guest uses for the host. TCP is reset, the rest gets ICMP's " +
      '"administratively prohibited". Beyond the loopback, the host is reached by all of its ' +
      "addresses.",
    set: (o, text) => addPolicyRule(o, "REJECT", text),
  },
  {
    name: "policy",
    value: "FILE",
    complete: "file",
    help: "Connections of the guest that no rule is about are decided on by the function that " +
      "FILE, a module of TypeScript or JavaScript, exports as its default",
    more: "It is called once for each connection, with an object of protocol, via, source, " +
      "sourcePort, address, port, namedAddress, namedPort, names and resolver, and returns " +
      '"allow", "reject", "prohibit" or "drop", or an object with that as verdict, and with ' +
      "target (where the connection goes instead) or label. It must answer at once: an error or " +
      "anything else rejects the connection, and after a promise it is not called again: " +
      "everything is rejected. A denial holds for ten seconds for packets with the same addresses " +
      "and ports, which are not asked about again. The module is run before rights are given up; " +
      "nothing asynchronous of it goes on later, and what it leaves behind (a request that it " +
      "does not wait for) takes memory for each connection, and for ever. Port " +
      "53 of resolvers is asked about like any other, where resolver says so, unless --allow-out " +
      "has a name. With - as FILE, the program behind --control decides.",
    set: (o, text) => o.policy = parsePath(text),
  },
]);

export const PROTOCOLS = group("Protocols", [
  { name: "no-tcp", help: "No TCP", set: (o) => o.tcp = false },
  { name: "no-udp", help: "No UDP", set: (o) => o.udp = false },
  {
    name: "no-icmp",
    help: "No ICMP echo",
    more: "Echo requests of the guest are dropped.",
    set: (o) => o.icmp = false,
  },
  { name: "no-dhcp", help: "No DHCP server", set: (o) => o.dhcp = false },
  { name: "no-dhcpv6", help: "No DHCPv6 server", set: (o) => o.dhcpv6 = false },
  {
    name: "no-ndp",
    help: "No answers to neighbour and router solicitations",
    set: (o) => o.ndp = false,
  },
  { name: "no-ra", help: "No router advertisements", set: (o) => o.ra = false },
]);
