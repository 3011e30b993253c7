// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The world that tests of scripts have in common: servers outside, and what scripts say to them.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { effectsCommand } from "./effects.ts";
import { requirements } from "./require.ts";
import { describe } from "./run.ts";
import { type ScriptOptions, Scripts } from "./scripts.ts";
import { Net, Testbed } from "./testbed.ts";

/** What such tests need. */
export const NEEDS = requirements({
  packages: ["python3", "dnsmasq-base", "curl"],
  tubetti: true,
});

/** Ports of the servers, which say what they are and who asks. */
export const PORT = 25471, OTHER_PORT = 25472, DENIED_PORT = 25473;
/** Their addresses. */
export const V4 = Net.REMOTE4, V6 = Net.REMOTE6;

/** A folder of scripts, and the testbed that they run in: both are gone after `await using`. */
class ScriptWorld extends Scripts implements AsyncDisposable {
  async [Symbol.asyncDispose](): Promise<void> {
    this[Symbol.dispose]();
    await this.bed[Symbol.asyncDispose]();
  }
}

/** A testbed with servers and a resolver, and a folder for scripts. */
export async function world(options: { user?: boolean } = {}): Promise<ScriptWorld> {
  const bed = await Testbed.create(options);
  const places = [PORT, OTHER_PORT, DENIED_PORT].flatMap((
    port,
  ) => [`${V4} ${port}`, `${V6} ${port}`]);
  await bed.serveRemote(effectsCommand("serve", ...places), { text: "ready\n" });
  return new ScriptWorld(bed);
}

/** The command in a guest that asks such servers, as an expression in a script. */
export function asks(...questions: string[]): string {
  return JSON.stringify(effectsCommand("ask", ...questions));
}

/** Runs a script that must succeed, and reads the JSON that it prints last. */
export async function told<T>(
  scripts: Scripts,
  source: string,
  options: ScriptOptions = {},
): Promise<T> {
  const result = await scripts.run(source, options);
  assertEquals(result.code, 0, describe(["script"], result));
  return JSON.parse(result.stdout.trimEnd().split("\n").at(-1)!);
}

/** The first line of a script. */
export const IMPORT =
  `import { attach, spawn, ConfigError, CommandError, InstanceClosedError, type FlowEvent }` +
  ` from "./mod.ts";\n`;
