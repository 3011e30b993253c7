// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { parseArgs } from "../../lib/std/cli.ts";

const OPTIONS = { boolean: ["quiet", "no-tcp"], string: ["mtu", "dns"], collect: ["dns"] };

Deno.test("parseArgs() gives absent flags as false and absent lists as empty", () => {
  assertEquals({ ...parseArgs([], OPTIONS) }, { _: [], quiet: false, "no-tcp": false, dns: [] });
});

Deno.test("parseArgs() keeps text as text, the last value of a name and all of a list", () => {
  const args = parseArgs(["--mtu=1", "--mtu=007", "--dns", "a", "--dns=--b", "--no-tcp"], OPTIONS);
  assertEquals([args.mtu, args.dns, args["no-tcp"]], ["007", ["a", "--b"], true]);
});

Deno.test("parseArgs() leaves what is behind -- alone", () => {
  assertEquals(parseArgs(["x", "--", "--quiet"], OPTIONS)._, ["x", "--quiet"]);
  const kept = parseArgs(["x", "--", "--quiet"], { ...OPTIONS, "--": true });
  assertEquals([kept._, kept["--"], kept.quiet], [["x"], ["--quiet"], false]);
});

Deno.test("parseArgs() with stopEarly ends at the first non-option, not at a value", () => {
  const early = { ...OPTIONS, stopEarly: true };
  const args = parseArgs(["--mtu", "1500", "--quiet", "ls", "--", "--no-tcp"], early);
  assertEquals([args.mtu, args.quiet, args["no-tcp"], args._], [
    "1500",
    true,
    false,
    ["ls", "--", "--no-tcp"],
  ]);
  assertEquals(parseArgs(["--quiet", "--", "--no-tcp"], early)._, ["--no-tcp"]);
});
