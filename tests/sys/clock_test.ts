// SPDX-License-Identifier: GPL-2.0-or-later
import { assert } from "@std/assert";
import { monotonicMs } from "../../lib/sys/clock.ts";

const UPTIME_TOLERANCE_MS = 100;

Deno.test("monotonicMs() is the time since the machine started", () => {
  const uptime = Number(Deno.readTextFileSync("/proc/uptime").split(" ")[0]) * 1000;
  assert(Math.abs(monotonicMs() - uptime) < UPTIME_TOLERANCE_MS);
});

Deno.test("monotonicMs() never goes back and resolves microseconds", () => {
  let before = monotonicMs(), smallest = Infinity;
  for (let i = 0; i < 10_000; i++) {
    const now = monotonicMs();
    assert(now >= before);
    if (now > before) smallest = Math.min(smallest, now - before);
    before = now;
  }
  assert(smallest < 0.1);
});
