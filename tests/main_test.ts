// SPDX-License-Identifier: GPL-2.0-or-later
/** The program's own words, and what the library exports. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { completionScript } from "../lib/config/completion.ts";
import { helpText } from "../lib/config/help.ts";
import { VERSION_TEXT } from "../lib/config/version.ts";
import * as library from "../mod.ts";
import { run } from "./helpers/run.ts";

const MAIN = new URL("../main.ts", import.meta.url).pathname;

function command(...args: string[]): string[] {
  const flags = ["--quiet", "--no-prompt", "--no-check", "--allow-all"];
  return [Deno.execPath(), "run", ...flags, MAIN, ...args];
}

function tubetti(...args: string[]) {
  return run(command(...args));
}

for (
  const [args, expected] of [
    [["--help"], helpText("pasta")],
    [["pasta", "--help"], helpText("pasta")],
    [["pasta", "-h", "--", "true"], helpText("pasta")],
    [["--version"], `${VERSION_TEXT}\n`],
    [["pasta", "--version"], `${VERSION_TEXT}\n`],
    [["completion", "bash"], completionScript("bash")],
    [["completion", "zsh"], completionScript("zsh")],
    [["completion", "fish"], completionScript("fish")],
  ] as const
) {
  Deno.test(`tubetti ${args.join(" ")} prints that and nothing else`, async () => {
    const { code, stdout, stderr } = await tubetti(...args);
    assertEquals([code, stdout.trimEnd(), stderr], [0, expected.trimEnd(), ""]);
  });
}

Deno.test("tubetti --help to a full disk says so in one line, exit 1", async () => {
  const { code, stderr } = await run(["sh", "-c", '"$@" >/dev/full', "sh", ...command("--help")]);
  assertEquals(code, 1);
  assertMatch(stderr, /^tubetti: No space left on device[ -~]*\n$/);
});

Deno.test("tubetti takes no notice of somebody else's TUBETTI_START", async () => {
  const { code, stdout } = await run(["env", "TUBETTI_START=x", ...command("--version")]);
  assertEquals([code, stdout], [0, `${VERSION_TEXT}\n`]);
});

for (
  const [args, cause] of [
    [[], /mode/],
    [["spaghetti"], /spaghetti.*pasta/],
    [["completion", "csh"], /bash\|zsh\|fish/],
    [["pasta", "--confg-net"], /did you mean --config-net\?/],
    [["pasta", "--splice-only"], /not available yet/],
    [["pasta", "--socket", "x"], /only for passt, not for pasta/],
    [["passt", "--config-net"], /only for pasta, not for passt/],
    [["--spaghetti"], /spaghetti/],
    [["pasta", "--spaghetti"], /spaghetti/],
    [["pasta", "-m", "1\x1b[31m\n2"], /--mtu|-m/],
    [["pasta", "-P", "/nonexistent/pid", "true"], /-P: open \/nonexistent\/pid: ENOENT/],
    [["pasta", "-P", "", "true"], /-P "": not a file name/],
    [["pasta", "--runas", "elvis", "true"], /--runas elvis: no user elvis here/],
    [["pasta", "--runas", "0:elvis", "true"], /--runas 0:elvis: no group elvis here/],
    [["pasta", "--runas", "1:2:3", "true"], /--runas 1:2:3: not a user \(UID, UID:GID, LOGIN/],
    [["pasta", "-P", "/nonexistent/pid", "1"], /-P: open \/nonexistent\/pid: ENOENT/],
  ] as const
) {
  const line = JSON.stringify(args.join(" "));
  Deno.test(`tubetti ${line} says in one line what is wrong, exit 1`, async () => {
    const { code, stdout, stderr } = await tubetti(...args);
    assertEquals([code, stdout], [1, ""], stderr);
    assertMatch(stderr, /^tubetti: [ -~]+\n$/);
    assertMatch(stderr, cause);
  });
}

Deno.test("tubetti --help is wrapped to the width that COLUMNS says, or the terminal has", async () => {
  const flags = ["--quiet", "--no-prompt", "--no-check", "--allow-all"];
  const line = [Deno.execPath(), "run", ...flags, MAIN, "--help"];
  const narrow = await run(line, { env: { COLUMNS: "50" } });
  assertEquals(narrow.stdout.trimEnd(), helpText("pasta", 50).trimEnd());
  const terminal = await run([
    "script",
    "-qec",
    `stty cols 100; unset COLUMNS; ${line.join(" ")}`,
    "/dev/null",
  ]);
  assertEquals(terminal.stdout.replaceAll("\r", "").trimEnd(), helpText("pasta", 100).trimEnd());
});

Deno.test("tubetti says in one line that -l cannot be opened, exit 1", async () => {
  for (const [file, reason] of [["/nonexistent/log", "ENOENT"], ["/", "EISDIR"]] as const) {
    const { code, stdout, stderr } = await tubetti("pasta", "-l", file, "true");
    assertEquals([code, stdout], [1, ""]);
    assertEquals(stderr, `tubetti: -l ${file}: cannot open the log file: ${reason}\n`);
  }
});

Deno.test("tubetti says why it ends on standard error, and in the log file of -l", async () => {
  const file = await Deno.makeTempFile();
  try {
    const { code, stderr } = await tubetti("pasta", "-l", file, "/nonexistent-directory/command");
    assertEquals(code, 127);
    assertMatch(stderr, /^tubetti: execve \/nonexistent-directory\/command: ENOENT[ -~]*\n$/);
    assert(Deno.readTextFileSync(file).endsWith(stderr));
  } finally {
    await Deno.remove(file);
  }
});

/** Names that scripts use, by the file of the library that has them. */
const EXPORTS = [
  ["FlowTable", "FlowState", "FlowType", "FLOW_STATE_NAMES", "FLOW_TYPE_NAMES", "FLOW_PROTO"],
  ["FlowError", "FlowSide", "INI", "TGT", "Pif"],
  ["parseAddress", "formatAddress", "Packet", "parseIp", "sum", "parsePortSpec"],
].flat();

Deno.test("mod.ts exports the flow table first, and every name of the interface", () => {
  const text = Deno.readTextFileSync(new URL("../mod.ts", import.meta.url));
  assertEquals(/^export .*$/m.exec(text)?.[0], 'export * from "./lib/flow/table.ts";');
  for (const name of EXPORTS) assert(name in library, name);
});

Deno.test("the exported FlowTable has the seed's operations", () => {
  const table = new library.FlowTable({ capacity: 3 });
  for (
    const name of [
      ["alloc", "allocCancel", "setType", "activate", "deferHandler", "stateOf", "typeOf"],
      ["freeCluster", "initiate", "target", "side", "hashInsert", "hashRemove", "lookup", "on"],
      ["defineType", "logLine"],
    ].flat()
  ) assertEquals(typeof Reflect.get(table, name), "function", name);
  assertEquals([table.capacity, table.firstFree], [3, 0]);
  assertEquals(table.freeCluster(0), { n: 3, next: 3 });
  assertEquals(new library.FlowTable().capacity, 131071);
});

Deno.test("tubetti pasta true 80 stays in the foreground, though it looks like a PID", async () => {
  const { code, stdout, stderr } = await tubetti("pasta", "-q", "true", "80");
  assertEquals([code, stdout, stderr.includes("PID")], [0, "", false]);
});
