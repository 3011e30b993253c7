// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { parseOptions } from "../../lib/config/options.ts";
import { configureGuest, TX_QUEUE_LENGTH } from "../../lib/host/guest_network.ts";
import { readHostNetwork } from "../../lib/host/host_network.ts";
import { buildNetwork, type Network } from "../../lib/host/network.ts";
import { formatMac } from "../../lib/wire/ethernet.ts";
import { SysError } from "../../lib/sys/errno.ts";
import { Netlink } from "../../lib/sys/netlink.ts";
import { listLinks } from "../../lib/sys/rtnetlink.ts";
import { formatAddress } from "../../lib/wire/address.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { requirements } from "../helpers/require.ts";
import { until } from "../helpers/run.ts";

const { ignore } = requirements();

const HOST = [
  "link set lo up",
  "link add up0 type veth peer name up1",
  "link set up1 up",
  "link set up0 up",
  "addr add 192.0.2.2/24 brd + dev up0",
  "addr add 198.51.100.2/25 dev up0",
  "addr add 2001:db8:a::2/64 dev up0",
  "addr add 2001:db8:b::2/128 dev up0",
];
const ROUTES = [
  "route add default via 192.0.2.1 metric 100",
  "route add 10.88.0.0/16 via 198.51.100.1",
  "route add 10.99.0.0/16 dev up0 src 192.0.2.2 mtu 1400",
  "route add ::/0 via 2001:db8:a::1",
  "route add fd99::/32 via fe80::99 dev up0 metric 77",
];
/** The other end plays no part: the interface only has to exist and have a carrier. */
const GUEST = "link add tap0 type veth peer name far0\nlink set far0 up";

/** What a test gets: the namespace configured, what the configuration was, the address found. */
interface Made {
  guest: TestNamespace;
  network: Network;
  mac: string;
}

/** Configures a fresh namespace for a host. */
async function make(hostLines: string[], args: string[], body: (made: Made) => Promise<void>) {
  await using host = await TestNamespace.create(hostLines.join("\n"));
  await using guest = await TestNamespace.create(GUEST);
  await guest.exec(["sysctl", "-qw", "net.ipv6.conf.tap0.accept_dad=1"]);
  const options = parseOptions(["pasta", ...args]);
  const read = host.enter(() => readHostNetwork(options, { v4: [], v6: [], search: [] }));
  const network = buildNetwork(options, read);
  const mac = guest.enter(() => {
    using netlink = Netlink.open();
    const { index } = listLinks(netlink).find(({ name }) => name === "tap0")!;
    return configureGuest(netlink.fd, index, options, read, network);
  });
  await body({ guest, network, mac: formatMac(mac) });
}

function test(name: string, hostLines: string[], args: string[], body: (m: Made) => Promise<void>) {
  Deno.test({ name: `configureGuest() ${name}`, ignore, fn: () => make(hostLines, args, body) });
}

/** Addresses of tap0 as text; kernel-made link-local ones left out. */
async function addresses(guest: TestNamespace): Promise<string[]> {
  const [link] = await guest.json("addr", "show", "dev", "tap0");
  // deno-lint-ignore no-explicit-any
  return link.addr_info.filter((a: any) => !a.local.startsWith("fe80"))
    // deno-lint-ignore no-explicit-any
    .map((a: any) => `${a.local}/${a.prefixlen}`);
}

/** Routes of tap0 as text; link-local subnet and multicast left out. */
async function routes(guest: TestNamespace, family: "-4" | "-6"): Promise<string[]> {
  const list = await guest.json(family, "route", "show", "dev", "tap0");
  return list.filter((route) => route.dst !== "fe80::/64" && route.type === "unicast")
    .map((route) =>
      `${route.dst} ${route.gateway ?? "-"} ${route.metric ?? 0} ${route.flags}`.trim()
    );
}

test(
  "without --config-net sets MAC, MTU and queue, and leaves the tap down",
  [
    ...HOST,
    ...ROUTES,
  ],
  ["--ns-mac-addr", "02:00:00:00:00:77", "-m", "9000"],
  async ({ guest, mac }) => {
    const [link] = await guest.json("link", "show", "dev", "tap0");
    assertEquals(mac, "02:00:00:00:00:77");
    assertEquals([link.address, link.mtu, link.txqlen], [mac, 9000, TX_QUEUE_LENGTH]);
    assertEquals(link.flags.includes("UP"), false);
    assertEquals(await addresses(guest), []);
    const [lo] = await guest.json("link", "show", "dev", "lo");
    assert(lo.flags.includes("UP"));
  },
);

test("reads back the MAC address that the kernel chose", HOST, ["-m", "0"], async (made) => {
  const [link] = await made.guest.json("link", "show", "dev", "tap0");
  assertEquals([made.mac, link.mtu], [link.address, 1500]);
});

test(
  "--config-net copies all addresses and routes",
  [...HOST, ...ROUTES],
  ["--config-net"],
  async ({
    guest,
  }) => {
    assertEquals(await addresses(guest), [
      "192.0.2.2/24",
      "198.51.100.2/25",
      "2001:db8:b::2/128",
      "2001:db8:a::2/64",
    ]);
    assertEquals(await routes(guest, "-4"), [
      "default 192.0.2.1 100",
      "10.88.0.0/16 198.51.100.1 0",
      "10.99.0.0/16 - 0",
      "192.0.2.0/24 - 0",
      "198.51.100.0/25 - 0",
    ]);
    assertEquals((await routes(guest, "-6")).toSorted(), [
      "2001:db8:a::/64 - 256",
      "2001:db8:b::2 - 256",
      "default 2001:db8:a::1 1024",
      "fd99::/32 fe80::99 77",
    ]);
    const [link] = await guest.json("addr", "show", "dev", "tap0");
    assert(link.flags.includes("UP") && !link.flags.includes("NOARP"));
    assertEquals([link.mtu, link.addr_info[0].broadcast], [65520, "192.0.2.255"]);
    const special = (await guest.json("-4", "route", "show", "10.99.0.0/16"))[0];
    assertEquals([special.prefsrc, special.metrics], ["192.0.2.2", [{ mtu: 1400 }]]);
  },
);

test(
  "--config-net has IPv6 addresses that are never checked for duplicates",
  [
    ...HOST,
    ...ROUTES,
  ],
  ["--config-net"],
  async ({ guest, network }) => {
    await guest.exec(["sysctl", "-qw", "net.ipv6.conf.tap0.accept_dad=1"]);
    const list = async () => (await guest.json("-6", "addr", "show", "dev", "tap0"))[0].addr_info;
    // deno-lint-ignore no-explicit-any
    assert(await until(async () => (await list()).every((a: any) => a.nodad && !a.tentative)));
    // deno-lint-ignore no-explicit-any
    const linkLocal = (await list()).find((a: any) => a.scope === "link").local;
    assertEquals(formatAddress(network.ip6!.linkLocalSeen), linkLocal);
  },
);

test(
  "--config-net retries routes that depend on later ones",
  [
    ...HOST,
    // listed by destination, so each gateway's route comes after the route that needs it
    "route add 198.18.0.0/15 dev up0",
    "route add 10.3.0.0/16 via 198.18.0.1",
    "route add default via 198.18.0.9",
  ],
  ["--config-net", "-4"],
  async ({ guest }) => {
    assertEquals(await routes(guest, "-4"), [
      "default 198.18.0.9 0",
      "10.3.0.0/16 198.18.0.1 0",
      "192.0.2.0/24 - 0",
      "198.18.0.0/15 - 0",
      "198.51.100.0/25 - 0",
    ]);
  },
);

test(
  "--config-net copies multipath, on-link and other-family gateways",
  [
    ...HOST,
    "route add default nexthop via 192.0.2.1 dev up0 weight 3 nexthop via 192.0.2.9 dev up0 weight 1",
    "route add 203.0.113.0/24 via 172.16.0.1 dev up0 onlink",
    "route add 10.0.0.0/8 via inet6 fe80::5 dev up0",
  ],
  ["--config-net", "-4"],
  async ({ guest }) => {
    const list = await guest.json("-4", "route", "show");
    const [first] = list;
    // deno-lint-ignore no-explicit-any
    assertEquals(first.nexthops.map((hop: any) => [hop.gateway, hop.weight]), [
      ["192.0.2.1", 3],
      ["192.0.2.9", 1],
    ]);
    assertEquals(list.find(({ dst }) => dst === "203.0.113.0/24").flags, ["onlink"]);
    assertEquals(list.find(({ dst }) => dst === "10.0.0.0/8").via.host, "fe80::5");
  },
);

test(
  "--config-net keeps point-to-point peers and addresses without prefix route",
  [
    "link add up0 type veth peer name up1",
    "link set up1 up",
    "link set up0 up",
    "addr add 192.0.2.2 peer 198.51.100.1/32 dev up0",
    "addr add 203.0.113.5/24 dev up0 noprefixroute",
    "route add default via 198.51.100.1",
  ],
  ["--config-net", "-4"],
  async ({ guest }) => {
    assertEquals(await routes(guest, "-4"), ["default 198.51.100.1 0", "198.51.100.1 - 0"]);
    const [link] = await guest.json("-4", "addr", "show", "dev", "tap0");
    // deno-lint-ignore no-explicit-any
    assertEquals(link.addr_info.map((a: any) => [a.local, a.address, a.prefixlen]), [
      ["192.0.2.2", "198.51.100.1", 32],
      ["203.0.113.5", undefined, 24],
    ]);
  },
);

test("-a replaces the addresses and still reaches the gateway", [...HOST, ...ROUTES], [
  "--config-net",
  "-a",
  "172.16.0.5",
  "-a",
  "fd12::5",
], async ({ guest }) => {
  assertEquals(await addresses(guest), ["172.16.0.5/16", "fd12::5/64"]);
  assert((await routes(guest, "-4")).includes("default 192.0.2.1 100"));
  assert((await routes(guest, "-6")).some((route) => route.startsWith("default 2001:db8:a::1")));
});

test("-a and -g give one address and one route", [...HOST, ...ROUTES], [
  "--config-net",
  "-a",
  "10.1.2.3/28",
  "-g",
  "10.1.2.1",
  "-a",
  "fd12::5",
  "-g",
  "fe80::77",
], async ({ guest }) => {
  assertEquals(await addresses(guest), ["10.1.2.3/28", "fd12::5/64"]);
  assertEquals(await routes(guest, "-4"), ["default 10.1.2.1 0", "10.1.2.0/28 - 0"]);
  assertEquals((await routes(guest, "-6")).toSorted(), [
    "default fe80::77 1024",
    "fd12::/64 - 256",
  ]);
});

test("-g off the subnet is declared to be on the link", HOST, [
  "--config-net",
  "-g",
  "172.31.0.1",
  "-g",
  "fd77::1",
], async ({ guest }) => {
  assertEquals((await routes(guest, "-4"))[0], "default 172.31.0.1 0 onlink");
  assert((await routes(guest, "-6")).includes("default fd77::1 1024 onlink"));
});

test("-n changes the length of the first address", [...HOST, ...ROUTES], [
  "--config-net",
  "-4",
  "-n",
  "255.255.254.0",
], async ({ guest }) => {
  assertEquals(await addresses(guest), ["192.0.2.2/23", "198.51.100.2/25"]);
});

test("uses local mode for a host without network", ["link set lo up"], ["--config-net"], async ({
  guest,
  network,
}) => {
  assertEquals(await addresses(guest), ["169.254.2.1/16"]);
  assertEquals(await routes(guest, "-4"), ["default 169.254.2.2 0", "169.254.0.0/16 - 0"]);
  assertEquals(await routes(guest, "-6"), ["default fe80::1 1024"]);
  assertEquals(network.ip6!.addrSeen, network.ip6!.linkLocalSeen);
});

test("-4 configures no IPv6 addresses", [...HOST, ...ROUTES], ["--config-net", "-4"], async ({
  guest,
  network,
}) => {
  assertEquals(await addresses(guest), ["192.0.2.2/24", "198.51.100.2/25"]);
  assertEquals([await routes(guest, "-6"), network.ip6], [[], null]);
});

Deno.test({
  name: "configureGuest() names what failed when the interface is gone",
  ignore,
  fn: async () => {
    await using guest = await TestNamespace.create();
    const options = parseOptions(["pasta", "-4"]);
    const host = guest.enter(() => readHostNetwork(options, { v4: [], v6: [], search: [] }));
    guest.enter(() => {
      using netlink = Netlink.open();
      assertThrows(
        () => configureGuest(netlink.fd, 99, options, host, buildNetwork(options, host)),
        SysError,
        "netlink set up tap0: ENODEV",
      );
    });
  },
});
