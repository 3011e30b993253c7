// SPDX-License-Identifier: GPL-2.0-or-later
/** How a conversation begins and ends. */
import { assert, assertEquals, fail } from "@std/assert";
import { EPOLL } from "../../lib/sys/epoll.ts";
import { E, SysError } from "../../lib/sys/errno.ts";
import { add, CAPACITY, done, GONE, open, question } from "./server_world.ts";

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

/** For whom has nothing to let go of. */
const nothing = () => {};

Deno.test("finish() says that the flows which are left are closed, to whom wants to see that", () => {
  using world = open();
  world.begin();
  world.server.finish(nothing);
  assertEquals(world.pair.messages(), [{ end: true }]);
  world.say({ id: 1, do: "events", on: true });
  world.begin();
  world.pair.messages();
  world.server.finish(nothing);
  const said = world.pair.messages() as { closed?: { index: number }; end?: true }[];
  const closed = said.filter((message) => message.closed).map((message) => message.closed!.index);
  assertEquals(closed, [0, 1]);
  assertEquals(said.at(-1), { end: true });
});

Deno.test("finish() waits for a controller that does not read, but not for ever", () => {
  using world = open();
  for (let k = 0; k < CAPACITY; k++) world.begin();
  world.say({ id: 1, do: "events", on: true });
  const began = performance.now(), wait = 300;
  let left = 0;
  world.server.finish(() => left++, wait);
  const ms = performance.now() - began;
  assert(ms >= wait * 0.9 && ms < 20_000, `${ms}`);
  assert(world.server.waiting > 0 && left > 0);
});

Deno.test("finish() does not wait for a controller that has gone", () => {
  using world = open();
  for (let k = 0; k < CAPACITY; k++) world.begin();
  world.say({ id: 1, do: "events", on: true });
  world.pair.close();
  const began = performance.now();
  world.server.finish(() => fail("nobody to wait for"));
  assert(performance.now() - began < 20_000);
});
