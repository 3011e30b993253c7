// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { helpText } from "../../lib/config/help.ts";
import { PORT_FORMS } from "../../lib/config/port_forms.ts";
import { parsePortSpec } from "../../lib/forward/ports.ts";
import { OPTION_GROUPS, OPTIONS } from "../../lib/config/table.ts";

Deno.test("helpText() names every option of the mode, and none that is not there yet", () => {
  const text = helpText("pasta");
  for (const { name, short, set, value } of OPTIONS) {
    const entry = `${short ? `-${short}, ` : "    "}--${name}${value ? ` ${value}` : ""}`;
    assertEquals(
      text.split("\n").some((line) => `${line} `.startsWith(`  ${entry} `)),
      set !== undefined,
    );
  }
});

Deno.test("helpText() fits a terminal of 80 columns and ends its last line", () => {
  const lines = helpText("pasta").split("\n");
  assertEquals(lines.pop(), "");
  for (const line of lines) assert(line.length <= 80 && line === line.trimEnd(), line);
});

Deno.test("helpText() ends with a word on options that it leaves out", () => {
  for (const mode of ["pasta", "passt"] as const) {
    assertMatch(helpText(mode), /\n\nOther options of pasta\(1\) [^]*not\s+available yet\.\n$/);
  }
});

Deno.test("helpText() leaves out what only the other mode has", () => {
  assertStringIncludes(helpText("pasta"), "--config-net");
  assertEquals(helpText("passt").includes("--config-net"), false);
});

Deno.test("the option table has no name or letter twice, and every group is used", () => {
  const names = OPTIONS.map(({ name }) => name);
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
