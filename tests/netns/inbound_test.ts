// SPDX-License-Identifier: GPL-2.0-or-later
/** Ports of the host that lead to the guest: -t and -u. */
import { assert, assertEquals } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import { iperf } from "../helpers/iperf.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { attempt } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";

const PORT = 25471;
const OTHER_PORT = 25472;
const GUEST_PORT = 25473;
const IPERF_PORT = 25474;
const PORTS = ["-t", `${PORT},${OTHER_PORT}:${GUEST_PORT},${IPERF_PORT}`].concat(
  ["-u", `${PORT},${OTHER_PORT}:${GUEST_PORT}`],
);

for (const user of [false, true]) {
  Deno.test({
    name: `inbound: -t and -u lead to the guest${user ? ", as an ordinary user" : ""}`,
    ...requirements({ packages: ["gcc", "python3", "iperf3"] }),
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest({ options: PORTS });
      const remote = { run: bed.runRemote.bind(bed) };
      const host = { run: bed.runHost.bind(bed) };
      await t.step("nobody listens: refused", async () => {
        const { error } = await edge(remote, "connect", Testbed.addresses(4).host, PORT);
        assert(["ECONNREFUSED", "ECONNRESET", ""].includes(error!), `${error}`);
      });
      guest.start([program, "serve", `${PORT}`]);
      const server = guest.start([program, "serve", `${GUEST_PORT}`]);
      await server.waitFor("ready");
      for (const family of [4, 6] as const) {
        const address = Testbed.addresses(family).host;
        const loopback = family === 4 ? "127.0.0.1" : "::1";
        for (const port of [PORT, OTHER_PORT]) {
          await t.step(`from the remote to ${address} port ${port}`, async () => {
            const short = [program, "short", address, `${port}`, "200", "20000", "50"];
            const { stdout } = await remote.run(short);
            assert(stdout.includes("ok 200 failed 0"), stdout);
            assertEquals((await edge(remote, "udp", address, port, 1, 1000)).wrong, []);
            assertEquals((await edge(remote, "udpmany", address, port, 100)).wrong, 0);
          });
        }
        for (const own of [address, loopback]) {
          await t.step(`from the host to ${own}`, async () => {
            const { stdout } = await host.run([
              program,
              "short",
              own,
              `${PORT}`,
              "10",
              "2000",
              "5",
            ]);
            assert(stdout.includes("ok 10 failed 0"), stdout);
            // to the guest, the host is its gateway, and so is the remote: one of the remote's ports may be
            // chosen again, whose flow is still there; then this one is refused
            const echo = () => edge(host, "udp", own, PORT, 1, 1000);
            const { wrong } = await attempt(echo, ({ wrong }) => (wrong as unknown[]).length === 0);
            assertEquals(wrong, []);
          });
        }
      }
      for (const reverse of [false, true]) {
        await t.step(`iperf3 ${reverse ? "guest to host" : "host to guest"}`, async () => {
          const serve = async (command: readonly string[]) => {
            const started = guest.start(["sh", "-c", 'echo up; exec "$@"', "sh", ...command]);
            await started.waitFor("up");
            await new Promise((resolve) => setTimeout(resolve, 300));
            return started;
          };
          const how = { server: Testbed.addresses(4).host, port: IPERF_PORT, seconds: 1, reverse };
          const report = await iperf(remote, serve, how);
          assertEquals(report.error, "");
          assert(report.gbps > 0.1, `${report.gbps} Gb/s`);
        });
      }
    },
  });
}
