// SPDX-License-Identifier: GPL-2.0-or-later
/** The instance's part of the conversation, with a table of flows and a forwarder whose ports only count. */
import { assert, assertEquals } from "@std/assert";
import { EventType } from "../../lib/context.ts";
import { OUTPUT_LIMIT } from "../../lib/control/channel.ts";
import { MAX_LINE } from "../../lib/control/protocol.ts";
import { ControlServer } from "../../lib/control/server.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { FlowType } from "../../lib/flow/types.ts";
import type { FlowQuestion } from "../../lib/forward/question.ts";
import { DEFAULT_EPHEMERAL } from "../../lib/forward/ports.ts";
import { EPOLL, Epoll } from "../../lib/sys/epoll.ts";
import { E, SysError } from "../../lib/sys/errno.ts";
import { makeForwarder } from "../host/forward_fakes.ts";
import { Pair } from "./pair.ts";

const GONE = 143;
const CAPACITY = 4096;

/** A server that is given an instance of fakes. */
function open(mode: "pasta" | "passt" = "pasta", onAnswer: () => void = () => {}) {
  const pair = new Pair(), epoll = new Epoll(), server = new ControlServer(pair.fd);
  const buffer = new ArrayBuffer(FlowTable.byteLength(CAPACITY));
  const table = new FlowTable({ buffer, capacity: CAPACITY, clock: () => 1000 });
  table.on(FlowType.PING4, { deferred: () => true });
  const fakes = makeForwarder({ t: "80" });
  fakes.forwarder.open(10);
  const answers: unknown[] = [];
  const answered = (id: number, decision: unknown) => {
    onAnswer();
    return answers.push([id, decision]) > 0;
  };
  server.steer({
    epoll,
    table,
    buffer,
    forwarder: fakes.forwarder,
    options: { mode, tcp: true, udp: false, ephemeralPorts: DEFAULT_EPHEMERAL },
    policy: { answered },
    clock: () => 3500,
    gone: () => GONE,
  });
  /** One turn of the loop. @returns its exit code */
  const turn = (): number | null => {
    let code: number | null = null;
    const n = epoll.wait(0);
    for (let k = 0; k < n; k++) {
      assertEquals(epoll.type(k), EventType.CONTROL);
      code = server.event();
    }
    return server.flush() ?? code;
  };
  /** What is said when this has come. */
  const say = (...messages: unknown[]): unknown[] => {
    for (const message of messages) {
      pair.write(`${typeof message === "string" ? message : JSON.stringify(message)}\n`);
    }
    assertEquals(turn(), null);
    return pair.messages();
  };
  /** A new flow. */
  const begin = (): number => {
    const flow = table.alloc();
    table.setType(flow, FlowType.PING4);
    table.activate(flow);
    return flow;
  };
  const end = () => {
    server.close();
    pair.close();
    epoll.close();
  };
  return { ...fakes, pair, epoll, server, table, answers, turn, say, begin, [Symbol.dispose]: end };
}

const add = (id: number, ports: string, more = {}) => ({
  id,
  do: "forward.add",
  rule: { protocol: "tcp", ports, ...more },
});
const remove = (id: number, ports: string) => ({ ...add(id, ports), do: "forward.remove" });
const list = (id: number) => ({ id, do: "forward.list" });
const done = (reply: number) => ({ reply, result: null });
const refused = (reply: number, name: string, message: string) => ({
  reply,
  error: { name, message },
});

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
    refused(1, "ConfigError", why),
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

const question: FlowQuestion = {
  protocol: "tcp",
  via: "tap",
  source: "192.0.2.2",
  sourcePort: 40000,
  address: "198.51.100.1",
  port: 443,
  namedAddress: "198.51.100.1",
  namedPort: 443,
  names: ["mock.test"],
  resolver: false,
};

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

Deno.test("a server ends its instance when it is told to, and does nothing more", () => {
  using world = open();
  const { pair, turn, tcp } = world;
  pair.write(`${JSON.stringify({ id: 1, do: "close" })}\n${JSON.stringify(add(2, "81"))}\n`);
  assertEquals(turn(), 0);
  assertEquals([pair.messages(), tcp.all], [[done(1)], ["2 80=>80"]]);
});

Deno.test("a server ends its instance when the controller has gone", () => {
  using world = open();
  const { pair, turn, tcp } = world;
  pair.write(`${JSON.stringify(add(2, "81"))}\n`);
  pair.close();
  assertEquals([turn(), tcp.all], [GONE, ["2 80=>80", "2 81=>81"]]);
});

Deno.test("a server sees that the controller has gone though it has not read", () => {
  using world = open();
  const { server, pair, turn } = world;
  for (let k = 0; server.decider.decide(question, k) === null; k++) turn();
  pair.close();
  let code: number | null = null;
  for (let k = 0; k < 10 && code === null; k++) code = turn();
  assertEquals(code, GONE);
});

Deno.test("a server ends its instance when the controller hears nothing any more", () => {
  using world = open();
  const { server, pair, turn, tcp } = world;
  pair.deafen();
  assertEquals(turn(), null);
  pair.write(`${JSON.stringify(add(2, "81"))}\n`);
  server.decider.decide(question, 0);
  assertEquals([turn(), turn(), tcp.open.size], [null, GONE, 2]); // what was said is done
  using silent = open();
  silent.pair.deafen();
  silent.server.ready({ pid: 7, interface: null, address4: null, address6: null, socket: null });
  assertEquals(silent.epoll.wait(0), 1); // the loop hears of it at once
  assertEquals(silent.server.event(), GONE);
});

Deno.test("begin() does what waits, and ready() and failed() say what has become of a start", () => {
  using world = open();
  const { server, pair, turn, tcp } = world;
  pair.write(`${JSON.stringify(add(1, "81"))}\n`);
  assertEquals([server.begin(), tcp.open.size], [null, 2]);
  const ready = {
    pid: 7,
    interface: "eth0",
    address4: null,
    address6: "2001:db8::2",
    socket: null,
  };
  server.ready(ready);
  turn();
  assertEquals(pair.messages(), [done(1), { ready }]);
  server.failed(new SysError("bind", "0.0.0.0:80", E.EACCES, "no"));
  const message = "bind 0.0.0.0:80: EACCES (no)";
  assertEquals(pair.messages(), [
    { failed: { name: "SysError", message, call: "bind", errno: E.EACCES } },
  ]);
});

Deno.test("begin() gives the exit code when the controller has changed its mind", () => {
  using world = open();
  world.pair.write('{"id":1,"do":"close"}\n');
  assertEquals(world.server.begin(), 0);
  using gone = open();
  gone.pair.close();
  assertEquals(gone.server.begin(), GONE);
});

Deno.test("a server watches for room only while something waits", () => {
  using world = open();
  const { epoll, server, turn, pair } = world;
  for (let k = 0; k < 5000; k++) server.decider.decide(question, k);
  turn();
  assertEquals(epoll.wait(0), 0); // neither input nor room
  pair.read();
  assertEquals([epoll.wait(0), epoll.events(0)], [1, EPOLL.OUT]);
  while (turn() === null && pair.read() !== "");
  assertEquals(epoll.wait(0), 0);
});

Deno.test("finish() says that the flows which are left are closed, to whom wants to see that", () => {
  using world = open();
  world.begin();
  world.server.finish();
  assertEquals(world.pair.messages(), []);
  world.say({ id: 1, do: "events", on: true });
  world.begin();
  world.pair.messages();
  world.server.finish();
  const said = world.pair.messages() as { closed?: { index: number } }[];
  const closed = said.filter((message) => message.closed).map((message) => message.closed!.index);
  assertEquals(closed, [0, 1]);
});

Deno.test("finish() waits for a controller that does not read, but not for long", () => {
  using world = open();
  for (let k = 0; k < CAPACITY; k++) world.begin();
  world.say({ id: 1, do: "events", on: true });
  const began = performance.now();
  world.server.finish();
  const ms = performance.now() - began;
  assert(ms >= 900 && ms < 20_000, `${ms}`);
  assert(world.server.waiting > 0);
});
