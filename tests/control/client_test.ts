// SPDX-License-Identifier: GPL-2.0-or-later
/** The controller's side of the protocol, with lines made here. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ConfigError } from "../../lib/config/error.ts";
import { ControlClient, type PolicyFunction } from "../../lib/control/client.ts";
import { InstanceClosedError } from "../../lib/control/instance.ts";
import { MAX_LINE, type Ready } from "../../lib/control/protocol.ts";
import { MAX_QUESTIONS } from "../../lib/forward/questions.ts";
import { flow, QUESTION, READY } from "./fake.ts";

const CLOSED = new InstanceClosedError({ success: true, code: 0, signal: null });
/** Lets promises that are settled already go on. */
const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

/** A client, what it has sent and been told, and a way to speak to it. */
function world(policy?: PolicyFunction) {
  const sent: Record<string, unknown>[] = [];
  const told: (Ready | Error)[] = [];
  const policyErrors: unknown[] = [];
  const client = new ControlClient({
    send: (bytes) => sent.push(JSON.parse(new TextDecoder().decode(bytes))),
    ready: (ready) => told.push(ready),
    failed: (error) => told.push(error),
    policy,
    policyFailed: (error) => policyErrors.push(error),
  });
  const hear = (...notices: unknown[]) =>
    client.take(new TextEncoder().encode(notices.map((n) => `${JSON.stringify(n)}\n`).join("")));
  return { client, sent, told, policyErrors, hear };
}

Deno.test("ControlClient.request() finds its reply among others", async () => {
  const { client, sent, hear } = world();
  const rule = { protocol: "tcp", ports: "80" } as const;
  const first = client.request({ do: "forward.add", rule });
  const second = client.request({ do: "forward.list" });
  assertEquals(sent, [{ id: 1, do: "forward.add", rule }, { id: 2, do: "forward.list" }]);
  hear({ reply: 9, result: "nobody's" }, { reply: 2, result: [] }, { reply: 1, result: null });
  assertEquals([await first, await second], [null, []]);
});

Deno.test("ControlClient.request() throws the error of a reply, from where it was asked", async () => {
  const { client, hear } = world();
  const asking = (function asksForIt() {
    return client.request({ do: "forward.list" });
  })();
  hear({ reply: 1, error: { name: "ConfigError", message: "no such rule" } });
  const error = await assertRejects(() => asking, ConfigError, "no such rule");
  assert(error.stack!.startsWith("ConfigError: no such rule\n"), error.stack);
});

Deno.test("ControlClient.request() throws errors of its own classes, with the kernel's reason", async () => {
  const { client, hear } = world();
  const asking = [0, 1].map(() => client.request({ do: "forward.list" }));
  hear(
    { reply: 1, error: { name: "ConfigError", message: "taken", code: "EADDRINUSE" } },
    { reply: 2, error: { name: "RequestError", message: '"ports" must be a string' } },
  );
  const taken = await assertRejects(() => asking[0], ConfigError, "taken");
  const wrong = await assertRejects(() => asking[1], ConfigError, '"ports" must be');
  assertEquals([taken.code, wrong.code, wrong.name], ["EADDRINUSE", undefined, "ConfigError"]);
});

Deno.test("ControlClient.request() is refused when it is too long for an instance", async () => {
  const { client, sent } = world();
  const ports = "8000,".repeat(MAX_LINE / 5);
  const rule = { protocol: "tcp", ports } as const;
  await assertRejects(() => client.request({ do: "forward.add", rule }), RangeError, "more than");
  assertEquals(sent, []);
});

Deno.test("ControlClient takes lines in pieces of any size", () => {
  const { client, told } = world();
  const bytes = new TextEncoder().encode(
    `${JSON.stringify({ ready: { ...READY, interface: "ü" } })}\n`,
  );
  for (const byte of bytes) client.take(Uint8Array.of(byte));
  assertEquals(told, [{ ...READY, interface: "ü" }]);
});

Deno.test("ControlClient.take() throws at what is no notice", () => {
  for (const text of ["}\n", "\n", "null\n", "3\n"]) {
    assertThrows(() => world().client.take(new TextEncoder().encode(text)), Error);
  }
  const { client } = world();
  client.take(new Uint8Array(1 << 24).fill(0x20));
  assertThrows(() => client.take(new Uint8Array(1).fill(0x20)), RangeError, "too long");
});

Deno.test("ControlClient asks for events while somebody wants them", async () => {
  const { client, sent, hear } = world();
  const [first, second] = [client.events(), client.events()];
  hear({ opened: flow(1) }, { lost: 3 }, { closed: flow(1) });
  await first.return();
  assertEquals(sent, [{ id: 1, do: "events", on: true }]);
  hear({ opened: flow(2) });
  const kinds = [];
  for await (const event of second) {
    kinds.push(event.kind);
    if (kinds.length === 4) break;
  }
  assertEquals(kinds, ["opened", "lost", "closed", "opened"]);
  assertEquals(sent.slice(1), [{ id: 2, do: "events", on: false }]);
  client.events();
  assertEquals(sent.at(-1), { id: 3, do: "events", on: true });
});

Deno.test("ControlClient asks the policy and sends its answer", async () => {
  const { sent, policyErrors, hear } = world(async ({ port }) => {
    await turn();
    return port === 80 ? "allow" : { verdict: "drop", label: "other" };
  });
  hear({ ask: 5, flow: QUESTION }, { ask: 6, flow: { ...QUESTION, port: 81 } });
  await turn();
  await turn();
  assertEquals(sent, [
    { answer: 5, decision: "allow" },
    { answer: 6, decision: { verdict: "drop", label: "other" } },
  ]);
  assertEquals(policyErrors, []);
});

Deno.test("ControlClient rejects the flow when the policy throws, rejects or talks nonsense", async () => {
  const policies: [PolicyFunction, string][] = [
    [() => {
      throw new Error("thrown");
    }, "thrown"],
    [() => Promise.reject(new Error("rejected")), "rejected"],
    [() => undefined as never, "undefined is not an answer"],
    [() => "yes" as never, '"yes" is not a verdict'],
    [() => null as never, "null is not an answer"],
    [() => ({ verdict: "maybe" }) as never, '"maybe" is not a verdict'],
    [() => ({ verdict: "allow", target: "nonsense" }), "nonsense"],
    [() => ({ verdict: "allow", target: "www.example.com:80" }), "www.example.com"],
    [() => ({ verdict: "allow", target: 8080 }) as never, "target 8080 is not text"],
    [() => ({ verdict: "allow", target: "[::1]:80" }), "target ::1 is of the other family"],
    [() => ({ verdict: "reject", target: "127.0.0.1" }), "no target"],
    [() => ({ verdict: "allow", tagret: "127.0.0.1" }) as never, 'an answer has no "tagret"'],
    [() => ({ verdict: "allow", label: 7 }) as never, "label 7 is not text"],
    [() => ({ verdict: "allow", label: "x".repeat(MAX_LINE) }), "more than"],
  ];
  for (const [policy, message] of policies) {
    const { sent, policyErrors, hear } = world(policy);
    hear({ ask: 1, flow: QUESTION });
    await turn();
    assertEquals(sent, [{ answer: 1, decision: "reject" }]);
    assert(`${policyErrors[0]}`.includes(message), `${policyErrors[0]}`);
  }
});

Deno.test("ControlClient knows the family of a flow by its address", async () => {
  const answer = { verdict: "allow", target: "[::1]:80" } as const;
  const { sent, policyErrors, hear } = world(() => answer);
  hear({ ask: 1, flow: { ...QUESTION, address: "2001:db8::1", namedAddress: "192.0.2.1" } });
  await turn();
  assertEquals([sent, policyErrors], [[{ answer: 1, decision: answer }], []]);
});

Deno.test("ControlClient forgets the oldest questions of a policy that answers none", async () => {
  const answers: PromiseWithResolvers<"allow">[] = [];
  const { sent, policyErrors, hear } = world(() => {
    answers.push(Promise.withResolvers());
    return answers.at(-1)!.promise;
  });
  const more = 10;
  for (let ask = 0; ask < MAX_QUESTIONS + more; ask++) hear({ ask, flow: QUESTION });
  answers[0]!.resolve("allow");
  answers[more - 1]!.reject(new Error("too late"));
  answers[more]!.resolve("allow");
  answers.at(-1)!.reject(new Error("in time"));
  await turn();
  assertEquals(sent, [
    { answer: more, decision: "allow" },
    { answer: answers.length - 1, decision: "reject" },
  ]);
  assertEquals(policyErrors.map(String), ["Error: in time"]);
});

Deno.test("ControlClient tells that events are missing when the instance has not ended as it should", async () => {
  const ends: [unknown[], unknown[]][] = [
    [[{ ready: READY }, { opened: flow(1) }], ["opened", Infinity]],
    [[{ ready: READY }, { opened: flow(1) }, { lost: 2 }], ["opened", Infinity]],
    [[{ ready: READY }, { opened: flow(1) }, { lost: 2 }, { end: true }], ["opened", 2]],
    [[{ failed: { name: "Error", message: "" } }], []],
    [[], []],
  ];
  for (const [notices, expected] of ends) {
    const { client, hear } = world();
    const read = client.events(), waits = client.events();
    const first = waits.next();
    hear(...notices);
    client.end(CLOSED);
    const events = await Array.fromAsync(read);
    assertEquals(events.map((event) => event.kind === "lost" ? event.count : event.kind), expected);
    assertEquals((await first).done, expected.length === 0);
  }
});

Deno.test("ControlClient.end() tells everybody who waits, and sends nothing any more", async () => {
  const { promise, resolve } = Promise.withResolvers<"allow">();
  const { client, sent, policyErrors, hear } = world(() => promise);
  const stream = client.events();
  hear({ opened: flow(1) }, { ask: 1, flow: QUESTION });
  const asking = client.request({ do: "forward.list" });
  client.end(CLOSED);
  await assertRejects(() => asking, InstanceClosedError, "has ended with exit code 0");
  assertEquals((await Array.fromAsync(stream)).length, 1);
  const before = sent.length;
  resolve("allow");
  await assertRejects(() => client.request({ do: "close" }), InstanceClosedError);
  assertEquals(await Array.fromAsync(client.events()), []);
  await turn();
  assertEquals([sent.length, policyErrors.length], [before, 0]);
});
