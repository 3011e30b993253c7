// SPDX-License-Identifier: GPL-2.0-or-later
/** TCP throughput through the tap with iperf3: both families, both directions, every MTU. */
import { assert, assertEquals } from "@std/assert";
import { iperf } from "../helpers/iperf.ts";
import { requirements } from "../helpers/require.ts";
import { attempt } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";

const PORT = 25201;
const MTUS = [1280, 1500, 9000, 65520];
const SECONDS = 2;

/** Far below what any machine reaches, far above what a stalled connection does. */
const LEAST_GBPS = 0.1;

async function matrix(t: Deno.TestContext, user: boolean): Promise<void> {
  await using bed = await Testbed.create({ user });
  for (const mtu of MTUS) {
    const guest = await bed.idleGuest({ options: ["-m", `${mtu}`] });
    for (const family of [4, 6] as const) {
      for (const reverse of [false, true]) {
        const name = `MTU ${mtu}, IPv${family}, ${reverse ? "host to guest" : "guest to host"}`;
        await t.step(name, async () => {
          const server = Testbed.addresses(family).remote;
          const options = { server, port: PORT, seconds: SECONDS, reverse };
          const report = await attempt(
            () => iperf(guest, bed.serveRemote.bind(bed), options),
            ({ error, gbps }) => error === "" && gbps > LEAST_GBPS,
          );
          assertEquals(report.error, "");
          assert(report.gbps > LEAST_GBPS, `${report.gbps} Gb/s, samples ${report.samples}`);
        });
      }
    }
    await guest.stop();
  }
}

Deno.test({
  name: "tcp_iperf: every MTU, family and direction carries data, as root",
  ...requirements({ packages: ["iperf3"] }),
  fn: (t) => matrix(t, false),
});

Deno.test({
  name: "tcp_iperf: every MTU, family and direction carries data, as an ordinary user",
  ...requirements({ packages: ["iperf3"] }),
  fn: (t) => matrix(t, true),
});
