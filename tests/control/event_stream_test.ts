// SPDX-License-Identifier: GPL-2.0-or-later
/** The queue of one consumer: order, limit, and every way to end it. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { EventStream, type FlowEvent } from "../../lib/control/event_stream.ts";
import { flow } from "./fake.ts";

const opened = (index: number): FlowEvent => ({ kind: "opened", flow: flow(index) });
/** Events as numbers: the flow's, or minus how many were lost. */
const numbers = (events: FlowEvent[]) =>
  events.map((event) => event.kind === "lost" ? -event.count : event.flow.index);

Deno.test("EventStream gives events in their order, whoever is first", async () => {
  const stream = new EventStream();
  const early = [stream.next(), stream.next()];
  for (let i = 0; i < 4; i++) stream.push(opened(i));
  stream.finish();
  const found = (await Promise.all(early)).map(({ value }) => value!);
  assertEquals(numbers([...found, ...await Array.fromAsync(stream)]), [0, 1, 2, 3]);
});

Deno.test("EventStream leaves out what a slow consumer has no room for, and says so where it was", async () => {
  const stream = new EventStream({ limit: 2 });
  for (let i = 0; i < 5; i++) stream.push(opened(i));
  assertEquals(numbers([(await stream.next()).value!]), [0]);
  stream.push(opened(5)); // room again: after what was lost
  stream.push(opened(6)); // lost, too
  stream.finish();
  assertEquals(numbers(await Array.fromAsync(stream)), [1, -3, 5, -1]);
});

Deno.test("EventStream adds what others have left out to its own", async () => {
  const stream = new EventStream({ limit: 1 });
  stream.push(opened(0));
  stream.lose(1000);
  stream.push(opened(1));
  assertEquals(numbers([(await stream.next()).value!, (await stream.next()).value!]), [0, -1001]);
  const waiting = stream.next();
  stream.lose(7);
  assertEquals(numbers([(await waiting).value!]), [-7]);
});

Deno.test("EventStream is bounded when nobody ever reads it", () => {
  const stream = new EventStream({ limit: 10 });
  for (let i = 0; i < 100_000; i++) stream.push(opened(i));
  return stream.next().then(({ value }) => assertEquals(numbers([value!]), [0]));
});

Deno.test("EventStream ends by break, and tells its owner once", async () => {
  let left = 0;
  const stream = new EventStream({}, () => left++);
  stream.push(opened(0));
  stream.push(opened(1));
  for await (const _ of stream) break;
  assertEquals(left, 1);
  assertEquals(await stream.next(), { value: undefined, done: true });
  stream.push(opened(2));
  await stream.return();
  assertEquals([left, (await stream.next()).done], [1, true]);
});

Deno.test("EventStream.return() ends a next() that waits", async () => {
  const stream = new EventStream();
  const waiting = stream.next();
  await stream.return();
  assertEquals(await waiting, { value: undefined, done: true });
});

Deno.test("EventStream throws an abort signal's reason, once", async () => {
  const aborter = new AbortController();
  let left = 0;
  const stream = new EventStream({ signal: aborter.signal }, () => left++);
  const waiting = stream.next();
  aborter.abort(new Error("enough"));
  await assertRejects(() => waiting, Error, "enough");
  assertEquals([(await stream.next()).done, left], [true, 1]);

  const late = new EventStream({ signal: AbortSignal.abort(new Error("before")) });
  await assertRejects(() => late.next(), Error, "before");
  assert((await late.next()).done);
});

Deno.test("EventStream keeps an abort for a consumer that is not waiting", async () => {
  const aborter = new AbortController();
  const stream = new EventStream({ signal: aborter.signal });
  stream.push(opened(0));
  aborter.abort(new Error("enough"));
  await assertRejects(() => Array.fromAsync(stream), Error, "enough");
});

Deno.test("EventStream refuses a limit that is none", () => {
  for (const limit of [0, -1, 1.5, NaN]) {
    assertThrows(() => new EventStream({ limit }), RangeError, `Limit ${limit}`);
  }
});
