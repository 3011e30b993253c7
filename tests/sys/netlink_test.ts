// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { SysError } from "../../lib/sys/errno.ts";
import {
  attributes,
  attributeText,
  attributeU32,
  Netlink,
  NetlinkRequest,
} from "../../lib/sys/netlink.ts";
import { libc } from "../../lib/sys/libc.ts";
import { listAddresses, listLinks, listRoutes } from "../../lib/sys/rtnetlink.ts";
import { addRoute, setLink } from "../../lib/sys/rtnetlink_set.ts";
import { AF_INET, AF_INET6 } from "../../lib/sys/socket.ts";
import { formatAddress } from "../../lib/wire/address.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { requirements } from "../helpers/require.ts";

const { ignore } = requirements();
/** An interface that is up, with a carrier. */
const VETH = "link add a0 type veth peer name b0\nlink set b0 up\nlink set a0 up";
const AF_UNIX = 1, SOCK_DGRAM = 2; // bits/socket.h

/** A message with header and body as the kernel would send it. */
function message(type: number, flags: number, sequence: number, body: number[]): Uint8Array {
  const bytes = new Uint8Array(16 + body.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags, true);
  view.setUint32(8, sequence, true);
  bytes.set(body, 16);
  return bytes;
}

/** A Netlink over a socket pair whose other end answers with what is given. */
function scripted(...datagrams: Uint8Array[]): Netlink & { peer: number } {
  const fds = new Int32Array(2);
  libc.socketpair(AF_UNIX, SOCK_DGRAM, 0, fds);
  for (const bytes of datagrams) {
    libc.send(fds[1], bytes as Uint8Array<ArrayBuffer>, bytes.length, 0);
  }
  return Object.assign(new Netlink(fds[0]), { peer: fds[1] });
}

const dumpRequest = () => new NetlinkRequest(18, new Uint8Array(16));
const FIRST_SEQUENCE = 2;

function dumpScripted(...datagrams: Uint8Array[]): number[] {
  const netlink = scripted(...datagrams);
  try {
    return netlink.dump(dumpRequest(), 16, (view, off, end) => end > off ? view.getUint8(off) : -1);
  } finally {
    netlink.close();
    libc.close(netlink.peer);
  }
}

Deno.test("attributes() stays within bounds for every truncation and every length", () => {
  const good = Uint8Array.of(8, 0, 1, 0, 1, 2, 3, 4, 6, 0, 2, 0, 65, 66, 0, 0);
  for (let end = 0; end <= good.length; end++) {
    const found = attributes(new DataView(good.buffer), 0, end);
    for (const { off, length } of found.values()) assert(off + length <= end);
  }
  for (let length = 0; length < 256; length++) {
    const bytes = good.slice();
    bytes[0] = length;
    for (const value of attributes(new DataView(bytes.buffer), 0, 16).values()) {
      assert(value.off + value.length <= 16);
    }
  }
});

Deno.test("attribute readers refuse what is too short", () => {
  const view = new DataView(Uint8Array.of(65, 66, 0, 67).buffer);
  assertEquals(attributeU32(view, { off: 0, length: 3 }), null);
  assertEquals(attributeU32(view, undefined), null);
  assertEquals(attributeText(view, { off: 0, length: 4 }), "AB");
  assertEquals(attributeText(view, { off: 0, length: 2 }), "AB");
});

Deno.test("NetlinkRequest lays out attributes aligned, and nested ones with their length", () => {
  const bytes = new NetlinkRequest(7, Uint8Array.of(9))
    .bytes(1, Uint8Array.of(1, 2, 3, 4, 5)).nested(2, (inner) => inner.u8(3, 255).u32(4, 1))
    .finish(0x400, 5);
  assertEquals([...bytes], [
    ...[52, 0, 0, 0, 7, 0, 0x01, 0x04, 5, 0, 0, 0, 0, 0, 0, 0],
    ...[9, 0, 0, 0],
    ...[9, 0, 1, 0, 1, 2, 3, 4, 5, 0, 0, 0],
    ...[20, 0, 2, 0x80],
    ...[5, 0, 3, 0, 255, 0, 0, 0],
    ...[8, 0, 4, 0, 1, 0, 0, 0],
  ]);
});

Deno.test("dump() reads an interrupted table again", () => {
  const DUMP_INTR = 0x10, DONE = 3;
  const once = message(16, DUMP_INTR, FIRST_SEQUENCE, [1]);
  const done = message(DONE, 0, FIRST_SEQUENCE, [0, 0, 0, 0]);
  const again = message(16, 0, FIRST_SEQUENCE + 1, [2]);
  const doneAgain = message(DONE, 0, FIRST_SEQUENCE + 1, [0, 0, 0, 0]);
  assertEquals(dumpScripted(once, done, again, doneAgain), [2]);
});

Deno.test("dump() passes over messages of other requests and types", () => {
  const done = message(3, 0, FIRST_SEQUENCE, [0, 0, 0, 0]);
  const others = [message(16, 0, 77, [1]), message(17, 0, FIRST_SEQUENCE, [1])];
  assertEquals(dumpScripted(...others, message(16, 0, FIRST_SEQUENCE, [3]), done), [3]);
});

Deno.test("dump() reads a datagram larger than its buffer whole", () => {
  const big = message(16, 0, FIRST_SEQUENCE, Array(60_000).fill(7));
  const done = message(3, 0, FIRST_SEQUENCE, [0, 0, 0, 0]);
  assertEquals(dumpScripted(big, done), [7]);
});

Deno.test("dump() refuses messages whose length does not fit", () => {
  for (const length of [0, 15, 18, 0xffffffff]) {
    const bytes = message(16, 0, FIRST_SEQUENCE, [1]);
    new DataView(bytes.buffer).setUint32(0, length, true);
    assertThrows(() => dumpScripted(bytes), SysError, "EBADMSG");
  }
});

Deno.test("a request that the kernel refuses names the operation and the reason", () => {
  using netlink = Netlink.open();
  const error = assertThrows(
    () => setLink(netlink, 0x7fffffff, { mtu: 1500 }, "set MTU of nothing"),
    SysError,
    "netlink set MTU of nothing: ENODEV",
  );
  assertEquals(error.code, "ENODEV");
});

Deno.test({
  name: "a refusal carries the kernel's own explanation",
  ignore,
  fn: async () => {
    await using bed = await TestNamespace.create(VETH);
    bed.enter(() => {
      using netlink = Netlink.open();
      const { index } = listLinks(netlink).find(({ name }) => name === "a0")!;
      const route = {
        family: AF_INET,
        destination: Int32Array.of(0, 0, 0xffff, 0x0a010101),
        prefixLength: 8, // bits of the host are set: the kernel says so
        sourceLength: 0,
        tos: 0,
        table: 254,
        protocol: 3,
        scope: 253,
        type: 1,
        flags: 0,
        priority: 0,
        source: null,
        metrics: null,
        preference: null,
        hops: [{ ifindex: index, gateway: null, flags: 0, weight: 0 }],
        tunnel: false,
      };
      const error = assertThrows(() => addRoute(netlink, index, route, "add route"), SysError);
      assertEquals(
        error.message,
        "netlink add route: EINVAL (Invalid prefix for given prefix length)",
      );
    });
  },
});

Deno.test({
  name: "listLinks() and listAddresses() agree with ip -j",
  ignore,
  fn: async () => {
    await using bed = await TestNamespace.create([
      "link set lo up",
      VETH,
      "link set a0 mtu 1400 txqueuelen 77 address 02:00:00:00:00:0a",
      "addr add 192.0.2.2/24 brd + dev a0",
      "addr add 192.0.2.3/24 dev a0",
      "addr add 198.51.100.1 peer 198.51.100.2/32 dev a0",
      "addr add 2001:db8::2/64 dev a0",
      "addr add fd00::2/128 dev a0 nodad noprefixroute",
    ].join("\n"));
    const links = await bed.json("link");
    const [own, addresses] = bed.enter(() => {
      using netlink = Netlink.open();
      return [listLinks(netlink), [
        ...listAddresses(netlink, AF_INET),
        ...listAddresses(netlink, AF_INET6),
      ]];
    });
    assertEquals(
      own.map(({ index, name, mtu, txQueueLength }) => [index, name, mtu, txQueueLength]),
      links.map((link) => [link.ifindex, link.ifname, link.mtu, link.txqlen ?? 1000]),
    );
    assertEquals(own.find(({ name }) => name === "a0")!.mac, Uint8Array.of(2, 0, 0, 0, 0, 10));
    const expected = (await bed.json("addr")).flatMap((link) =>
      // deno-lint-ignore no-explicit-any
      link.addr_info.map((info: any) =>
        [link.ifindex, info.local, info.address ?? null, info.prefixlen, info.broadcast ?? null]
          .join()
      )
    );
    const got = addresses.map(({ ifindex, address, peer, prefixLength, broadcast }) =>
      [
        ifindex,
        formatAddress(address),
        peer && formatAddress(peer),
        prefixLength,
        broadcast && formatAddress(broadcast),
      ].join()
    );
    assertEquals(got.sort(), expected.sort());
  },
});

Deno.test({
  name: "listRoutes() reads a table of 20,000 routes completely",
  ignore,
  fn: async () => {
    const count = 20_000;
    const routes = Array.from(
      { length: count },
      (_, i) => `route add 10.${i >> 8}.${i & 255}.0/24 dev a0`,
    );
    await using bed = await TestNamespace.create(
      [VETH, ...routes].join("\n"),
    );
    const found = bed.enter(() => {
      using netlink = Netlink.open();
      return listRoutes(netlink, AF_INET);
    });
    assertEquals(found.length, count);
    assertEquals(new Set(found.map((route) => formatAddress(route.destination!))).size, count);
  },
});

Deno.test({
  name: "listRoutes() reads gateways of the other family, multipath, metrics and preference",
  ignore,
  fn: async () => {
    await using bed = await TestNamespace.create([
      VETH,
      "addr add 192.0.2.2/24 dev a0",
      "addr add 2001:db8::2/64 dev a0",
      "route add 0.0.0.0/0 via inet6 fe80::1 dev a0 metric 7",
      "route add 198.51.100.0/24 metric 9 nexthop via 192.0.2.1 dev a0 weight 3 nexthop via 192.0.2.9 dev a0",
      "route add 203.0.113.0/24 via 203.0.113.1 dev a0 onlink mtu 1300 src 192.0.2.2",
      "route add ::/0 via fe80::1 dev a0 pref high",
      "route add unreachable 10.0.0.0/8",
      "route add 10.1.0.0/16 dev a0 table 77",
    ].join("\n"));
    const [v4, v6] = bed.enter(() => {
      using netlink = Netlink.open();
      return [listRoutes(netlink, AF_INET), listRoutes(netlink, AF_INET6)];
    });
    const hops = (priority: number) =>
      v4.find((route) => route.priority === priority)!.hops
        .map(({ gateway, weight }) => [formatAddress(gateway!), weight]);
    assertEquals(v4.length, 4); // neither the unreachable one nor that of the other table
    assertEquals(hops(7), [["fe80::1", 0]]);
    assertEquals(hops(9), [["192.0.2.1", 2], ["192.0.2.9", 0]]);
    const onlink = v4.find((route) => route.source && route.metrics)!;
    assertEquals([onlink.hops[0].flags, formatAddress(onlink.source!)], [4, "192.0.2.2"]);
    assertEquals(v6.find((route) => route.prefixLength === 0)!.preference, 1);
  },
});
