// SPDX-License-Identifier: GPL-2.0-or-later
/** Questions about flows: which are the same, for how long, and what happens when there are too many. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { FlowSide, Pif, SIDE_WORDS } from "../../lib/flow/side.ts";
import { REJECTED } from "../../lib/forward/decider.ts";
import { ANSWER_MS, KEPT_MS, MAX_QUESTIONS, Questions } from "../../lib/forward/questions.ts";
import { Verdict } from "../../lib/forward/policy.ts";
import { address } from "../helpers/fake_context.ts";

const TCP = 6, UDP = 17, NOW = 5000;
const ALLOWED = { ...REJECTED, verdict: Verdict.ALLOW };

/** Sides of a flow of the guest. */
function sides(port = 4000, dest = "198.51.100.1"): [FlowSide, FlowSide] {
  const ini = new FlowSide(), tgt = new FlowSide();
  ini.pif = Pif.TAP;
  ini.setEndpoint(address("192.0.2.2"), 0, port);
  ini.setOur(address(dest), 0, 80);
  tgt.pif = Pif.HOST;
  tgt.setEndpoint(address(dest), 0, 80);
  return [ini, tgt];
}

/** Asks about flows by their port. */
class Asker {
  readonly questions = new Questions();
  readonly dropped: number[] = [];

  constructor() {
    this.questions.onDrop({ drop: (place) => this.dropped.push(place) });
  }

  find(port: number, nowMs = NOW): number {
    return this.questions.find(TCP, ...sides(port), nowMs);
  }

  open(port: number, nowMs = NOW): number {
    assertEquals(this.find(port, nowMs), -1);
    return this.questions.open(TCP, ...sides(port), nowMs);
  }
}

Deno.test("Questions: every word of both sides and the protocol tell flows apart", () => {
  const questions = new Questions(), [ini, tgt] = sides();
  const place = questions.open(TCP, ini, tgt, NOW);
  assertEquals(questions.find(TCP, ini, tgt, NOW), place);
  assertEquals(questions.find(UDP, ini, tgt, NOW), -1);
  for (const side of [ini, tgt]) {
    for (let k = 0; k < SIDE_WORDS; k++) {
      for (const bit of [1, 1 << 31]) {
        side.words[k] ^= bit;
        assertEquals(questions.find(TCP, ini, tgt, NOW), -1, `word ${k}`);
        side.words[k] ^= bit;
      }
    }
  }
  assertEquals(questions.find(TCP, tgt, ini, NOW), -1);
  assertEquals(questions.find(TCP, ini, tgt, NOW), place);
});

Deno.test("Questions: an answer belongs to its number, once", () => {
  const asker = new Asker(), { questions } = asker;
  const place = asker.open(1), id = questions.idOf(place);
  for (const wrong of [id + 1, id + MAX_QUESTIONS, -1, 0.5, NaN, Infinity, 2 ** 60]) {
    assertEquals(questions.placeOf(wrong), -1, `${wrong}`);
  }
  assertEquals([questions.placeOf(id), questions.decisionAt(place)], [place, null]);
  questions.answer(place, ALLOWED);
  assertEquals([questions.placeOf(id), questions.decisionAt(place)], [-1, ALLOWED]);
  assertEquals([questions.readyCount, questions.nextReady(NOW), questions.readyCount], [
    1,
    place,
    0,
  ]);
  questions.end(place);
  assertEquals([asker.find(1), asker.dropped], [-1, [place]]);
  const again = asker.open(2);
  assertEquals([again, questions.placeOf(id)], [place, -1]);
  assertNotEquals(questions.idOf(again), id);
});

Deno.test("Questions: what nobody answers is forgotten, what waits too long for its flow likewise", () => {
  const asker = new Asker(), { questions } = asker;
  const place = asker.open(1), id = questions.idOf(place);
  assertEquals(asker.find(1, NOW + ANSWER_MS - 1), place);
  assertEquals([asker.find(1, NOW + ANSWER_MS), questions.placeOf(id)], [-1, -1]);
  const late = NOW + ANSWER_MS, other = asker.open(1, late);
  questions.answer(other, ALLOWED);
  assertEquals(asker.find(1, late + 10 * KEPT_MS), other, "its time begins when it is looked at");
  assertEquals(questions.nextReady(late), other);
  assertEquals(asker.find(1, late + KEPT_MS - 1), other);
  questions.expire(late + KEPT_MS - 1);
  assertEquals([questions.timed, asker.dropped], [true, [place]]);
  questions.expire(late + KEPT_MS);
  assertEquals([questions.timed, asker.dropped], [false, [place, other]]);
});

Deno.test("Questions: an answer that nobody looked at in time is not taken for the next one's", () => {
  const asker = new Asker(), { questions } = asker, first = asker.open(1);
  questions.answer(first, ALLOWED);
  questions.end(first);
  const second = asker.open(2);
  assertEquals([second, questions.readyCount, questions.nextReady(NOW)], [first, 1, -1]);
  questions.answer(second, ALLOWED);
  questions.end(second);
  assertEquals(asker.open(3), first);
  questions.answer(first, REJECTED);
  assertEquals([questions.readyCount, questions.nextReady(NOW)], [1, first]);
});

Deno.test("Questions: all can be over at once, whatever they wait for", () => {
  const asker = new Asker(), { questions } = asker;
  const asked = asker.open(1), ready = asker.open(2), kept = asker.open(3);
  const id = questions.idOf(asked);
  questions.answer(ready, ALLOWED);
  questions.settle(kept, REJECTED, NOW);
  questions.endAll();
  assertEquals(asker.dropped.sort(), [asked, ready, kept].sort());
  assertEquals([1, 2, 3].map((port) => asker.find(port)), [-1, -1, -1]);
  assertEquals([questions.asked, questions.timed, questions.placeOf(id)], [0, false, -1]);
  assertEquals([questions.nextReady(NOW), questions.readyCount], [-1, 0]);
  for (let port = 1; port <= MAX_QUESTIONS; port++) assert(asker.open(port) >= 0);
});

Deno.test("Questions: too many have answers give way, and new ones no place", () => {
  const asker = new Asker(), { questions } = asker;
  for (let port = 1; port <= MAX_QUESTIONS; port++) assert(asker.open(port) >= 0);
  assertEquals([asker.open(9999), questions.asked], [-1, MAX_QUESTIONS]);
  questions.settle(asker.find(7), REJECTED, NOW);
  assertEquals(asker.open(9999, NOW), -1, "not looked for twice in a turn");
  const place = asker.open(9999, NOW + 1);
  assert(place >= 0);
  assertEquals([asker.find(7), asker.find(9999), questions.asked], [-1, place, MAX_QUESTIONS]);
  assertEquals(asker.dropped, [place]);
  for (let port = 1; port <= MAX_QUESTIONS; port++) assertEquals(asker.find(port) >= 0, port !== 7);
});

Deno.test("Questions: a flood leaves the heap as it was", () => {
  const questions = new Questions(), [ini, tgt] = sides();
  const flood = (n: number) => {
    for (let k = 0; k < n; k++) {
      ini.words[0] = k;
      if (questions.find(UDP, ini, tgt, k) >= 0) continue;
      const place = questions.open(UDP, ini, tgt, k);
      if (place >= 0 && k % 3 === 0) questions.settle(place, REJECTED, k);
    }
  };
  flood(100_000);
  const before = Deno.memoryUsage().heapUsed;
  flood(500_000);
  const grown = Deno.memoryUsage().heapUsed - before;
  assert(grown < 1 << 20, `${grown} bytes`);
});
