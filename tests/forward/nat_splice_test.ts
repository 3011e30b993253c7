// SPDX-License-Identifier: GPL-2.0-or-later
/** Address mapping of local traffic, which goes socket to socket. */
import { assertEquals } from "@std/assert";
import type { Features } from "../../lib/context.ts";
import { FlowSide, Pif } from "../../lib/flow/side.ts";
import { natFromHost, natFromSplice } from "../../lib/forward/nat.ts";
import { address, fakeContext, fakeFamily4, fakeFamily6 } from "../helpers/fake_context.ts";

const SPLICE: Partial<Features> = { spliceInbound: true };
const TO_LOOPBACK: Partial<Features> = { spliceInbound: true, hostLoToNsLo: true };

/** Peer, features, target address; what the other side is. */
const FROM_HOST: [string, Partial<Features>, string | null, string][] = [
  ["127.0.0.1", SPLICE, null, "SPLICE 192.0.2.2:80 <-> 0.0.0.0:0"],
  ["127.0.0.7", SPLICE, null, "SPLICE 192.0.2.2:80 <-> 0.0.0.0:0"],
  ["::1", SPLICE, null, "SPLICE [2001:db8::2]:80 <-> [::]:0"],
  ["127.0.0.1", TO_LOOPBACK, null, "SPLICE 127.0.0.1:80 <-> 0.0.0.0:0"],
  ["::1", TO_LOOPBACK, null, "SPLICE [::1]:80 <-> [::]:0"],
  ["127.0.0.1", TO_LOOPBACK, "192.0.2.9", "SPLICE 192.0.2.9:80 <-> 0.0.0.0:0"],
  ["127.0.0.1", {}, null, "TAP 192.0.2.2:80 <-> 192.0.2.1:5000"],
  ["127.0.0.1", {}, "192.0.2.9", "TAP 192.0.2.9:80 <-> 192.0.2.1:5000"],
  ["203.0.113.5", SPLICE, null, "TAP 192.0.2.2:80 <-> 203.0.113.5:5000"],
  ["192.0.2.2", SPLICE, null, "TAP 192.0.2.2:80 <-> 192.0.2.1:5000"],
  ["2001:db8:2::5", SPLICE, "2001:db8::9", "TAP [2001:db8::9]:80 <-> [2001:db8:2::5]:5000"],
];

function from(peer: string, our: string): FlowSide {
  const ini = new FlowSide();
  ini.setEndpoint(address(peer), 0, 5000);
  ini.setOur(address(our), 0, 8080);
  return ini;
}

for (const [peer, features, target, expected] of FROM_HOST) {
  Deno.test(`natFromHost() for ${peer}, ${JSON.stringify(features)}, target ${target}`, () => {
    const ctx = fakeContext({ features }), tgt = new FlowSide();
    const where = target === null ? null : address(target);
    assertEquals(natFromHost(ctx, from(peer, peer), tgt, 80, where), true);
    assertEquals(`${tgt}`, expected);
  });
}

Deno.test("natFromHost() goes to the guest's loopback while the guest has no address", () => {
  const ip4 = fakeFamily4({ addrSeen: address("0.0.0.0") });
  const ip6 = fakeFamily6({ addrSeen: address("::") });
  const tgt = new FlowSide();
  for (const [peer, there] of [["127.0.0.1", "127.0.0.1:80"], ["::1", "[::1]:80"]]) {
    const ctx = fakeContext({ features: SPLICE, ip4, ip6 });
    assertEquals(natFromHost(ctx, from(peer, peer), tgt, 80), true);
    assertEquals(`${tgt}`.split(" ")[1], there);
  }
});

Deno.test("natFromHost() refuses a target of the other family", () => {
  const ctx = fakeContext({ features: SPLICE }), tgt = new FlowSide();
  assertEquals(natFromHost(ctx, from("::1", "::1"), tgt, 80, address("192.0.2.9")), false);
  const peer = from("203.0.113.5", "192.0.2.2");
  assertEquals(natFromHost(ctx, peer, tgt, 80, address("2001:db8::9")), false);
});

Deno.test("natFromSplice() leads to the host's loopback, or the target", () => {
  const ctx = fakeContext(), tgt = new FlowSide();
  for (
    const [peer, our, target, expected] of [
      ["127.0.0.1", "127.0.0.1", null, "HOST 127.0.0.1:80 <-> 0.0.0.0:0"],
      ["127.0.0.9", "127.0.0.5", null, "HOST 127.0.0.1:80 <-> 0.0.0.0:0"],
      ["::1", "::1", null, "HOST [::1]:80 <-> [::]:0"],
      ["::1", "::1", "2001:db8::9", "HOST [2001:db8::9]:80 <-> [::]:0"],
    ] as const
  ) {
    const where = target === null ? null : address(target);
    assertEquals(natFromSplice(ctx, from(peer, our), tgt, 80, where), true);
    assertEquals([`${tgt}`, tgt.pif], [expected, Pif.HOST]);
  }
});

Deno.test("natFromSplice() refuses what is not local, and disabled families", () => {
  const tgt = new FlowSide();
  for (
    const [peer, our] of [["192.0.2.2", "192.0.2.2"], ["127.0.0.1", "192.0.2.2"], [
      "2001:db8::2",
      "::1",
    ]]
  ) {
    assertEquals(natFromSplice(fakeContext(), from(peer, our), tgt, 80), false, `${peer} ${our}`);
  }
  assertEquals(
    natFromSplice(fakeContext({ ip4: null }), from("127.0.0.1", "127.0.0.1"), tgt, 80),
    false,
  );
  assertEquals(natFromSplice(fakeContext({ ip6: null }), from("::1", "::1"), tgt, 80), false);
  const other = address("192.0.2.9");
  assertEquals(natFromSplice(fakeContext(), from("::1", "::1"), tgt, 80, other), false);
});
