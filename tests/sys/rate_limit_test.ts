// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { RateLimit } from "../../lib/sys/rate_limit.ts";

Deno.test("RateLimit allows so many per second and counts the rest", () => {
  const limit = new RateLimit(3);
  const allowed = Array.from({ length: 2500 }, (_, ms) => limit.allow(ms)).filter(Boolean);
  assertEquals([allowed.length, limit.suppressed], [9, 497]);
});

Deno.test("RateLimit begins anew after a pause, whatever the clock's start", () => {
  const limit = new RateLimit(1);
  assertEquals([limit.allow(5e9), limit.allow(5e9 + 1), limit.allow(9e9)], [true, false, true]);
});

Deno.test("RateLimit of 0 allows nothing", () => assertEquals(new RateLimit(0).allow(0), false));
