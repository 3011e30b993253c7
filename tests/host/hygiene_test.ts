// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { must, run } from "../helpers/run.ts";
import { requirements } from "../helpers/require.ts";

const FIXTURE = new URL("hygiene_fixture.ts", import.meta.url).pathname;
const PROGRAM = [Deno.execPath(), "run", "--quiet", "--no-prompt", "--allow-all", FIXTURE];

/** Shell commands that close what the shell itself may have inherited, so that only ours count. */
const CLOSE_ALL =
  'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd<&-"; done;';

/** Runs the fixture behind shell commands that open descriptors. */
async function behind(commands: string, ...args: string[]) {
  const script = `${CLOSE_ALL} ${commands} exec "$@"`;
  const stdout = await must(["bash", "-c", script, "bash", ...PROGRAM, ...args]);
  return JSON.parse(stdout);
}

Deno.test({
  name: "closeInherited() closes what the caller left open and nothing of the runtime's",
  ...requirements({ root: false, packages: ["bash"] }),
  async fn() {
    const open = "exec 3</dev/null 7</etc/passwd 8<>/dev/zero 20>&1 251>&2;";
    const seen = await behind(open);
    assertEquals(seen.found.sort((a: number, b: number) => a - b), [3, 7, 8, 20, 251]);
    assertEquals([seen.left, seen.code], [[], 0]);
  },
});

Deno.test({
  name:
    "closeInherited() keeps the descriptors that are named, and finds none where there are none",
  ...requirements({ root: false, packages: ["bash"] }),
  async fn() {
    const kept = await behind("exec 7</etc/passwd 8<>/dev/zero;", "8");
    assertEquals([kept.left, kept.code], [[8], 0]);
    const none = await behind("");
    assertEquals([none.found, none.left], [[], []]);
  },
});

Deno.test({
  name: "closeInherited() copes with closed standard descriptors",
  ...requirements({ root: false, packages: ["bash"] }),
  async fn() {
    const { code } = await run(["bash", "-c", 'exec "$@" <&- >&- 2>&-', "bash", ...PROGRAM]);
    assertEquals(code, 0);
  },
});

Deno.test({
  name: "tightenUmask() makes files private and remembers the caller's mask",
  ...requirements({ root: false, packages: ["bash"] }),
  async fn() {
    const seen = await behind("umask 027;");
    assertEquals([seen.mode, seen.umask], [0o600, 0o027]);
  },
});
