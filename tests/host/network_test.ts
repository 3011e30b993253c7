// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError, parseOptions } from "../../lib/config/options.ts";
import type { Family } from "../../lib/context.ts";
import type { HostFamily, HostNetwork } from "../../lib/host/host_network.ts";
import { buildNetwork, type Network } from "../../lib/host/network.ts";
import { summary } from "../../lib/host/summary.ts";
import { formatMac } from "../../lib/wire/ethernet.ts";
import { type Address, formatAddress, parseAddress } from "../../lib/wire/address.ts";

const address = (text: string): Address => parseAddress(text)!;
const text = (words: Address | null): string | null => words && formatAddress(words);

/** A family of a host with one interface. */
function family(gateway: string | null, ...addresses: [string, number][]): HostFamily {
  return {
    ifindex: 7,
    name: "eth0",
    mtu: 1500,
    mac: null,
    addresses: addresses.map(([local, prefixLength]) => ({
      family: local.includes(":") ? 10 : 2,
      ifindex: 7,
      prefixLength,
      scope: 0,
      flags: 0,
      address: address(local),
      peer: null,
      broadcast: null,
    })),
    gateway: gateway === null ? null : address(gateway),
    routes: [],
  };
}

const V4 = family("192.0.2.1", ["192.0.2.2", 24], ["198.51.100.2", 25]);
const V6 = family("fe80::9", ["2001:db8::2", 64]);

/** A host; resolvers given as in resolv.conf(5). */
function host(v4: HostFamily | null, v6: HostFamily | null, ...servers: string[]): HostNetwork {
  const all = servers.map(address);
  const isV4 = (words: Address) => formatAddress(words).includes(".");
  const resolver = {
    v4: all.filter(isV4),
    v6: all.filter((words) => !isV4(words)),
    search: ["example.com"],
  };
  return { v4, v6, ipv6Available: true, resolver, names: ["lo", "eth0"], notes: [] };
}

function build(from: HostNetwork, ...args: string[]): Network {
  return buildNetwork(parseOptions(["pasta", ...args]), from);
}

/** Fields of a family that hold addresses, in text form. */
function pick(from: Family | null, ...fields: (keyof Family)[]): unknown[] {
  return fields.map((field) => {
    const value = from![field];
    return Array.isArray(value)
      ? value.map(text)
      : value instanceof Int32Array
      ? text(value as Address)
      : value;
  });
}

Deno.test("buildNetwork() shares the host's addresses by default", () => {
  const { ip4, ip6, mtu, announceMtu, ourMac, ifname, notes } = build(host(V4, V6));
  assertEquals(pick(ip4, "addr", "prefixLength", "gateway", "ourAddr", "ourLinkLocal", "ifindex"), [
    "192.0.2.2",
    24,
    "192.0.2.1",
    "192.0.2.1",
    "192.0.2.1",
    7,
  ]);
  assertEquals(pick(ip4, "addrSeen", "mapHostLoopback", "mapGuestAddr", "outboundAddr"), [
    "192.0.2.2",
    "192.0.2.1",
    null,
    null,
  ]);
  assertEquals(pick(ip6, "addr", "prefixLength", "gateway", "ourLinkLocal", "linkLocalSeen"), [
    "2001:db8::2",
    64,
    "fe80::9",
    "fe80::9",
    "::",
  ]);
  assertEquals([mtu, announceMtu, formatMac(ourMac), ifname, notes], [
    65520,
    true,
    "9a:55:9a:55:9a:55",
    "eth0",
    [],
  ]);
});

Deno.test("buildNetwork() has fe80::1 as link-local address where the gateway's is global", () => {
  const v6 = family("2001:db8::1", ["2001:db8::2", 64]);
  const { ip6 } = build(host(V4, v6));
  assertEquals(pick(ip6, "gateway", "ourAddr", "ourLinkLocal"), [
    "2001:db8::1",
    "2001:db8::1",
    "fe80::1",
  ]);
});

Deno.test("buildNetwork() takes the prefix length from -n, -a, the host's address, or the class", () => {
  const length = (...args: string[]) => build(host(V4, V6), ...args).ip4!.prefixLength;
  assertEquals(length("-n", "20"), 20);
  assertEquals(length("-a", "192.0.2.9/30"), 30);
  assertEquals(length("-a", "198.51.100.2"), 25);
  assertEquals(length("-a", "10.0.0.1"), 8);
  assertEquals(length("-a", "172.16.0.1"), 16);
  assertEquals(length("-a", "192.168.0.1"), 24);
  assertEquals(build(host(V4, V6), "-a", "fd00::1").ip6!.prefixLength, 64);
  assertEquals(build(host(V4, V6), "-a", "fd00::1/80").ip6!.prefixLength, 80);
});

Deno.test("buildNetwork() maps the host's loopback as told", () => {
  const map = (...args: string[]) => {
    const { ip4, ip6 } = build(host(V4, V6), ...args);
    return [text(ip4!.mapHostLoopback), text(ip6!.mapHostLoopback)];
  };
  assertEquals(map(), ["192.0.2.1", "fe80::9"]);
  assertEquals(map("--no-map-gw"), [null, null]);
  assertEquals(map("--map-host-loopback", "none"), [null, null]);
  assertEquals(map("--map-host-loopback", "10.0.0.9"), ["10.0.0.9", "fe80::9"]);
  assertEquals(map("--no-map-gw", "--map-host-loopback", "10.0.0.9"), ["10.0.0.9", null]);
  assertEquals(map("-g", "192.0.2.77"), ["192.0.2.77", "fe80::9"]);
});

Deno.test("buildNetwork() hands resolvers out only when told to", () => {
  const from = host(V4, V6, "192.0.2.53", "2001:db8::53");
  assertEquals(build(from).ip4!.dns, []);
  assertEquals(build(from).search, []);
  const { ip4, ip6, search } = build(from, "--dhcp-dns", "--dhcp-search");
  assertEquals([pick(ip4, "dns"), pick(ip6, "dns")], [[["192.0.2.53"]], [["2001:db8::53"]]]);
  assertEquals(search, ["example.com"]);
  assertEquals(build(from, "--dhcp-search", "-S", "none").search, []);
  assertEquals(pick(build(from, "--dhcp-dns", "-D", "192.0.2.1").ip4, "dns"), [["192.0.2.1"]]);
  assertEquals(pick(build(from, "--dhcp-dns", "-D", "none").ip4, "dns", "dnsHost"), [[], null]);
});

Deno.test("buildNetwork() sends port 53 of the mapped address on to resolvers a guest cannot reach", () => {
  const dns = (servers: string[], ...args: string[]) =>
    pick(
      build(host(V4, V6, ...servers), "--dhcp-dns", ...args).ip4,
      "dns",
      "dnsForward",
      "dnsHost",
    );
  assertEquals(dns(["192.0.2.53"]), [["192.0.2.53"], null, "192.0.2.53"]);
  assertEquals(dns(["127.0.0.53"]), [["192.0.2.1"], "192.0.2.1", "127.0.0.53"]);
  assertEquals(dns(["127.0.0.53", "127.0.0.54", "192.0.2.53"]), [
    ["192.0.2.1", "192.0.2.53"],
    "192.0.2.1",
    "127.0.0.53",
  ]);
  // the home router: its address means the host's loopback, but for names it must stay the router
  assertEquals(dns(["192.0.2.1"]), [["192.0.2.1"], "192.0.2.1", "192.0.2.1"]);
  assertEquals(dns(["192.0.2.1"], "--no-map-gw"), [["192.0.2.1"], null, "192.0.2.1"]);
  assertEquals(dns(["127.0.0.53"], "--no-map-gw"), [[], null, "127.0.0.53"]);
  assertEquals(dns(["127.0.0.53"], "--no-map-gw", "--dns-forward", "192.0.2.3"), [
    ["192.0.2.3"],
    "192.0.2.3",
    "127.0.0.53",
  ]);
  assertEquals(dns(["192.0.2.53"], "--dns-forward", "192.0.2.3", "--dns-host", "127.0.0.1"), [
    ["192.0.2.53"],
    "192.0.2.3",
    "127.0.0.1",
  ]);
  assertEquals(dns([], "-D", "192.0.2.8", "--dns-forward", "192.0.2.3"), [
    ["192.0.2.8"],
    "192.0.2.3",
    "192.0.2.8",
  ]);
});

Deno.test("buildNetwork() falls back to local mode family by family", () => {
  const { ip4, ip6, ifname, notes } = build(host(null, V6));
  assertEquals(pick(ip4, "addr", "prefixLength", "gateway", "ourAddr", "ifindex"), [
    "169.254.2.1",
    16,
    "169.254.2.2",
    "169.254.2.2",
    0,
  ]);
  assertEquals([text(ip6!.addr), ifname], ["2001:db8::2", "eth0"]);
  assertEquals(notes, [
    "IPv4: the host has no interface to share, local mode: guest 169.254.2.1, gateway 169.254.2.2",
  ]);
  const none = build(host(null, null));
  assertEquals(pick(none.ip6, "addr", "gateway", "ourLinkLocal", "mapHostLoopback"), [
    "::",
    "fe80::1",
    "fe80::1",
    "fe80::1",
  ]);
  assertEquals([none.ifname, none.notes.length], ["tap0", 2]);
});

Deno.test("buildNetwork() goes on with IPv4 when IPv6 is disabled, and says so", () => {
  const from = { ...host(V4, null), ipv6Available: false };
  const { ip6, notes } = build(from);
  assertEquals([ip6, notes], [null, ["IPv6: disabled on this host, IPv4 only"]]);
  assertEquals(build(from, "-4").notes, []);
  assertThrows(() => build(from, "-6"), ConfigError, "-6: IPv6 is disabled on this host");
});

Deno.test("buildNetwork() never uses the guest's own address as ours", () => {
  const { ip4 } = build(host(family("192.0.2.2", ["192.0.2.2", 24]), null));
  assertEquals(text(ip4!.ourAddr), "169.254.2.2");
  assertEquals(
    text(build(host(family(null, ["192.0.2.2", 24]), null)).ip4!.ourAddr),
    "169.254.2.2",
  );
});

Deno.test("buildNetwork() passes on what concerns outbound sockets, names and MAC addresses", () => {
  const { ip4, ip6, ifname, ourMac } = build(
    host(V4, V6),
    ...["-o", "192.0.2.2", "--outbound-if6", "eth0", "-I", "net0", "-M", "02:00:00:00:00:05"],
  );
  assertEquals(text(ip4!.outboundAddr), "192.0.2.2");
  assertEquals(ip6!.outboundInterface, new TextEncoder().encode("eth0\0"));
  assertEquals([ifname, formatMac(ourMac)], ["net0", "02:00:00:00:00:05"]);
  assertThrows(
    () => build(host(V4, V6), "--ns-mac-addr", "9a:55:9a:55:9a:55"),
    ConfigError,
    "--ns-mac-addr: must differ from our own MAC address (-M)",
  );
});

Deno.test("buildNetwork() makes no two families share the words of an address", () => {
  const first = build(host(null, null)), second = build(host(null, null));
  first.ip6!.addrSeen[3] = 42;
  first.ip6!.linkLocalSeen[3] = 42;
  first.ip4!.addrSeen[3] = 42;
  assertEquals([text(second.ip6!.addrSeen), text(second.ip6!.linkLocalSeen)], ["::", "::"]);
  assertEquals(text(second.ip4!.addrSeen), "169.254.2.1");
  assertEquals(text(first.ip4!.addr), "169.254.2.1");
});

Deno.test("summary() shows what was configured", () => {
  const from = host(V4, V6, "127.0.0.53");
  assertEquals(summary(build(from, "--dhcp-dns", "--dhcp-search", "-m", "1500")), [
    "Template interface: eth0 (IPv4), eth0 (IPv6)",
    "Namespace interface: eth0",
    "MAC:",
    "    host: 9a:55:9a:55:9a:55",
    "DHCP:",
    "    assign: 192.0.2.2",
    "    mask: 255.255.255.0",
    "    router: 192.0.2.1",
    "    host loopback as: 192.0.2.1",
    "DNS:",
    "    192.0.2.1",
    "    at 192.0.2.1 to: 127.0.0.53",
    "NDP/DHCPv6:",
    "    assign: 2001:db8::2/64",
    "    router: fe80::9",
    "    our link-local: fe80::9",
    "    host loopback as: fe80::9",
    "DNS search list:",
    "    example.com",
    "MTU: 1500",
  ]);
});

Deno.test("summary() shows how traffic leaves, and what is not served", () => {
  const args = ["-o", "192.0.2.2", "--outbound-if6", "eth0", "--map-guest-addr", "192.0.2.7"];
  const network = build(host(V4, V6), ...args, "--no-map-gw", "-m", "0");
  const lines = summary(network, { dhcp: false, dhcpv6: false, ndp: true });
  assertEquals(lines.slice(1, 4), [
    "Outbound interface: eth0 (IPv6)",
    "Outbound address: 192.0.2.2 (IPv4)",
    "Namespace interface: eth0",
  ]);
  assertEquals(lines.slice(6), [
    "IPv4:",
    "    assign: 192.0.2.2",
    "    mask: 255.255.255.0",
    "    router: 192.0.2.1",
    "    host address as: 192.0.2.7",
    "NDP:",
    "    assign: 2001:db8::2/64",
    "    router: fe80::9",
    "    our link-local: fe80::9",
  ]);
  assertEquals(
    summary(network, { dhcp: true, dhcpv6: true, ndp: false }).includes("DHCPv6:"),
    true,
  );
});
