// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { manualPage } from "../../lib/config/manual.ts";
import { OPTIONS } from "../../lib/config/table.ts";
import { requirements } from "../helpers/require.ts";
import { run } from "../helpers/run.ts";

const PAGE = new URL("../../tubetti.1", import.meta.url).pathname;

Deno.test("tubetti.1 is what the option table makes of it (deno task manual)", () => {
  assertEquals(Deno.readTextFileSync(PAGE), manualPage());
});

/** The page as a reader sees it, without bold and hyphenation. */
async function rendered(): Promise<string> {
  const env = { MANWIDTH: "500", LC_ALL: "C.UTF-8", MAN_KEEP_FORMATTING: "", MANROFFOPT: "-c" };
  const { code, stdout, stderr } = await run(["man", "--warnings", "-E", "UTF-8", "-l", PAGE], {
    env,
  });
  assertEquals([code, stderr], [0, ""]);
  // deno-lint-ignore no-control-regex
  return stdout.replace(/.\x08/g, "");
}

Deno.test({
  name: "tubetti.1 is rendered by man without a warning, with every option",
  ...requirements({ packages: ["man-db", "groff-base"], root: false }),
  async fn() {
    const text = await rendered();
    for (const { name, short, aliases = [], value, set } of OPTIONS) {
      const names = [...(short ? [`-${short}`] : []), ...[name, ...aliases].map((n) => `--${n}`)];
      const heading = names.join(", ") + (value ? ` ${value}` : "");
      assertEquals(text.split("\n").includes(`       ${heading}`), set !== undefined, heading);
      if (!set) assertStringIncludes(text.replace(/\s+/g, " "), heading);
    }
  },
});

Deno.test({
  name: "tubetti.1 has nothing that groff -ww warns of",
  ...requirements({ packages: ["groff-base"], root: false }),
  async fn() {
    const { code, stderr } = await run(["groff", "-ww", "-man", "-Tutf8", PAGE]);
    assertEquals([code, stderr], [0, ""]);
  },
});

Deno.test("manualPage() has no line that groff could take for a request by accident", () => {
  const requests = /^\.(TH|SH|SS|TP|PP|RS|RE|EX|EE|br|\\")( |$)/;
  for (const line of manualPage().trimEnd().split("\n")) {
    assert(!/^[.']/.test(line) || requests.test(line), line);
    assert(line !== "" && line === line.trimEnd(), JSON.stringify(line));
  }
});
