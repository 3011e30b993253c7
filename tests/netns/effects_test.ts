// SPDX-License-Identifier: GPL-2.0-or-later
/** Every option of pasta mode, in each of its spellings: its effect on a real namespace. */
import { assertEquals } from "@std/assert";
import { OPTIONS } from "../../lib/config/table.ts";
import { assertEffect, assertRefused, spellings, World } from "../helpers/effects.ts";
import { EFFECTS } from "../helpers/effects_table.ts";
import { requirements } from "../helpers/require.ts";

const NEEDS = requirements({ packages: ["iproute2", "iputils-ping", "python3"], tubetti: true });

/** Options with an effect in pasta mode. */
const EFFECTIVE = OPTIONS.filter(({ set, mode }) => set && mode !== "passt");
/** Options that are known, but not there in pasta mode. */
const REFUSED = OPTIONS.filter((spec) => !EFFECTIVE.includes(spec));

Deno.test({
  name: "effects: what each option does shows with it, in each spelling, and not without it",
  ...NEEDS,
  async fn(t) {
    await using world = await World.create();
    for (const spec of EFFECTIVE) {
      await t.step(spellings(spec).join(", "), async () => {
        await assertEffect(world, spec, EFFECTS[spec.name]!);
      });
    }
    assertEquals(world.bed.engineProcesses(), []);
  },
});

Deno.test({
  name: "effects: what pasta mode does not have is refused in one line, in each spelling",
  ...NEEDS,
  async fn(t) {
    await using world = await World.create();
    for (const spec of REFUSED) {
      await t.step(spellings(spec).join(", "), async () => {
        for (const spelling of spellings(spec)) {
          const why = spec.mode === "passt" ? "only for passt, not for pasta" : "not available yet";
          const options = [spelling, ...(spec.value === undefined ? [] : ["1"])];
          const result = await world.start(["echo", "ran"], options);
          assertRefused(result, `${spelling}: ${why}`);
        }
      });
    }
  },
});
