// SPDX-License-Identifier: GPL-2.0-or-later
/** `auto`: ports come and go with the servers of the other side. */
import { assert, assertEquals } from "@std/assert";
import {
  ask,
  engineOf,
  hostOf,
  openPorts,
  optionsFor,
  portsCommand,
  resultOf,
  startPorts,
} from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, Background, sleep, until } from "../helpers/run.ts";
import { type IdleGuest, Testbed } from "../helpers/testbed.ts";
import { cpuOf, loopWakeUpsOf } from "../helpers/usage.ts";

const NEEDS = requirements({ packages: ["python3"], tubetti: true });
const AUTO = optionsFor({ t: "auto", u: "auto", T: "auto", U: "auto" });

/** Long enough for anything that a scan once a second would open or close by mistake. */
const SCANS_MS = 3500;

type Protocol = "tcp" | "udp";

/** Waits until exactly these ports are open in the namespace of a process. */
async function assertPorts(pid: number, protocol: Protocol, expected: number[]): Promise<void> {
  const open = () => openPorts(pid, protocol);
  await until(() => `${open()}` === `${expected}`);
  assertEquals(open(), expected, protocol);
}

/** Both ends of one direction: where servers run, and where ports appear for them. */
interface Direction {
  serve(...args: (string | number)[]): Promise<Background>;
  place: ReturnType<typeof hostOf>;
  /** A process in the namespace where ports appear. */
  pid: number;
  start(command: readonly string[]): Promise<Background>;
}

function direction(bed: Testbed, guest: IdleGuest, inbound: boolean): Direction {
  const mark = bed.guestMark;
  const inHost = (command: readonly string[]) =>
    new Background(["ip", "netns", "exec", bed.host, ...command], { mark });
  return inbound
    ? {
      serve: (...args) => startPorts(guest, ...args),
      place: hostOf(bed),
      pid: engineOf(bed),
      start: (command) => Promise.resolve(inHost(command)),
    }
    : {
      serve: (...args) => bed.serveHost(portsCommand(...args), { text: "ready\n" }),
      place: guest,
      pid: guest.pid,
      start: (command) => Promise.resolve(guest.start(command)),
    };
}

for (const user of [false, true]) {
  for (const inbound of [true, false]) {
    const name = inbound ? "-t auto -u auto" : "-T auto -U auto";

    Deno.test({
      name: `auto: ${name} follow the servers${user ? ", as an ordinary user" : ""}`,
      ...NEEDS,
      async fn(t) {
        await using bed = await Testbed.create({ user });
        const options = inbound
          ? optionsFor({ t: "auto", u: "auto" })
          : optionsFor({ T: "auto", U: "auto" });
        const guest = await bed.idleGuest({ options });
        const { serve, place, pid, start } = direction(bed, guest, inbound);
        assertEquals([openPorts(pid, "tcp"), openPorts(pid, "udp")], [[], []]);
        await t.step("a port appears with its server", async () => {
          const server = await serve("who", "8201-8203");
          await assertPorts(pid, "tcp", [8201, 8202, 8203]);
          await assertPorts(pid, "udp", [8201, 8202, 8203]);
          const replies = await ask(place, "tcp,udp", 8202, "127.0.0.1", "::1");
          for (const reply of Object.values(replies)) assertEquals(reply.split(" ")[0], "8202");
          await server.stop();
        });
        await t.step("and goes with it, free for another", async () => {
          await assertPorts(pid, "tcp", []);
          await assertPorts(pid, "udp", []);
          const other = await start(portsCommand("who", 8202));
          await other.waitFor("ready\n");
          await other.stop();
        });
        if (user) return; // the rest is the same
        await t.step("a connection outlives its listener", async () => {
          const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-auto-` });
          try {
            const server = await serve("brief", 8206);
            await assertPorts(pid, "tcp", [8206]);
            const pinger = await start(
              portsCommand("pinger", "127.0.0.1", 8206, `${folder}/stop`),
            );
            await pinger.waitFor("connected");
            await assertPorts(pid, "tcp", []);
            await sleep(1500); // one more scan
            await Deno.writeTextFile(`${folder}/stop`, "");
            assertEquals(await pinger.wait(), 0, pinger.stderr);
            const { rounds, error } = resultOf(pinger.stdout);
            assertEquals(error, undefined);
            assert(rounds! >= 10, `${rounds} round trips`);
            await server.stop();
          } finally {
            await Deno.remove(folder, { recursive: true });
          }
        });
      },
    });
  }
}

/** Specifications of -t with `auto`, and which of a guest's ports 8211–8214 they open. */
const RANGES: [spec: string, opens: number[]][] = [
  ["auto,8211-8212", [8211, 8212]],
  ["auto,~8212", [8211, 8213, 8214]],
  ["auto,8211-8213,~8212", [8211, 8213]],
  ["127.0.0.1/auto", [8211, 8212, 8213, 8214]],
];

Deno.test({
  name: "auto: within ranges, by default, and not for ephemeral ports",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    for (const [spec, opens] of RANGES) {
      await t.step(`-t ${spec}`, async () => {
        const guest = await bed.idleGuest({ options: optionsFor({ t: spec }) });
        await startPorts(guest, "who", "8211-8214");
        await assertPorts(engineOf(bed), "tcp", opens);
        await guest.stop();
      });
    }
    await t.step("by default, both directions and both protocols", async () => {
      const server = await bed.serveHost(portsCommand("who", "8215"), { text: "ready\n" });
      const guest = await bed.idleGuest();
      await startPorts(guest, "who", "8216,25216"); // the latter is an ephemeral one
      for (const protocol of ["tcp", "udp"] as const) {
        await assertPorts(guest.pid, protocol, [8215, 8216, 25216]);
        await assertPorts(engineOf(bed), protocol, [8215, 8216]);
      }
      await guest.stop();
      await server.stop();
    });
  },
});

Deno.test({
  name: "auto: both directions of two instances side by side never feed each other",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const one = await bed.idleGuest({ options: AUTO });
    const two = await bed.idleGuest({ options: AUTO });
    const host = engineOf(bed);
    const everywhere = async (expected: number[]) => {
      for (const pid of [host, one.pid, two.pid]) {
        for (const protocol of ["tcp", "udp"] as const) await assertPorts(pid, protocol, expected);
      }
    };
    await t.step("nothing comes of nothing", async () => {
      await sleep(SCANS_MS);
      await everywhere([]);
    });
    await t.step("one server of each namespace is seen in all", async () => {
      const servers = [
        await startPorts(one, "who", 8221),
        await startPorts(two, "who", 8222),
        await bed.serveHost(portsCommand("who", 8223), { text: "ready\n" }),
      ];
      await everywhere([8221, 8222, 8223]);
      await sleep(SCANS_MS);
      await everywhere([8221, 8222, 8223]);
      for (const place of [hostOf(bed), one, two]) {
        const replies = await ask(place, "tcp,udp", "8221-8223", "127.0.0.1", "::1");
        for (const [question, reply] of Object.entries(replies)) {
          assertEquals(reply.split(" ")[0], question.split(" ")[2], `${question}: ${reply}`);
        }
      }
      for (const server of servers) await server.stop();
    });
    await t.step("and nothing stays of them", async () => {
      await everywhere([]);
      await sleep(SCANS_MS);
      await everywhere([]);
    });
  },
});

const MANY = 10_000;
const FIRST = 20_000;
const SECONDS = 3;
const MOST_SHARE = 0.05;
const MOST_IDLE_SHARE = 0.02;

for (const inbound of [true, false]) {
  Deno.test({
    name: `auto: 10,000 listeners cost next to nothing, ${inbound ? "-t" : "-T"}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create();
      await bed.runHost(["sysctl", "-qw", "net.ipv4.ip_local_port_range=60000 60999"]);
      const guest = await bed.idleGuest({
        options: inbound ? optionsFor({ t: "auto" }) : optionsFor({ T: "auto" }),
      });
      const { serve, pid } = direction(bed, guest, inbound);
      const engine = engineOf(bed);
      await serve("listen", MANY, FIRST);
      const open = () => openPorts(pid, "tcp").length;
      assert(await until(() => open() === MANY, 20_000, 500), `${open()} ports are open`);
      await sleep(1500); // what comes after it
      const used = await attempt(async () => {
        const cpu = cpuOf(engine);
        await sleep(SECONDS * 1000);
        return cpuOf(engine) - cpu;
      }, (cpu) => cpu < MOST_SHARE * SECONDS);
      assert(used < MOST_SHARE * SECONDS, `${used} s of processor time in ${SECONDS} s`);
    },
  });
}

Deno.test({
  name: "auto: a look a second costs next to nothing while nothing happens",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await bed.idleGuest({ options: AUTO });
    const engine = engineOf(bed);
    await sleep(2500); // neighbour discovery settles
    const [cpu, woken] = await attempt(async () => {
      const [cpu, woken] = [cpuOf(engine), loopWakeUpsOf(engine)];
      await sleep(SECONDS * 1000);
      return [cpuOf(engine) - cpu, loopWakeUpsOf(engine) - woken];
    }, ([cpu, woken]) => cpu! <= MOST_IDLE_SHARE * SECONDS && woken! <= 2 * SECONDS + 1);
    assert(cpu! <= MOST_IDLE_SHARE * SECONDS, `${cpu} s of processor time in ${SECONDS} s`);
    assert(woken! >= SECONDS - 1 && woken! <= 2 * SECONDS + 1, `${woken} wake-ups in ${SECONDS} s`);
  },
});
