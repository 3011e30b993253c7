// SPDX-License-Identifier: GPL-2.0-or-later
/** A program that steers an instance by `--control` and reads its table by `--flow-table`. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { FlowReader } from "../../lib/flow/reader.ts";
import type { FlowSnapshot } from "../../lib/flow/snapshot.ts";
import { monotonicMs } from "../../lib/sys/clock.ts";
import { SharedMapping } from "../../lib/sys/shared_memory.ts";
import { Controller, type ControllerOptions, type Heard } from "../helpers/controller.ts";
import { PYTHON } from "../helpers/edge.ts";
import { effectsCommand } from "../helpers/effects.ts";
import { NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { markedProcesses, must, run, until } from "../helpers/run.ts";
import { Net, programUnderTest, STAY_ROOT, Testbed } from "../helpers/testbed.ts";

const NEEDS = requirements({ packages: ["python3"], tubetti: true });

const GUEST = 8951, FORWARDED = 25951, REMOTE = 25952, TAKEN = 25953, LOOPBACK = 25954;
const SIGTERM_STATUS = 143;
const SLEEP = ["--config-net", ...NOTHING, "--", "sleep", "3600"];

/** A guest that serves on its own port, by TCP and UDP. */
async function serving(bed: Testbed, options?: ControllerOptions): Promise<Controller> {
  const places = [`${Net.HOST4} ${GUEST}`, `127.0.0.1 ${GUEST}`];
  const command = effectsCommand("serve", ...places);
  const controller = new Controller(bed, ["--config-net", ...NOTHING, "--", ...command], options);
  await controller.ready();
  await until(() => controller.stdout.includes("ready"));
  return controller;
}

/** What the host is answered on a forwarded port. */
async function asked(bed: Testbed, protocol: string, port = FORWARDED): Promise<string> {
  const { stdout } = await bed.runHost(effectsCommand("ask", `${protocol} 127.0.0.1 ${port}`));
  return stdout.trimEnd().split(": ").slice(1).join(": ");
}

const rule = (ports: string, protocol = "tcp", from = "host") => ({ from, protocol, ports });
const add = (...of: Parameters<typeof rule>) => ({ do: "forward.add", rule: rule(...of) });
const remove = (...of: Parameters<typeof rule>) => ({ do: "forward.remove", rule: rule(...of) });
const done = (reply: number) => ({ reply, result: null });

async function assertNothingLeft(bed: Testbed): Promise<void> {
  await until(() => markedProcesses(bed.guestMark).length === 0);
  assertEquals(markedProcesses(bed.guestMark), []);
}

Deno.test({
  name: "control: what waits is done before the command runs, which is then told, and ends as ever",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const requests = [
      { id: 1, do: "events", on: true },
      { id: 2, ...add(`${FORWARDED}:${GUEST}`) },
      { id: 3, do: "forward.list" },
    ];
    const listing = "ls -l /proc/self/fd; exit 3";
    const args = ["--config-net", ...NOTHING, "--", "sh", "-c", listing];
    await using controller = new Controller(bed, args, { requests });
    const { pid, ...ready } = await controller.ready();
    assertEquals(ready, {
      interface: "uplink0",
      address4: Net.HOST4,
      address6: Net.HOST6,
      socket: null,
    });
    assert(pid > 1);
    assertEquals(await controller.end(), 3);
    assertEquals(controller.heard.slice(0, 3), [
      done(1),
      done(2),
      { reply: 3, result: [rule(`${FORWARDED}:${GUEST}`)] },
    ]);
    assert(controller.heard[3]!.ready);
    // the command has neither of the descriptors
    assert(!/socket:|memfd:/.test(controller.stdout), controller.stdout);
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "control: ports are forwarded and taken back while connections go on",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await using controller = await serving(bed);
    for (const protocol of ["tcp", "udp"]) {
      await t.step(`${protocol} of the host`, async () => {
        assertEquals(await asked(bed, protocol), "");
        const ports = `${FORWARDED}:${GUEST}`;
        assertEquals(
          await controller.request(add(ports, protocol)),
          done(protocol === "tcp" ? 1 : 4),
        );
        assertMatch(await asked(bed, protocol), / asked by /);
        assertEquals((await controller.request(remove(ports, protocol))).result, null);
        assertEquals(await asked(bed, protocol), "");
        const other = await controller.request(remove(ports, protocol));
        const option = protocol === "tcp" ? "-t" : "-u";
        assertEquals(other.error?.message, `${option} ${ports}: there is no such rule`);
      });
    }
    await t.step("of the namespace", async () => {
      await bed.serveHost(effectsCommand("serve", `127.0.0.1 ${LOOPBACK}`), { text: "ready\n" });
      const ask = () => {
        const question = `tcp 127.0.0.1 ${FORWARDED}`;
        const guest = bed.guestProcesses()[0]!.pid;
        const enter = ["nsenter", "-t", `${guest}`, "-n", "--"];
        return must([...enter, ...effectsCommand("ask", question)], { mark: bed.guestMark });
      };
      const ports = `${FORWARDED}:${LOOPBACK}`;
      assertEquals((await controller.request(add(ports, "tcp", "guest"))).result, null);
      assertMatch(await ask(), / asked by 127\.0\.0\.1\n$/);
      assertEquals((await controller.request(remove(ports, "tcp", "guest"))).result, null);
      assertMatch(await ask(), /: \n$/);
    });
  },
});

Deno.test({
  name: "control: a port that is taken back belongs to whoever wants it, its connections stay",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const echo = `import socket
s = socket.create_server(("", ${GUEST}))
print("ready", flush=True)
c = s.accept()[0]
while data := c.recv(100): c.sendall(data)`;
    await using controller = new Controller(
      bed,
      ["--config-net", ...NOTHING, "--", PYTHON, "-c", echo],
    );
    await until(() => controller.stdout.includes("ready"));
    assertEquals((await controller.request(add(`${FORWARDED}:${GUEST}`))).result, null);
    const client = `import socket, sys
c = socket.create_connection(("127.0.0.1", ${FORWARDED}))
c.settimeout(15)
c.sendall(b"one"); print(c.recv(3), flush=True)
sys.stdin.readline()
s = socket.create_server(("127.0.0.1", ${FORWARDED}))
c.sendall(b"two"); print(c.recv(3), flush=True)`;
    const held = await bed.serveHost(
      ["sh", "-c", `mkfifo "$0"; exec ${PYTHON} -c '${client}' <> "$0"`, await fifo()],
      { text: "one" },
    );
    assertEquals((await controller.request(remove(`${FORWARDED}:${GUEST}`))).result, null);
    await Deno.writeTextFile(await fifo(), "\n");
    await held.wait();
    assertEquals([held.stdout, held.stderr], ["b'one'\nb'two'\n", ""]);
    await Deno.remove(await fifo());
  },
});

let path: Promise<string> | null = null;
/** Path of a file that is not there yet. */
function fifo(): Promise<string> {
  return path ??= Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-` }).then((dir) => `${dir}/fifo`);
}

Deno.test({
  name: "control: what cannot be forwarded is refused as at a start, and changes nothing",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const taken = effectsCommand("serve", `127.0.0.1 ${TAKEN}`);
    await bed.serveHost(taken, { text: "ready\n" });
    await using controller = new Controller(bed, SLEEP);
    await controller.ready();
    const { error } = await controller.request(add(`${FORWARDED},${TAKEN}`));
    const start = await bed.guest(["true"], {
      options: [...NOTHING.slice(2), "-t", `${FORWARDED},${TAKEN}`],
    });
    assertEquals(`tubetti: ${error!.message}\n`, start.stderr);
    assertEquals(error!.name, "ConfigError");
    assertEquals((await controller.request(add("1-x"))).error!.name, "PortSpecError");
    assertEquals((await controller.request({ do: "forward.list" })).result, []);
  },
});

Deno.test({
  name: "control: flows are told of when they begin and end, and are in the table meanwhile",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await bed.serveRemote(effectsCommand("serve", `${Net.REMOTE4} ${REMOTE}`), { text: "ready\n" });
    const client = `import socket, sys
c = socket.create_connection(("${Net.REMOTE4}", ${REMOTE}))
print(c.recv(100), flush=True)
c.close()
import time; time.sleep(3600)`;
    const requests = [{ id: 1, do: "events", on: true }];
    const args = ["--config-net", ...NOTHING, "--", PYTHON, "-c", client];
    await using controller = new Controller(bed, args, { requests });
    await controller.ready();
    const mapping = new SharedMapping(controller.table, { readOnly: true });
    const reader = new FlowReader(mapping.buffer());
    const isOurs = (flow?: FlowSnapshot) => flow?.target.port === REMOTE;
    const { opened } = await controller.hear(({ opened }) => isOurs(opened));
    const { closed } = await controller.hear(({ closed }) => isOurs(closed));
    const { initiator, target, index, generation } = opened!;
    assertEquals([initiator.pif, initiator.address], ["TAP", Net.HOST4]);
    assertEquals([target.pif, target.address, opened!.protocol], ["HOST", Net.REMOTE4, 6]);
    assertEquals([closed!.index, closed!.generation], [index, generation]);
    const answer = `${Net.REMOTE4} ${REMOTE} asked by ${Net.HOST4}`;
    assertEquals([closed!.bytesFromInitiator, closed!.bytesFromTarget], [0, answer.length]);
    assert(opened!.ageMs >= 0 && opened!.ageMs <= closed!.ageMs);
    assertEquals([...reader.flows(monotonicMs())].some(isOurs), false);
    assertEquals((await controller.request({ do: "events", on: false })).result, null);
    assertEquals(controller.heard.filter(({ opened }) => isOurs(opened)).length, 1);
    controller.hangUp();
    await controller.end();
  },
});

Deno.test({
  name: "control: a controller that does not read keeps no packet waiting, and loses events only",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await bed.serveRemote(effectsCommand("serve", `${Net.REMOTE4} ${REMOTE}`), { text: "ready\n" });
    const flows = 8000;
    const flood = `import socket, sys
for k in range(${flows}):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("", 20000 + k)); s.sendto(b"x", ("${Net.REMOTE4}", 7)); s.close()
    if k % 50 == 0: socket.create_connection(("${Net.REMOTE4}", ${REMOTE})).close() # not faster than the tap
sys.argv = ["", "ask", "tcp ${Net.REMOTE4} ${REMOTE}"]
exec(open("${effectsCommand("serve")[1]}").read())
import time; sys.stdout.flush(); time.sleep(3600)`;
    const requests = [{ id: 1, do: "events", on: true }];
    const args = ["--config-net", ...NOTHING, "--no-icmp", "--", PYTHON, "-c", flood];
    await using controller = new Controller(bed, args, { requests });
    controller.pause();
    await until(() => controller.stdout.includes("asked by"), 60_000);
    assertMatch(controller.stdout, /asked by/);
    controller.resume();
    assert((await controller.hear(({ lost }) => lost)).lost! > 0);
    assertEquals((await controller.request({ do: "close" })).result, null);
    assertEquals(await controller.end(), 0);
    await until(() => controller.hungUp);
    const opened = controller.heard.filter(({ opened }) => opened?.protocol === 17).length;
    assert(opened > 1000 && opened < flows, `${opened} of ${flows}`);
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "control: connections that the controller is to decide on wait for its answer",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const served = effectsCommand("serve", `${Net.REMOTE4} ${REMOTE}`, `${Net.REMOTE4} ${TAKEN}`);
    await bed.serveRemote(served, { text: "ready\n" });
    const questions = [`tcp ${Net.REMOTE4} ${REMOTE}`, `tcp ${Net.REMOTE4} ${TAKEN}`];
    const command = effectsCommand("ask", ...questions);
    const args = ["--config-net", "--policy", "-", ...NOTHING, "--", ...command];
    await using controller = new Controller(bed, args);
    const allowed = await controller.hear(({ flow }) => flow?.port === REMOTE);
    assertEquals([allowed.flow!.protocol, allowed.flow!.address], ["tcp", Net.REMOTE4]);
    controller.send({ answer: allowed.ask, decision: "allow" });
    for (let from = 0; controller.code === null;) {
      const isNext = ({ flow }: Heard) => flow?.port === TAKEN;
      await until(() => controller.heard.slice(from).some(isNext) || controller.hungUp);
      const at = controller.heard.findIndex((heard, k) => k >= from && isNext(heard));
      if (at < 0) break;
      controller.send({ answer: 123456789, decision: "allow" }); // was never asked
      controller.send({ answer: controller.heard[at]!.ask, decision: { verdict: "reject" } });
      from = at + 1;
    }
    assertEquals(await controller.end(), 0);
    assertMatch(controller.stdout, /25952: .* asked by .*\n.*25953: \n$/);
  },
});

Deno.test({
  name: "control: lines that are no messages are refused, and nothing else happens",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await using controller = new Controller(bed, SLEEP);
    await controller.ready();
    const wrong = [
      "\n",
      "x".repeat(200_000) + "\n",
      "[[[[[[\n",
      '{"id":5,"do":"rm"}\n',
      "\0\xff\n",
      `{"id":6,"do":${'{"0":'.repeat(10_000)}1${"}".repeat(10_000)}}\n`,
    ];
    for (const line of wrong) controller.send(line);
    assertEquals((await controller.request({ do: "forward.list" })).result, []);
    const refused = controller.heard.filter(({ error }) => error);
    assertEquals(refused.map(({ reply }) => reply), [0, 0, 0, 5, 0, 6]);
    controller.send("{"); // and no end
    controller.hangUp();
    assertEquals(await controller.end(), SIGTERM_STATUS);
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name:
    "control: an instance that serves a command ends when it is told to, or its controller has gone",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await using closed = new Controller(bed, SLEEP, { tableBytes: null });
    await closed.ready();
    assertEquals((await closed.request({ do: "close" })).result, null);
    assertEquals(await closed.end(), 0);
    await using left = new Controller(bed, SLEEP);
    await left.ready();
    left.hangUp();
    assertEquals(await left.end(), SIGTERM_STATUS);
    await using early = new Controller(bed, ["--config-net", "--", "echo", "it ran"], {
      requests: [{ id: 1, do: "close" }],
    });
    assertEquals([await early.end(), early.stdout], [0, ""]);
    assertEquals(early.heard, [done(1), { end: true }]);
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "control: an instance ends when its controller does not hear it any more",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const deaf = `import socket, subprocess, sys
a, b = socket.socketpair()
args = [*sys.argv[1:], "--control", str(b.fileno()), "--policy", "-", *${
      JSON.stringify(["-q", ...SLEEP.slice(0, -2), "ping", "-c", "99", Net.REMOTE4])
    }]
p = subprocess.Popen(args, pass_fds=[b.fileno()], stdout=subprocess.DEVNULL)
b.close(); assert b"ready" in a.recv(1000); a.shutdown(socket.SHUT_RD)
print(p.wait(20))`;
    const result = await bed.runHost([PYTHON, "-c", deaf, ...programUnderTest(), ...STAY_ROOT]);
    assertEquals([result.stdout, result.stderr], [`${SIGTERM_STATUS}\n`, ""]);
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "control: an attached instance stays in the foreground, and leaves the namespace as it was",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const name = `${bed.name}-c`;
    await must(["ip", "netns", "add", name]);
    try {
      const args = ["--config-net", ...NOTHING, "--netns", `/run/netns/${name}`];
      await using controller = new Controller(bed, args);
      const { pid } = await controller.ready();
      assertEquals(controller.code, null);
      assertEquals(markedProcesses(bed.guestMark).map(({ pid }) => pid), [pid]);
      controller.hangUp();
      assertEquals(await controller.end(), 0);
      assertEquals((await run(["ip", "netns", "exec", name, "true"])).code, 0);
    } finally {
      await run(["ip", "netns", "del", name]);
    }
  },
});

Deno.test({
  name:
    "control: an instance for virtual machines tells its socket, and has no ports of a namespace",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-` });
    const program = [...programUnderTest().slice(0, -1), "passt"];
    await using controller = new Controller(bed, ["-s", `${folder}/socket`], { program });
    const ready = await controller.ready();
    assertEquals([ready.interface, ready.socket], [null, `${folder}/socket`]);
    const { error } = await controller.request(add("80", "tcp", "guest"));
    assertEquals(error?.message, "-T: only for pasta, not for passt");
    assertEquals((await controller.request(add(`${FORWARDED}`))).result, null);
    controller.hangUp();
    assertEquals(await controller.end(), 0);
    assertEquals([...Deno.readDirSync(folder)], []);
    await Deno.remove(folder);
  },
});
