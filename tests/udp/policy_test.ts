// SPDX-License-Identifier: GPL-2.0-or-later
/** What becomes of a guest's datagrams and pings under each verdict, and of answers from resolvers. */
import { assertEquals } from "@std/assert";
import { Pif } from "../../lib/flow/side.ts";
import { parsePolicyRule, Policy, Verdict } from "../../lib/forward/policy.ts";
import { PingMode, pingState } from "../../lib/icmp/state.ts";
import { libc } from "../../lib/sys/libc.ts";
import { bindSocket, socketAddress } from "../../lib/sys/socket.ts";
import { learnNames, noteQuery } from "../../lib/udp/names.ts";
import { base, Flag, type Listener, udpState, W } from "../../lib/udp/state.ts";
import { address } from "../helpers/fake_context.ts";
import { dnsMessage } from "../wire/dns_message.ts";
import { build, decode, layerOf } from "../wire/scapy.ts";
import { bytes, Guest, HostSocket, PATHS, udpFrame } from "./guest.ts";

const { ALLOW, REJECT, PROHIBIT, DROP } = Verdict;
const under = (...rules: [string, number][]) =>
  new Policy(rules.map(([text, verdict]) => parsePolicyRule(text, verdict)));

for (const { guest: from, name, host, ip } of PATHS) {
  const v6 = ip === "IPv6";
  for (const [verdict, frames] of [[REJECT, 1], [PROHIBIT, 1], [DROP, 0]]) {
    Deno.test(`UDP over ${ip} is answered by ICMP, or nothing, under verdict ${verdict}`, async () => {
      const guest = new Guest({ policy: under(["any", verdict]) }), server = new HostSocket(host);
      guest.send([udpFrame(guest.ctx, from, 4000, name, server.port, bytes(10))]);
      assertEquals([server.receive(), guest.ctx.table.activeCount], [null, 0]);
      const sent = guest.link.take();
      assertEquals(sent.length, frames);
      if (frames > 0) {
        const { answer } = await decode({ answer: sent[0] });
        const { type, code } = layerOf(answer, v6 ? "ICMPv6DestUnreach" : "ICMP");
        assertEquals([answer.bad, type, code], [[], v6 ? 1 : 3, v6 ? 1 : 13]);
        assertEquals(layerOf(answer, "UDPerror").dport, server.port);
      }
      server.close();
      guest.close();
    });
  }

  Deno.test(`UDP over ${ip} that is redirected keeps the address that the guest knows`, async () => {
    const server = new HostSocket(host), to = v6 ? "[::1]" : "127.0.0.1";
    const guest = new Guest({ policy: under([`any:7=${to}:${server.port}`, ALLOW]) });
    guest.send([
      udpFrame(guest.ctx, from, 4000, v6 ? "2001:db8:9::1" : "203.0.113.9", 7, bytes(9)),
    ]);
    const request = server.receive()!;
    assertEquals(request.payload, bytes(9));
    server.send(bytes(5), request.port, host);
    const { answer } = await decode({ answer: guest.frames(1)[0] });
    const { src } = layerOf(answer, ip), { sport } = layerOf(answer, "UDP");
    assertEquals([answer.bad, src, sport], [[], v6 ? "2001:db8:9::1" : "203.0.113.9", 7]);
    server.close();
    guest.close();
  });
}

Deno.test("a flow goes on when what let it begin is not known any more", () => {
  const policy = under(["a.test", ALLOW]), server = new HostSocket();
  const guest = new Guest({ policy });
  const { guest: from, name } = PATHS[0];
  const frame = udpFrame(guest.ctx, from, 4000, name, server.port, bytes(1));
  guest.send([frame]);
  assertEquals(server.receive(), null);
  policy.names!.learn(0, address("127.0.0.1"), 0, 1, guest.ctx.nowMs);
  guest.send([frame]);
  assertEquals(server.receiveAll().length, 1);
  guest.ctx.nowMs += 100_000;
  guest.send([frame]);
  assertEquals(server.receiveAll().length, 1);
  guest.send([udpFrame(guest.ctx, from, 4001, name, server.port, bytes(1))]);
  assertEquals(server.receive(), null);
  server.close();
  guest.close();
});

Deno.test("echo requests are answered by ICMP, or nothing, under each verdict", async () => {
  const requests = Object.values(
    await build({
      v4: `Ether()/IP(src="192.0.2.2",dst="192.0.2.1")/ICMP(id=5,seq=1)`,
      v6: `Ether()/IPv6(src="2001:db8::2",dst="2001:db8::1")/ICMPv6EchoRequest(id=5,seq=1)`,
    }),
  );
  for (const [verdict, frames] of [[REJECT, 2], [PROHIBIT, 2], [DROP, 0]]) {
    const guest = new Guest({ policy: under(["any/icmp", verdict]) });
    const { v4, v6 } = pingState(guest.ctx);
    if (v4.mode === PingMode.NONE || v6.mode === PingMode.NONE) return guest.close();
    guest.send(requests);
    const sent = guest.link.take();
    assertEquals([sent.length, guest.ctx.table.activeCount], [frames, 0]);
    if (frames > 0) {
      const { four, six } = await decode({ four: sent[0], six: sent[1] });
      assertEquals([layerOf(four, "ICMP").type, layerOf(four, "ICMP").code], [3, 13]);
      const { type, code } = layerOf(six, "ICMPv6DestUnreach");
      assertEquals([four.bad, six.bad, type, code], [[], [], 1, 1]);
    }
    guest.close();
  }
});

/** A query and its answers on flow 0, all within one received piece of memory. */
function converse(guest: Guest, count: number): void {
  const state = udpState(guest.ctx), { arena } = guest.link, start = guest.link.txOffset[0];
  for (let id = 0; id < count; id++) {
    const query = dnsMessage({ id, name: "a.test", query: true });
    arena.u8.set(query, start);
    noteQuery(state, 0, start, query.length);
  }
  const answers = Array.from(
    { length: count },
    (_, id) => dnsMessage({ id, name: "a.test", answers: [["a.test", 1, 99, `192.0.2.${id}`]] }),
  );
  const size = answers[0].length;
  answers.forEach((answer, k) => arena.u8.set(answer, start + k * size));
  learnNames(state, 0, start, count * size, count > 1 ? size : 0);
}

Deno.test("learnNames() reads every datagram that the kernel coalesced", () => {
  for (const count of [1, 5]) {
    const guest = new Guest({ policy: under(["a.test", ALLOW]) }), { names } = guest.ctx.policy!;
    converse(guest, count);
    const has = (n: number) => names!.has(0, address(`192.0.2.${n}`), 0, guest.ctx.nowMs);
    for (let n = 0; n < 7; n++) assertEquals(has(n), n < count);
    guest.close();
  }
});

Deno.test("learnNames() believes a resolver on the host only while we do not serve its port there", () => {
  const listener = { fd: 0, pif: Pif.HOST, port: 53 } as Listener;
  const cases: [flags: number, Listener[], boolean][] = [
    [Flag.NAMES | Flag.HERE, [], true],
    [Flag.NAMES | Flag.HERE, [listener], false],
    [Flag.NAMES | Flag.HERE, [{ ...listener, port: 54 }], true],
    [Flag.NAMES | Flag.HERE, [{ ...listener, fd: -1 }], true],
    [Flag.NAMES | Flag.HERE, [{ ...listener, pif: Pif.SPLICE }], true],
    [Flag.NAMES, [listener], true],
  ];
  for (const [flags, listeners, learns] of cases) {
    const guest = new Guest({ policy: under(["a.test", ALLOW]) }), state = udpState(guest.ctx);
    state.data[base(0) + W.FLAGS] = flags;
    state.listeners.push(...listeners);
    converse(guest, 1);
    const known = guest.ctx.policy!.names!.has(0, address("192.0.2.0"), 0, guest.ctx.nowMs);
    assertEquals(known, learns);
    state.listeners.length = 0;
    guest.close();
  }
});

Deno.test("what somebody sends before a socket is connected to a resolver is not the resolver's", () => {
  const { guest: from, name, host } = PATHS[0];
  const policy = new Policy([parsePolicyRule("a.test", ALLOW)], [host]);
  const guest = new Guest({ policy }), stranger = new HostSocket(host), { connect } = libc;
  const forged = dnsMessage({ id: 7, name: "a.test", answers: [["a.test", 1, 99, "192.0.2.66"]] });
  libc.connect = (fd, sockaddr, bytes) => {
    bindSocket(fd, host, 0, 0);
    const port = socketAddress(fd, new Int32Array(4), 0);
    assertEquals(stranger.send(forged, port, host), forged.length);
    return connect(fd, sockaddr, bytes);
  };
  try {
    const query = dnsMessage({ id: 7, name: "a.test", query: true });
    guest.send([udpFrame(guest.ctx, from, 4000, name, 53, query)]);
    assertEquals(udpState(guest.ctx).data[base(0) + W.FLAGS] & Flag.NAMES, Flag.NAMES);
    guest.poll(() => guest.link.sent.length > 0, 100);
    const known = policy.names!.has(0, address("192.0.2.66"), 0, guest.ctx.nowMs);
    assertEquals([known, guest.link.take()], [false, []]);
  } finally {
    libc.connect = connect;
    stranger.close();
    guest.close();
  }
});
