// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import {
  address,
  fakeContext,
  fakeFamily4,
  GUEST_MAC,
  mac,
  OUR_MAC,
} from "../helpers/fake_context.ts";
import { layerOf } from "../wire/scapy.ts";
import { ask, decodeAll, exchange, NEEDS_SCAPY } from "./exchange.ts";
import { type Question, questions } from "./questions.ts";

async function answers(name: Question, ctx = fakeContext()): Promise<number> {
  return exchange(ctx, (await questions())[name]).length;
}

Deno.test({
  name: "handleArp() says that the gateway, neighbours and remote addresses are ours",
  ...NEEDS_SCAPY,
  fn: async () => {
    const asked = await questions(), ctx = fakeContext();
    const decoded = await decodeAll({
      "192.0.2.1": ask(ctx, asked.arpGateway),
      "192.0.2.77": ask(ctx, asked.arpNeighbour),
      "203.0.113.7": ask(ctx, asked.arpRemote),
    });
    for (const [target, frame] of Object.entries(decoded)) {
      const ether = layerOf(frame, "Ether"), arp = layerOf(frame, "ARP");
      assertEquals([ether.src, ether.dst, ether.type], [OUR_MAC, GUEST_MAC, 0x0806]);
      assertEquals([arp.hwtype, arp.ptype, arp.hwlen, arp.plen, arp.op], [1, 0x0800, 6, 4, 2]);
      assertEquals([arp.hwsrc, arp.psrc], [OUR_MAC, target]);
      assertEquals([arp.hwdst, arp.pdst], [GUEST_MAC, "192.0.2.2"]);
      assertEquals(frame.layers.length, 2, "nothing after the ARP packet");
    }
  },
});

Deno.test({
  name: "handleArp() never claims an address of the guest",
  ...NEEDS_SCAPY,
  fn: async () => {
    for (const name of ["arpOwn", "arpAnnouncement", "arpProbeOwn"] as const) {
      assertEquals(await answers(name), 0, name);
    }
    const seen = fakeContext({ ip4: fakeFamily4({ addrSeen: address("192.0.2.77") }) });
    assertEquals(await answers("arpNeighbour", seen), 0);
  },
});

Deno.test({
  name: "handleArp() defends the gateway against probes, and no other address",
  ...NEEDS_SCAPY,
  fn: async () => {
    assertEquals(await answers("arpProbeOther"), 0);
    assertEquals(await answers("arpProbeGateway"), 1);
    const stolen = fakeContext({ ip4: fakeFamily4({ addrSeen: address("192.0.2.1") }) });
    assertEquals(await answers("arpGateway", stolen), 1);
  },
});

Deno.test({
  name: "handleArp() ignores replies, groups, impossible senders, and everything without IPv4",
  ...NEEDS_SCAPY,
  fn: async () => {
    const ignored = [
      "arpReply",
      "arpMulticast",
      "arpAny",
      "arpFromGroup",
      "arpFromUs",
      "arpOtherSender",
    ] as const;
    for (const name of ignored) {
      const ctx = fakeContext();
      assertEquals(await answers(name, ctx), 0, name);
      assertEquals(ctx.guestMac, mac(GUEST_MAC), `${name} teaches nothing`);
    }
    assertEquals(await answers("arpGateway", fakeContext({ ip4: null })), 0);
  },
});

Deno.test({
  name: "handleArp() learns the guest's MAC address",
  ...NEEDS_SCAPY,
  fn: async () => {
    const ctx = fakeContext();
    assertEquals(await answers("arpFromOtherMac", ctx), 1);
    assertEquals(ctx.guestMac, mac("02:00:5e:10:00:99"));
    assert(ctx.link.sentCount === 1);
  },
});
