// SPDX-License-Identifier: GPL-2.0-or-later
/** Options of a script as a command line, read back by the parser of the program. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { ConfigError, parseOptions } from "../../lib/config/options.ts";
import { attachArguments, spawnArguments } from "../../lib/control/arguments.ts";
import { formatPortRules } from "../../lib/forward/ports.ts";

const NONE: readonly string[] = [];

Deno.test("spawnArguments() says what the options mean, as the program understands it", () => {
  const options = parseOptions(spawnArguments({
    command: ["ls", "--all", "-l"],
    tcp: ["8080:80", "127.0.0.1/9000"],
    udp: [],
    tcpNs: "5432",
    udpNs: [],
    denyOut: "10.0.0.0/8",
    allowOut: ["*.example.com:443/tcp", "any/icmp"],
    args: ["--mtu", "1500"],
  }, NONE));
  assertEquals(options.command, ["ls", "--all", "-l"]);
  assertEquals([options.mode, options.configNet, options.mtu], ["pasta", true, 1500]);
  assertEquals(options.logLevel, "WARN");
  assertEquals(options.tcpRules!.length, 2);
  assertEquals(options.udpRules, []);
  assertEquals(options.udpNsRules, []);
  assertEquals(formatPortRules(options.tcpNsRules!).length, 1);
  assertEquals(options.policyRules.map(({ text }) => text), [
    "10.0.0.0/8",
    "*.example.com:443/tcp",
    "any/icmp",
  ]);
});

Deno.test("spawnArguments() leaves to the program what is not said", () => {
  const options = parseOptions(spawnArguments({ configNet: false, quiet: false }, NONE));
  assertEquals(options.command, []);
  assertEquals([options.configNet, options.logLevel], [false, "INFO"]);
  assertEquals([options.tcpRules, options.udpRules, options.tcpNsRules], [null, null, null]);
  assertEquals(options.policyRules, []);
});

Deno.test("spawnArguments() lets args have the last word", () => {
  const options = parseOptions(spawnArguments({ command: ["a"], args: ["--debug"] }, NONE));
  assertEquals([options.logLevel, options.command], ["DEBUG", ["a"]]);
});

Deno.test("spawnArguments() keeps values that look like options in their place", () => {
  const args = spawnArguments({ command: ["-x"], tcp: "-1", allowOut: "--help" }, NONE);
  assertThrows(() => parseOptions(args), ConfigError, "--tcp-ports -1");
  assertEquals(args.slice(-2), ["--", "-x"]);
});

Deno.test("spawnArguments() puts descriptors first, which tell of errors in the others", () => {
  assertEquals(spawnArguments({}, ["--control=3"]).slice(0, 2), ["pasta", "--control=3"]);
  assertEquals(
    attachArguments({ socket: "/s" }, ["--control=3"]).slice(0, 2),
    ["passt", "--control=3"],
  );
});

Deno.test("spawnArguments() names a policy's file absolutely, and a function by a dash", () => {
  const policy = (value: NonNullable<Parameters<typeof spawnArguments>[0]["policy"]>) =>
    spawnArguments({ policy: value }, NONE).find((word) => word.startsWith("--policy="));
  assertEquals(policy(() => "allow"), "--policy=-");
  assertEquals(policy("/a b/p.ts"), "--policy=/a b/p.ts");
  assertEquals(policy("p.ts"), `--policy=${Deno.cwd()}/p.ts`);
  assertEquals(policy("-"), `--policy=${Deno.cwd()}/-`);
  assertEquals(policy(new URL("file:///a%20b/p.ts")), "--policy=/a b/p.ts");
  assertEquals(policy("file:///a%20b/p.ts?x"), "--policy=/a b/p.ts");
  assertEquals(policy("file:x"), "--policy=/x");
  const url = new URL("https://www.example.com/p.ts");
  for (const other of [url, url.href, "data://", "file:///%zz", "file://[/p.ts"]) {
    assertThrows(() => policy(other), ConfigError, "is not the URL of a file");
  }
});

Deno.test("spawnArguments() refuses a command that would be the number of a process", () => {
  assertThrows(() => spawnArguments({ command: ["123"] }, NONE), ConfigError, "attach({ pid })");
  assertEquals(parseOptions(spawnArguments({ command: ["./123"] }, NONE)).command, ["./123"]);
});

Deno.test("attachArguments() names a process, a namespace or a socket", () => {
  const process = parseOptions(attachArguments({ pid: 77, tcp: [] }, NONE));
  assertEquals([process.target, process.tcpRules], [{ kind: "pid", pid: 77 }, []]);
  assert(process.configNet);
  const path = parseOptions(
    attachArguments({ netns: "/run/netns/a", userns: "/proc/7/ns/user" }, NONE),
  );
  assertEquals(path.target, { kind: "path", path: "/run/netns/a" });
  assertEquals(path.userns, "/proc/7/ns/user");
  const machine = parseOptions(attachArguments({ socket: "/tmp/vm", vhostUser: true }, NONE));
  assertEquals([machine.mode, machine.socketPath, machine.vhostUser], ["passt", "/tmp/vm", true]);
});

/** What is said about options that no compiler has checked. */
function refusal(build: typeof spawnArguments | typeof attachArguments, options: unknown): string {
  return assertThrows(() => build(options as never, NONE), ConfigError).message;
}

Deno.test("spawnArguments() names the option whose type is wrong, and what it accepts", () => {
  const wrong: [unknown, string][] = [
    [null, "options: must be an object, not null"],
    [{ tcp: 8080 }, 'tcp: must be a text or a list of texts, such as "8080:80", not 8080'],
    [
      { udp: ["80", 81] },
      'udp: must be a text or a list of texts, such as "8080:80", not [ "80", 81 ]',
    ],
    [{ command: "ls -l" }, 'command: must be a list of texts, such as ["ls", "-l"], not "ls -l"'],
    [{ command: ["a\0b"] }, "command: must be a list of texts"],
    [
      { program: "tubetti" },
      'program: must be a list of texts, such as ["/usr/bin/tubetti"], not "',
    ],
    [{ stdout: "pipe" }, 'stdout: must be one of "inherit", "piped", "null", not "pipe"'],
    [{ policy: null }, "policy: must be a function, or a path or the URL of a file, not null"],
    [{ policy: "" }, 'policy: must be a function, or a path or the URL of a file, not ""'],
    [{ policy: {} }, "policy: must be a function, or a path or the URL of a file, not {}"],
    [{ onPolicyError: true }, "onPolicyError: must be a function, not true"],
    [{ args: "--mtu 1500" }, 'args: must be a list of texts, such as ["--mtu", "1500"], not "'],
    [{ configNet: 1 }, "configNet: must be true or false, not 1"],
    [{ env: { A: 1 } }, "env: must be an object of texts, not { A: 1 }"],
    [{ env: ["A=1"] }, "env: must be an object of texts"],
    [{ signal: new AbortController() }, "signal: must be an AbortSignal"],
    [{ denyout: "any" }, "denyout: no option of spawn()"],
    [
      { tcp: "8".repeat(999) + "\n", quiet: "\x1b[m" },
      'quiet: must be true or false, not "\\x1b[m"',
    ],
  ];
  for (const [options, message] of wrong) {
    const said = refusal(spawnArguments, options);
    assert(said.startsWith(message), said);
  }
});

Deno.test("attachArguments() names the option whose type is wrong, and what it accepts", () => {
  const number = "pid: must be the number of a process, from 1 on, not ";
  const one = "attach: one of pid, netns and socket is needed";
  const wrong: [unknown, string][] = [
    [undefined, "options: must be an object, not undefined"],
    ...[-1, 0, 1.5, 1e21, NaN, "7"].map((pid): [unknown, string] => [{ pid }, number]),
    [{}, `${one}: there is none`],
    [{ netns: undefined }, `${one}: there is none`],
    [{ pid: 1, socket: "/s" }, `${one}: there are pid and socket`],
    [{ netns: "" }, 'netns: must be a text, such as "/run/netns/name", not ""'],
    [{ pid: 1, userns: "/u" }, "userns: no option of attach({ pid })"],
    [{ socket: "/s", configNet: true }, "configNet: no option of attach({ socket })"],
    [{ pid: 1, command: ["ls"] }, "command: no option of attach({ pid })"],
  ];
  for (const [options, message] of wrong) {
    const said = refusal(attachArguments, options);
    assert(said.startsWith(message), said);
  }
  const absent = { pid: 7, netns: undefined, tcp: undefined, args: undefined };
  assertEquals(attachArguments(absent as never, NONE).at(-1), "7");
});

Deno.test("spawnArguments() refuses args that leave no instance, or clash with ours", () => {
  const words = ["--control", "--control=5", "--flow-table=4", "--help", "-h", "--version"];
  for (const word of [...words, "--print-capabilities", "--"]) {
    const said = refusal(spawnArguments, { args: ["--mtu", "1500", word] });
    assertEquals(said, `args: ${word} cannot be used here`);
  }
  assertEquals(spawnArguments({ args: ["--hostname", "x"] }, NONE).at(-1), "x");
});
