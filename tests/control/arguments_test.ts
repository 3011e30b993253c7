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
  const url = new URL("https://www.example.com/p.ts");
  assertThrows(() => policy(url), ConfigError, "not the URL of a file");
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
  assertThrows(() => attachArguments({ pid: NaN }, NONE), ConfigError, "pid: NaN is not");
});
