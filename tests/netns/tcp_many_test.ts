// SPDX-License-Identifier: GPL-2.0-or-later
/** Many connections: short ones at the same time, idle ones, and more than descriptors allow. */
import { assert, assertMatch, assertStringIncludes } from "@std/assert";
import { peer } from "../helpers/peer.ts";
import { NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, Background, sleep } from "../helpers/run.ts";
import { IdleGuest, Testbed } from "../helpers/testbed.ts";
import { cpuSeconds, loopWakeUpsOf } from "../helpers/usage.ts";

const PORT = 25411;
const SECOND_PORT = 25412;
const SETTLE_MS = 1000;
const IDLE_SECONDS = 3;
const NEEDS = { packages: ["gcc"] };

for (const user of [false, true]) {
  Deno.test({
    name: `tcp_many: 2,000 parallel short connections${user ? ", as an ordinary user" : ""}`,
    ...requirements(NEEDS),
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
      const guest = await bed.idleGuest();
      for (const family of [4, 6] as const) {
        const server = Testbed.addresses(family).remote;
        const result = await guest.run([
          program,
          "short",
          server,
          `${PORT}`,
          "2000",
          "20000",
          "2000",
        ]);
        assertStringIncludes(result.stdout, "ok 2000 failed 0");
      }
    },
  });
}

/** With nothing to do there is one wake-up a second, whatever the number of connections. */
async function assertIdle(bed: Testbed, mostCpuSeconds: number): Promise<void> {
  const [engine] = bed.engineProcesses();
  const mostWakeUps = IDLE_SECONDS + 2;
  const measure = async () => {
    await sleep(SETTLE_MS); // on a busy machine the end of what was before may take longer
    const [cpu, wakeUps] = [cpuSeconds(bed), loopWakeUpsOf(engine!.pid)];
    await sleep(IDLE_SECONDS * 1000);
    return { used: cpuSeconds(bed) - cpu, woken: loopWakeUpsOf(engine!.pid) - wakeUps };
  };
  const { used, woken } = await attempt(
    measure,
    ({ used, woken }) => used < mostCpuSeconds && woken <= mostWakeUps,
  );
  assert(used < mostCpuSeconds, `${used} s of processor time in ${IDLE_SECONDS} s`);
  assert(woken <= mostWakeUps, `${woken} wake-ups in ${IDLE_SECONDS} s`);
}

/** Opens connections that stay until the returned process is stopped. */
async function hold(guest: IdleGuest, port: number, count: number): Promise<Background> {
  const server = Testbed.addresses(4).remote;
  // its standard input is a pipe that stays open
  const command = [await peer(), "hold", server, `${port}`, `${count}`];
  const held = guest.start(["/bin/sh", "-c", 'sleep 1000 | "$@"', "sh", ...command]);
  await held.waitFor("active", 180_000);
  return held;
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `tcp_many: 19,000 idle connections with an active one among them${as}`,
    ...requirements({ ...NEEDS, tubetti: true }),
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
      const guest = await bed.idleGuest({ options: NOTHING });
      const held = await hold(guest, PORT, 19_000);
      assertStringIncludes(held.stdout, "open 19000 failed 0");
      assertStringIncludes(held.stdout, "active 10000 of 10000");
      await assertIdle(bed, 0.3);
      await held.stop();
      bed.killGuests();
    },
  });

  Deno.test({
    name:
      `tcp_many: at the limit of descriptors new connections are refused and old ones go on${as}`,
    ...requirements({ ...NEEDS, tubetti: true }),
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      for (const port of [PORT, SECOND_PORT]) {
        await bed.serveRemote([program, "serve", `${port}`], { tcp: port });
      }
      const guest = await bed.idleGuest({ options: NOTHING });
      const first = await hold(guest, PORT, 10_500);
      assertStringIncludes(first.stdout, "open 10500 failed 0");
      const second = await hold(guest, SECOND_PORT, 10_500);
      assertMatch(second.stdout, /open 9\d{3} failed \d+ last error (ECONNREFUSED|ECONNRESET)/);
      assertStringIncludes(second.stdout, "active 10000 of 10000");
      const warnings = guest.background.stderr.split("\n").filter((line) =>
        /descriptor|EMFILE/i.test(line)
      );
      assert(warnings.length >= 1 && warnings.length <= 10, guest.background.stderr.slice(-1000));
      await assertIdle(bed, 0.2);
      await first.stop();
      await second.stop();
      bed.killGuests();
    },
  });
}

/** Opens connections that nobody reads and pushes into them, then says "pushed". */
const PUSH = `
import socket, sys, time
address, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
socks = []
for _ in range(count):
    s = socket.create_connection((address, port))
    s.setblocking(False)
    socks.append(s)
for _ in range(40):
    for s in socks:
        try:
            s.send(bytes(200000))
        except BlockingIOError:
            pass
    time.sleep(0.02)
print("pushed", flush=True)
time.sleep(600)
`;

/** Accepts connections and never reads. */
const SINK = `
import socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=500)
print("ready", flush=True)
socks = []
while True:
    socks.append(listener.accept()[0])
`;

Deno.test({
  name: "tcp_many: 100 peers that do not read leave the others alone",
  ...requirements({ packages: ["gcc", "python3"] }),
  async fn() {
    const program = await peer();
    await using bed = await Testbed.create();
    const { remote } = Testbed.addresses(4);
    const sinkPort = PORT + 7;
    await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
    await bed.serveRemote(["python3", "-c", SINK, remote, `${sinkPort}`], { text: "ready" });
    const guest = await bed.idleGuest({ options: ["-m", "1500"] });
    const push = guest.start(["python3", "-c", PUSH, remote, `${sinkPort}`, "100"]);
    await push.waitFor("pushed");
    const short = [program, "short", remote, `${PORT}`, "100", "2000000", "4"];
    const { stdout, stderr } = await guest.run(short, { timeoutMs: 90_000 });
    assertMatch(stdout, /^ok 100 failed 0/, stderr);
  },
});
