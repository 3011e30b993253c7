// SPDX-License-Identifier: GPL-2.0-or-later
/** What a script must be permitted that uses the library. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { example } from "../helpers/readme.ts";
import { type Result, run } from "../helpers/run.ts";
import { READY, say } from "./fake.ts";

const MOD = new URL("../../mod.ts", import.meta.url).href;
/** As spawn() says. */
const PERMISSIONS = ["--allow-run", "--allow-env", "--allow-read", "--allow-ffi"];

/** Starts an instance, and ends it. */
const SPAWN = `
import { spawn } from "./mod.ts";
const script = ${JSON.stringify(`${say({ ready: READY })} exec sleep 60`)};
const guest = spawn({ program: ["sh", "-c", script], stdin: "null", policy: () => "allow" });
await guest.ready;
guest.events();
guest.kill("SIGTERM");
console.log((await guest.status).signal);
`;

/** Runs a script from a folder of its own. */
async function script(source: string, ...flags: string[]): Promise<Result> {
  const folder = Deno.makeTempDirSync();
  try {
    const file = `${folder}/script.ts`;
    Deno.writeTextFileSync(file, source.replaceAll(`"./mod.ts"`, `"${MOD}"`));
    const deno = [Deno.execPath(), "run", "--quiet", "--no-prompt", ...flags];
    return await run([...deno, file], { cwd: folder, env: { NO_COLOR: "1" } });
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

Deno.test("README's use of the flow table needs no permission", async () => {
  const result = await script(example("Use the flow table from a script."));
  assertEquals([result.code, result.stderr], [0, ""]);
  assertMatch(result.stdout, /^Flow 0 \(probe\): timed out\n$/);
});

Deno.test("spawn() needs the permissions that it says", async () => {
  const result = await script(SPAWN, ...PERMISSIONS);
  assertEquals([result.code, result.stdout, result.stderr], [0, "SIGTERM\n", ""]);
});

for (const flag of PERMISSIONS) {
  Deno.test(`spawn() says what it lacks without ${flag}`, async () => {
    const result = await script(SPAWN, ...PERMISSIONS.filter((other) => other !== flag));
    assertEquals([result.code, result.stdout], [1, ""]);
    assertStringIncludes(result.stderr, "NotCapable: ");
    assertStringIncludes(result.stderr, `run again with the ${flag} flag`);
  });
}
