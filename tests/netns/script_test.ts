// SPDX-License-Identifier: GPL-2.0-or-later
/** Scripts that start instances and steer them, with real guests. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { effectsCommand } from "../helpers/effects.ts";
import { PYTHON } from "../helpers/edge.ts";
import { Net } from "../helpers/testbed.ts";
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

const GUEST_PORT = 25474, NEW_PORT = 25475;

Deno.test(
  "a script in any folder runs a command, and sees its flows come and go",
  NEEDS,
  async () => {
    await using scripts = await world();
    const script = `${IMPORT}
    const command = ${asks(`tcp ${V4} ${PORT}`, `udp ${V6} ${PORT}`, `tcp ${V4} 1`)};
    const guest = spawn({ command, stdout: "piped" });
    const events: FlowEvent[] = [];
    const reading = (async () => { for await (const event of guest.events()) events.push(event); })();
    const ready = await guest.ready;
    const text = await new Response(guest.stdout).text();
    const { code } = await guest.status;
    await reading;
    console.log(JSON.stringify({ ready, text, code, events }));`;
    // deno-lint-ignore no-explicit-any
    const { ready, text, code, events } = await told<any>(scripts, script);
    assertEquals([code, ready.address4, ready.address6], [0, Net.HOST4, Net.HOST6]);
    assertStringIncludes(text, `tcp ${V4} ${PORT}: ${V4} ${PORT} asked by ${Net.HOST4}`);
    // deno-lint-ignore no-explicit-any
    const about = (kind: string, type: string): any =>
      // deno-lint-ignore no-explicit-any
      events.find((event: any) =>
        event.kind === kind && event.flow.type === type && event.flow.target.port === PORT
      )?.flow;
    // deno-lint-ignore no-explicit-any
    const kinds = (kind: string) => events.filter((event: any) => event.kind === kind).length;
    const opened = about("opened", "TCP connection"), udp = about("opened", "UDP flow");
    assertEquals([opened.target.address, opened.target.port], [V4, PORT]);
    assertEquals([udp.target.address, udp.target.port, udp.protocol], [V6, PORT, 17]);
    assertEquals([opened.initiator.address, opened.bytesFromTarget], [Net.HOST4, 0]);
    const answer = `${V4} ${PORT} asked by ${Net.HOST4}`.length;
    assertEquals(about("closed", "TCP connection").bytesFromTarget, answer);
    assertEquals(about("closed", "UDP flow").bytesFromInitiator, "?".length);
    assertEquals(kinds("opened"), kinds("closed"));
  },
);

Deno.test("flows() shows what is under way, without asking the instance", NEEDS, async () => {
  await using scripts = await world();
  const talk = `import socket,time
s = socket.create_connection(("${V4}", ${PORT})); got = s.recv(200); print("got", flush=True); input()`;
  const script = `${IMPORT}
    const guest = spawn({ command: ["${PYTHON}", "-c", ${
    JSON.stringify(talk)
  }], stdin: "piped", stdout: "piped" });
    const before = [...guest.flows()].length;
    await guest.stdout.getReader().read();
    let flows = [...guest.flows()];
    // the guest's kernel may take a moment to acknowledge
    for (let k = 0; k < 200 && flows[0].bytesFromTarget === 0; k++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      flows = [...guest.flows()];
    }
    const iterator = guest.flows();
    iterator.next();
    await guest.stdin.close();
    await guest.status;
    console.log(JSON.stringify({ before, flows, late: iterator.next().done, after: [...guest.flows()] }));`;
  // deno-lint-ignore no-explicit-any
  const { before, flows, late, after } = await told<any>(scripts, script);
  assertEquals([before, late, after], [0, true, []]);
  assertEquals(flows.length, 1);
  const [flow] = flows;
  assertEquals([flow.type, flow.target.port, flow.label], ["TCP connection", PORT, null]);
  assertEquals(flow.bytesFromTarget, `${V4} ${PORT} asked by ${Net.HOST4}`.length);
  assert(flow.ageMs >= 0 && flow.ageMs < 60_000, `${flow.ageMs}`);
});

Deno.test("ports are opened and closed while the guest runs", NEEDS, async () => {
  await using scripts = await world();
  const command = effectsCommand("serve", `${Net.HOST4} ${GUEST_PORT}`);
  const script = `${IMPORT}
    const ask = async () => {
      const [program, ...args] = ${asks(`tcp ${Net.HOST4} ${NEW_PORT}`)};
      const { stdout } = await new Deno.Command(program, { args }).output();
      return new TextDecoder().decode(stdout).trim();
    };
    await using guest = spawn({ command: ${
    JSON.stringify(command)
  }, stdout: "piped", tcp: [], udp: [] });
    await guest.stdout.getReader().read();
    const rule = { protocol: "tcp", ports: "${NEW_PORT}:${GUEST_PORT}" } as const;
    const answers = [await ask()];
    await guest.forward.add(rule);
    answers.push(await ask());
    const during = await guest.forward.list();
    const again = await guest.forward.add(rule).catch((error) => error.name);
    await guest.forward.remove(rule);
    answers.push(await ask());
    const missing = await guest.forward.remove(rule).catch((error) => error.name);
    console.log(JSON.stringify({ answers, during, again, missing }));`;
  const { answers, during, again, missing } = await told<
    { answers: string[]; during: unknown[]; again: string; missing: string }
  >(scripts, script);
  const question = `tcp ${Net.HOST4} ${NEW_PORT}:`;
  assertEquals([answers[0], answers[2]], [question, question]);
  assertStringIncludes(answers[1]!, "asked by");
  const wanted = { from: "host", protocol: "tcp", ports: `${NEW_PORT}:${GUEST_PORT}` };
  assert(
    during.some((entry) => JSON.stringify(entry) === JSON.stringify(wanted)),
    `${during}`,
  );
  for (const name of [again, missing]) assertMatch(name, /^(ConfigError|PortSpecError)$/);
});

Deno.test(
  "starts that fail say why, by the class of the error, and harm nobody who does not ask",
  NEEDS,
  async () => {
    await using scripts = await world();
    const script = `${IMPORT}
    const none = { stderr: "null" } as const;
    const bad = [
      spawn({ command: ["true"], args: ["--mtu", "70000"], ...none }),
      spawn({ command: ["/nonexistent"], ...none }),
      attach({ netns: "/nonexistent", ...none }),
      spawn({ command: ["true"], policy: "/nonexistent.ts", ...none }),
    ];
    const unasked = spawn({ command: ["true"], args: ["--nonsense"], ...none });
    const found = [];
    for (const one of bad) {
      const error = await one.ready.catch((error) => error);
      const known = error instanceof ConfigError || error instanceof CommandError;
      found.push([error.name, known, error.message, (await one.status).code]);
    }
    console.log(JSON.stringify([...found, (await unasked.status).code]));`;
    const [mtu, command, netns, policy, code] = await told<[string, boolean, string, number][]>(
      scripts,
      script,
    );
    assertEquals(mtu, ["ConfigError", true, mtu![2], 1]);
    assertMatch(mtu![2], /^--mtu 70000: /);
    assertEquals(command!.slice(0, 2), ["CommandError", true]);
    assertEquals(command![3], 127);
    assertMatch(netns![2], /nonexistent/);
    assertEquals(policy!.slice(0, 2), ["ConfigError", true]);
    assertEquals(code as unknown, 1);
  },
);

Deno.test("instances of one script are apart", NEEDS, async () => {
  await using scripts = await world();
  const script = `${IMPORT}
    const outcomes = await Promise.all([${PORT}, ${OTHER_PORT}, ${DENIED_PORT}].map(async (port) => {
      const asked: number[] = [];
      const command = ${
    asks("PLACEHOLDER")
  }.map((word) => word.replace("PLACEHOLDER", "tcp ${V4} " + port));
      const guest = spawn({ command, stdout: "piped", policy: (flow) => (asked.push(flow.port), "allow") });
      const text = await new Response(guest.stdout).text();
      return [asked, text.includes("${V4} " + port + " asked"), (await guest.status).code];
    }));
    console.log(JSON.stringify(outcomes));`;
  const outcomes = await told(scripts, script);
  assertEquals(outcomes, [PORT, OTHER_PORT, DENIED_PORT].map((port) => [[port], true, 0]));
});

Deno.test("an ordinary user runs scripts, too", NEEDS, async () => {
  await using scripts = await world({ user: true });
  const { bed } = scripts;
  await bed.guest(["true"]); // lets everybody open the tun device
  const script = `${IMPORT}
    await using guest = spawn({ command: ${
    asks(`tcp ${V4} ${PORT}`)
  }, stdout: "piped", policy: () => "allow" });
    const text = await new Response(guest.stdout).text();
    console.log(JSON.stringify([text, await guest.status]));`;
  const [text] = await told<[string]>(scripts, script, { user: true });
  assertStringIncludes(text, "asked by");
});
