// SPDX-License-Identifier: GPL-2.0-or-later
/** `-o` and `--outbound-if4/6` on real sockets of a namespace with two interfaces. */
import { assert, assertEquals } from "@std/assert";
import type { Family } from "../../lib/context.ts";
import { outboundSocket } from "../../lib/forward/outbound.ts";
import { E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import {
  connectSocket,
  getOption,
  SO_BINDTODEVICE,
  SOCK_DGRAM,
  SOCK_STREAM,
  socketAddress,
  SOL_SOCKET,
} from "../../lib/sys/socket.ts";
import { formatAddress } from "../../lib/wire/address.ts";
import { address, fakeContext, fakeFamily4, fakeFamily6 } from "../helpers/fake_context.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { requirements } from "../helpers/require.ts";

const SO_TYPE = 3, SO_PROTOCOL = 38; // asm-generic/socket.h
const TCP = 6, UDP = 17;
const PORT = 9;

/** `two` holds the default routes; each interface has two addresses. */
const NETWORK = `
link set lo up
link add one type veth peer name one-end
link add two type veth peer name two-end
addr add 192.0.2.1/24 dev one
addr add 192.0.2.2/24 dev one
addr add 198.51.100.1/24 dev two
addr add 2001:db8:1::1/64 dev one nodad
addr add 2001:db8:1::2/64 dev one nodad
addr add 2001:db8:2::1/64 dev two nodad
link set one up
link set one-end up
link set two up
link set two-end up
route add default dev two src 198.51.100.1
route add ::/0 dev two src 2001:db8:2::1`;

/** The same places in both families; `remote` is beyond the default route, `near` beside `one`. */
const PLACES = [
  {
    one: "192.0.2.2",
    two: "198.51.100.1",
    near: "192.0.2.9",
    remote: "203.0.113.9",
    foreign: "192.0.2.77",
    loopback: "127.0.0.1",
    any: "0.0.0.0",
  },
  {
    one: "2001:db8:1::2",
    two: "2001:db8:2::1",
    near: "2001:db8:1::9",
    remote: "2001:db8:3::9",
    foreign: "2001:db8:1::77",
    loopback: "::1",
    any: "::",
  },
];
type Place = (typeof PLACES)[number];

const device = (name: string) => new TextEncoder().encode(`${name}\0`);

function open(
  place: Place,
  options: Partial<Family>,
  to: string,
  type: number = SOCK_DGRAM,
): number {
  const ctx = place.any === "::"
    ? fakeContext({ ip6: fakeFamily6(options) })
    : fakeContext({ ip4: fakeFamily4(options) });
  return outboundSocket(ctx, address(to), 0, type, type === SOCK_STREAM ? TCP : UDP);
}

/** Our address of a socket. */
function own(fd: number): string {
  const words = new Int32Array(4);
  assert(socketAddress(fd, words, 0) >= 0);
  return formatAddress(words);
}

/** The interface a socket is bound to. */
function deviceOf(fd: number): string {
  const name = new Uint8Array(16), length = Uint32Array.of(16);
  assertEquals(libc.getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, length), 0);
  return new TextDecoder().decode(name.subarray(0, Math.max(0, length[0]! - 1)));
}

/** Runs `body` for each family inside the namespace, and checks that no descriptor is left. */
async function forEachFamily(body: (place: Place) => void): Promise<void> {
  await using namespace = await TestNamespace.create(NETWORK);
  for (const place of PLACES) {
    const before = descriptors();
    namespace.enter(() => body(place));
    assertEquals(descriptors(), before);
  }
}

const NEEDS = requirements({ packages: ["iproute2"] });

Deno.test({
  name: "outboundSocket() makes a socket of the target's family, type and protocol, not bound",
  ...NEEDS,
  fn: () =>
    forEachFamily((place) => {
      for (const [type, protocol] of [[SOCK_STREAM, TCP], [SOCK_DGRAM, UDP]] as const) {
        const fd = open(place, {}, place.remote, type);
        assertEquals(getOption(fd, SOL_SOCKET, SO_TYPE), type);
        assertEquals(getOption(fd, SOL_SOCKET, SO_PROTOCOL), protocol);
        assertEquals([own(fd), deviceOf(fd)], [place.any, ""]);
        if (type === SOCK_DGRAM) assertEquals(connectSocket(fd, address(place.remote), 0, PORT), 0);
        if (type === SOCK_DGRAM) assertEquals(own(fd), place.two);
        libc.close(fd);
      }
    }),
});

Deno.test({
  name: "outboundSocket() binds to -o's address, which the socket keeps when connected",
  ...NEEDS,
  fn: () =>
    forEachFamily((place) => {
      for (const type of [SOCK_STREAM, SOCK_DGRAM]) {
        const fd = open(place, { outboundAddr: address(place.one) }, place.remote, type);
        assertEquals(own(fd), place.one);
        assertEquals(
          connectSocket(fd, address(place.remote), 0, PORT),
          type === SOCK_STREAM ? -E.EINPROGRESS : 0,
        );
        assertEquals(own(fd), place.one);
        libc.close(fd);
      }
    }),
});

Deno.test({
  name: "outboundSocket() binds to --outbound-if's interface, and to -o's address there",
  ...NEEDS,
  fn: () =>
    forEachFamily((place) => {
      const outboundInterface = device("one");
      const fd = open(place, { outboundInterface }, place.near);
      assertEquals([own(fd), deviceOf(fd)], [place.any, "one"]);
      assertEquals(connectSocket(fd, address(place.near), 0, PORT), 0);
      libc.close(fd);
      // the default route is on the other one: IPv6 has no way, IPv4 takes the target for a neighbour
      const far = open(place, { outboundInterface }, place.remote);
      const result = connectSocket(far, address(place.remote), 0, PORT);
      if (place.any === "::") assertEquals(result, -E.ENETUNREACH);
      else assertEquals([result, own(far)], [0, "192.0.2.1"]);
      libc.close(far);
      const both = open(place, { outboundInterface, outboundAddr: address(place.one) }, place.near);
      assertEquals([own(both), deviceOf(both)], [place.one, "one"]);
      libc.close(both);
    }),
});

Deno.test({
  name: "outboundSocket() leaves a socket to loopback as it is",
  ...NEEDS,
  fn: () =>
    forEachFamily((place) => {
      const options = { outboundInterface: device("one"), outboundAddr: address(place.one) };
      const fd = open(place, options, place.loopback);
      assertEquals([own(fd), deviceOf(fd)], [place.any, ""]);
      assertEquals(connectSocket(fd, address(place.loopback), 0, PORT), 0);
      libc.close(fd);
    }),
});

Deno.test({
  name: "outboundSocket() returns what the kernel refuses as a negative errno, and no descriptor",
  ...NEEDS,
  fn: () =>
    forEachFamily((place) => {
      const foreign = { outboundAddr: address(place.foreign) };
      assertEquals(open(place, foreign, place.remote), -E.EADDRNOTAVAIL);
      const missing = { outboundInterface: device("three") };
      assertEquals(open(place, missing, place.remote), -E.ENODEV);
      const ctx = fakeContext(), to = address(place.remote);
      assertEquals(outboundSocket(ctx, to, 0, SOCK_STREAM, UDP), -E.EPROTONOSUPPORT);
    }),
});

Deno.test({
  name: "outboundSocket() of one family is not bound as the other says",
  ...NEEDS,
  async fn() {
    await using namespace = await TestNamespace.create(NETWORK);
    namespace.enter(() => {
      const ctx = fakeContext({
        ip4: fakeFamily4({ outboundAddr: address("192.0.2.2"), outboundInterface: device("one") }),
      });
      const fd = outboundSocket(ctx, address("2001:db8:3::9"), 0, SOCK_DGRAM, UDP);
      assertEquals([own(fd), deviceOf(fd)], ["::", ""]);
      libc.close(fd);
    });
  },
});

Deno.test({
  name: "outboundSocket() binds to a link-local -o on the uplink",
  ...NEEDS,
  async fn() {
    await using namespace = await TestNamespace.create(NETWORK);
    await namespace.batch("addr add fe80::77/64 dev one nodad");
    namespace.enter(() => {
      const ifindex = libc.if_nametoindex(device("one"));
      const fd = open(PLACES[1]!, { ifindex, outboundAddr: address("fe80::77") }, "fe80::78");
      assertEquals(own(fd), "fe80::77");
      libc.close(fd);
    });
  },
});
