// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { suggest } from "../../lib/config/suggest.ts";
import { OPTIONS } from "../../lib/config/table.ts";

const NAMES = OPTIONS.map(({ name }) => name);

for (
  const [word, expected] of [
    ["confg-net", "config-net"],
    ["config_net", "config-net"],
    ["cnofig-net", "config-net"],
    ["mtuu", "mtu"],
    ["mut", "mtu"],
    ["tcp-port", "tcp-ports"],
    ["outbound-fi4", "outbound-if4"],
    ["x", null],
    ["", null],
    ["frobnicate", null],
    ["m".repeat(1000), null],
  ] as const
) {
  Deno.test(`suggest() finds ${expected} for "${word.slice(0, 20)}"`, () => {
    assertEquals(suggest(word, NAMES), expected);
  });
}

Deno.test("suggest() finds every option of the table from one wrong letter", () => {
  for (const name of NAMES) {
    for (let i = 0; i < name.length; i++) {
      const wrong = `${name.slice(0, i)}#${name.slice(i + 1)}`;
      const found = suggest(wrong, NAMES);
      const alike = NAMES.filter((other) =>
        other.length === name.length && other.slice(0, i) === name.slice(0, i) &&
        other.slice(i + 1) === name.slice(i + 1)
      );
      assertEquals(alike.includes(found!), true, `${wrong}: ${found}`);
    }
  }
});
