// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { helpText, terminalWidth } from "../../lib/config/help.ts";
import { PORT_FORMS } from "../../lib/config/port_forms.ts";
import { parsePortSpec } from "../../lib/forward/ports.ts";
import { OPTION_GROUPS, OPTIONS } from "../../lib/config/table.ts";

for (const mode of ["pasta", "passt"] as const) {
  Deno.test(`helpText() names every option of ${mode}, and none that is not there yet`, () => {
    const lines = helpText(mode).split("\n");
    for (const { name, short, set, value, mode: only } of OPTIONS) {
      const entry = `  ${short ? `-${short}, ` : "    "}--${name}${value ? ` ${value}` : ""} `;
      const there = set !== undefined && (only ?? mode) === mode;
      assertEquals(lines.some((line) => `${line} `.startsWith(entry)), there, name);
    }
  });

  Deno.test(`helpText() wraps the help of ${mode} to any width, and ends its last line`, () => {
    for (const width of [40, 50, 69, 70, 80, 132, 1000]) {
      const lines = helpText(mode, width).split("\n");
      assertEquals(lines.pop(), "");
      for (const line of lines) assert(line.length <= width && line === line.trimEnd(), line);
    }
  });
}

Deno.test("helpText() uses the room it is given", () => {
  const longest = (width: number) =>
    Math.max(...helpText("pasta", width).split("\n").map((line) => line.length));
  assert(longest(120) > 100 && longest(80) > 75);
});

Deno.test("helpText() calls the program as it was called", () => {
  assertMatch(helpText("pasta"), /^Usage: tubetti pasta \[OPTION\]/);
  assertMatch(helpText("pasta", 80, "pasta"), /^Usage: pasta \[OPTION\]/);
});

Deno.test("terminalWidth() is that of COLUMNS, at least 40, and 80 when nobody says", () => {
  const before = Deno.env.get("COLUMNS");
  const given = [["132", 132], ["10", 40], ["0", 80], ["wide", 80], ["", 80]] as const;
  for (const [text, width] of given) {
    Deno.env.set("COLUMNS", text);
    if (width !== 80 || !Deno.stdout.isTerminal()) assertEquals(terminalWidth(), width, text);
  }
  before === undefined ? Deno.env.delete("COLUMNS") : Deno.env.set("COLUMNS", before);
});

Deno.test("helpText() ends with a word on options that it leaves out", () => {
  for (const mode of ["pasta", "passt"] as const) {
    assertMatch(helpText(mode), /\n\nOther options of pasta\(1\) [^]*not\s+available\s+yet\.\n$/);
  }
});

Deno.test("helpText() leaves out what only the other mode has", () => {
  assertStringIncludes(helpText("pasta"), "--config-net");
  assertEquals(helpText("passt").includes("--config-net"), false);
});

Deno.test("the option table has no name or letter twice, and every group is used", () => {
  const names = OPTIONS.map(({ name }) => name);
  assertEquals(new Set(OPTIONS.flatMap(({ aliases = [] }) => aliases)).has("socket-path"), true);
  const letters = OPTIONS.flatMap(({ short }) => short ? [short] : []);
  assertEquals(new Set(names).size, names.length);
  assertEquals(new Set(letters).size, letters.length);
  assertEquals(new Set(OPTIONS.map(({ group }) => group)), new Set(OPTION_GROUPS));
  for (const { name, short, value } of OPTIONS) {
    assertMatch(name, /^[a-z][a-z0-9-]+$/);
    assert(short === undefined || /^[a-zA-Z0-9]$/.test(short));
    assert(value !== "");
  }
});

Deno.test("helpText() shows the forms of port specifications, and no auto for passt", () => {
  for (const { form } of PORT_FORMS) assertStringIncludes(helpText("pasta"), `\n    ${form} `);
  assertEquals(helpText("passt").includes("\n    auto "), false);
  assertStringIncludes(helpText("passt"), "\n    all ");
});

Deno.test("every form of port specifications that help shows is one", () => {
  for (const { form } of PORT_FORMS) {
    const text = form.replaceAll("ADDR", "192.0.2.1").replaceAll("IF", "lo").replaceAll(
      "SPEC",
      "22",
    );
    for (const spec of text.split(", ")) assertEquals(parsePortSpec(spec).length > 0, true, spec);
  }
});
