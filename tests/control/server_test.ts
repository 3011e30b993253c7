// SPDX-License-Identifier: GPL-2.0-or-later
/** The instance's part of the conversation, with a table of flows and a forwarder whose ports only count. */
import { assert, assertEquals } from "@std/assert";
import { OUTPUT_LIMIT } from "../../lib/control/channel.ts";
import { MAX_LINE } from "../../lib/control/protocol.ts";
import { E } from "../../lib/sys/errno.ts";
import { add, done, list, open, question, refused, remove } from "./server_world.ts";

Deno.test("a server adds, lists and removes forwarded ports", () => {
  using world = open();
  assertEquals(world.say(add(1, "8080:80"), add(2, "5432", { from: "guest" }), list(3)), [
    done(1),
    done(2),
    {
      reply: 3,
      result: [
        { from: "host", protocol: "tcp", ports: "80,8080:80" },
        { from: "guest", protocol: "tcp", ports: "5432" },
      ],
    },
  ]);
  assertEquals(world.tcp.all, ["2 80=>80", "2 8080=>80", "3 %lo/5432=>5432"]);
  assertEquals(world.say(remove(4, "8080:80")), [done(4)]);
  assertEquals(world.tcp.all, ["2 80=>80", "3 %lo/5432=>5432"]);
});

Deno.test("a server says why ports cannot be forwarded", () => {
  using world = open();
  world.tcp.refuse.set(22, E.EADDRINUSE);
  const words = "neither none, all nor auto can be used here";
  assertEquals(
    world.say(
      add(1, "22"),
      remove(2, "8080"),
      add(3, "seventy"),
      add(4, "auto"),
      add(5, "~22"),
      add(6, "none"),
      add(7, "53", { protocol: "udp" }),
      add(8, "80"),
      add(9, "127.0.0.1/90", { from: "guest" }),
    ).map((reply) => (reply as { error: { name: string } }).error.name),
    [
      "ConfigError",
      "ConfigError",
      "PortSpecError",
      "PortSpecError",
      "PortSpecError",
      "PortSpecError",
      "ConfigError",
      "PortSpecError",
      "PortSpecError",
    ],
  );
  const why = "-t 22: cannot listen on TCP port 22: EADDRINUSE (the port is in use)";
  assertEquals(world.say(add(1, "22"), add(2, "auto"), add(3, "53", { protocol: "udp" })), [
    { reply: 1, error: { name: "ConfigError", message: why, code: "EADDRINUSE" } },
    refused(2, "PortSpecError", `Ports have to be named: ${words}`),
    refused(3, "ConfigError", "-u: --no-udp was given"),
  ]);
  using machine = open("passt");
  assertEquals(machine.say(add(1, "5432", { from: "guest" })), [
    refused(1, "ConfigError", "-T: only for pasta, not for passt"),
  ]);
});

/** A line whose `do` has as many levels as fit. */
function deep(id: number, open: string, close: string): string {
  const head = `{"id":${id},"do":`;
  const levels = Math.floor((MAX_LINE - head.length - 2) / (open.length + close.length));
  return `${head}${open.repeat(levels)}1${close.repeat(levels)}}`;
}

Deno.test("a server refuses what is no message, and goes on", () => {
  using world = open();
  const wrong = (reply: number, message: string) => refused(reply, "RequestError", message);
  const rule = (rule: unknown) => ({ id: 9, do: "forward.add", rule });
  const cases: [unknown, unknown][] = [
    ["", wrong(0, "Not a line of JSON")],
    ["{", wrong(0, "Not a line of JSON")],
    ["[".repeat(60_000), wrong(0, "Not a line of JSON")],
    ["\0\xff", wrong(0, "Not a line of JSON")],
    ["null", wrong(0, "Not an object")],
    [[list(1)], wrong(0, "Not an object")],
    [7, wrong(0, "Not an object")],
    [{}, wrong(0, '"id" must be a whole number from 1 on')],
    [{ ...list(1), id: "1" }, wrong(0, '"id" must be a whole number from 1 on')],
    [{ ...list(1), id: 0 }, wrong(0, '"id" must be a whole number from 1 on')],
    [{ ...list(1), id: 1.5 }, wrong(0, '"id" must be a whole number from 1 on')],
    ['{"id":1e999,"do":"close"}', wrong(0, '"id" must be a whole number from 1 on')],
    [{ id: 9 }, wrong(9, '"do" must be a string')],
    [{ id: 9, do: { close: 1 } }, wrong(9, '"do" must be a string')],
    [deep(9, '{"0":', "}"), wrong(9, '"do" must be a string')],
    [deep(9, '{"toJSON":', "}"), wrong(9, '"do" must be a string')],
    [deep(9, '[{"toJSON":1},', "]"), wrong(9, '"do" must be a string')],
    [{ id: 9, do: "ä".repeat(99) }, wrong(9, `Nothing is known of "do": "${"ä".repeat(79)}…`)],
    [{ id: 9, do: "\x1b[31m\r" }, wrong(9, 'Nothing is known of "do": "\\u001b[31m\\r"')],
    [{ id: 9, do: "events" }, wrong(9, '"on" must be true or false')],
    [{ id: 9, do: "events", on: 1 }, wrong(9, '"on" must be true or false')],
    [rule(undefined), wrong(9, '"rule" must be an object')],
    [rule("80"), wrong(9, '"rule" must be an object')],
    [rule({ protocol: "sctp", ports: "80" }), wrong(9, '"protocol" must be "tcp" or "udp"')],
    [rule({ protocol: "tcp", ports: 80 }), wrong(9, '"ports" must be a string')],
    [
      rule({ protocol: "tcp", ports: "80", from: "moon" }),
      wrong(9, '"from" must be "host" or "guest"'),
    ],
    [{ answer: "7", decision: "allow" }, wrong(0, '"id" must be a whole number from 1 on')],
    ['{"__proto__":{"id":1,"do":"close"}}', wrong(0, '"id" must be a whole number from 1 on')],
    ["x".repeat(MAX_LINE + 1), wrong(0, `A line may have ${MAX_LINE} bytes`)],
  ];
  for (const [message, reply] of cases) assertEquals(world.say(message), [reply]);
  assertEquals(world.say(add(1, "81")), [done(1)]);
  assertEquals(world.answers, []);
});

Deno.test("a server goes on when an answer cannot be dealt with", () => {
  using world = open(undefined, () => {
    throw new RangeError("Maximum call stack size exceeded");
  });
  const message = "Cannot be read: Maximum call stack size exceeded";
  const answer = { answer: 1, decision: "allow" };
  assertEquals(world.say(answer, list(2)).length, 2);
  assertEquals(world.say(answer), [refused(0, "RequestError", message)]);
});

Deno.test("a server survives any bytes", () => {
  using world = open();
  let state = 12345;
  const random = (n: number) => (state = state * 1103515245 + 12345 & 0x7fffffff) >> 8 & n;
  const words = ['{"id":1', ',"do":', '"events"', ',"rule":{', "}", "\n", ',"answer":2', "[", "\\"];
  for (let k = 0; k < 3000; k++) {
    const bytes = random(1)
      ? new TextEncoder().encode(words[random(7)] ?? "")
      : Uint8Array.from({ length: random(63) }, () => random(255));
    world.pair.writeBytes(bytes);
    assertEquals(world.turn(), null);
    world.pair.read();
  }
  world.pair.write("\n");
  assertEquals(world.turn(), null);
  world.pair.read();
  assertEquals(world.say(list(3)).length, 1);
});

Deno.test("a server tells of flows while that is wanted", () => {
  using world = open();
  const { say, begin, table, turn, pair } = world;
  begin();
  assertEquals(say({ id: 1, do: "events", on: true }), [done(1)]);
  const flow = begin();
  turn();
  const [opened, ...others] = pair.messages() as { opened: { index: number; ageMs: number } }[];
  assertEquals([others, opened.opened.index, opened.opened.ageMs], [[], flow, 2500]);
  table.deferHandler(0);
  turn();
  const closed = pair.messages() as { closed: { index: number; type: string } }[];
  assertEquals(closed.map(({ closed }) => closed.index), [0, flow]);
  assertEquals(closed[1]!.closed.type, "ICMP ping sequence");
  assertEquals(say({ id: 2, do: "events", on: false }), [done(2)]);
  begin();
  turn();
  assertEquals([pair.messages(), table.observer], [[], null]);
});

Deno.test("a server leaves events out while nobody reads, says how many, and answers all requests", () => {
  using world = open();
  const { say, begin, table, turn, pair } = world;
  say({ id: 1, do: "events", on: true });
  const batches = 10, flows = 1000; // of more than 300 bytes each time
  for (let batch = 0; batch < batches; batch++) {
    for (let k = 0; k < flows; k++) begin();
    table.deferHandler(0);
    turn();
  }
  pair.write(`${JSON.stringify(list(2))}\n`);
  const said: object[] = [];
  for (let k = 0; k < 2 || world.server.waiting > 0; k++) {
    assertEquals(turn(), null);
    said.push(...pair.messages() as object[]);
  }
  const count = (what: string) => said.filter((message) => what in message).length;
  const lost = (said as { lost?: number }[]).filter((message) => message.lost);
  assertEquals([count("reply"), lost.length], [1, 1]);
  assertEquals(count("opened") + count("closed") + lost[0]!.lost!, 2 * batches * flows);
  assert(count("opened") > flows && lost[0]!.lost! > flows);
  begin();
  turn();
  assertEquals(pair.messages().length, 1); // as before
});

Deno.test("a server asks, and passes answers on", () => {
  using world = open();
  const { server, turn, pair, say, answers } = world;
  assertEquals(server.decider.decide(question, 0), null);
  assertEquals(server.decider.decide(question, 70), null);
  turn();
  assertEquals(pair.messages(), [{ ask: 0, flow: question }, { ask: 70, flow: question }]);
  const decision = { verdict: "allow", label: "mock" };
  assertEquals(say({ answer: 70, decision }, { answer: 0, decision: "drop" }, { answer: 5 }), []);
  assertEquals(answers, [[70, decision], [0, "drop"], [5, undefined]]);
});

Deno.test("a server does not ask who has long stopped reading", () => {
  using world = open();
  const { server, turn, pair } = world;
  let asked = 0;
  while (server.decider.decide(question, asked) === null) {
    if (++asked > 100_000) break;
    turn();
  }
  assert(asked * 200 > OUTPUT_LIMIT && asked < 100_000);
  assertEquals(server.decider.decide(question, asked), "drop");
  let seen = 0;
  for (let k = 0; k < 1000 && seen < asked; k++) {
    seen += pair.messages().length;
    turn();
  }
  assertEquals([seen, server.decider.decide(question, asked)], [asked, null]);
});
