// SPDX-License-Identifier: GPL-2.0-or-later
/** Flows that a program thinks about: what is kept of them meanwhile, and what comes of it. */
import { assert, assertEquals } from "@std/assert";
import { FlowType } from "../lib/flow/types.ts";
import { FRAMES_PER_FLOW, HELD_BYTES, HELD_FRAMES } from "../lib/forward/held_frames.ts";
import { Policy } from "../lib/forward/policy.ts";
import type { FlowAnswer, FlowQuestion } from "../lib/forward/question.ts";
import { ANSWER_MS, KEPT_MS, MAX_QUESTIONS } from "../lib/forward/questions.ts";
import { libc } from "../lib/sys/libc.ts";
import { SOCK_STREAM } from "../lib/sys/socket.ts";
import { ONE_WAY_TIMEOUT } from "../lib/udp/mod.ts";
import { LOOPBACK4 } from "../lib/wire/address.ts";
import { address } from "./helpers/fake_context.ts";
import { descriptors, LoopDriver } from "./helpers/drive_loop.ts";
import { echo, ENDS } from "./loop_frames.ts";
import { ACK, buildSegment, readSegment, RST, SYN } from "./tcp/segment.ts";
import { bytes, HostSocket, udpFrame } from "./udp/guest.ts";

const MS_PER_SECOND = 1000;
const GUEST = "192.0.2.2", GATEWAY = "192.0.2.1", PORT = 4000;

/** A loop whose program thinks about everything. */
class Thinking implements Disposable {
  readonly asked: { flow: FlowQuestion; id: number }[] = [];
  readonly policy: Policy = new Policy([], [], undefined, {
    decide: (flow, id) => {
      this.asked.push({ flow, id });
      return this.think(flow);
    },
  });
  readonly driver: LoopDriver;
  readonly server = new HostSocket(LOOPBACK4);
  readonly #before: number;
  /** Closed in the end. */
  readonly others: HostSocket[];
  think: (flow: FlowQuestion) => FlowAnswer | null = () => null;

  constructor(others: HostSocket[] = [], capacity = 4096) {
    this.others = [this.server, ...others];
    this.driver = new LoopDriver({ policy: this.policy, capacity });
    this.#before = descriptors();
  }

  /** Answers question `k`, and lets the loop go on. @returns the frames it sent */
  answer(k: number, answer: FlowAnswer) {
    assertEquals(this.policy.answered(this.asked[k]!.id, answer), true);
    return this.driver.settle();
  }

  /** A datagram to the server. */
  datagram(payload: Uint8Array, sport = PORT): Uint8Array<ArrayBuffer> {
    return udpFrame(ENDS, GUEST, sport, GATEWAY, this.server.port, payload);
  }

  /** What the server got. */
  received(): Uint8Array[] {
    return this.server.receiveAll().map(({ payload }) => payload);
  }

  [Symbol.dispose](): void {
    this.driver.expire();
    assertEquals(descriptors(), this.#before);
    this.driver.close();
    for (const socket of this.others) socket.close();
  }
}

/** A listener of the host's, and a SYN to it. */
function listener(): { server: HostSocket; syn: Uint8Array<ArrayBuffer> } {
  const server = new HostSocket(LOOPBACK4, SOCK_STREAM);
  libc.listen(server.fd, 8);
  return { server, syn: buildSegment({ sport: PORT, dport: server.port, seq: 9, flags: SYN }) };
}

Deno.test("a SYN is held until it is allowed, and answered then at once", () => {
  const { server, syn } = listener();
  using thinking = new Thinking([server]);
  const { driver } = thinking;
  for (let k = 0; k < 3; k++) assertEquals(driver.serve(syn), []);
  assertEquals([driver.takeStarted(), thinking.asked.length], [[], 1]);
  const sent = thinking.answer(0, "allow").map((one) => readSegment(one));
  assertEquals(sent.map(({ flags, ack }) => [flags, ack]), [[SYN | ACK, 10]]);
  assertEquals(driver.takeStarted(), [FlowType.TCP]);
  driver.serve(syn);
  assertEquals([driver.takeStarted(), thinking.asked.length], [[], 1]);
  driver.serve(buildSegment({ sport: PORT, dport: server.port, seq: 10, flags: RST }));
});

Deno.test("a SYN is held until it is denied, and answered by RST, ICMP or nothing", () => {
  const { server, syn } = listener();
  for (const [verdict, frames] of [["reject", 1], ["prohibit", 1], ["drop", 0]] as const) {
    using thinking = new Thinking();
    assertEquals(thinking.driver.serve(syn), []);
    const sent = thinking.answer(0, verdict);
    assertEquals([sent.length, thinking.driver.takeStarted()], [frames, []]);
    if (verdict === "reject") assertEquals(readSegment(sent[0]!).flags, RST | ACK);
    if (verdict === "prohibit") assertEquals(sent[0]!.frame[23], 1);
    assertEquals(thinking.driver.serve(syn).length, frames);
    assertEquals(thinking.asked.length, 1);
  }
  server.close();
});

Deno.test("some datagrams of a flow are held, and leave in their order, as they were", () => {
  using thinking = new Thinking();
  const { driver } = thinking;
  const sent = Array.from({ length: FRAMES_PER_FLOW + 2 }, (_, k) => bytes(100 * k + 1));
  for (const one of sent) driver.serve(thinking.datagram(one));
  const other = bytes(7);
  driver.serve(thinking.datagram(other, PORT + 1));
  assertEquals([thinking.received(), thinking.asked.length], [[], 2]);
  thinking.answer(0, "allow");
  assertEquals(thinking.received(), sent.slice(0, FRAMES_PER_FLOW));
  assertEquals(driver.takeStarted(), [FlowType.UDP]);
  driver.serve(thinking.datagram(sent[0]!));
  assertEquals(thinking.received(), [sent[0]!]);
  thinking.answer(1, "allow");
  assertEquals(thinking.received(), [other]);
});

Deno.test("an echo request is held, and a denied datagram answered by ICMP then", () => {
  using thinking = new Thinking();
  const { driver } = thinking;
  driver.serve(echo(GUEST, GATEWAY));
  driver.serve(thinking.datagram(bytes(9)));
  if (thinking.asked[0]?.flow.protocol !== "icmp") return; // no echo requests here
  const [error] = thinking.answer(1, "prohibit");
  assertEquals([error!.frame[34], error!.frame[35]], [3, 13]); // RFC 1812 §5.2.7.1
  thinking.answer(0, "allow");
  assertEquals(driver.takeStarted(), [FlowType.PING4]);
});

Deno.test("a redirected flow that was held goes to its target, its neighbour does not", () => {
  const other = new HostSocket(LOOPBACK4);
  using thinking = new Thinking([other]);
  const { driver } = thinking;
  driver.serve(thinking.datagram(bytes(3)), thinking.datagram(bytes(4), PORT + 1));
  thinking.policy.answered(thinking.asked[1]!.id, "allow");
  thinking.answer(0, { verdict: "allow", target: `127.0.0.1:${other.port}` });
  assertEquals(other.receiveAll().map(({ payload }) => payload), [bytes(3)]);
  assertEquals(thinking.received(), [bytes(4)]);
  assertEquals(driver.takeStarted(), [FlowType.UDP, FlowType.UDP]);
});

Deno.test("an answer to one source is not another's, nor to the same one's other port", () => {
  using thinking = new Thinking();
  const { driver, server } = thinking;
  driver.serve(thinking.datagram(bytes(3)));
  const others = [
    udpFrame(ENDS, "192.0.2.77", PORT, GATEWAY, server.port, bytes(4)),
    udpFrame(ENDS, GUEST, PORT, "198.51.100.9", server.port, bytes(5)),
    udpFrame(ENDS, GUEST, PORT, GATEWAY, server.port ^ 1, bytes(6)),
    udpFrame(ENDS, "2001:db8::2", PORT, "2001:db8::1", server.port, bytes(7)),
    thinking.datagram(bytes(8), PORT ^ 1),
  ];
  thinking.policy.answered(thinking.asked[0]!.id, "allow");
  driver.serve(...others);
  assertEquals(thinking.received(), [bytes(3)]);
  assertEquals([driver.takeStarted().length, thinking.asked.length], [1, 1 + others.length]);
});

Deno.test("what is too long is not kept, but its decision waits", () => {
  using thinking = new Thinking();
  const long = thinking.datagram(bytes(HELD_BYTES));
  thinking.driver.serve(long);
  thinking.answer(0, "allow");
  assertEquals(thinking.received(), []);
  thinking.driver.serve(long);
  assertEquals([thinking.received().length, thinking.asked.length], [1, 1]);
});

Deno.test("a flow without an answer is forgotten, and the loop does not wait for ever", () => {
  using thinking = new Thinking();
  const { driver, policy } = thinking;
  driver.serve(thinking.datagram(bytes(3)));
  driver.settle();
  assert(driver.epoll.timeoutMs > 0, `${driver.epoll.timeoutMs} ms`);
  driver.ahead += ANSWER_MS;
  driver.settle();
  assertEquals([policy.deciding!.questions.timed, driver.epoll.timeoutMs], [false, -1]);
  assertEquals(policy.answered(thinking.asked[0]!.id, "allow"), false);
  driver.serve(thinking.datagram(bytes(4)));
  thinking.answer(1, "allow");
  assertEquals(thinking.received(), [bytes(4)]);
});

Deno.test("frames whose flow could not begin do not go round and round", () => {
  using thinking = new Thinking([], 1);
  const { driver } = thinking;
  thinking.think = ({ sourcePort }) => sourcePort === PORT ? null : "allow";
  driver.serve(thinking.datagram(bytes(2), PORT + 1)); // takes the only place in the table
  driver.serve(thinking.datagram(bytes(3)), thinking.datagram(bytes(4)));
  thinking.answer(1, "allow");
  for (let k = 0; k < 3; k++) driver.serve(thinking.datagram(bytes(4)));
  assertEquals([thinking.received(), thinking.asked.length], [[bytes(2)], 2], "not asked anew");
  driver.expire();
  thinking.think = () => "allow";
  driver.serve(thinking.datagram(bytes(5)));
  assertEquals(thinking.received(), [bytes(5)]);
});

Deno.test("an allowed flow of any protocol that cannot begin is asked about once, and begins later", () => {
  const { server, syn } = listener();
  using thinking = new Thinking([server], 1);
  const { driver } = thinking;
  thinking.think = () => "allow";
  driver.serve(thinking.datagram(bytes(2), PORT + 1)); // takes the only place in the table
  driver.ahead += (ONE_WAY_TIMEOUT - 3) * MS_PER_SECOND;
  const frames = [thinking.datagram(bytes(3)), syn, echo(GUEST, GATEWAY)];
  for (let k = 0; k < 5; k++) driver.serve(...frames);
  const kinds = thinking.asked.map(({ flow }) => flow.protocol);
  assertEquals(kinds.slice(0, 3), ["udp", "udp", "tcp"]);
  assertEquals(kinds.slice(3), kinds.length > 3 ? ["icmp"] : [], "no echo requests here");
  assertEquals(driver.takeStarted(), [FlowType.UDP]);
  driver.ahead += KEPT_MS / 2; // and the place is free again
  driver.settle();
  thinking.think = () => "drop";
  driver.serve(...frames);
  assertEquals([driver.takeStarted(), thinking.asked.length], [[FlowType.UDP], kinds.length]);
  assertEquals(thinking.received(), [bytes(2), bytes(3)]);
  driver.expire();
  assertEquals(thinking.asked.length, kinds.length);
  driver.serve(thinking.datagram(bytes(3)));
  assertEquals([driver.takeStarted(), thinking.asked.length], [[], kinds.length + 1]);
});

Deno.test("what comes in again says nothing about where the guest is now", () => {
  using thinking = new Thinking();
  const { driver, server } = thinking, { ctx } = driver;
  const old = udpFrame(ENDS, "192.0.2.77", PORT, GATEWAY, server.port, bytes(3));
  old[11] ^= 1; // the last byte of the source's MAC address
  driver.serve(old);
  driver.serve(thinking.datagram(bytes(4)));
  const mac = ctx.guestMac.slice(), seen = ctx.ip4!.addrSeen.slice();
  assertEquals(seen, address(GUEST));
  const [error] = thinking.answer(0, "prohibit");
  assertEquals([ctx.guestMac, ctx.ip4!.addrSeen], [mac, seen]);
  assertEquals(error!.frame.slice(0, 6), mac);
});

Deno.test("what one guest has asked for is nothing to the next one at the same link", () => {
  using thinking = new Thinking();
  const { driver, policy } = thinking, { link } = driver.ctx;
  driver.serve(thinking.datagram(bytes(3)));
  driver.serve(thinking.datagram(bytes(4), PORT + 1));
  policy.answered(thinking.asked[0]!.id, "allow"); // in the turn in which the guest leaves
  link.guests++;
  driver.settle();
  assertEquals(policy.answered(thinking.asked[1]!.id, "allow"), false);
  assertEquals([thinking.received(), driver.takeStarted()], [[], []]);
  driver.serve(thinking.datagram(bytes(5)));
  assertEquals(thinking.asked.length, 3);
  thinking.answer(2, "allow");
  assertEquals(thinking.received(), [bytes(5)]);
});

Deno.test("a flood of new flows is bounded, and what was asked before it is served after it", () => {
  using thinking = new Thinking();
  const { driver, server } = thinking;
  driver.serve(thinking.datagram(bytes(3)));
  const flood = (n: number, from: number) =>
    Array.from({ length: n }, (_, k) => {
      const source = `10.${(from + k) >> 16}.${(from + k) >> 8 & 255}.${(from + k) & 255}`;
      return udpFrame(ENDS, source, PORT, GATEWAY, server.port, bytes(9));
    });
  for (let k = 0; k < 4; k++) driver.serve(...flood(HELD_FRAMES, k * HELD_FRAMES));
  assertEquals([thinking.asked.length, driver.takeStarted()], [MAX_QUESTIONS, []]);
  thinking.answer(0, "allow");
  assertEquals(thinking.received(), [bytes(3)]);
  for (let k = 1; k < MAX_QUESTIONS; k++) thinking.answer(k, "drop");
  assertEquals([thinking.received(), driver.takeStarted()], [[], [FlowType.UDP]]);
  thinking.think = ({ source }) => source === GUEST ? "allow" : "drop";
  driver.serve(...flood(MAX_QUESTIONS + 99, 1 << 20));
  driver.serve(thinking.datagram(bytes(4), PORT + 1));
  assertEquals(thinking.received(), [bytes(4)]);
});
