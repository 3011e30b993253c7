// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The scripts that README shows.
 *
 * @module
 */
import { assert } from "@std/assert";

const README = new URL("../../README.md", import.meta.url);

/** The script that follows a heading, as `mod.ts` stands beside it. */
export function example(heading: string): string {
  const readme = Deno.readTextFileSync(README);
  const at = readme.indexOf(`**${heading}`);
  assert(at >= 0, `README has no "${heading}"`);
  const script = /```ts\n([^]*?)```/.exec(readme.slice(at))?.[1];
  assert(script, `README has no script behind "${heading}"`);
  return script;
}
