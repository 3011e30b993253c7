// SPDX-License-Identifier: GPL-2.0-or-later
/** How instances and their scripts end, and what a script hears until then, with real guests. */
import { assert, assertEquals } from "@std/assert";
import { PYTHON } from "../helpers/edge.ts";
import { processState, until } from "../helpers/run.ts";
import { asks, IMPORT, NEEDS, PORT, told, V4, world } from "../helpers/script_world.ts";

Deno.test("an instance ends with its script, however that ends", NEEDS, async (t) => {
  await using scripts = await world();
  const { bed } = scripts;
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

Deno.test("a signal ends an instance whose policy does not return", NEEDS, async () => {
  await using scripts = await world();
  const { bed } = scripts;
  scripts.write("loops.ts", "export default () => { for (;;); };");
  const script = `${IMPORT}
    const aborter = new AbortController();
    const guest = spawn({
      command: ${asks(`tcp ${V4} ${PORT}`)},
      policy: import.meta.resolve("./loops.ts"),
      signal: aborter.signal,
    });
    await guest.ready;
    await new Promise((resolve) => setTimeout(resolve, 500));
    aborter.abort();
    console.log(JSON.stringify([guest.pid, await guest.status]));`;
  const [pid, status] = await told<[number, Deno.CommandStatus]>(scripts, script);
  assertEquals(status, { success: false, code: 137, signal: "SIGKILL" });
  assertEquals(processState(pid), null);
  assert(await until(() => bed.guestProcesses().length === 0));
});

Deno.test("a script ends by itself once its instances have", NEEDS, async () => {
  await using scripts = await world();
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

Deno.test(
  "no event is missing unsaid when the script computes while its instance ends",
  NEEDS,
  async () => {
    await using scripts = await world();
    const FLOWS = 1500;
    const storm = `import socket
for k in range(${FLOWS}): socket.create_connection(("${V4}", ${PORT})).close()`;
    const script = `${IMPORT}
    const guest = spawn({ command: ["${PYTHON}", "-c", ${JSON.stringify(storm)}], tcp: "${PORT}" });
    const events = guest.events({ limit: 1e6 });
    await guest.ready;
    const end = performance.now() + 3500;
    while (performance.now() < end);
    const [program, ...args] = ${asks(`tcp 127.0.0.1 ${PORT}`)};
    const { stdout } = new Deno.Command(program, { args }).outputSync(); // nothing was read yet
    let opened = 0, closed = 0, lost = 0;
    for await (const { kind, ...event } of events) {
      if (kind === "opened") opened++;
      else if (kind === "closed") closed++;
      else lost += (event as { count: number }).count;
    }
    const { code } = await guest.status;
    console.log(JSON.stringify([new TextDecoder().decode(stdout), code, opened, closed, lost]));`;
    const [port, code, ...counts] = await told<[string, ...number[]]>(scripts, script);
    assertEquals(port, `tcp 127.0.0.1 ${PORT}: \n`);
    assertEquals([code, counts[0]! + counts[1]! + counts[2]!], [0, 2 * FLOWS], `${counts}`);
  },
);

Deno.test(
  "events that a script does not read in time are counted, and cost the guest nothing",
  NEEDS,
  async () => {
    await using scripts = await world();
    const FLOWS = 1500;
    // The connections keep the guest from being faster than the engine: the tap's queue is short.
    const storm = `import socket
for k in range(${FLOWS}):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.sendto(b"x", ("${V4}", 20000 + k)); s.close()
    if k % 50 == 49: socket.create_connection(("${V4}", ${PORT})).close()`;
    const script = `${IMPORT}
    const guest = spawn({ command: ["${PYTHON}", "-c", ${JSON.stringify(storm)}], tcp: [] });
    const slow = guest.events({ limit: 100 }), fast = guest.events({ limit: 1e6 });
    const { code } = await guest.status;
    const count = async (events: AsyncIterable<FlowEvent>) => {
      let read = 0, lost = 0;
      for await (const event of events) event.kind === "lost" ? lost += event.count : read++;
      return [read, lost];
    };
    console.log(JSON.stringify([code, await count(slow), await count(fast)]));`;
    type Counts = [number, number];
    const counts = await told<[number, Counts, Counts]>(scripts, script);
    const [code, [read, lost], [all, missing]] = counts;
    // Every flow opens and closes, and so do the connections in between.
    assertEquals([code, read, read + lost], [0, 100, all + missing], `${counts}`);
    assertEquals(all + missing, 2 * (FLOWS + FLOWS / 50), `${counts}`);
  },
);
