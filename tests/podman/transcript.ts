// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What a test run showed, kept beside the tests: its steps, and what they noted.
 *
 * @module
 */
const FILE = new URL("last_output.txt", import.meta.url).pathname;

/** Names of one run that another would have otherwise: process numbers, identifiers. */
const VARYING: readonly (readonly [RegExp, string])[] = [
  [/netns-[0-9a-f-]{36}/g, "netns-UUID"],
  [/\b[0-9a-f]{64}\b/g, "ID"],
];

/** The steps of one test with their notes. */
export class Transcript {
  readonly #lines: string[] = [];

  /** Adds lines below the step that runs. */
  note(text: string): void {
    let plain = text.trimEnd();
    for (const [varying, name] of VARYING) plain = plain.replace(varying, name);
    for (const line of plain.split("\n")) this.#lines.push(`    ${line}`);
  }

  /** Runs a step, notes how it went. */
  async step(t: Deno.TestContext, name: string, fn: () => Promise<void>): Promise<void> {
    const at = this.#lines.push("") - 1, began = performance.now();
    const ok = await t.step(name, fn);
    const ms = Math.round(performance.now() - began);
    this.#lines[at] = `${ok ? "ok    " : "FAILED"} ${name} (${ms} ms)`;
  }

  /** Writes it to `last_output.txt`. */
  async save(): Promise<void> {
    await Deno.writeTextFile(FILE, this.#lines.join("\n") + "\n");
  }
}
