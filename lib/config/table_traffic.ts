// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Options about traffic: ports that are forwarded, protocols that are left out.
 *
 * @module
 */
import { addPorts } from "./fields.ts";
import { group } from "./spec.ts";

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
