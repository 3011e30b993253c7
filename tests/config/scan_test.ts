// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError } from "../../lib/config/error.ts";
import { scanArgs } from "../../lib/config/scan.ts";
import { OPTIONS } from "../../lib/config/table.ts";

const flat = (args: string[]) => {
  const { found, rest } = scanArgs(args);
  return [
    found.map(({ written, value }) => value === null ? written : `${written}=${value}`),
    rest,
  ];
};

Deno.test("scanArgs() takes values joined, separate and after an equals sign", () => {
  const args = ["-m1500", "-m", "1400", "--mtu", "1300", "--mtu=1280"];
  assertEquals(flat(args), [["-m=1500", "-m=1400", "--mtu=1300", "--mtu=1280"], []]);
});

Deno.test("scanArgs() takes a value that looks like an option, as getopt does", () => {
  assertEquals(flat(["-l", "-q", "--dns", "--"]), [["-l=-q", "--dns=--"], []]);
});

Deno.test("scanArgs() keeps an empty value and one with equals signs", () => {
  assertEquals(flat(["--search=", "--pcap=a=b"]), [["--search=", "--pcap=a=b"], []]);
});

Deno.test("scanArgs() leaves everything from the first non-option on alone", () => {
  assertEquals(flat(["-q", "ip", "-4", "--nonsense"]), [["-q"], ["ip", "-4", "--nonsense"]]);
  assertEquals(flat(["-q", "--", "-x"]), [["-q"], ["-x"]]);
  assertEquals(flat([]), [[], []]);
});

Deno.test("scanArgs() accepts every option of the table in its long and short form", () => {
  for (const { name, short, value: form } of OPTIONS) {
    const value = form === undefined ? [] : ["v"];
    assertEquals(scanArgs([`--${name}`, ...value]).found[0].spec.name, name);
    if (short) assertEquals(scanArgs([`-${short}`, ...value]).found[0].spec.name, name);
  }
});

Deno.test("scanArgs() ends quickly on absurdly long names", () => {
  assertThrows(() => scanArgs([`--${"x".repeat(100_000)}`]), ConfigError, "unknown option");
});
