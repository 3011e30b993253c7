// SPDX-License-Identifier: GPL-2.0-or-later
/** A shell as the command: it has the user's terminal, with all that belongs to it. */
import { assertEquals } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { programUnderTest, Testbed } from "../helpers/testbed.ts";

const PYTHON = "/usr/bin/python3";
const TERMINAL = new URL("../helpers/terminal.py", import.meta.url).pathname;
const SHELL = ["bash", "--norc", "--noprofile", "-i"];
const NEEDS = requirements({ tubetti: true, packages: ["bash", "python3"] });

/** Talks to an interactive shell in a guest. */
async function talk(lines: readonly string[]): Promise<void> {
  await using bed = await Testbed.create();
  // a prompt of our own, and no escape sequences in between
  const env = { PS1: "ready: ", TERM: "dumb" };
  const script = ["? ready: ", "> PS1='@'' '", "? @ ", ...lines, "> exit 9", ""].join("\n");
  const result = await bed.guest(SHELL, {
    stdin: script,
    env,
    options: ["-q"],
    program: [PYTHON, TERMINAL, ...programUnderTest()],
  });
  assertEquals(result.code, 9, `${result.stdout}${result.stderr}`);
}

/** A command that answers `low` when it has the terminal. What is typed shows, but for the quotes. */
const SED = "sed -u s/low/HI''GH/";

const CASES: Record<string, readonly string[]> = {
  "has job control": [
    "> sleep 1000 &",
    "? @ ",
    "> jobs",
    "? Running",
    "> kill %1; wait %1; echo status''=$?",
    "? status=143",
  ],
  "stops and continues": [
    `> ${SED}`,
    "> low",
    "? HIGH",
    "^Z",
    "? Stopped",
    "? @ ",
    "> fg",
    "> low",
    "? HIGH",
    "^C",
    "? @ ",
    "> echo status''=$?",
    "? status=130",
  ],
  "keeps Ctrl-C from ending us": [
    "^C",
    "> ", // it may take the next line to notice
    "? @ ",
    "> echo still''here",
    "? stillhere",
    `> ${SED} | cat`,
    "> low",
    "? HIGH",
    "^C",
    "? @ ",
    "> echo on''ward",
    "? onward",
    "> trap 'echo cau''ght' INT; echo s''et",
    "? set",
    "^C",
    "> ", // it may take the next line to notice
    "? @ ",
    "> echo al''ive",
    "? alive",
  ],
  "follows the window's size": [
    "> stty size",
    "? 24 80",
    "size 33 77",
    "> stty size; echo $LINES x $COLUMNS",
    "? 33 77",
    "? 33 x 77",
  ],
  "is on the terminal": [
    "> tty; ps -o tty= -p $$",
    "? /dev/pts/",
    "? pts/",
    "> [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo a''ll",
    "? all",
  ],
};

for (const [name, lines] of Object.entries(CASES)) {
  Deno.test({ name: `terminal: the shell ${name}`, ...NEEDS, fn: () => talk(lines) });
}
