// SPDX-License-Identifier: GPL-2.0-or-later
/** Scripts that decide on the flows of real guests. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  asks,
  DENIED_PORT,
  IMPORT,
  NEEDS,
  OTHER_PORT,
  PORT,
  told,
  V4,
  V6,
  world,
} from "../helpers/script_world.ts";

Deno.test(
  "a function of the script decides on each flow once, as slowly as it likes",
  NEEDS,
  async () => {
    await using scripts = await world();
    const questions = [PORT, OTHER_PORT, DENIED_PORT]
      .flatMap((port) => [`tcp ${V4} ${port}`, `udp ${V6} ${port}`]);
    const script = `${IMPORT}
    const asked: string[] = [], failed: string[] = [], labels = new Set<string | null>();
    const guest = spawn({
      command: ${asks(...questions)},
      stdout: "piped",
      policy: async ({ protocol, port }) => {
        asked.push(protocol + " " + port);
        await new Promise((resolve) => setTimeout(resolve, 100));
        if (port === ${PORT}) return { verdict: "allow", label: "slowly" };
        if (port === ${OTHER_PORT}) {
          return { verdict: "allow", target: protocol === "tcp" ? "${V4}:${PORT}" : "[${V6}]:${PORT}" };
        }
        throw new Error("no opinion");
      },
      onPolicyError: (error, { port }) => failed.push(error.message + " " + port),
    });
    const events = guest.events();
    const text = await new Response(guest.stdout).text();
    await guest.status;
    for await (const event of events) if (event.kind === "opened") labels.add(event.flow.label);
    console.log(JSON.stringify({ asked, failed, text, labels: [...labels] }));`;
    // deno-lint-ignore no-explicit-any
    const { asked, failed, text, labels } = await told<any>(scripts, script);
    const lines = text.split("\n").slice(0, -1);
    assertStringIncludes(lines[0], `${V4} ${PORT} asked by`);
    assertStringIncludes(lines[1], `${V6} ${PORT} asked by`);
    assertStringIncludes(lines[2], `: ${V4} ${PORT} asked by`); // redirected
    assertStringIncludes(lines[3], `: ${V6} ${PORT} asked by`);
    assertEquals(lines.slice(4), [`tcp ${V4} ${DENIED_PORT}: `, `udp ${V6} ${DENIED_PORT}: `]);
    assertEquals(asked.filter((one: string) => one === `tcp ${PORT}`).length, 1);
    assert(
      failed.length >= 2 && failed.every((one: string) => one === `no opinion ${DENIED_PORT}`),
    );
    assertEquals(labels, ["slowly", null]);
  },
);

Deno.test("a policy that never answers holds its own flows only", NEEDS, async () => {
  await using scripts = await world();
  const script = `${IMPORT}
    const guest = spawn({
      command: ${asks(`udp ${V4} ${DENIED_PORT}`, `tcp ${V4} ${PORT}`)},
      stdout: "piped",
      policy: ({ port }) => port === ${DENIED_PORT} ? new Promise(() => {}) : "allow",
    });
    const text = await new Response(guest.stdout).text();
    console.log(JSON.stringify({ text, status: await guest.close() }));`;
  const { text } = await told<{ text: string }>(scripts, script);
  assertMatch(
    text,
    new RegExp(`^udp ${V4} ${DENIED_PORT}: \ntcp ${V4} ${PORT}: ${V4} ${PORT} asked`),
  );
});

Deno.test(
  "a module decides in the data path, even while the script does not run",
  NEEDS,
  async () => {
    await using scripts = await world();
    scripts.write(
      "policy.ts",
      `
    import type { FlowAnswer, FlowQuestion } from "${
        new URL("../../mod.ts", import.meta.url).pathname
      }";
    export default ({ port }: FlowQuestion): FlowAnswer => port === ${PORT} ? "allow" : "reject";`,
    );
    const script = `${IMPORT}
    const guest = spawn({
      command: ${asks(`tcp ${V4} ${PORT}`, `tcp ${V4} ${OTHER_PORT}`)},
      stdout: "piped",
      policy: Deno.args[0] === "url" ? new URL("policy.ts", import.meta.url) : "policy.ts",
      cwd: "/",
    });
    await guest.ready;
    const end = performance.now() + 1500;
    while (performance.now() < end);
    const text = await new Response(guest.stdout).text();
    console.log(JSON.stringify({ text, code: (await guest.status).code }));`;
    for (const kind of ["url", "path"]) {
      const { text } = await told<{ text: string }>(scripts, script, { args: [kind] });
      const [allowed, denied] = text.split("\n");
      assertStringIncludes(allowed!, "asked by");
      assertEquals(denied, `tcp ${V4} ${OTHER_PORT}: `);
    }
  },
);

Deno.test("answers that are none are told, whatever is wrong with them", NEEDS, async () => {
  await using scripts = await world();
  const script = `${IMPORT}
    const answers: Record<number, unknown> = {
      ${PORT}: { verdict: "allow", target: "${V4}:${PORT}" }, // of an IPv6 flow
      ${OTHER_PORT}: { verdict: "allow", target: ":nonsense" },
      ${DENIED_PORT}: { verdict: "allow", tagret: "${V4}:${PORT}" },
    };
    const said = new Set<string>(); // a guest may try twice
    const guest = spawn({
      command: ${asks(...[PORT, OTHER_PORT, DENIED_PORT].map((port) => `tcp ${V6} ${port}`))},
      stdout: "piped",
      policy: ({ port }) => answers[port] as never,
      onPolicyError: (error, { port }) => said.add(port + " " + (error as Error).message),
    });
    const text = await new Response(guest.stdout).text();
    console.log(JSON.stringify([[...said], text]));`;
  const [said, text] = await told<[string[], string]>(scripts, script);
  assertEquals(said.length, 3, `${said}`);
  assertStringIncludes(said[0]!, `${PORT} target ${V4} is of the other family`);
  assertStringIncludes(said[1]!, `${OTHER_PORT} `);
  assertStringIncludes(said[2]!, `${DENIED_PORT} an answer has no "tagret"`);
  assert(!text.includes("asked by"), text);
});

Deno.test("rules come before a policy", NEEDS, async () => {
  await using scripts = await world();
  const script = `${IMPORT}
    const asked: number[] = [];
    const guest = spawn({
      command: ${asks(`tcp ${V4} ${PORT}`, `tcp ${V4} ${OTHER_PORT}`, `tcp ${V4} ${DENIED_PORT}`)},
      stdout: "piped",
      allowOut: ["${V4}:${PORT}", "${V4}:${DENIED_PORT}"],
      denyOut: "${V4}:${DENIED_PORT}",
      policy: ({ port }) => (asked.push(port), "allow"),
    });
    const text = await new Response(guest.stdout).text();
    console.log(JSON.stringify({ asked, text, status: await guest.status }));`;
  const { asked, text } = await told<{ asked: number[]; text: string }>(scripts, script);
  assertEquals(asked, [OTHER_PORT]);
  const answered = text.trimEnd().split("\n").map((line) => line.includes("asked by"));
  assertEquals(answered, [true, true, false]);
});
