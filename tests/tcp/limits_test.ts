// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { must, run } from "../helpers/run.ts";

const MIB = 1 << 20;

/** Nothing is collected unless asked for, so that garbage can be measured, too. */
const NO_COLLECTION = "--expose-gc,--min-semi-space-size=128,--max-semi-space-size=128";

function probe(name: string): string[] {
  const file = new URL(name, import.meta.url).pathname;
  const flags = ["--quiet", "--no-prompt", "--no-check", `--v8-flags=${NO_COLLECTION}`];
  return [Deno.execPath(), "run", "-A", ...flags, file];
}

Deno.test("without a free descriptor, connections are refused at once, old ones go on, new ones follow", async () => {
  const { code, stdout, stderr } = await run(probe("exhaustion_probe.ts"));
  assertEquals([code, stdout], [0, "done\n"], stderr);
  // one warning although a hundred connections and ten clients were refused within the same second
  assertEquals(stderr.match(/refused/g)?.length, 1, stderr);
  assertStringIncludes(stderr, "descriptors");
});

Deno.test("a million packets, half of them each way, leave the heap as it was", async () => {
  const { grown, kept, frames } = JSON.parse(await must(probe("heap_probe.ts")));
  assert(frames >= 500_000 + 500_000 / 16, `${frames} frames`);
  assert(kept < MIB, `${kept} bytes kept`);
  assert(grown < MIB, `${grown} bytes of garbage`);
});
