// SPDX-License-Identifier: GPL-2.0-or-later
/** `--allow-out`, `--deny-out` and `--policy` on the command line. */
import { assertEquals, assertThrows } from "@std/assert";
import { ConfigError, parseOptions } from "../../lib/config/options.ts";
import { Verdict } from "../../lib/forward/policy_rules.ts";

Deno.test("--allow-out and --deny-out are kept in their common order", () => {
  for (const mode of ["pasta", "passt"]) {
    const args = ["--allow-out", "a.test", "--deny-out=10.0.0.0/8", "-q"];
    const { policyRules } = parseOptions([mode, ...args, "--allow-out=[::2]:1=::1"]);
    assertEquals(policyRules.map(({ text, verdict }) => [text, verdict]), [
      ["a.test", Verdict.ALLOW],
      ["10.0.0.0/8", Verdict.REJECT],
      ["[::2]:1=::1", Verdict.ALLOW],
    ]);
  }
  assertEquals(parseOptions(["pasta"]).policyRules, []);
});

Deno.test("a rule that cannot be read is named with its option, in one line", () => {
  const fails = (option: string, rule: string, message: string) =>
    assertEquals(
      assertThrows(() => parseOptions(["pasta", option, rule]), ConfigError).message,
      message,
    );
  fails(
    "--allow-out",
    "10.0.0.1/8",
    `--allow-out 10.0.0.1/8: "10.0.0.1/8" has bits set behind the first 8`,
  );
  fails("--deny-out", "any=::1", "--deny-out any=::1: what is denied goes nowhere: no =TARGET");
});

Deno.test("--policy takes one file, the last one, in both modes", () => {
  for (const mode of ["pasta", "passt"]) {
    assertEquals(parseOptions([mode]).policy, null);
    assertEquals(parseOptions([mode, "--policy", "a.ts", "--policy=-"]).policy, "-");
  }
  const error = assertThrows(() => parseOptions(["pasta", "--policy", ""]), ConfigError);
  assertEquals(error.message, '--policy "": not a file name');
});
