// SPDX-License-Identifier: GPL-2.0-or-later
/** Many connections: short ones at the same time, idle ones, and more than descriptors allow. */
import { assert, assertMatch, assertStringIncludes } from "@std/assert";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { Background, sleep } from "../helpers/run.ts";
import { IdleGuest, Testbed } from "../helpers/testbed.ts";
import { cpuSeconds } from "../helpers/usage.ts";

const PORT = 25411;
const SECOND_PORT = 25412;
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

/** Opens connections that stay until the returned process is stopped. */
async function hold(guest: IdleGuest, port: number, count: number): Promise<Background> {
  const server = Testbed.addresses(4).remote;
  // its standard input is a pipe that stays open
  const command = [await peer(), "hold", server, `${port}`, `${count}`];
  const held = guest.start(["/bin/sh", "-c", 'sleep 1000 | "$@"', "sh", ...command]);
  await held.waitFor("active", 90_000);
  return held;
}

Deno.test({
  name: "tcp_many: 19,000 idle connections with an active one among them",
  ...requirements({ ...NEEDS, tubetti: true }),
  async fn() {
    const program = await peer();
    await using bed = await Testbed.create();
    await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
    const guest = await bed.idleGuest();
    const held = await hold(guest, PORT, 19_000);
    assertStringIncludes(held.stdout, "open 19000 failed 0");
    assertStringIncludes(held.stdout, "active 10000 of 10000");
    const before = cpuSeconds(bed);
    await sleep(3000);
    const used = cpuSeconds(bed) - before;
    assert(used < 0.3, `${used} s of processor time in 3 s with idle connections`);
    await held.stop();
    bed.killGuests();
  },
});

Deno.test({
  name: "tcp_many: at the limit of descriptors new connections are refused and old ones go on",
  ...requirements({ ...NEEDS, tubetti: true }),
  async fn() {
    const program = await peer();
    await using bed = await Testbed.create();
    for (const port of [PORT, SECOND_PORT]) {
      await bed.serveRemote([program, "serve", `${port}`], { tcp: port });
    }
    const guest = await bed.idleGuest();
    const first = await hold(guest, PORT, 10_500);
    assertStringIncludes(first.stdout, "open 10500 failed 0");
    const second = await hold(guest, SECOND_PORT, 10_500);
    assertMatch(second.stdout, /open 9\d{3} failed \d+ last error (ECONNREFUSED|ECONNRESET)/);
    assertStringIncludes(second.stdout, "active 10000 of 10000");
    const warnings = guest.background.stderr.split("\n").filter((line) =>
      /descriptor|EMFILE/i.test(line)
    );
    assert(warnings.length >= 1 && warnings.length <= 10, guest.background.stderr.slice(-1000));
    const before = cpuSeconds(bed);
    await sleep(2000);
    const used = cpuSeconds(bed) - before;
    assert(used < 0.2, `${used} s of processor time in 2 s with nothing to do`);
    await first.stop();
    await second.stop();
    bed.killGuests();
  },
});
