// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `deno task test [GROUP…] [--filter TEXT] [FILE…]`: runs the tests and ends with one plain line,
 * `N passed, N failed` and, where some were, `, N skipped`.
 *
 * Groups, all but `check` by default: `check` (format, lint, types, undocumented exports), `unit`, `doc`
 * (examples of the documentation), `netns` (real namespaces, one file after the other), `vm` (real
 * guests). A FILE under `tests/` runs just that. Debian packages that tests need are installed when this
 * runs as root.
 *
 * With `--ci`, `check` comes first, and a test that is skipped for a reason not in
 * {@linkcode ALLOWED_SKIPS} counts as failed.
 *
 * @module
 */
import { bringPackages, TEST_PACKAGES } from "../tests/helpers/packages.ts";

/** Reasons for which a test may be skipped in continuous integration, as root with /dev/net/tun. */
const ALLOWED_SKIPS: readonly RegExp[] = [/^needs qemu-/, /^needs a machine of /];

const ROOT = new URL("..", import.meta.url).pathname;

/** The tests of real namespaces share the machine's devices: never two at a time. */
const GROUPS: Record<string, readonly string[]> = {
  unit: ["test", "--ignore=tests/netns,tests/podman,tests/vm", "tests"],
  doc: ["test", "--doc", "lib", "mod.ts", "scripts/standalone"],
  netns: ["test", "tests/netns"],
  vm: ["test", "tests/vm"],
};

const CHECKS: readonly (readonly string[])[] = [
  ["fmt", "--check"],
  ["lint"],
  ["check", "main.ts", "mod.ts", "lib", "tests", "scripts"],
  ["doc", "--lint", "mod.ts"],
];

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

const counts: Counts = { passed: 0, failed: 0, skipped: 0 };

/** Starts deno with arguments; its output goes to ours and comes back as text. */
async function deno(
  args: readonly string[],
  env: Record<string, string>,
): Promise<[number, string]> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const decoder = new TextDecoder();
  let text = "";
  for await (const chunk of child.stdout) {
    let at = 0;
    while (at < chunk.length) at += await Deno.stdout.write(chunk.subarray(at));
    text += decoder.decode(chunk, { stream: true });
  }
  return [(await child.status).code, text];
}

/** The last line of `deno test`: `ok | 3 passed (9 steps) | 0 failed | 1 ignored (2s)`. */
const SUMMARY =
  /\| (\d+) passed(?: \([^)]*\))? \| (\d+) failed(?: \([^)]*\))?(?: \| (\d+) ignored)?/g;

async function runTests(args: readonly string[], filter: string | undefined): Promise<void> {
  const skips = await Deno.makeTempFile({ prefix: "tubetti-skips-" });
  const [command, ...rest] = args;
  const line = [command!, "-A", "--no-prompt", ...(filter ? ["--filter", filter] : []), ...rest];
  const [code, text] = await deno(line, { TUBETTI_TEST_SKIPS: skips });
  const summary = [...text.matchAll(SUMMARY)].at(-1);
  const [passed, failed, ignored] = (summary ?? []).slice(1).map((count) => Number(count ?? 0));
  counts.passed += passed ?? 0;
  counts.failed += Math.max(failed ?? 0, code !== 0 ? 1 : 0);
  countSkipped(ignored ?? 0, (await Deno.readTextFile(skips)).split("\n").filter(Boolean));
  await Deno.remove(skips);
}

/** Tests skipped without a noted reason count as skipped for an unknown one. */
function countSkipped(ignored: number, reasons: readonly string[]): void {
  const allowed = reasons.filter((reason) => ALLOWED_SKIPS.some((known) => known.test(reason)));
  for (const reason of new Set(reasons)) console.log(`Skipped: ${reason}`);
  const bad = ci ? Math.max(0, ignored - allowed.length) : 0;
  if (bad > 0) console.log(`${bad} tests were skipped that must run here`);
  counts.failed += bad;
  counts.skipped += ignored - bad;
}

async function runChecks(): Promise<void> {
  for (const check of CHECKS) {
    const [code] = await deno(check, {});
    console.log(`deno ${check[0]}: ${code === 0 ? "ok" : "FAILED"}`);
    code === 0 ? counts.passed++ : counts.failed++;
  }
}

const words = [...Deno.args];
const ci = words.includes("--ci");
if (ci) words.splice(words.indexOf("--ci"), 1);
const at = words.indexOf("--filter");
const filter = at < 0 ? undefined : words.splice(at, 2)[1];

const files = words.filter((word) => word.includes("/"));
let groups = words.filter((word) => !word.includes("/"));
const unknown = groups.find((group) => group !== "check" && !(group in GROUPS));
if (unknown !== undefined) {
  console.error(`Unknown group ${unknown}: check, ${Object.keys(GROUPS).join(", ")} or a file`);
  Deno.exit(1);
}
if (words.length === 0) groups = [...(ci ? ["check"] : []), ...Object.keys(GROUPS)];

await bringPackages(TEST_PACKAGES);
for (const group of groups) {
  console.log(`\n== ${group}`);
  if (group === "check") await runChecks();
  else await runTests(GROUPS[group]!, filter);
}
if (files.length > 0) await runTests(["test", ...files], filter);

const skipped = counts.skipped > 0 ? `, ${counts.skipped} skipped` : "";
console.log(`\n${counts.passed} passed, ${counts.failed} failed${skipped}`);
Deno.exit(counts.failed > 0 ? 1 : 0);
