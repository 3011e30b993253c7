// SPDX-License-Identifier: GPL-2.0-or-later
/** Whether every option is used by a test that runs the program. */
import { assertEquals } from "@std/assert";
import { OPTIONS } from "../../lib/config/table.ts";

const TESTS = new URL("../", import.meta.url);

/** The text of all tests that start the program. */
function programTests(): string {
  const folder = new URL("netns/", TESTS);
  const files = [...Deno.readDirSync(folder)].map(({ name }) => new URL(name, folder));
  return [...files, new URL("main_test.ts", TESTS)].map((file) => Deno.readTextFileSync(file))
    .join("\n");
}

Deno.test("every option that is there is given to the program by a test of its effect", () => {
  const text = programTests();
  const untested = OPTIONS.filter(({ name, short, set, mode }) => {
    if (!set || mode === "passt") return false;
    const spellings = `--${name}${short ? `|-${short}` : ""}`;
    return !new RegExp(`["' \`](${spellings})["' =\`]`).test(text);
  });
  assertEquals(untested.map(({ name }) => name), []);
});
