// SPDX-License-Identifier: GPL-2.0-or-later
/** What becomes of a guest's SYN under each verdict. */
import { assertEquals } from "@std/assert";
import { parsePolicyRule, Policy, Verdict } from "../../lib/forward/policy.ts";
import { decode, layerOf } from "../wire/scapy.ts";
import { ACK, RST, SYN, synOptions } from "./segment.ts";
import { Guest, HostSocket, World } from "./world.ts";

/** A SYN to a listener on the host's loopback, under one rule about everything. */
function tries(verdict: number, v6: boolean, target = ""): { world: World; guest: Guest } {
  const policy = new Policy([parsePolicyRule(`any${target}`, verdict)]);
  const world = new World({ policy });
  using listener = HostSocket.listen(v6);
  const guest = new Guest(world, listener.port, { v6 });
  guest.send(SYN, { options: synOptions(1460, 7) });
  world.settle();
  assertEquals(listener.accept(), null);
  return { world, guest };
}

for (const v6 of [false, true]) {
  const name = v6 ? "IPv6" : "IPv4";
  Deno.test(`a SYN over ${name} is answered by RST when it is rejected, and leaves no flow`, () => {
    const { world, guest } = tries(Verdict.REJECT, v6);
    const answer = world.one();
    assertEquals([answer.flags, answer.ack], [RST | ACK, guest.seq + 1]);
    assertEquals(world.table.activeCount, 0);
    world.close();
  });

  Deno.test(`a SYN over ${name} is answered by ICMP when it is prohibited`, async () => {
    const { world } = tries(Verdict.PROHIBIT, v6);
    const { answer } = await decode({ answer: world.link.take()[0] });
    const { type, code } = layerOf(answer, v6 ? "ICMPv6DestUnreach" : "ICMP");
    assertEquals([answer.bad, type, code], [[], v6 ? 1 : 3, v6 ? 1 : 13]);
    assertEquals(world.table.activeCount, 0);
    world.close();
  });

  Deno.test(`a SYN over ${name} is not answered when it is dropped`, () => {
    const { world } = tries(Verdict.DROP, v6);
    assertEquals([world.link.sent.length, world.table.activeCount], [0, 0]);
    world.close();
  });

  Deno.test(`a connection over ${name} that is redirected keeps the address that the guest knows`, () => {
    using listener = HostSocket.listen(v6);
    const to = v6 ? "[::1]" : "127.0.0.1";
    const rules = [parsePolicyRule(`any:7=${to}:${listener.port}`, Verdict.ALLOW)];
    using world = new World({ policy: new Policy(rules) });
    const guest = new Guest(world, 7, { v6 });
    guest.send(SYN, { options: synOptions(1460, 7) });
    world.until(() => world.link.sent.length > 0);
    const answer = world.one();
    assertEquals([answer.flags, answer.sport, answer.dport], [SYN | ACK, 7, guest.sport]);
  });
}
