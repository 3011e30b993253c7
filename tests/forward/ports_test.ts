// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { parsePortSpec, PortSpecError } from "../../lib/forward/ports.ts";

Deno.test("parsePortSpec() gives one rule per port, bound to all addresses", () => {
  assertEquals(parsePortSpec("1,65535:2"), [
    { first: 1, last: 1, to: 1, address: null, device: null },
    { first: 65535, last: 65535, to: 2, address: null, device: null },
  ]);
  assertEquals(parsePortSpec("none"), []);
});

Deno.test("parsePortSpec() refuses what is no port, twice the same, and the grammar to come", () => {
  const cases: [string, string][] = [
    ["", "empty port"],
    ["22,,23", "empty port"],
    ["0", '"0" is not a port'],
    ["65536", '"65536" is not a port'],
    ["+22", '"+22" is not a port'],
    [" 22", '" 22" is not a port'],
    ["22:", '"" is not a port'],
    ["1:2:3", "more than two ports"],
    ["80,80:81", "port 80 is given twice"],
    ["1-5", "not supported yet"],
    ["192.0.2.1/22", "not supported yet"],
    ["~22", "not supported yet"],
    ["all", "not supported yet"],
    ["auto", "not supported yet"],
    [Array(70_000).fill("1").join(), "more than 65535 ports"],
  ];
  for (const [text, message] of cases) {
    assertThrows(() => parsePortSpec(text), PortSpecError, message);
  }
});
