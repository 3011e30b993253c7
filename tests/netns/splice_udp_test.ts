// SPDX-License-Identifier: GPL-2.0-or-later
/** Datagrams between host and guest, socket to socket. */
import { assert, assertEquals } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import { peer } from "../helpers/peer.ts";
import {
  descriptorsOf,
  engineOf,
  hostOf,
  optionsFor,
  ports,
  startPorts,
  tapBytes,
} from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, sleep } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { cpuOf } from "../helpers/usage.ts";

const PORT = 8141;
const HOST_PORT = 8142;
const CLOSED = 8143;
const HOST_CLOSED = 8144;
const OPTIONS = optionsFor({ u: `${PORT},${CLOSED}`, U: `${HOST_PORT},${HOST_CLOSED}` });
const NEEDS = requirements({ packages: ["python3", "gcc"], tubetti: true });

/** As many as a socket's buffer holds for certain, and for bursts of larger ones. */
const BURST = 100;
const BURST_LARGE = 20;

/** What other traffic may cross the tap meanwhile. */
const NOISE = 20_000;

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `splice udp: sizes, many ports and bursts${as}`,
    ...NEEDS,
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest({ options: OPTIONS });
      await guest.start([program, "serve", `${PORT}`]).waitFor("ready\n");
      await bed.serveHost([program, "serve", `${HOST_PORT}`], { udp: HOST_PORT });
      const engine = engineOf(bed);
      const before = await tapBytes(guest);
      for (
        const [name, place, port] of [
          ["-u", hostOf(bed), PORT],
          ["-U", guest, HOST_PORT],
        ] as const
      ) {
        for (const address of ["127.0.0.1", "::1"]) {
          await t.step(`${name}, ${address}, sizes`, async () => {
            const sizes = [1, 0, 17, 1472, 1473, 9000, 40_000, 65_000, 65_507];
            assertEquals((await edge(place, "udp", address, port, ...sizes)).wrong, []);
          });
          await t.step(`${name}, ${address}, 500 ports at once`, async () => {
            assertEquals((await edge(place, "udpmany", address, port, 500)).wrong, 0);
          });
          await t.step(`${name}, ${address}, bursts come back whole and in order`, async () => {
            for (const [count, size] of [[BURST, 100], [BURST_LARGE, 4000]]) {
              const measure = () => ports(place, "burst", address, port, count!, size!);
              // datagrams may be lost where a machine hangs; not again and again
              const result = await attempt(measure, ({ wrong }) => wrong === 0);
              assertEquals(result, { wrong: 0 });
            }
          });
        }
      }
      const over = await tapBytes(guest) - before;
      assert(over < NOISE, `${over} bytes went over the tap`);
      await t.step("flows that wait for nothing run nothing", async () => {
        assert(descriptorsOf(engine) < 6000);
        const used = await attempt(async () => {
          const cpu = cpuOf(engine);
          await sleep(1000);
          return cpuOf(engine) - cpu;
        }, (cpu) => cpu < 0.1);
        assert(used < 0.1, `${used} s in a second of silence`);
      });
    },
  });

  Deno.test({
    name: `splice udp: a closed port is reported to who asked${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest({ options: OPTIONS });
      for (const address of ["127.0.0.1", "::1"]) {
        await t.step(`-U, ${address}`, async () => {
          const { error } = await edge(guest, "udperror", address, HOST_CLOSED);
          assertEquals(error, "ECONNREFUSED");
        });
        if (user) continue; // it takes a right that a user lacks on the host
        await t.step(`-u, ${address}`, async () => {
          const { error } = await edge(hostOf(bed), "udperror", address, CLOSED);
          assertEquals(error, "ECONNREFUSED");
        });
      }
      await t.step("and a server that comes then is reached", async () => {
        await startPorts(guest, "who", CLOSED);
        for (const address of ["127.0.0.1", "::1"]) {
          const { replies } = await ports(hostOf(bed), "ask", "udp", CLOSED, address);
          assertEquals(replies![`udp ${address} ${CLOSED}`]!.split(" ")[0], `${CLOSED}`);
        }
      });
    },
  });
}

Deno.test({
  name: "splice udp: --no-splice takes the tap and works as well",
  ...NEEDS,
  async fn() {
    const program = await peer();
    await using bed = await Testbed.create();
    const guest = await bed.idleGuest({ options: [...OPTIONS, "--no-splice"] });
    await guest.start([program, "serve", `${PORT}`]).waitFor("ready\n");
    const before = await tapBytes(guest);
    for (const address of ["127.0.0.1", "::1"]) {
      const sizes = [1, 0, 1472, 40_000];
      assertEquals((await edge(hostOf(bed), "udp", address, PORT, ...sizes)).wrong, []);
    }
    assert(await tapBytes(guest) - before > 160_000);
  },
});
