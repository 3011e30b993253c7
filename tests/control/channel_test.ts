// SPDX-License-Identifier: GPL-2.0-or-later
/** Lines over a socket: whatever pieces they come in, however slow the other side is. */
import { assert, assertEquals } from "@std/assert";
import { Channel, type LineHandler, OUTPUT_LIMIT } from "../../lib/control/channel.ts";
import { MAX_LINE } from "../../lib/control/protocol.ts";
import { EPOLL } from "../../lib/sys/epoll.ts";
import { Pair } from "./pair.ts";

/** What was handed out; `!` stands for a line that was too long. */
class Lines implements LineHandler {
  readonly all: string[] = [];
  line(text: string): void {
    this.all.push(text);
  }
  tooLong(): void {
    this.all.push("!");
  }
}

/** A channel, and the other end of it. */
function open() {
  const pair = new Pair(), channel = new Channel(pair.fd), lines = new Lines();
  const end = () => {
    channel.close();
    pair.close();
  };
  return { pair, channel, lines, [Symbol.dispose]: end };
}

/** Has a line go through, piece by piece, as the socket takes it. */
function feed({ pair, channel, lines }: ReturnType<typeof open>, text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) {
    at += pair.writeBytes(bytes.subarray(at));
    assert(channel.receive(lines));
  }
}

Deno.test("receive() hands out lines, whatever pieces they come in", () => {
  using world = open();
  const { pair, channel, lines } = world;
  assert(channel.receive(lines));
  pair.write("one\ntwo\n\nthr");
  assert(channel.receive(lines));
  assertEquals(lines.all, ["one", "two", ""]);
  for (const byte of new TextEncoder().encode("ee \u{1f35d}\nfour\n")) {
    pair.writeBytes(Uint8Array.of(byte));
    assert(channel.receive(lines));
  }
  assertEquals(lines.all, ["one", "two", "", "three \u{1f35d}", "four"]);
});

Deno.test("receive() passes over a line that is too long, and nothing else", () => {
  using world = open();
  const longest = "x".repeat(MAX_LINE);
  feed(world, `before\n${longest}\n${longest}x\nbetween\n${"y".repeat(5 * MAX_LINE)}\nafter\n`);
  assertEquals(world.lines.all, ["before", longest, "!", "between", "!", "after"]);
});

Deno.test("receive() tells when the other side has gone, after all that it said", () => {
  using world = open();
  const { pair, channel, lines } = world;
  pair.write("last\nincomplete");
  pair.close();
  assertEquals([channel.receive(lines), lines.all], [false, ["last"]]);
});

Deno.test("flush() writes all lines in their order, whoever reads slowly", () => {
  using world = open();
  const { pair, channel } = world;
  const sent: string[] = [];
  let seen = "";
  for (let k = 0; k < 50_000; k++) {
    const line = `${k} ${"é".repeat(k % 50)}`;
    sent.push(line);
    channel.send(line);
    if (k % 100 === 0) channel.flush();
    if (k % 1000 === 0) seen += pair.read(5000);
  }
  while (channel.waiting > 0) {
    channel.flush();
    seen += pair.read();
  }
  seen += pair.read();
  assertEquals(seen.split("\n").slice(0, -1).length, sent.length);
  assert(seen === sent.join("\n") + "\n");
});

Deno.test("full says when the other side does not read, until half of it has gone out", () => {
  using world = open();
  const { pair, channel } = world;
  let count = 0;
  for (; !channel.full; count++) {
    channel.send("x".repeat(999));
    channel.flush();
  }
  assert(count * 1000 > OUTPUT_LIMIT && channel.waiting > OUTPUT_LIMIT);
  assertEquals(channel.interest, EPOLL.IN | EPOLL.OUT);
  while (channel.full) {
    assert(channel.waiting > OUTPUT_LIMIT / 2);
    pair.read(1 << 16);
    channel.flush();
  }
  assert(channel.waiting <= OUTPUT_LIMIT / 2);
  while (channel.waiting > 0) {
    pair.read();
    channel.flush();
  }
  assertEquals([channel.full, channel.interest], [false, EPOLL.IN]);
});

Deno.test("receive() waits with further lines while too many replies are not read", () => {
  using world = open();
  const { pair, channel, lines } = world;
  const handler: LineHandler = {
    line(text) {
      lines.line(text);
      channel.send("r".repeat(OUTPUT_LIMIT)); // a large reply to each
    },
    tooLong() {},
  };
  pair.write("1\n2\n3\n4\n5\n");
  assert(channel.receive(handler));
  assertEquals([lines.all, channel.stopped, channel.interest], [["1", "2"], true, EPOLL.OUT]);
  assert(channel.receive(handler));
  assertEquals(lines.all.length, 2);
  let resumed = 0;
  for (let k = 0; k < 1000 && lines.all.length < 5; k++) {
    pair.read();
    if (!channel.flush()) continue;
    resumed++;
    channel.receive(handler);
  }
  assertEquals(lines.all, ["1", "2", "3", "4", "5"]);
  assert(resumed >= 2);
});

Deno.test("send() and flush() are harmless when the other side has gone", () => {
  using world = open();
  const { pair, channel, lines } = world;
  pair.close();
  for (let k = 0; k < 5000; k++) channel.send("x".repeat(999));
  channel.flush();
  channel.send("more");
  channel.flush();
  assertEquals([channel.waiting, channel.full, channel.stopped], [0, false, false]);
  assertEquals(channel.receive(lines), false);
});
