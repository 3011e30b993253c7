// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import {
  copySide,
  FlowSide,
  Pif,
  SIDE_EADDR,
  SIDE_OADDR,
  SIDE_WORDS,
} from "../../lib/flow/side.ts";
import { parseAddress } from "../../lib/wire/address.ts";

const GUEST = parseAddress("10.0.0.2")!, SERVER = parseAddress("2001:db8::1")!;

Deno.test("FlowSide keeps both ports in one word without mixing them", () => {
  const side = new FlowSide();
  for (const [eport, oport] of [[0, 65535], [65535, 0], [65535, 65535], [32768, 1], [4000, 80]]) {
    side.eport = eport;
    side.oport = oport;
    assertEquals([side.eport, side.oport], [eport, oport]);
    side.oport = 7;
    assertEquals([side.eport, side.oport], [eport, 7]);
    side.eport = 9;
    assertEquals([side.eport, side.oport], [9, 7]);
  }
});

Deno.test("FlowSide.setEndpoint() and setOur() copy from any place", () => {
  const side = new FlowSide(), words = new Int32Array(12);
  words.set(GUEST, 3);
  words.set(SERVER, 7);
  side.setEndpoint(words, 3, 4000);
  side.setOur(words, 7, 80);
  words.fill(-1);
  assertEquals([...side.words.subarray(SIDE_EADDR, SIDE_EADDR + 4)], [...GUEST]);
  assertEquals([...side.words.subarray(SIDE_OADDR, SIDE_OADDR + 4)], [...SERVER]);
  assertEquals([side.eport, side.oport, side.pif], [4000, 80, Pif.NONE]);
});

Deno.test("FlowSide.toString() shows interface, addresses and ports", () => {
  const side = new FlowSide();
  side.pif = Pif.HOST;
  side.setEndpoint(SERVER, 0, 443);
  side.setOur(GUEST, 0, 65535);
  assertEquals(side.toString(), "HOST [2001:db8::1]:443 <-> 10.0.0.2:65535");
});

Deno.test("FlowSide.clear() zeroes every word", () => {
  const side = new FlowSide();
  side.words.fill(-1);
  side.clear();
  assertEquals([...side.words], Array(SIDE_WORDS).fill(0));
});

Deno.test("copySide() copies one side and nothing beside it", () => {
  const from = Int32Array.from({ length: 3 * SIDE_WORDS }, (_, k) => k + 1);
  const to = new Int32Array(3 * SIDE_WORDS);
  copySide(to, SIDE_WORDS, from, 5);
  assertEquals([...to.subarray(SIDE_WORDS, 2 * SIDE_WORDS)], [...from.subarray(5, 5 + SIDE_WORDS)]);
  assertEquals(to.filter((word) => word !== 0).length, SIDE_WORDS);
});
