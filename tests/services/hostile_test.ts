// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { finishIcmpv6 } from "../../lib/wire/icmpv6.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { TX_CONTROL } from "../../lib/link/link.ts";
import { address, fakeContext, fakeFamily4, fakeFamily6 } from "../helpers/fake_context.ts";
import { seeded } from "../wire/random.ts";
import { dispatch, exchange, NEEDS_SCAPY } from "./exchange.ts";
import { ANSWERED, questions } from "./questions.ts";
import { CHECKSUM_IS_WRONG, wrongFrames } from "./tshark.ts";

const MUTATIONS = 100_000;
const KEPT_ANSWERS = 3000;
const ETH = 14, IPV6_HEADER = 40, ICMPV6 = 58;
const MAX_FRAME = ETH + 1500;

function fullContext() {
  return fakeContext({
    ip4: fakeFamily4({ prefixLength: 32, dns: [address("192.0.2.53")] }),
    ip6: fakeFamily6({ dns: [address("2001:db8::53")] }),
    announceMtu: true,
    search: Array.from({ length: 30 }, (_, i) => `n${i}.example.com`),
    hostname: "guest",
    fqdn: "guest.example.com",
  });
}

/** Cuts a frame to `length` bytes and makes the length fields fit, so that only the rest is short. */
function cut(frame: Uint8Array, length: number): Uint8Array {
  const short = frame.slice(0, length), view = new DataView(short.buffer);
  if (length < ETH) return short;
  const v6 = view.getUint16(12) === 0x86dd;
  if (v6 && length >= ETH + IPV6_HEADER) {
    view.setUint16(18, length - ETH - IPV6_HEADER);
    if (short[20] === 17 && length >= 62) view.setUint16(58, length - 54);
  } else if (!v6 && view.getUint16(12) === 0x0800 && length >= ETH + 20) {
    view.setUint16(16, length - ETH);
    if (length >= 42) view.setUint16(38, length - 34);
  }
  return short;
}

const packet = new Packet();

/** Makes the checksum of an ICMPv6 packet right, so that what follows it is looked at. */
function repair(frame: Uint8Array<ArrayBuffer>): void {
  const view = new DataView(frame.buffer);
  if (!parseIp(view, 0, frame.length, packet) || packet.proto !== ICMPV6) return;
  const { l4, end, addresses } = packet;
  if (end - l4 >= 4) finishIcmpv6(view, l4, end - l4, addresses, 0, addresses, 4);
}

Deno.test({
  name: "no truncated packet of any kind is answered",
  ...NEEDS_SCAPY,
  fn: async () => {
    const asked = await questions();
    for (const name of ANSWERED) {
      const frame = asked[name], ctx = fullContext();
      for (let length = 0; length < frame.length; length++) {
        assertEquals(exchange(ctx, frame.slice(0, length)).length, 0, `${name} of ${length} bytes`);
      }
      assertEquals(exchange(ctx, frame).length, 1, name);
    }
  },
});

Deno.test({
  name: "a packet cut short with fitting length fields is answered only where it is whole",
  ...NEEDS_SCAPY,
  fn: async () => {
    const asked = await questions();
    for (const name of ANSWERED) {
      const frame = asked[name], ctx = fullContext();
      const whole: number[] = [];
      for (let length = 0; length < frame.length; length++) {
        const short = cut(frame, length);
        repair(short as Uint8Array<ArrayBuffer>);
        if (exchange(ctx, short).length > 0) whole.push(length);
      }
      // a neighbour solicitation without its option; DHCPv6 messages cut between two options
      const limit = /^(neighbour)/.test(name)
        ? 1
        : /6|solicit|confirm|information/i.test(name)
        ? 6
        : 0;
      assert(whole.length <= limit, `${name} of ${whole.join(", ")} bytes`);
    }
  },
});

Deno.test({
  name: "100,000 random mutations raise nothing, and what is answered is well-formed",
  ...NEEDS_SCAPY,
  fn: async () => {
    const asked = await questions(), names = Object.keys(asked) as (keyof typeof asked)[];
    const random = seeded(20260), ctx = fullContext(), { link } = ctx;
    const control = link.txOffset[TX_CONTROL], guard = 0x5c;
    link.arena.u8.fill(guard, control - 4096, control);
    link.arena.u8.fill(guard, control + MAX_FRAME, control + MAX_FRAME + 4096);
    const answers: Uint8Array[] = [];
    let answered = 0;
    for (let n = 0; n < MUTATIONS; n++) {
      let frame = asked[names[random(names.length)]].slice();
      for (let k = random(6); k >= 0; k--) frame[random(frame.length)] = random(256);
      if (random(8) === 0) frame = cut(frame, random(frame.length)) as typeof frame;
      if (random(2) === 0) repair(frame);
      const frames = exchange(ctx, frame);
      assert(frames.length <= 1);
      answered += frames.length;
      for (const answer of frames) {
        assert(answer.length <= MAX_FRAME);
        if (answers.length < KEPT_ANSWERS) answers.push(answer);
      }
      assertEquals(ctx.guestMac[0] & 1, 0, "a group address is never learnt");
    }
    assert(answered > MUTATIONS / 20, `${answered} answers`);
    for (const at of [control - 4096, control + MAX_FRAME]) {
      assert(link.arena.u8.subarray(at, at + 4096).every((byte) => byte === guard), "guard bytes");
    }
    assertEquals(await wrongFrames(answers, CHECKSUM_IS_WRONG), ""); // identifiers are as they were sent
  },
});

Deno.test({
  name: "answering allocates nothing",
  ...NEEDS_SCAPY,
  fn: async () => {
    const asked = await questions(), ctx = fullContext();
    ctx.link.record = false;
    const frames = ANSWERED.slice(0, 16).map((name) => asked[name]);
    const lengths = frames.map((frame, slot) => {
      ctx.link.load(frame, slot);
      return frame.length;
    });
    const run = (turns: number) => {
      for (let n = 0; n < turns; n++) {
        for (let slot = 0; slot < lengths.length; slot++) {
          dispatch(ctx, ctx.link.rxOffset[slot], lengths[slot]);
        }
      }
    };
    run(3000); // compile
    const before = Deno.memoryUsage().heapUsed;
    run(10_000);
    const grown = Deno.memoryUsage().heapUsed - before;
    assert(grown < 1 << 20, `heap grew by ${grown} bytes over 160,000 questions`);
  },
});
