// SPDX-License-Identifier: GPL-2.0-or-later
/** Scripts that start instances and steer them, with real guests. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { effectsCommand } from "../helpers/effects.ts";
import { PYTHON } from "../helpers/edge.ts";
import { requirements } from "../helpers/require.ts";
import { describe, processState, run, until } from "../helpers/run.ts";
import { Scripts } from "../helpers/scripts.ts";
import { Net, Testbed } from "../helpers/testbed.ts";

const NEEDS = requirements({ packages: ["python3", "dnsmasq-base", "curl"], tubetti: true });

const PORT = 25471, OTHER_PORT = 25472, DENIED_PORT = 25473, GUEST_PORT = 25474, NEW_PORT = 25475;
const V4 = Net.REMOTE4, V6 = Net.REMOTE6;

/** A testbed with servers and a resolver, and a folder for scripts. */
async function world(options: { user?: boolean } = {}): Promise<[Testbed, Scripts]> {
  const bed = await Testbed.create(options);
  const places = [PORT, OTHER_PORT, DENIED_PORT].flatMap((
    port,
  ) => [`${V4} ${port}`, `${V6} ${port}`]);
  await bed.serveRemote(effectsCommand("serve", ...places), { text: "ready\n" });
  return [bed, new Scripts(bed)];
}

/** The command in a guest that asks such servers, as an expression in a script. */
function asks(...questions: string[]): string {
  return JSON.stringify(effectsCommand("ask", ...questions));
}

/** Runs a script that must succeed, and reads the JSON that it prints last. */
async function told<T>(
  scripts: Scripts,
  source: string,
  options: Parameters<Scripts["run"]>[1] = {},
): Promise<T> {
  const result = await scripts.run(source, options);
  assertEquals(result.code, 0, describe(["script"], result));
  return JSON.parse(result.stdout.trimEnd().split("\n").at(-1)!);
}

const IMPORT =
  `import { attach, spawn, ConfigError, CommandError, InstanceClosedError, type FlowEvent }` +
  ` from "./mod.ts";\n`;

Deno.test(
  "a script in any folder runs a command, and sees its flows come and go",
  NEEDS,
  async () => {
    const [bed, scripts] = await world();
    await using _bed = bed;
    using _scripts = scripts;
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
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
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

Deno.test(
  "a function of the script decides on each flow once, as slowly as it likes",
  NEEDS,
  async () => {
    const [bed, scripts] = await world();
    await using _bed = bed;
    using _scripts = scripts;
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
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
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
    const [bed, scripts] = await world();
    await using _bed = bed;
    using _scripts = scripts;
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

Deno.test("rules come before a policy", NEEDS, async () => {
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
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

Deno.test("ports are opened and closed while the guest runs", NEEDS, async () => {
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
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
    const [bed, scripts] = await world();
    await using _bed = bed;
    using _scripts = scripts;
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

Deno.test("an instance ends with its script, however that ends", NEEDS, async (t) => {
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
  const start = `${IMPORT}
    const guest = spawn({ command: ["sleep", "3600"] });
    const { pid } = await guest.ready;
    console.log("instance " + pid);\n`;
  const ends: [string, string, (pid: number) => void][] = [
    ["throws", "throw new Error('of the script');", () => {}],
    ["calls exit", "Deno.exit(0);", () => {}],
    [
      "is killed",
      "await new Promise((r) => setTimeout(r, 60_000));",
      (pid) => Deno.kill(pid, "SIGKILL"),
    ],
    ["has nothing left to do", "guest.unref();", () => {}],
  ];
  for (const [how, words, end] of ends) {
    await t.step(how, async () => {
      const script = await scripts.start(start + words);
      await script.waitFor("instance ");
      const instance = Number(/instance (\d+)/.exec(script.stdout)![1]);
      end(script.pid);
      await script.wait();
      assert(await until(() => processState(instance) === null));
      assert(await until(() => bed.guestProcesses().length === 0));
    });
  }
});

Deno.test("a script ends by itself once its instances have", NEEDS, async () => {
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
  const script = `${IMPORT}
    const guests = Array.from({ length: 4 }, (_, k) => spawn({
      command: ["sh", "-c", "echo unread output; exit " + k],
      stdin: "piped", stdout: "piped", policy: () => "allow",
    }));
    for (const guest of guests) guest.events(); // nobody reads them
    guests[0].status.then(() => console.log("[]"));`;
  const began = performance.now();
  await told(scripts, script);
  assert(performance.now() - began < 30_000);
});

Deno.test("instances of one script are apart", NEEDS, async () => {
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
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

Deno.test(
  "events that a script does not read in time are counted, and cost the guest nothing",
  NEEDS,
  async () => {
    const [bed, scripts] = await world();
    await using _bed = bed;
    using _scripts = scripts;
    const FLOWS = 3000; // more than most limits of descriptors allow
    const storm = `import socket
for k in range(${FLOWS}):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", ("${V4}", 20000 + k)); s.close()
print("sent", flush=True); input()`;
    const script = `${IMPORT}
    const guest = spawn({
      command: ["${PYTHON}", "-c", ${
      JSON.stringify(storm)
    }], stdin: "piped", stdout: "piped", tcp: [],
    });
    const slow = guest.events({ limit: 100 }), fast = guest.events({ limit: 1e6 });
    const text = guest.stdout.getReader();
    await text.read();
    await guest.forward.list(); // what was said before has come
    guest.stdin.close();
    await guest.status;
    const count = async (events: AsyncIterable<FlowEvent>) => {
      let opened = 0, lost = 0;
      for await (const event of events) event.kind === "lost" ? lost += event.count : opened += event.kind === "opened" ? 1 : 0;
      return [opened, lost];
    };
    console.log(JSON.stringify([await count(slow), await count(fast)]));`;
    const [slow, fast] = await told<[number, number][]>(scripts, script, { timeoutMs: 120_000 });
    assertEquals(slow![0], 100);
    assert(slow![1] >= fast![0] - 100 && fast![0] + fast![1] >= 300, JSON.stringify([slow, fast]));
  },
);

Deno.test("an ordinary user runs scripts, too", NEEDS, async () => {
  const [bed, scripts] = await world({ user: true });
  await using _bed = bed;
  using _scripts = scripts;
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

Deno.test("attach() serves a process, a namespace by name and a hypervisor", NEEDS, async (t) => {
  const [bed, scripts] = await world();
  await using _bed = bed;
  using _scripts = scripts;
  const name = `${bed.name}-s`;
  await run(["ip", "netns", "add", name]);
  try {
    await t.step("a namespace", async () => {
      const script = `${IMPORT}
        await using instance = attach({ netns: "${name}", tcp: [], udp: [], args: ["--runas", "0"] });
        const { interface: name } = await instance.ready;
        const events = instance.events();
        const [, ...args] = ["", "netns", "exec", "${name}", ...${asks(`tcp ${V4} ${PORT}`)}];
        const { stdout } = await new Deno.Command("ip", { args }).output();
        const first = await events.next();
        await events.return!();
        const status = await instance.close();
        console.log(JSON.stringify([name, new TextDecoder().decode(stdout), first.value.kind, status]));`;
      const [, text, kind, status] = await told<unknown[]>(scripts, script);
      assertStringIncludes(text as string, "asked by");
      assertEquals([kind, status], ["opened", { success: true, code: 0, signal: null }]);
    });
  } finally {
    await run(["ip", "netns", "del", name]);
  }
  await t.step("a process", async () => {
    const script = `${IMPORT}
      const guest = new Deno.Command("unshare", { args: ["-rn", "cat"], stdin: "piped", stdout: "null" }).spawn();
      await new Promise((resolve) => setTimeout(resolve, 300));
      const instance = attach({ pid: guest.pid, tcp: [], args: ["--runas", "0"] });
      const ready = await instance.ready;
      await guest.stdin.close(); // the instance leaves with it
      console.log(JSON.stringify([ready.socket, await instance.status]));`;
    assertEquals(await told(scripts, script), [null, { success: true, code: 0, signal: null }]);
  });
  await t.step("a hypervisor", async () => {
    const socket = `${scripts.folder}/vm.socket`;
    const script = `${IMPORT}
      await using instance = attach({ socket: "${socket}" });
      const ready = await instance.ready;
      const connection = await Deno.connect({ transport: "unix", path: "${socket}" });
      connection.close();
      console.log(JSON.stringify([ready.socket, ready.interface, await instance.close()]));`;
    const [path, interface_, status] = await told<unknown[]>(scripts, script);
    assertEquals([path, interface_], [socket, null]);
    assertEquals(status, { success: true, code: 0, signal: null });
  });
});
