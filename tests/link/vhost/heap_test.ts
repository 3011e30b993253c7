// SPDX-License-Identifier: GPL-2.0-or-later
import { assert } from "@std/assert";
import { must } from "../../helpers/run.ts";

const MIB = 1 << 20;
/** Nothing is collected unless asked for, so that garbage can be measured, too. */
const NO_COLLECTION = "--expose-gc,--min-semi-space-size=128,--max-semi-space-size=128";

Deno.test("a million frames through the rings leave the heap as it was", async () => {
  const file = new URL("heap_probe.ts", import.meta.url).pathname;
  const flags = ["--quiet", "--no-prompt", "--no-check", `--v8-flags=${NO_COLLECTION}`];
  const { grown, kept, running } = JSON.parse(
    await must([Deno.execPath(), "run", "-A", ...flags, file]),
  );
  assert(running);
  assert(kept < MIB, `${kept} bytes kept`);
  assert(grown < MIB, `${grown} bytes of garbage`);
});
