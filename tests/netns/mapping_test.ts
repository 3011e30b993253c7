// SPDX-License-Identifier: GPL-2.0-or-later
/** Which host addresses the guest's connections reach, and as whom. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { describe } from "../helpers/run.ts";
import { type IdleGuest, Net, Testbed } from "../helpers/testbed.ts";

const PORT = 25461;
const HOST_PORT = 25462;
const NEEDS = requirements({ packages: ["gcc", "python3", "socat"] });

/** Prints the address that a connection came from. */
const WHO = ["SYSTEM:echo from $SOCAT_PEERADDR to $SOCAT_SOCKADDR"];

function whoListens(family: 4 | 6, address: string): string[] {
  const at = family === 4 ? `TCP4-LISTEN:${HOST_PORT}` : `TCP6-LISTEN:${HOST_PORT},ipv6only=1`;
  const bind = family === 4 ? address : `[${address}]`;
  return ["socat", `${at},reuseaddr,fork,bind=${bind}`, ...WHO];
}

/** What a server that tells the peer's address answers to a connection from the guest. */
async function asks(guest: IdleGuest, address: string): Promise<string> {
  const to = address.includes(":") ? `TCP6:[${address}]` : `TCP4:${address}`;
  const command = ["socat", "-u", `${to}:${HOST_PORT},connect-timeout=20`, "-"];
  const result = await guest.run(command);
  assertEquals(result.code, 0, describe(command, result));
  return result.stdout.trim();
}

async function reaches(guest: IdleGuest, address: string): Promise<boolean> {
  const tcp = (await edge(guest, "connect", address, PORT)).error === "";
  const udp = (await edge(guest, "udp", address, PORT, 10)).wrong;
  return tcp && (udp as unknown[]).length === 0;
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `mapping: the gateway's address reaches the host's loopback${as}`,
    ...NEEDS,
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      await bed.serveHost([program, "serve", `${PORT}`], { tcp: PORT });
      await bed.serveHost(whoListens(4, "127.0.0.1"), { tcp: HOST_PORT });
      await bed.serveHost(whoListens(6, "::1"), { tcp: HOST_PORT });
      const guest = await bed.idleGuest();
      for (const family of [4, 6] as const) {
        await t.step(`IPv${family}`, async () => {
          const { gateway } = Testbed.addresses(family);
          assertEquals(await reaches(guest, gateway), true);
          const loopback = family === 4 ? "127.0.0.1" : "0000:0000:0000:0000:0000:0000:0000:0001";
          assertStringIncludes(await asks(guest, gateway), loopback);
        });
      }
    },
  });

  Deno.test({
    name: `mapping: --no-map-gw leaves the gateway to itself${as}`,
    ...NEEDS,
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest({ options: ["--no-map-gw"] });
      for (const family of [4, 6] as const) {
        const { gateway } = Testbed.addresses(family);
        assertEquals((await edge(guest, "connect", gateway, PORT)).error, "ECONNREFUSED");
      }
      await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
      for (const family of [4, 6] as const) {
        assertEquals(await reaches(guest, Testbed.addresses(family).gateway), true);
      }
    },
  });

  Deno.test({
    name: `mapping: --map-host-loopback and --map-guest-addr${as}`,
    ...requirements({ packages: ["gcc", "python3", "socat"], tubetti: true }),
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      await bed.serveHost([program, "serve", `${PORT}`], { tcp: PORT });
      await bed.serveHost(whoListens(4, Net.HOST4), { tcp: HOST_PORT });
      const [loop4, loop6] = ["203.0.113.7", "2001:db8:3::7"];
      const [host4, host6] = ["203.0.113.8", "2001:db8:3::8"];
      const guest = await bed.idleGuest({
        options: ["--map-host-loopback", loop4, "--map-host-loopback", loop6].concat(
          ["--map-guest-addr", host4, "--map-guest-addr", host6],
        ),
      });
      for (const address of [loop4, loop6, host4, host6]) {
        await t.step(address, async () => assertEquals(await reaches(guest, address), true));
      }
      await t.step("the gateway is not mapped any more", async () => {
        assertEquals((await edge(guest, "connect", Net.GATEWAY4, PORT)).error, "ECONNREFUSED");
      });
      await t.step(
        "--map-guest-addr reaches what is bound to the host's address only",
        async () => {
          assertStringIncludes(await asks(guest, host4), `to ${Net.HOST4}`);
        },
      );
    },
  });

  Deno.test({
    name: `mapping: the remote sees the host's address, whatever the guest's is${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await bed.serveRemote(whoListens(4, Net.REMOTE4), { tcp: HOST_PORT });
      await bed.serveRemote(whoListens(6, Net.REMOTE6), { tcp: HOST_PORT });
      const other4 = ["-a", "10.11.12.13", "-n", "24", "-g", "10.11.12.1"];
      const other6 = ["-a", "2001:db8:77::5", "-g", "2001:db8:77::1"];
      const cases = { "the host's address": [], "an address of its own": [...other4, ...other6] };
      for (const [name, options] of Object.entries(cases)) {
        await t.step(name, async () => {
          const guest = await bed.idleGuest({ options });
          assertStringIncludes(await asks(guest, Net.REMOTE4), `from ${Net.HOST4} `);
          assertStringIncludes(await asks(guest, Net.REMOTE6), "from [2001:0db8:0001:");
          const addresses = (await guest.run(["ip", "-o", "addr"])).stdout;
          const expected = options.length > 0 ? "10.11.12.13/24" : `${Net.HOST4}/24`;
          assertStringIncludes(addresses, expected);
          await guest.stop();
        });
      }
    },
  });

  Deno.test({
    name: `mapping: a guest that uses another address than it was given is served${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await bed.serveRemote(whoListens(4, Net.REMOTE4), { text: "", tcp: HOST_PORT });
      const guest = await bed.idleGuest();
      const { stdout } = await guest.run(["ip", "-o", "-4", "addr", "show", "scope", "global"]);
      const tap = stdout.split(/\s+/)[1]!;
      for (
        const line of [
          `addr flush dev ${tap} scope global`,
          `addr add 10.99.0.5/24 dev ${tap}`,
          "route add default via 10.99.0.1",
        ]
      ) {
        await guest.run(["ip", ...line.split(" ")]);
      }
      assertStringIncludes(await asks(guest, Net.REMOTE4), `from ${Net.HOST4} `);
    },
  });
}
