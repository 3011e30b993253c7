// SPDX-License-Identifier: GPL-2.0-or-later
/** `all` and specifications that only exclude: whatever ports can be had. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  ask,
  descriptorsOf,
  engineOf,
  hostOf,
  limited,
  openPorts,
  optionsFor,
  portsCommand,
  startPorts,
} from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, sleep } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { cpuOf, loopWakeUpsOf } from "../helpers/usage.ts";

const NEEDS = requirements({ packages: ["python3", "socat"], tubetti: true });

/** First port that `all` leaves out, near the least that the kernel accepts. */
const EPHEMERAL = 1100;
const LOW_LIMIT = 500;
const FIRST_USER_PORT = 1024;

/** Sets the ports that `all` leaves out. */
async function setEphemeral(bed: Testbed, first: number, last: number): Promise<void> {
  const range = `net.ipv4.ip_local_port_range=${first} ${last}`;
  const result = await bed.runHost(["sysctl", "-qw", range]);
  assertEquals(result.code, 0, result.stderr);
}

function warningsOf(stderr: string): string[] {
  return stderr.split("\n").filter((line) => /descriptor/.test(line));
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `forward all: as many as a low limit allows, and one line about it${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const program = await limited(LOW_LIMIT, user);
      const first = user ? FIRST_USER_PORT : 1;
      const cases: [spec: string, last: number, excluded: number[]][] = [
        ["all", 9999, []],
        ["~1030", 9999, [1030]],
        ["all,~1040-1050", 9999, [1040, 1045, 1050]],
      ];
      for (const [spec, last, excluded] of cases) {
        await t.step(`-t ${spec}`, async () => {
          const options = optionsFor({ t: spec });
          const guest = await bed.idleGuest({ options, program });
          const engine = engineOf(bed);
          const open = openPorts(engine, "tcp");
          assert(open.length > LOW_LIMIT / 2 && open.length < LOW_LIMIT, `${open.length} ports`);
          assertEquals(open[0], first);
          assert(open.at(-1)! <= last);
          for (const port of excluded) assert(!open.includes(port), `${port} is open`);
          assert(descriptorsOf(engine) < LOW_LIMIT, "nothing is left for connections");
          assertEquals(warningsOf(guest.background.stderr).length, 1, guest.background.stderr);
          const some = String(open[10]);
          await startPorts(guest, "who", some);
          const replies = await ask(hostOf(bed), "tcp", some, "127.0.0.1", "::1");
          for (const reply of Object.values(replies)) assertEquals(reply.split(" ")[0], some);
          await guest.stop();
        });
      }
    },
  });
}

Deno.test({
  name: "forward all: ports of others and ephemeral ones are passed over, with an address too",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await setEphemeral(bed, EPHEMERAL, 65535);
    await bed.serveHost(portsCommand("who", "100-102"), { text: "ready\n" });
    const every = Array.from({ length: EPHEMERAL - 1 }, (_, i) => i + 1);
    const free = every.filter((port) => port < 100 || port > 102);
    await t.step("-t all -u all", async () => {
      const guest = await bed.idleGuest({ options: optionsFor({ t: "all", u: "all" }) });
      const engine = engineOf(bed);
      for (const protocol of ["tcp", "udp"] as const) {
        assertEquals(openPorts(engine, protocol), every); // the others' among them
      }
      assertEquals(warningsOf(guest.background.stderr), []);
      assertEquals(await ask(hostOf(bed), "tcp", 101, "127.0.0.1"), {
        "tcp 127.0.0.1 101": "101 127.0.0.1",
      });
      await guest.stop();
    });
    await t.step("-T all -U all: every port, and none leads back", async () => {
      const guest = await bed.idleGuest({ options: optionsFor({ T: "all", U: "all" }) });
      const open = openPorts(guest.pid, "tcp");
      assertEquals(open.filter((port) => port < EPHEMERAL), every);
      assertEquals(await ask(guest, "tcp,udp", 101, "127.0.0.1"), {
        "tcp 127.0.0.1 101": "101 127.0.0.1",
        "udp 127.0.0.1 101": "101 127.0.0.1",
      });
      await guest.stop();
    });
    await t.step("-t 127.0.0.1/all,~1-50", async () => {
      const guest = await bed.idleGuest({ options: optionsFor({ t: "127.0.0.1/all,~1-50" }) });
      const text = Deno.readTextFileSync(`/proc/${engineOf(bed)}/net/tcp`);
      const lines = text.split("\n").filter((line) => line.includes("0100007F:"));
      assertEquals(lines.length, free.filter((port) => port > 50).length);
      await guest.stop();
    });
    await t.step("none at all can be had: an error", async () => {
      const options = optionsFor({ t: `all,~1-99,~103-${EPHEMERAL}` });
      const result = await bed.guest(["true"], { options });
      assertEquals(result.code, 1);
      assertEquals(result.stderr.trimEnd().split("\n").length, 1, result.stderr);
      assertStringIncludes(result.stderr, "-t");
    });
  },
});

/** Longest time that binding all ports may take on a noisy machine, in milliseconds. */
const MOST_START_MS = 10_000;
const IDLE_SECONDS = 2;

Deno.test({
  name: "forward all: with the full limit of descriptors, quickly, and idle afterwards",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await setEphemeral(bed, 60_000, 60_999);
    for (const option of ["t", "T"] as const) {
      await t.step(`-${option} all`, async () => {
        const before = performance.now();
        const guest = await bed.idleGuest({ options: optionsFor({ [option]: "all" }) });
        const ms = performance.now() - before;
        assert(ms < MOST_START_MS, `${ms} ms`);
        const engine = engineOf(bed);
        const limit = Number(
          /^Max open files\s+(\d+)/m.exec(Deno.readTextFileSync(`/proc/${engine}/limits`))![1],
        );
        const open = openPorts(option === "t" ? engine : guest.pid, "tcp");
        const wanted = 65_535 - 1000;
        assert(open.length >= Math.min(limit * 0.85, wanted), `${open.length} ports of ${limit}`);
        if (limit < wanted) {
          const [line, ...more] = warningsOf(guest.background.stderr);
          assertMatch(line!, /\d+ of 64535/);
          assertEquals(more, []);
        }
        await sleep(2500); // neighbour discovery settles
        const [cpu, woken] = await attempt(async () => {
          const [cpu, woken] = [cpuOf(engine), loopWakeUpsOf(engine)];
          await sleep(IDLE_SECONDS * 1000);
          return [cpuOf(engine) - cpu, loopWakeUpsOf(engine) - woken];
        }, ([cpu, woken]) => cpu! <= 0.02 && woken! <= 1);
        assert(cpu! <= 0.02 && woken! <= 1, `${cpu} s, ${woken} wake-ups in ${IDLE_SECONDS} s`);
        await guest.stop();
      });
    }
  },
});
