// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError, parseOptions } from "../../lib/config/options.ts";
import { type HostFamily, type HostNetwork, readHostNetwork } from "../../lib/host/host_network.ts";
import { formatAddress } from "../../lib/wire/address.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { requirements } from "../helpers/require.ts";

const { ignore } = requirements();

/** Two uplinks that are up, without addresses. */
const LINKS = [
  "link set lo up",
  ...["a", "b"].flatMap((name) => [
    `link add ${name}0 type veth peer name ${name}1`,
    `link set ${name}1 up`,
    `link set ${name}0 up mtu 1400 address 02:00:00:00:00:0${name}`,
  ]),
];

/** A namespace with the links and more, given as lines for `ip -batch`. */
function host(...lines: string[]): Promise<TestNamespace> {
  return TestNamespace.create([...LINKS, ...lines].join("\n"));
}

function read(bed: TestNamespace, ...args: string[]): HostNetwork {
  const resolver = { v4: [], v6: [], search: [] };
  return bed.enter(() => readHostNetwork(parseOptions(["pasta", ...args]), resolver));
}

/** The main points of a family in text form. */
function brief(family: HostFamily | null) {
  return family && {
    name: family.name,
    addresses: family.addresses.map((a) => `${formatAddress(a.address)}/${a.prefixLength}`),
    gateway: family.gateway && formatAddress(family.gateway),
  };
}

function test(name: string, fn: () => Promise<void>): void {
  Deno.test({ name: `readHostNetwork() ${name}`, ignore, fn });
}

const DUAL = [
  "addr add 192.0.2.2/24 dev a0",
  "addr add 198.51.100.2/24 dev b0",
  "addr add 2001:db8:a::2/64 dev a0",
  "addr add 2001:db8:b::2/64 dev b0",
];

test("takes the interface of the default route, each family its own", async () => {
  await using bed = await host(
    ...DUAL,
    "route add default via 192.0.2.1",
    "route add ::/0 via fe80::b dev b0",
  );
  const { v4, v6, notes } = read(bed);
  assertEquals(brief(v4), { name: "a0", addresses: ["192.0.2.2/24"], gateway: "192.0.2.1" });
  assertEquals(brief(v6), { name: "b0", addresses: ["2001:db8:b::2/64"], gateway: "fe80::b" });
  assertEquals([v4!.mtu, v4!.mac, notes], [1400, Uint8Array.of(2, 0, 0, 0, 0, 10), []]);
});

test("takes the default route with the lowest metric and says that there are several", async () => {
  await using bed = await host(
    ...DUAL,
    "route add default via 192.0.2.1 metric 600",
    "route add default via 198.51.100.1 metric 100",
  );
  const { v4, notes } = read(bed, "-4");
  assertEquals([v4!.name, brief(v4)!.gateway], ["b0", "198.51.100.1"]);
  assertEquals(notes, ["IPv4: several default routes, taking the first (choose with -i)"]);
});

test("knows multipath routes, and gateways of the other family as none", async () => {
  await using bed = await host(
    ...DUAL,
    "route add default nexthop via 198.51.100.1 dev b0 weight 2 nexthop via 192.0.2.1 dev a0",
  );
  const { v4 } = read(bed, "-4");
  assertEquals([v4!.name, brief(v4)!.gateway], ["b0", "198.51.100.1"]);
  assertEquals(v4!.routes.find((route) => route.prefixLength === 0)!.hops.length, 1);
  await bed.batch("route del default\nroute add 0.0.0.0/0 via inet6 fe80::1 dev a0");
  assertEquals(brief(read(bed, "-4").v4), {
    name: "a0",
    addresses: ["192.0.2.2/24"],
    gateway: null,
  });
});

test("takes a default route without gateway", async () => {
  await using bed = await host(...DUAL, "route add default dev a0");
  assertEquals(brief(read(bed).v4)!.gateway, null);
});

test("takes the only interface with a route where there is no default route", async () => {
  await using bed = await host("addr add 192.0.2.2/24 dev b0");
  assertEquals(read(bed).v4!.name, "b0");
  await bed.batch("addr add 198.51.100.2/24 dev a0");
  const { v4, v6, notes } = read(bed);
  assertEquals([v4, v6], [null, null]);
  assertEquals(notes, ["IPv4: no default route and several interfaces (choose with -i)"]);
});

test("passes over unreachable routes, other tables, loopback and interfaces that are down", async () => {
  await using bed = await host(
    "addr add 192.0.2.2/24 dev a0",
    "addr add 2001:db8:a::2/64 dev a0",
    "route add unreachable default metric 1",
    "route add default via 192.0.2.77 dev a0 table 5",
    "route add ::/0 dev lo metric 1",
    "link add d0 type veth peer name d1",
    "addr add 203.0.113.1/24 dev d0",
  );
  const { v4, v6 } = read(bed);
  assertEquals([brief(v4)!.gateway, v4!.name], [null, "a0"]);
  assertEquals([brief(v6)!.gateway, v6!.name], [null, "a0"]);
});

test("follows -i and --outbound-if4/6, and -i before those", async () => {
  await using bed = await host(...DUAL, "route add default via 192.0.2.1");
  const names = (...args: string[]) => {
    const { v4, v6 } = read(bed, ...args);
    return [v4?.name, v6?.name];
  };
  assertEquals(names("-i", "b0"), ["b0", "b0"]);
  assertEquals(names("--outbound-if4", "b0"), ["b0", undefined]);
  assertEquals(names("--outbound-if6", "b0"), ["a0", "b0"]);
  assertEquals(names("-i", "a0", "--outbound-if4", "b0"), ["a0", "a0"]);
  assertEquals(names("-i", "a0", "-6"), [undefined, "a0"]);
});

test("refuses interfaces that are not there or have nothing to share", async () => {
  await using bed = await host();
  const message = (...args: string[]) =>
    assertThrows(() => read(bed, ...args), ConfigError).message;
  const names = "there are: lo, a1, a0, b1, b0";
  assertEquals(message("-i", "foo"), `-i foo: no such interface (${names})`);
  assertEquals(
    message("-i", "lo", "--outbound-if4", "x"),
    `--outbound-if4 x: no such interface (${names})`,
  );
  assertEquals(message("--outbound-if6", "x"), `--outbound-if6 x: no such interface (${names})`);
  assertEquals(message("-i", "lo"), "-i lo: has no address to share (give one with -a)");
  assertEquals(read(bed, "-i", "a0", "-a", "192.0.2.9").v4!.name, "a0");
});

test("lists addresses best first and never link-local IPv6 ones", async () => {
  await using bed = await host(
    "addr add 2001:db8:a::2/64 dev a0 preferred_lft 0",
    "addr add 2001:db8:a::3/64 dev a0",
    "addr add 203.0.113.7/24 dev a0 scope link",
    "addr add 192.0.2.2/24 dev a0",
    "addr add 127.0.0.9/32 dev a0",
  );
  const { v4, v6 } = read(bed, "-i", "a0");
  assertEquals(brief(v4)!.addresses, ["192.0.2.2/24", "203.0.113.7/24"]);
  assertEquals(brief(v6)!.addresses, ["2001:db8:a::3/64", "2001:db8:a::2/64"]);
});

test("finds neither family in an empty namespace", async () => {
  await using bed = await TestNamespace.create();
  const { v4, v6, notes, names } = read(bed);
  assertEquals([v4, v6, notes, names], [null, null, [], ["lo"]]);
});

test("sees that IPv6 is disabled", async () => {
  await using bed = await host(...DUAL, "route add default via 192.0.2.1");
  assertEquals(read(bed).ipv6Available, true);
  await bed.exec(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
  const { ipv6Available, v4, v6 } = read(bed);
  assertEquals([ipv6Available, v4!.name, v6], [false, "a0", null]);
});

test("agrees with ip -j about the routes of the interface", async () => {
  await using bed = await host(
    ...DUAL,
    "route add default via 192.0.2.1 metric 50",
    "route add 203.0.113.0/24 via 192.0.2.9 src 192.0.2.2 mtu 1300",
    "route add 10.0.0.0/8 via 198.51.100.7",
    "route add 2001:db8:f::/48 via 2001:db8:a::9 dev a0 metric 12",
  );
  const { v4, v6 } = read(bed, "-i", "a0");
  const own = [...v4!.routes, ...v6!.routes].map((route) => {
    const { destination: to, prefixLength: length, hops: [{ gateway }], priority } = route;
    const full = length === (route.family === 2 ? 32 : 128);
    const text = to ? `${formatAddress(to)}${full ? "" : `/${length}`}` : "default";
    return [text, gateway && formatAddress(gateway), priority].join();
  });
  const listed = [
    ...await bed.json("-4", "route", "show", "dev", "a0"),
    ...await bed.json("-6", "route", "show", "dev", "a0"),
  ].filter((route) => route.type === "unicast");
  const expected = listed.map((route) =>
    [route.dst, route.gateway ?? null, route.metric ?? 0].join()
  );
  assertEquals(own.toSorted(), expected.toSorted());
});
