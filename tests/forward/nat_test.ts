// SPDX-License-Identifier: GPL-2.0-or-later
/** Every rule of the address mapping, in both directions and families. */
import { assertEquals } from "@std/assert";
import type { Family } from "../../lib/context.ts";
import { FlowSide, Pif } from "../../lib/flow/side.ts";
import { familyFor, natFromHost, natFromTap } from "../../lib/forward/nat.ts";
import { IPPROTO_ICMP, IPPROTO_UDP } from "../../lib/wire/ipv4.ts";
import { address, fakeContext, fakeFamily4, fakeFamily6 } from "../helpers/fake_context.ts";

/** The same network in both families. */
const NETS = {
  IPv4: {
    guest: "192.0.2.2",
    gateway: "192.0.2.1",
    map: "192.0.2.33",
    forward: "192.0.2.53",
    resolver: "198.51.100.53",
    peer: "203.0.113.5",
    other: "192.0.2.77",
    loopback: "127.0.0.1",
    any: "0.0.0.0",
  },
  IPv6: {
    guest: "2001:db8::2",
    gateway: "2001:db8::1",
    map: "2001:db8::33",
    forward: "2001:db8::53",
    resolver: "2001:db8:1::53",
    peer: "2001:db8:2::5",
    other: "2001:db8::77",
    loopback: "::1",
    any: "::",
  },
};
type Net = typeof NETS.IPv4;
type Name = keyof Net;

/** Addresses of a family by the names above; null switches a mapping off. */
type Config = Partial<
  Record<
    "mapHostLoopback" | "mapGuestAddr" | "dnsForward" | "dnsHost" | "addrSeen",
    Name | null
  >
>;

/** A context in which only the family of `net` exists, configured as `config` says. */
function contextOf(net: Net, config: Config) {
  const named = Object.entries(config).map(([key, name]) =>
    [key, name === null ? null : address(net[name])] as const
  );
  const options = Object.fromEntries(named) as Partial<Family>;
  return net === NETS.IPv4
    ? fakeContext({ ip4: fakeFamily4(options), ip6: null })
    : fakeContext({ ip4: null, ip6: fakeFamily6(options) });
}

const show = (host: string, port: number) =>
  host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;

/** Rules for what the guest sends: destination and port as the guest names them, and the host's. */
const FROM_TAP: [rule: string, config: Config, dest: Name, port: number, result: Name][] = [
  ["others keep their address", {}, "peer", 80, "peer"],
  ["a neighbour keeps its address", {}, "other", 53, "other"],
  ["the gateway is the host's loopback", {}, "gateway", 80, "loopback"],
  ["--map-host-loopback is the host's loopback", { mapHostLoopback: "map" }, "map", 80, "loopback"],
  ["the gateway is then itself", { mapHostLoopback: "map" }, "gateway", 80, "gateway"],
  ["--no-map-gw leaves the gateway itself", { mapHostLoopback: null }, "gateway", 80, "gateway"],
  ["--map-guest-addr is the host's address", { mapGuestAddr: "map" }, "map", 80, "guest"],
  [
    "--dns-forward is the resolver on port 53",
    { dnsForward: "forward", dnsHost: "resolver" },
    "forward",
    53,
    "resolver",
  ],
  [
    "and itself on others",
    { dnsForward: "forward", dnsHost: "resolver" },
    "forward",
    54,
    "forward",
  ],
  ["without a resolver it is itself", { dnsForward: "forward" }, "forward", 53, "forward"],
  [
    "a resolver on the host's loopback is reached there",
    { dnsForward: "forward", dnsHost: "loopback" },
    "forward",
    53,
    "loopback",
  ],
  [
    "--dns-forward comes before the loopback",
    { dnsForward: "gateway", dnsHost: "resolver" },
    "gateway",
    53,
    "resolver",
  ],
  [
    "and leaves it the other ports",
    { dnsForward: "gateway", dnsHost: "resolver" },
    "gateway",
    80,
    "loopback",
  ],
];

/** Rules for what the host's side sends: the peer, and what the guest sees in its place. */
const FROM_HOST: [rule: string, config: Config, peer: Name, seen: Name, guest: Name][] = [
  ["others keep their address", {}, "peer", "peer", "guest"],
  ["loopback is the gateway", {}, "loopback", "gateway", "guest"],
  ["loopback is --map-host-loopback", { mapHostLoopback: "map" }, "loopback", "map", "guest"],
  [
    "loopback is our address with --no-map-gw",
    { mapHostLoopback: null },
    "loopback",
    "gateway",
    "guest",
  ],
  ["the host's address is --map-guest-addr", { mapGuestAddr: "map" }, "guest", "map", "guest"],
  ["the host's address is else our address", {}, "guest", "gateway", "guest"],
  ["so is the address that the guest uses", { addrSeen: "other" }, "other", "gateway", "other"],
  ["and the one it was given", { addrSeen: "other" }, "guest", "gateway", "other"],
  ["no address at all is our address", {}, "any", "gateway", "guest"],
  ["the guest is where it was last seen", { addrSeen: "other" }, "peer", "peer", "other"],
];

for (const [family, net] of Object.entries(NETS)) {
  for (const [rule, config, dest, port, result] of FROM_TAP) {
    Deno.test(`natFromTap(), ${family}: ${rule}`, () => {
      const ini = new FlowSide(), tgt = new FlowSide();
      ini.pif = Pif.TAP;
      ini.setEndpoint(address(net.guest), 0, 4000);
      ini.setOur(address(net[dest]), 0, port);
      tgt.words.fill(-1); // whatever the last flow has left there
      const before = ini.toString();
      assertEquals(natFromTap(contextOf(net, config), IPPROTO_UDP, ini, tgt), true);
      assertEquals(`${tgt}`, `HOST ${show(net[result], port)} <-> ${show(net.any, 0)}`);
      assertEquals(ini.toString(), before);
    });
  }

  for (const [rule, config, peer, seen, guest] of FROM_HOST) {
    Deno.test(`natFromHost(), ${family}: ${rule}`, () => {
      const ini = new FlowSide(), tgt = new FlowSide();
      ini.pif = Pif.HOST;
      ini.setEndpoint(address(net[peer]), 0, 5000);
      ini.setOur(address(net.any), 0, 8080);
      tgt.words.fill(-1);
      const before = ini.toString();
      assertEquals(natFromHost(contextOf(net, config), ini, tgt, 80), true);
      assertEquals(`${tgt}`, `TAP ${show(net[guest], 80)} <-> ${show(net[seen], 5000)}`);
      assertEquals(ini.toString(), before);
    });
  }

  Deno.test(`natFromHost(), ${family}: what the guest sees leads back to the same peer`, () => {
    for (const peer of ["peer", "loopback", "guest"] as const) {
      const ctx = contextOf(net, { mapGuestAddr: "map" });
      const ini = new FlowSide(), tgt = new FlowSide(), back = new FlowSide();
      ini.setEndpoint(address(net[peer]), 0, 5000);
      natFromHost(ctx, ini, tgt, 80);
      natFromTap(ctx, IPPROTO_UDP, tgt, back);
      assertEquals(`${back}`, `HOST ${show(net[peer], 5000)} <-> ${show(net.any, 0)}`);
    }
  });
}

Deno.test("natFromTap() and natFromHost() refuse a family that is disabled", () => {
  for (const [family, net] of Object.entries(NETS)) {
    const ctx = fakeContext(family === "IPv4" ? { ip4: null } : { ip6: null });
    const ini = new FlowSide(), tgt = new FlowSide();
    ini.setEndpoint(address(net.peer), 0, 1);
    ini.setOur(address(net.peer), 0, 2);
    assertEquals(natFromTap(ctx, IPPROTO_UDP, ini, tgt), false);
    assertEquals(natFromHost(ctx, ini, tgt, 80), false);
    assertEquals(familyFor(ctx, address(net.peer), 0), null);
  }
});

Deno.test("natFromHost() refuses while the guest has no address of the family", () => {
  const ctx = fakeContext({ ip6: fakeFamily6({ addr: address("::") }) });
  const ini = new FlowSide(), tgt = new FlowSide();
  ini.setEndpoint(address("2001:db8:2::5"), 0, 1);
  assertEquals(natFromHost(ctx, ini, tgt, 80), false);
});

/** A link-local peer, `addrSeen`, `linkLocalSeen`, and the side of the guest. */
const LINK_LOCAL: [seen: string, local: string, expected: string][] = [
  ["2001:db8::2", "fe80::2", "TAP [fe80::2]:80 <-> [fe80::1]:5000"],
  ["::", "fe80::2", "TAP [fe80::2]:80 <-> [fe80::1]:5000"],
  ["2001:db8::2", "::", "TAP [2001:db8::2]:80 <-> [fe80::99]:5000"],
];

for (const [seen, local, expected] of LINK_LOCAL) {
  Deno.test(`natFromHost(): a link-local peer is our link-local address to a guest with ${local}`, () => {
    const ip6 = fakeFamily6({ addrSeen: address(seen), linkLocalSeen: address(local) });
    const ini = new FlowSide(), tgt = new FlowSide();
    ini.setEndpoint(address("fe80::99"), 0, 5000);
    assertEquals(natFromHost(fakeContext({ ip6 }), ini, tgt, 80), true);
    assertEquals(`${tgt}`, expected);
  });
}

Deno.test("natFromHost(): a guest with a link-local address alone is reached from loopback", () => {
  const fe80 = { gateway: address("fe80::1"), mapHostLoopback: address("fe80::1") };
  const ip6 = fakeFamily6({
    ...fe80,
    addr: address("::"),
    addrSeen: address("::"),
    linkLocalSeen: address("fe80::2"),
    ourAddr: address("fe80::1"),
  });
  const ini = new FlowSide(), tgt = new FlowSide();
  ini.setEndpoint(address("::1"), 0, 5000);
  assertEquals(natFromHost(fakeContext({ ip6 }), ini, tgt, 80), true);
  assertEquals(`${tgt}`, "TAP [fe80::2]:80 <-> [fe80::1]:5000");
});

Deno.test("natFromTap() does not take a ping with the identifier 53 for a query", () => {
  const gateway = address("192.0.2.1"), resolver = address("198.51.100.53");
  const config = fakeFamily4({ mapHostLoopback: null, dnsForward: gateway, dnsHost: resolver });
  const ini = new FlowSide(), tgt = new FlowSide();
  ini.pif = Pif.TAP;
  ini.setEndpoint(address("192.0.2.2"), 0, 53);
  ini.setOur(gateway, 0, 53);
  assertEquals(natFromTap(fakeContext({ ip4: config }), IPPROTO_ICMP, ini, tgt), true);
  assertEquals(tgt.words.slice(0, 4), gateway);
  assertEquals(natFromTap(fakeContext({ ip4: config }), IPPROTO_UDP, ini, tgt), true);
  assertEquals(tgt.words.slice(0, 4), resolver);
});
