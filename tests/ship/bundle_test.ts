// SPDX-License-Identifier: GPL-2.0-or-later
/** The program as pieces, and what `deno compile` makes of them, as far as that goes without its base. */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { bodyOf, withParts } from "../../scripts/standalone/bundle.ts";
import { compile, findDenort, moduleOf } from "../../scripts/standalone/denort.ts";
import { VERSION_TEXT } from "../../lib/config/version.ts";
import { requirements } from "../helpers/require.ts";
import { must } from "../helpers/run.ts";
import { madeBundle, shipRequirements } from "./made.ts";

const PROJECT = new URL("../../", import.meta.url);
const NEEDS = shipRequirements({ root: false });

/** All modules that a module imports, itself included, types left out, by their paths in the project. */
async function graphOf(path: string): Promise<string[]> {
  const command = [Deno.execPath(), "info", "--json", "--quiet", new URL(path, PROJECT).pathname];
  const { modules } = JSON.parse(await must(command, { env: { DENO_NO_UPDATE_CHECK: "1" } }));
  type Module = { specifier: string; dependencies?: { code?: { specifier: string } }[] };
  const bySpecifier = new Map((modules as Module[]).map((module) => [module.specifier, module]));
  const found = new Set<string>();
  const visit = (specifier: string) => {
    if (found.has(specifier)) return;
    found.add(specifier);
    for (const { code } of bySpecifier.get(specifier)?.dependencies ?? []) {
      if (code) visit(code.specifier);
    }
  };
  visit(new URL(path, PROJECT).href);
  return [...found].map((specifier) => specifier.slice(PROJECT.href.length));
}

Deno.test({
  name: "bundle() has every module that the program loads, also those named by variables",
  ...NEEDS,
  async fn() {
    const { sources } = await madeBundle();
    const wanted = new Set<string>();
    const queue = ["main.ts"];
    for (let path; (path = queue.shift()) !== undefined;) {
      for (const module of await graphOf(path)) {
        if (wanted.has(module)) continue;
        wanted.add(module);
        const parts = new Set<string>();
        withParts(module, await Deno.readTextFile(new URL(module, PROJECT)), parts);
        queue.push(...[...parts].filter((part) => !wanted.has(part)));
      }
    }
    for (const part of ["lib/pasta.ts", "lib/passt.ts", "lib/config/answer.ts", "lib/report.ts"]) {
      assert(wanted.has(part), part);
    }
    // a module that has nothing but types may be in the graph and not in the bundle
    assertEquals(sources.filter((path) => !wanted.has(path)), []);
    const left = [...wanted].filter((path) => !sources.includes(path));
    for (const path of left) {
      const text = await Deno.readTextFile(new URL(path, PROJECT));
      assert(!/^export (async )?(function|const|class|enum)/m.test(text), `${path} is missing`);
    }
  },
});

Deno.test({
  name: "bundle() has little in what the first process runs",
  ...NEEDS,
  async fn() {
    const { shared, front, rest } = await madeBundle();
    assert((shared.length + front.length) * 10 < rest.length);
    assertMatch(rest, /"lib\/pasta\.ts":/);
  },
});

Deno.test({
  name: "moduleOf() is the program in one file that needs nothing else",
  ...NEEDS,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "tubetti-test-" });
    try {
      await Deno.writeTextFile(`${folder}/tubetti.js`, moduleOf(await madeBundle()));
      const run = [Deno.execPath(), "run", "--quiet", "--no-config", "--allow-all"];
      const output = await must([...run, `${folder}/tubetti.js`, "--version"], { cwd: folder });
      assertEquals(output, `${VERSION_TEXT}\n`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** What would change an executable if deno saw it. */
const MEDDLING = { DENO_COMPAT: "1", NODE_OPTIONS: "--require /etc/passwd", OTEL_DENO: "true" };

/** Does something while the environment has some more variables. */
async function withVariables(
  variables: Record<string, string>,
  use: () => Promise<void>,
): Promise<void> {
  for (const [name, value] of Object.entries(variables)) Deno.env.set(name, value);
  try {
    await use();
  } finally {
    for (const name of Object.keys(variables)) Deno.env.delete(name);
  }
}

/** The description of a program that `deno compile` puts behind its base. */
function metadataOf(bytes: Uint8Array): Record<string, unknown> {
  const text = new TextDecoder("latin1").decode(bytes);
  const start = text.indexOf('{"argv":[');
  const end = text.indexOf('"app_name":"tubetti"}', start);
  assert(start > 0 && end > start);
  return JSON.parse(text.slice(start, text.indexOf("}", end) + 1));
}

Deno.test({
  name:
    "deno compile, with any base: the program, all permissions, V8's flags, the same whoever makes it",
  ...NEEDS,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "tubetti-test-" });
    try {
      const program = await madeBundle(), base = await Deno.realPath("/bin/true");
      const made: Uint8Array[] = [];
      for (const variables of [{}, MEDDLING]) {
        await withVariables(
          { DENORT_BIN: base, ...variables },
          () => compile(program, `${folder}/made`),
        );
        made.push(await Deno.readFile(`${folder}/made`));
      }
      assert(made[0]!.every((byte, index) => byte === made[1]![index]));
      const text = new TextDecoder().decode(made[0]);
      for (const piece of [program.shared, program.front, program.rest]) {
        assert(text.includes(JSON.stringify(piece)));
      }
      const { permissions, v8_flags, code_cache_key, entrypoint_key, argv } = metadataOf(made[0]!);
      const { prompt, ...lists } = permissions as Record<string, unknown>;
      assertEquals([prompt, code_cache_key, entrypoint_key], [false, null, "tubetti.js"]);
      assertEquals(argv, []);
      for (const [name, list] of Object.entries(lists)) {
        // an empty list of what is allowed is everything
        assertEquals(list, name.startsWith("allow_") ? [] : null, name);
      }
      assert((v8_flags as string[]).includes("--max-semi-space-size=1"));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "nothing is fetched to start the program: deno task start, without network and cache",
  ...requirements(),
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "tubetti-test-" });
    try {
      const task = [Deno.execPath(), "task", "--quiet", "start", "--version"];
      const env = { DENO_DIR: folder, DENO_NO_UPDATE_CHECK: "1" };
      const output = await must(["unshare", "-n", ...task], { cwd: PROJECT.pathname, env });
      assertEquals(output, `${VERSION_TEXT}\n`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test("findDenort() looks where deno looks", () => {
  const all = () => true, none = () => false;
  const zip = `dl/release/v${Deno.version.deno}/denort-${Deno.build.target}.zip`;
  assertEquals(findDenort({ DENORT_BIN: "/x", HOME: "/h" }, all), "/x");
  assertEquals(findDenort({ DENORT_BIN: "/x" }, none), null);
  assertEquals(findDenort({ DENO_DIR: "/d", HOME: "/h" }, all), `/d/${zip}`);
  assertEquals(findDenort({ XDG_CACHE_HOME: "/c", HOME: "/h" }, all), `/c/deno/${zip}`);
  assertEquals(findDenort({ HOME: "/h" }, all), `/h/.cache/deno/${zip}`);
  assertEquals(findDenort({ HOME: "/h" }, none), null);
  assertEquals(findDenort({}, all), null);
});

Deno.test("withParts() refuses a name that is no constant of the file", () => {
  assertThrows(
    () => withParts("lib/a.ts", "await import(name)", new Set()),
    Error,
    "lib/a.ts: import(name)",
  );
});

Deno.test("bodyOf() refuses a module that imports something else", () => {
  for (
    const text of ['import x from"node:fs";', 'import{a}from"./b.js";', 'await import("./a.js");']
  ) {
    assertThrows(() => bodyOf(text), Error, "cannot be a function");
  }
  assertEquals(bodyOf("var a=1;\n"), '"use strict";var a=1;');
});
