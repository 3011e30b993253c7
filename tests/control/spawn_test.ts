// SPDX-License-Identifier: GPL-2.0-or-later
/** Life and end of an instance as a script sees it, with shell scripts in its place. */
import { assert, assertEquals, assertMatch, assertRejects, assertThrows } from "@std/assert";
import {
  attach,
  CommandError,
  ConfigError,
  type Instance,
  InstanceClosedError,
  PortSpecError,
  spawn,
  SysError,
} from "../../mod.ts";
import { ownProgram } from "../../lib/control/program.ts";
import { processState, until } from "../helpers/run.ts";
import { fake, flow, HEAR, QUESTION, READY, say } from "./fake.ts";

/** Runs the shell script in place of an instance. */
const instance = (script: string, options: Parameters<typeof spawn>[0] = {}): Instance =>
  spawn({ stdin: "null", ...fake(script), ...options });

/** Waits for the end of the controller's socket. */
const UNTIL_EOF = "exec cat <&3 >/dev/null\n";

Deno.test("spawn() gives what the instance says of its start, and its exit code", async () => {
  const started = instance(`${say({ ready: READY })} exit 7`);
  assertEquals(await started.ready, READY);
  assertEquals(await started.status, { success: false, code: 7, signal: null });
  assert(started.pid > 1);
});

Deno.test("spawn() passes on the descriptors, the options and the command", async () => {
  const script = `readlink /proc/$$/fd/3 /proc/$$/fd/4; echo "$@"; exit 0`;
  await using started = instance(script, { command: ["a", "b c"], stdout: "piped" });
  const [control, table, words] = (await new Response(started.stdout).text()).split("\n");
  assertMatch(control, /^socket:/);
  assertMatch(table, /memfd:tubetti-flows/);
  assertEquals(words, "pasta --control=3 --flow-table=4 --quiet --config-net -- a b c");
  assertEquals((await started.status).success, true);
});

Deno.test("ready is rejected with the error of the start, of its own class", async () => {
  const records = [
    { name: "ConfigError", message: "-m 70000: not an MTU" },
    { name: "SysError", message: "bind 0.0.0.0:80: EACCES (a hint)", call: "bind", errno: 13 },
    { name: "CommandError", message: "execve x: ENOENT", exitCode: 127 },
    { name: "PortSpecError", message: "no ports" },
    { name: "TypeError", message: "any other" },
  ];
  const classes = [ConfigError, SysError, CommandError, PortSpecError, Error];
  for (const [k, record] of records.entries()) {
    const started = instance(`${say({ failed: record })} exit 1`);
    const error = await assertRejects(() => started.ready, classes[k]);
    assertEquals([error.name, error.message], [record.name, record.message]);
    if (error instanceof SysError) assertEquals([error.errno, error.code], [13, "EACCES"]);
    if (error instanceof CommandError) assertEquals(error.exitCode, 127);
    assertEquals((await started.status).code, 1);
  }
});

Deno.test("an instance that ends without a word rejects ready, and only that", async () => {
  const started = instance("exit 3"), events = started.events();
  const error = await assertRejects(() => started.ready, InstanceClosedError, "exit code 3");
  assertEquals(error.status, await started.status);
  assertEquals(await Array.fromAsync(events), []);
  assertEquals([...started.flows()], []);
  await assertRejects(() => started.forward.list(), InstanceClosedError);
  assertEquals((await started.close()).code, 3);
  started.kill(); // nobody: no error
});

Deno.test("a signal that ends the instance is in its status", async () => {
  const started = instance("kill -KILL $$");
  assertEquals(await started.status, { success: false, code: 137, signal: "SIGKILL" });
  await assertRejects(() => started.ready, InstanceClosedError, "by SIGKILL");
});

Deno.test("what an instance says last is heard though it has ended", async () => {
  const many = Array.from({ length: 200 }, (_, k) => ({ opened: flow(k) }));
  const started = instance(`${HEAR} ${say({ ready: READY }, ...many, { end: true })} exit 0`);
  assertEquals((await Array.fromAsync(started.events())).length, 200);
  assertEquals(await started.ready, READY);
});

Deno.test("forward asks the instance", async () => {
  const replies = [
    { reply: 1, result: null },
    { reply: 2, error: { name: "PortSpecError", message: "taken" } },
    { reply: 3, result: [{ from: "host", protocol: "tcp", ports: "80" }] },
  ];
  const script = replies.map((reply) => `${HEAR} printf '%s\\n' "$line"; ${say(reply)}`).join("");
  await using started = instance(script, { stdout: "piped" });
  const rule = { protocol: "tcp", ports: "80" } as const;
  await started.forward.add(rule);
  await assertRejects(() => started.forward.remove(rule), PortSpecError, "taken");
  assertEquals(await started.forward.list(), [{ from: "host", ...rule }]);
  assertEquals(started.flows().map(({ type }) => type).toArray(), []);
  const lines = (await new Response(started.stdout).text()).trim().split("\n");
  assertEquals(JSON.parse(lines[1]), { id: 2, do: "forward.remove", rule });
});

Deno.test("requests that are under way when the instance ends are rejected", async () => {
  const started = instance(`${HEAR} exit 0`);
  await assertRejects(() => started.forward.list(), InstanceClosedError, "exit code 0");
});

Deno.test("close() asks, is there for everybody, and gives the status", async () => {
  const started = instance(`${say({ ready: READY })} ${HEAR} exit 5`);
  const [first, second] = await Promise.all([started.close(), started.close()]);
  assertEquals([first.code, second.code, (await started.close()).code], [5, 5, 5]);
});

Deno.test("close() while questions are open does not wait for the policy", async () => {
  const script = `${say({ ask: 1, flow: QUESTION })} ${HEAR} ${HEAR} exit 0`;
  const asked = Promise.withResolvers<void>(), answer = Promise.withResolvers<"allow">();
  const started = instance(script, { policy: () => (asked.resolve(), answer.promise) });
  await asked.promise;
  started.forward.list().catch(() => {});
  assertEquals((await started.close()).code, 0);
  answer.resolve("allow"); // nobody hears it
});

Deno.test("close() ends what does not listen, by SIGTERM and then SIGKILL", async () => {
  const began = performance.now();
  const deaf = instance("exec sleep 60"), stubborn = instance("trap '' TERM; exec sleep 60");
  const ends = await Promise.all([deaf.close(), stubborn.close()]);
  assertEquals(ends.map(({ signal }) => signal), ["SIGTERM", "SIGKILL"]);
  assert(performance.now() - began < 30_000);
});

Deno.test("await using closes the instance", async () => {
  let pid = 0;
  {
    await using started = instance(`${say({ ready: READY })} ${HEAR} exit 0`);
    await started.ready;
    pid = started.pid;
  }
  assertEquals(processState(pid), null);
});

Deno.test("an abort signal ends the instance, and its reason is the cause", async () => {
  const aborter = new AbortController();
  const started = instance(UNTIL_EOF, { signal: aborter.signal });
  aborter.abort(new Error("enough"));
  const error = await assertRejects(() => started.ready, InstanceClosedError, "SIGTERM");
  assertEquals((error.cause as Error).message, "enough");
  assertThrows(() => instance("exit 0", { signal: aborter.signal }), Error, "enough");
});

Deno.test("an abort signal ends what does not listen, by SIGKILL", async () => {
  const aborter = new AbortController();
  const script = `trap '' TERM; ${say({ ready: READY })} exec sleep 60`;
  const started = instance(script, { signal: aborter.signal });
  await started.ready;
  aborter.abort();
  const closing = started.close(); // does not put it off
  assertEquals([(await started.status).signal, (await closing).signal], ["SIGKILL", "SIGKILL"]);
});

Deno.test("an instance that talks nonsense is ended, and says what it was", async () => {
  const started = instance(`echo nonsense >&3; ${UNTIL_EOF}`);
  const error = await assertRejects(() => started.ready, InstanceClosedError, "SIGKILL");
  assert(error.cause instanceof SyntaxError);
});

Deno.test("a policy's error is reported once, and the flow rejected", async () => {
  const script = `${say({ ask: 4, flow: QUESTION })} ${HEAR} printf '%s' "$line"`;
  const reported: unknown[] = [];
  await using started = instance(script, {
    stdout: "piped",
    policy: () => {
      throw new Error("no idea");
    },
    onPolicyError: (error, { port }) => reported.push(`${error}`, port),
  });
  const answer = JSON.parse(await new Response(started.stdout).text());
  assertEquals(answer, { answer: 4, decision: "reject" });
  assertEquals(reported, ["Error: no idea", 80]);
});

Deno.test("standard streams are web streams, readable after the end, too", async () => {
  const script = `read -r x; echo "out $x"; echo err >&2`;
  const piped = { stdin: "piped", stdout: "piped", stderr: "piped" } as const;
  const started = instance(script, piped);
  const writer = started.stdin.getWriter();
  await writer.write(new TextEncoder().encode("hello\n"));
  await writer.close();
  await started.status;
  const chunk = (await started.stdout.getReader().read()).value!;
  assertEquals(new TextDecoder().decode(chunk), "out hello\n");
  assertEquals(Object.getPrototypeOf(chunk), Uint8Array.prototype);
  assertEquals(await new Response(started.stderr).text(), "err\n");
  for (const name of ["stdin", "stdout", "stderr"] as const) {
    const inherited = instance("exit 0", { [name]: "null" });
    assertThrows(() => inherited[name], TypeError, `'${name}' is not piped`);
    await inherited.status;
  }
});

Deno.test("env, clearEnv and cwd are the instance's", async () => {
  const script = `pwd; echo "$A-$HOME"`;
  const say = async (options: Parameters<typeof spawn>[0]) => {
    await using started = instance(script, { stdout: "piped", ...options });
    return (await new Response(started.stdout).text()).trim().split("\n");
  };
  const home = Deno.env.get("HOME") ?? "";
  assertEquals(await say({ env: { A: "1" }, cwd: "/" }), ["/", `1-${home}`]);
  assertEquals(
    await say({ env: { A: "1" }, clearEnv: true, cwd: new URL("file:///tmp/") }),
    ["/tmp", "1-"],
  );
});

Deno.test("what cannot be started is a ConfigError at once", () => {
  const missing = { program: ["/nonexistent/tubetti"] };
  assertThrows(
    () => spawn(missing),
    ConfigError,
    "program: /nonexistent/tubetti cannot be started",
  );
  assertThrows(() => attach({ pid: 1, ...missing }), ConfigError, "program:");
  const nowhere = { program: ["sh"], cwd: "/nonexistent" };
  assertThrows(() => spawn(nowhere), ConfigError, "cwd: /nonexistent is no folder");
  const text = { program: ["/etc/passwd"] }, folder = { program: ["/etc"] };
  for (const options of [text, folder]) assertThrows(() => spawn(options), ConfigError, "program:");
  const elsewhere = { program: ["sh"], env: { PATH: "/nonexistent:/etc" } };
  assertThrows(() => spawn(elsewhere), ConfigError, "program: sh cannot be started");
  assertThrows(() => spawn({ tcp: 80 } as never), ConfigError, "tcp: must be");
});

Deno.test("a program is found from the folder that it starts in", async () => {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.writeTextFileSync(`${folder}/program`, "#!/bin/sh\nexit 9\n", { mode: 0o755 });
    const code = async (options: Parameters<typeof spawn>[0]) =>
      (await spawn({ cwd: folder, ...options }).status).code;
    assertEquals(await code({ program: ["./program"] }), 9);
    assertEquals(await code({ program: ["program"], env: { PATH: ":/bin" } }), 9);
    assertEquals(await code({ program: ["program"], cwd: "/", env: { PATH: folder } }), 9);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
});

Deno.test("an executable of deno compile has to name the program", () => {
  assertThrows(() => ownProgram(true), ConfigError, 'is not deno: ["tubetti"], for example');
});

Deno.test("errors of the start show where the script has started it", async () => {
  const started = instance(say({ failed: { name: "ConfigError", message: "no" } }));
  const { stack } = await assertRejects(() => started.ready, ConfigError);
  assertMatch(stack!, /^ConfigError: no\n +at instance \(.*spawn_test\.ts:/);
});

Deno.test("a policy that fails for every flow does not fill the terminal", async () => {
  const asks = Array.from({ length: 200 }, (_, ask) => ({ ask, flow: QUESTION }));
  const script = asks.map((ask) => `${say(ask)} ${HEAR}`).join("");
  const said: string[] = [], print = console.error;
  console.error = (text) => said.push(text);
  try {
    const policy = () => Promise.reject(new Error("never"));
    await instance(script, { policy }).status;
  } finally {
    console.error = print;
  }
  assert(said.length >= 10 && said.length < 200, `${said.length}`);
  assertEquals(said[0], "Policy for tcp to 198.51.100.1 port 80: the flow was rejected:");
});

Deno.test("instances side by side do not hold each other's sockets", async () => {
  const script = `${say({ ready: READY })} ls -l /proc/$$/fd | grep -c socket: ; ${UNTIL_EOF}`;
  const all = Array.from({ length: 5 }, () => instance(script, { stdout: "piped" }));
  await Promise.all(all.map(({ ready }) => ready));
  for (const one of all) {
    const { value } = await one.stdout.getReader().read();
    assertEquals(new TextDecoder().decode(value), "1\n");
  }
  for (const one of all) one.kill("SIGKILL");
  await Promise.all(all.map(({ status }) => status));
});

Deno.test("nothing is left open when instances have ended", async () => {
  const names = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const mapped = () => Deno.readTextFileSync("/proc/self/maps").split("tubetti-flows").length - 1;
  await instance("exit 0").status;
  const before = names();
  for (let k = 0; k < 10; k++) await instance("exit 0", { stdout: "piped" }).status;
  for (let k = 0; k < 30; k++) {
    assertThrows(() => instance("", { program: ["/nonexistent"], stdout: "piped" }), ConfigError);
    assertThrows(() => instance("", { cwd: "/nonexistent" }), ConfigError);
  }
  assert(await until(() => names() <= before + 10), `${before} descriptors, then ${names()}`);
  assertEquals(mapped(), 0);
});
