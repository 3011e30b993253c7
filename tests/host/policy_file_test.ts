// SPDX-License-Identifier: GPL-2.0-or-later
/** Policies of files, beside what the whole program does with them. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ConfigError } from "../../lib/config/error.ts";
import type { FlowQuestion } from "../../lib/forward/question.ts";
import { loadPolicy } from "../../lib/host/policy_file.ts";
import { logged } from "../helpers/logged.ts";
import { policyFile } from "../helpers/policy_world.ts";

const QUESTION: FlowQuestion = {
  protocol: "tcp",
  via: "tap",
  source: "192.0.2.2",
  sourcePort: 4000,
  address: "198.51.100.7",
  port: 80,
  namedAddress: "198.51.100.7",
  namedPort: 80,
  names: [],
  resolver: false,
};

Deno.test("a policy's function is asked each time, and what it throws is its caller's", async () => {
  await using file = await policyFile(
    "let n = 0; export default (flow) => { if (n++ > 1) throw new Error(flow.address); return n; };",
  );
  const policy = await loadPolicy(file.path), ask = () => policy.decide(QUESTION, 1) as unknown;
  assertEquals([ask(), ask()], [1, 2]);
  assertThrows(ask, Error, QUESTION.address);
});

Deno.test("a policy's function that has returned a promise is not called again, as is said once", async () => {
  const functions = [
    "const f = async () => 'allow'; export default (flow) => { globalThis.calls++; return f(flow); };",
    "export default () => { globalThis.calls++; return { then() {} }; };",
  ];
  for (const text of functions) {
    await using file = await policyFile(text);
    const policy = await loadPolicy(file.path),
      counted = globalThis as unknown as { calls: number };
    counted.calls = 0;
    const said = logged(() => {
      for (let k = 0; k < 3; k++) assertEquals(policy.decide(QUESTION, k), "reject");
    });
    assertEquals([counted.calls, said.length], [1, 1]);
    assertEquals(said[0]!.includes("must not be async"), true, said[0]);
  }
});

Deno.test("null is no answer of a policy's function: nothing comes later", async () => {
  await using file = await policyFile("export default () => null;");
  const policy = await loadPolicy(file.path);
  assertThrows(() => policy.decide(QUESTION, 1), TypeError, "null is not an answer");
});

Deno.test("a module that takes too long to load is given up", async () => {
  const wait = "await new Promise((resolve) => { globalThis.goOn = resolve; });";
  await using file = await policyFile(`${wait} export default () => "allow";`);
  const error = await assertRejects(() => loadPolicy(file.path, 50), ConfigError);
  assertEquals(error.message, `--policy ${file.path}: not loaded within 0.05 seconds`);
  (globalThis as unknown as { goOn(): void }).goOn(); // for the sake of this process
});
