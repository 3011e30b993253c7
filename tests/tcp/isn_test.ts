// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { FlowSide, Pif } from "../../lib/flow/side.ts";
import { InitialSequence } from "../../lib/tcp/isn.ts";
import { address } from "../helpers/fake_context.ts";

function side(port: number, peer = "192.0.2.1"): Int32Array {
  const made = new FlowSide();
  made.pif = Pif.TAP;
  made.setEndpoint(address("192.0.2.2"), 0, port);
  made.setOur(address(peer), 0, 80);
  return made.words;
}

Deno.test("next() moves 250 per millisecond for the same connection (RFC 6528 §3)", () => {
  const isn = new InitialSequence(), words = side(4000);
  const first = isn.next(words, 0, 1000);
  assertEquals(isn.next(words, 0, 1000), first);
  assertEquals((isn.next(words, 0, 1004) - first) | 0, 1000);
  assertEquals((isn.next(words, 0, 1000 + 2 ** 32 / 250) - first) | 0, 0); // wraps in 4.77 hours
  assertEquals(isn.next(words, 0, 1e12), isn.next(words, 0, 1e12) | 0); // an int32
});

Deno.test("next() differs by port, address and secret, so that it cannot be guessed", () => {
  const isn = new InitialSequence();
  const numbers = new Set<number>();
  for (let port = 1; port <= 1000; port++) numbers.add(isn.next(side(port), 0, 0));
  assert(numbers.size > 995);
  assertNotEquals(isn.next(side(1), 0, 0), isn.next(side(1, "192.0.2.3"), 0, 0));
  assertNotEquals(isn.next(side(1), 0, 0), new InitialSequence().next(side(1), 0, 0));
});
