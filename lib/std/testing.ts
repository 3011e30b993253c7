// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What `@std/testing/bdd` resolves to: `describe` and `it` over `Deno.test` and its steps.
 *
 * @module
 */

type Body = (t: Deno.TestContext) => void | Promise<void>;
let current: [string, Body, boolean][] | null = null;

/** Groups the tests that `body` declares with {@linkcode it}. */
export function describe(name: string, body: () => void): void {
  const steps: [string, Body, boolean][] = [];
  const outer = current;
  current = steps;
  try {
    body();
  } finally {
    current = outer;
  }
  const run: Body = async (t) => {
    for (const [name, fn, ignore] of steps) await t.step({ name, fn, ignore });
  };
  if (outer) outer.push([name, run, false]);
  else Deno.test(name, run);
}

/** Declares one test. */
export function it(name: string, fn: Body): void {
  if (current) current.push([name, fn, false]);
  else Deno.test(name, fn);
}

/** Declares a test that is skipped. */
it.skip = (name: string, fn: Body): void => {
  if (current) current.push([name, fn, true]);
  else Deno.test({ name, fn, ignore: true });
};
