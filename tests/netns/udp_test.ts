// SPDX-License-Identifier: GPL-2.0-or-later
/** UDP through the tap: rates, sizes, many ports at once, ICMP errors. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import { iperf } from "../helpers/iperf.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, must } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";

const PORT = 25431;
const CLOSED_PORT = 25439;

/** A rate that every machine manages, so that hardly a datagram may be lost. */
const RATE = "100M";
const MOST_LOSS = 0.02;
/** As large as the kernel lets anybody have by default: what holds 10 ms more of a pause. */
const BUFFER = 212_992;

for (const user of [false, true]) {
  Deno.test({
    name: `udp: iperf3 at ${RATE} loses next to nothing${user ? ", as an ordinary user" : ""}`,
    ...requirements({ packages: ["iperf3"] }),
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const serve = bed.serveRemote.bind(bed);
      for (const mtu of user ? [1280, 65520] : [1280, 1500, 9000, 65520]) {
        const guest = await bed.idleGuest({ options: ["-m", `${mtu}`] });
        for (const family of [4, 6] as const) {
          for (const reverse of [false, true]) {
            const way = reverse ? "host to guest" : "guest to host";
            await t.step(`MTU ${mtu}, IPv${family}, ${way}`, async () => {
              const server = Testbed.addresses(family).remote;
              const udp = { rate: RATE, length: 1200 };
              const at = { server, bind: server, port: PORT, buffer: BUFFER };
              const measure = () => iperf(guest, serve, { ...at, seconds: 1, reverse, udp });
              // a process that waits 20 ms for a processor loses 2 % of a second
              const report = await attempt(
                measure,
                ({ error, loss }) => error === "" && loss < MOST_LOSS,
              );
              assertEquals(report.error, "");
              assert(report.bytes > 1e6, `${report.bytes} bytes arrived`);
              assert(report.loss < MOST_LOSS, `lost ${report.loss * 100} %`);
            });
          }
        }
        await guest.stop();
      }
    },
  });

  Deno.test({
    name: `udp: datagrams of all sizes and many ports${user ? ", as an ordinary user" : ""}`,
    ...requirements({ packages: ["python3", "gcc"] }),
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      await bed.serveRemote([program, "serve", `${PORT}`], { udp: PORT });
      const guest = await bed.idleGuest();
      for (const family of [4, 6] as const) {
        const server = Testbed.addresses(family).remote;
        await t.step(`sizes, IPv${family}`, async () => {
          const sizes = [1, 0, 17, 512, 1400, 1472, 1473, 8000, 30_000, 60_000];
          assertEquals((await edge(guest, "udp", server, PORT, ...sizes)).wrong, []);
        });
        await t.step(`500 ports at once, IPv${family}`, async () => {
          assertEquals((await edge(guest, "udpmany", server, PORT, 500)).wrong, 0);
        });
        await t.step(`a closed port is reported, IPv${family}`, async () => {
          assertEquals((await edge(guest, "udperror", server, CLOSED_PORT)).error, "ECONNREFUSED");
        });
      }
    },
  });

  Deno.test({
    name: `udp: unreachable networks and hosts are reported to the guest${
      user ? ", as an ordinary user" : ""
    }`,
    ...requirements({ packages: ["python3"] }),
    async fn(t) {
      await using bed = await Testbed.create({ user });
      for (const route of ["203.0.113.0/24", "2001:db8:3::/64"]) {
        await must(["ip", "-n", bed.remote, "route", "add", "unreachable", route]);
      }
      const guest = await bed.idleGuest();
      for (const server of ["203.0.113.2", "2001:db8:3::2"]) {
        await t.step(server, async () => {
          const { error } = await edge(guest, "udperror", server, PORT);
          assertMatch(error!, /^(EHOSTUNREACH|ENETUNREACH)$/);
        });
      }
    },
  });
}
