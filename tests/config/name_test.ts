// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertMatch } from "@std/assert";
import { invokedMode, modeOf } from "../../lib/config/name.ts";
import { run } from "../helpers/run.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;

for (
  const [argv0, mode] of [
    ["pasta", "pasta"],
    ["passt", "passt"],
    ["/usr/bin/pasta", "pasta"],
    ["./pasta.avx2", "pasta"],
    ["/opt/pasta/passt", "passt"],
    ["-pasta", "pasta"],
    ["tubetti", null],
    ["deno", null],
    ["/srv/pasta/deno", null],
    ["", null],
  ] as const
) {
  Deno.test(`modeOf() of "${argv0}" is ${mode}`, () => assertEquals(modeOf(argv0), mode));
}

Deno.test("invokedMode() is that of the runtime here: none", () =>
  assertEquals(invokedMode(), null));

/** Runs the program under another name. */
function called(name: string, ...args: string[]) {
  const flags = ["run", "--quiet", "--no-prompt", "--no-check", "--allow-all", MAIN];
  const line = ["bash", "-c", 'name=$1; shift; exec -a "$name" "$@"', "-", name, Deno.execPath()];
  return run([...line, ...flags, ...args]);
}

Deno.test("called as pasta, the program takes options at once", async () => {
  const { code, stdout, stderr } = await called("/usr/local/bin/pasta", "--help");
  assertEquals([code, stderr], [0, ""]);
  assertMatch(stdout, /^Usage: pasta \[OPTION\]/);
});

Deno.test("called as pasta, the program takes pasta for a command, not for a mode", async () => {
  const { code, stderr } = await called("pasta", "--netns", "/nowhere", "pasta");
  assertEquals(code, 1);
  assertEquals(stderr, "tubetti: pasta: --netns takes neither PID nor command\n");
});

Deno.test("called as passt, the program refuses what is pasta's", async () => {
  const { code, stderr } = await called("passt", "--config-net");
  assertEquals([code, stderr], [1, "tubetti: --config-net: only for pasta, not for passt\n"]);
});
