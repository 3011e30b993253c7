// SPDX-License-Identifier: GPL-2.0-or-later
/** Whether every option of pasta mode has an entry that shows its effect, in all of its spellings. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { OPTIONS } from "../../lib/config/table.ts";
import { type Effect, spellings } from "../helpers/effects.ts";
import { EFFECTS } from "../helpers/effects_table.ts";

Deno.test("every option that pasta has by now has an entry that shows its effect, and no other", () => {
  const there = OPTIONS.filter(({ set, mode }) => set && mode !== "passt");
  assertEquals(Object.keys(EFFECTS).toSorted(), there.map(({ name }) => name).toSorted());
});

Deno.test("every entry can tell the option from its absence, but for those without effect", () => {
  const idle = (effect: Effect) => !effect.adds && !effect.hides;
  assertEquals(Object.keys(EFFECTS).filter((name) => idle(EFFECTS[name]!)), [
    "stderr",
    "chroot-fallback",
  ]);
  for (const name of Object.keys(EFFECTS)) assert(!idle(EFFECTS[name]!) || EFFECTS[name]!.keeps);
});

Deno.test("every entry has a value where the option takes one", () => {
  for (const { name, value } of OPTIONS) {
    const effect = EFFECTS[name];
    if (effect) assertEquals(effect.value !== undefined, value !== undefined, name);
  }
});

Deno.test("spellings() has every name that getopt_long(3) would take", () => {
  const all = OPTIONS.flatMap(spellings);
  assertEquals(new Set(all).size, all.length);
  for (const spelling of all) assertMatch(spelling, /^(-[A-Za-z0-9]|--[a-z][a-z0-9-]+)$/);
  const named = OPTIONS.filter(({ short }) => short).map(({ short }) => `-${short}`);
  assertEquals(all.filter((spelling) => spelling.length === 2), named);
  for (const name of ["--stderr", "--hostname", "--search", "--netmask", "--mac-addr"]) {
    assert(all.includes(name), name);
  }
});
