// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Options about the guest's network: its addresses, its names, and what of the host it is taken from.
 *
 * @module
 */
import { addDns, addSearch, setAddress, setGuestAddress, setMapping, setOnly } from "./fields.ts";
import { group } from "./spec.ts";
import {
  parseDomain,
  parseInterface,
  parseMac,
  parseMtu,
  parseNetmask,
  parseResolver,
  parseUnicast,
} from "./values.ts";

export const ADDRESSES = group("Guest addresses", [
  {
    name: "address",
    short: "a",
    value: "ADDR[/LENGTH]",
    repeat: "family",
    help: "Address of the guest, once per family (default: the host's)",
    more: "Without a length it is that of the same address on the host, else by the address's " +
      "class, or 64 for IPv6. The other addresses of the host's interface are not given to " +
      "the guest then.",
    set: setGuestAddress,
  },
  {
    name: "netmask",
    short: "n",
    value: "MASK",
    help: "IPv4 netmask, dotted or bits (default: the host's, or by the address's class)",
    more: "It cannot be given together with a length in -a.",
    set: (o, text) => o.netmask = parseNetmask(text),
  },
  {
    name: "gateway",
    short: "g",
    value: "ADDR",
    repeat: "family",
    help: "Default gateway of the guest, once per family (default: the host's)",
    more: "Its address also stands for the host itself, see --no-map-gw. The host's other " +
      "routes are not given to the guest then.",
    set: (o, text) => setAddress(o, "gateway", parseUnicast(text)),
  },
  {
    name: "mtu",
    short: "m",
    value: "MTU",
    help: "MTU of the guest's interface, 68 to 65520, 0 to set none (default: 65520)",
    more: "It is set by --config-net and announced by DHCP and router advertisements. With 0, " +
      "neither is done. Below 1280, which is the least for IPv6, the guest has IPv4 only, and a " +
      "warning says so.",
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
    more: "Otherwise what the guest sends to its gateway's address goes to the loopback address " +
      "of the host, as far as it is TCP or UDP, and what comes from there seems to come " +
      "from the gateway.",
    set: (o) => o.mapGateway = false,
  },
  {
    name: "map-host-loopback",
    value: "ADDR",
    repeat: "family",
    complete: ["none"],
    help: "Address that reaches the host's loopback, or none (default: the gateway)",
    more: "The word none switches it off for both families, as --no-map-gw does.",
    set: (o, text) => setMapping(o, "mapHostLoopback", text),
  },
  {
    name: "map-guest-addr",
    value: "ADDR",
    repeat: "family",
    complete: ["none"],
    help: "Address that reaches the host's own address, or none (default: none)",
    more: "The guest often has the very address of the host, so that it cannot reach it: this " +
      "gives it another one.",
    set: (o, text) => setMapping(o, "mapGuestAddr", text),
  },
  {
    name: "ipv4-only",
    short: "4",
    help: "No IPv6",
    more: "The last one of this and -6 counts.",
    set: (o) => setOnly(o, "v4"),
  },
  {
    name: "ipv6-only",
    short: "6",
    help: "No IPv4",
    more: "The last one of this and -4 counts.",
    set: (o) => setOnly(o, "v6"),
  },
]);

export const NAMES = group("Names and resolvers", [
  {
    name: "dns",
    short: "D",
    value: "ADDR",
    repeat: "list",
    complete: ["none"],
    help: "Resolver for the guest, may be repeated, or none (default: those of /etc/resolv.conf)",
    more: "The word none drops what was given before, --dns-forward and --dns-host too.",
    set: addDns,
  },
  {
    name: "dns-forward",
    value: "ADDR",
    repeat: "family",
    help: "Address whose port 53 reaches the host's resolver, once per family",
    more: "This is for UDP and TCP. Answers come back with that address.",
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
    repeat: "list",
    complete: ["none"],
    help: "Search domains separated by spaces, or none (default: those of /etc/resolv.conf)",
    more: "All occurrences count; none drops what was given before.",
    set: addSearch,
  },
  {
    name: "dhcp-dns",
    mode: "pasta",
    help: "Hand resolvers to the guest (default: none)",
    set: (o) => o.announceDns = true,
  },
  {
    name: "no-dhcp-dns",
    mode: "passt",
    help: "Hand out no resolvers",
    set: (o) => o.announceDns = false,
  },
  {
    name: "dhcp-search",
    mode: "pasta",
    help: "Hand search domains to the guest (default: none)",
    set: (o) => o.announceSearch = true,
  },
  {
    name: "no-dhcp-search",
    mode: "passt",
    help: "Hand out no search domains",
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

export const HOST = group("Host side", [
  {
    name: "interface",
    short: "i",
    value: "NAME",
    complete: "interface",
    help: "Interface to take addresses and routes from (default: that of the default route)",
    more: "It goes before the interfaces of --outbound-if4 and --outbound-if6.",
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
    complete: "interface",
    help: "Interface of outbound IPv4 sockets",
    more: "Addresses and routes are taken from it, too, unless -i is given.",
    set: (o, text) => o.v4.outboundInterface = parseInterface(text),
  },
  {
    name: "outbound-if6",
    value: "NAME",
    complete: "interface",
    help: "Interface of outbound IPv6 sockets",
    more: "Addresses and routes are taken from it, too, unless -i is given.",
    set: (o, text) => o.v6.outboundInterface = parseInterface(text),
  },
]);
