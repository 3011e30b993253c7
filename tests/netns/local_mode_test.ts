// SPDX-License-Identifier: GPL-2.0-or-later
/** Hosts that lack a route, a family, or both. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { Testbed } from "../helpers/testbed.ts";

const PORT = 25501;
const LOCAL4 = "169.254.2.1";
const LOCAL_GATEWAY4 = "169.254.2.2";
const NEEDS = requirements({ packages: ["gcc", "python3"], tubetti: true });

for (const user of [false, true]) {
  Deno.test({
    name: `local mode: without any uplink the guest reaches the host${user ? ", as a user" : ""}`,
    ...NEEDS,
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ isolated: true, user });
      await bed.serveHost([program, "serve", `${PORT}`], { tcp: PORT });
      const guest = await bed.idleGuest({ options: ["-t", `${PORT + 1}`] });
      await t.step("link-local addresses", async () => {
        const { stdout } = await guest.run(["ip", "-o", "addr"]);
        assertStringIncludes(stdout, `${LOCAL4}/16`);
        assertMatch(stdout, /inet6 fe80:/);
      });
      await t.step("the gateway is the host's loopback, TCP and UDP", async () => {
        assertEquals((await edge(guest, "connect", LOCAL_GATEWAY4, PORT)).error, "");
        assertEquals((await edge(guest, "udp", LOCAL_GATEWAY4, PORT, 1, 1000)).wrong, []);
      });
      await t.step("fe80::1 is the host's loopback", async () => {
        const { stdout } = await guest.run(["ip", "-o", "-4", "addr", "show", "scope", "link"]);
        const tap = stdout.split(/\s+/)[1] || "tap0";
        const to = `TCP6:[fe80::1%${tap}]:${PORT},connect-timeout=20`;
        const result = await guest.run(["/bin/sh", "-c", `echo hello | socat -t 20 - '${to}'`]);
        assertEquals(result.stdout, "hello\n", result.stderr);
      });
      await t.step("inbound works too", async () => {
        const server = guest.start([program, "serve", `${PORT + 1}`]);
        await server.waitFor("ready");
        const host = { run: bed.runHost.bind(bed) };
        assertEquals((await edge(host, "connect", "127.0.0.1", PORT + 1)).error, "");
      });
    },
  });
}

for (const only of [4, 6] as const) {
  Deno.test({
    name: `local mode: a host with IPv${only} alone serves a guest`,
    ...NEEDS,
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create({ only });
      await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
      const guest = await bed.idleGuest();
      const { remote } = Testbed.addresses(only);
      assertEquals((await edge(guest, "connect", remote, PORT)).error, "");
      assertEquals((await edge(guest, "udp", remote, PORT, 100)).wrong, []);
    },
  });

  Deno.test({
    name: `local mode: -${only} serves IPv${only} only`,
    ...NEEDS,
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create();
      await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
      const guest = await bed.idleGuest({ options: [`-${only}`] });
      assertEquals((await edge(guest, "connect", Testbed.addresses(only).remote, PORT)).error, "");
      const other = only === 4 ? 6 : 4;
      const { stdout } = await guest.run(["ip", `-${other}`, "route", "show", "default"]);
      assertEquals(stdout, "");
    },
  });
}

Deno.test({
  name: "local mode: IPv6 disabled on the host leaves IPv4",
  ...NEEDS,
  async fn() {
    const program = await peer();
    await using bed = await Testbed.create({ only: 4 });
    await bed.runHost(["sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1"]);
    await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
    const guest = await bed.idleGuest({ options: ["-t", `${PORT + 1}`] });
    assertEquals((await edge(guest, "connect", Testbed.addresses(4).remote, PORT)).error, "");
  },
});
