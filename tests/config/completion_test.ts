// SPDX-License-Identifier: GPL-2.0-or-later
/** Completion scripts, read and run by the shells they are for. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { completionScript } from "../../lib/config/completion.ts";
import { SHELLS } from "../../lib/config/model.ts";
import { OPTIONS } from "../../lib/config/table.ts";
import { requirements } from "../helpers/require.ts";
import { must, run } from "../helpers/run.ts";

/** Command lines up to the cursor, words that must be offered, words that must not. */
const CASES: readonly [string, readonly string[], readonly string[]][] = [
  ["tubetti p", ["pasta", "passt"], ["completion"]],
  ["tubetti completion ", ["bash", "zsh", "fish"], ["pasta"]],
  ["tubetti pasta --config", ["--config-net"], ["--mtu"]],
  ["pasta --no-copy", ["--no-copy-routes", "--no-copy-addrs"], []],
  ["pasta --no-dhcp", ["--no-dhcp", "--no-dhcpv6"], ["--no-dhcp-dns"]],
  ["passt --no-dhcp", ["--no-dhcp", "--no-dhcp-dns"], []],
  ["pasta -t ", ["none", "all", "auto"], ["--mtu"]],
  ["pasta --config-net --tcp-ports a", ["all", "auto"], ["none"]],
  ["pasta -q -D ", ["none"], []],
  ["pasta -i ", ["lo"], ["none"]],
  ["pasta -l /etc/passw", ["/etc/passwd"], []],
  ["pasta --pcap /etc/passw", ["/etc/passwd"], []],
];

/** Every option that is there and has one of few values offers those. */
const FIXED = OPTIONS.flatMap(({ name, set, complete, mode = "pasta" }) =>
  set && Array.isArray(complete)
    ? [{ line: `${mode} --${name} `, words: complete as string[] }]
    : []
);

async function scriptFile(shell: (typeof SHELLS)[number]): Promise<string> {
  const file = await Deno.makeTempFile({ prefix: "tubetti-completion-" });
  await Deno.writeTextFile(file, completionScript(shell));
  return file;
}

for (const shell of SHELLS) {
  Deno.test({
    name: `completionScript() of ${shell} is read by ${shell} without a word`,
    ...requirements({ packages: [shell], root: false }),
    async fn() {
      const file = await scriptFile(shell);
      const { code, stdout, stderr } = await run([shell, "-n", file]);
      await Deno.remove(file);
      assertEquals([code, stdout, stderr], [0, "", ""]);
    },
  });

  Deno.test(`completionScript() of ${shell} has every option that is there`, () => {
    const script = completionScript(shell);
    for (const { name, set } of OPTIONS) {
      const there = shell === "fish" ? `-l ${name} ` : `--${name}`;
      if (set) assertStringIncludes(script, there);
    }
  });
}

/** Calls bash's function with the words as readline would have them. */
const BASH = `
. "$1"
compopt() { :; }
read -ra COMP_WORDS <<<"$2"
[[ $2 == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
_tubetti "\${COMP_WORDS[0]}"
printf '%s\\n' "\${COMPREPLY[@]}"
`;

/** Runs a shell's own completion of a line. @returns what it offers */
async function offered(shell: "bash" | "fish", file: string, line: string): Promise<string[]> {
  const text = shell === "bash" ? await must(["bash", "-c", BASH, "-", file, line]) : await must([
    "fish",
    "--no-config",
    "-c",
    "source $argv[1]; complete -C $argv[2]",
    file,
    line,
  ]);
  return text.split("\n").map((found) => found.split("\t")[0]!);
}

for (const shell of ["bash", "fish"] as const) {
  Deno.test({
    name: `completion in ${shell} offers what fits`,
    ...requirements({ packages: [shell], root: false }),
    async fn() {
      const file = await scriptFile(shell);
      const fixed = FIXED.map(({ line, words }) => [line, words, []] as const);
      for (const [line, expected, others] of [...CASES, ...fixed]) {
        const found = await offered(shell, file, line);
        for (const word of expected) {
          assert(found.includes(word), `${line}: ${word} not in ${found}`);
        }
        for (const word of others) assert(!found.includes(word), `${line}: ${word} in ${found}`);
      }
      await Deno.remove(file);
    },
  });
}

Deno.test({
  name: "completion in bash knows value, option and command apart",
  ...requirements({ packages: ["bash"], root: false }),
  async fn() {
    const file = await scriptFile("bash");
    const [line, ...rest] = ["pasta --tcp-ports = a", "pasta -4 tru", "pasta -m 1500 -- tru"];
    assertEquals((await offered("bash", file, line!)).filter(Boolean), ["all", "auto"]);
    for (const line of rest) assert((await offered("bash", file, line)).includes("true"), line);
    assertEquals((await offered("bash", file, "pasta ls --config")).filter(Boolean), []);
    assertEquals((await offered("bash", file, "pasta -m --config")).filter(Boolean), []);
    await Deno.remove(file);
  },
});

/** Has zsh's own line editor complete a line, and shows its menu. */
const ZSH = `
import os, pty, select, sys, time
pid, fd = pty.fork()
if pid == 0:
    os.environ.update(TERM="dumb", PS1="> ", LISTMAX="9999", COLUMNS="200")
    os.execvp("zsh", ["zsh", "-f", "-i"])
def read(until, seconds):
    out, end = b"", time.time() + seconds
    while time.time() < end and until not in out:
        if select.select([fd], [], [], 0.1)[0]:
            try: out += os.read(fd, 65536)
            except OSError: break
    return out
os.write(fd, b"autoload -U compinit; compinit -D -u; source %s; echo re''ady\\n" % sys.argv[1].encode())
read(b"ready\\r", 20)
os.write(fd, sys.argv[2].encode() + b"\\t\\t")
out = read(b"\\0", float(sys.argv[3]))
os.kill(pid, 9)
os.waitpid(pid, 0)
sys.stdout.write(out.decode(errors="replace"))
`;

Deno.test({
  name: "completion in zsh offers what fits",
  ...requirements({ packages: ["zsh", "python3"], root: false }),
  async fn() {
    const file = await scriptFile("zsh");
    for (
      const [line, ...expected] of [
        ["tubetti completion ", "bash", "zsh", "fish"],
        ["tubetti pasta -t a", "all", "auto"],
        ["pasta --no-copy-", "--no-copy-addrs", "--no-copy-routes", "first of each family"],
      ] as const
    ) {
      let text = "";
      for (const seconds of ["1.5", "5", "15"]) { // longer on a busy machine
        text = await must(["python3", "-c", ZSH, file, line, seconds]);
        if (expected.every((word) => text.includes(word))) break;
      }
      for (const word of expected) assertStringIncludes(text, word, line);
    }
    await Deno.remove(file);
  },
});
