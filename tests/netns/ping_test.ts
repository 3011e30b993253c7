// SPDX-License-Identifier: GPL-2.0-or-later
/** ICMP echo, and the tools that live on ICMP errors: traceroute and tracepath. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { describe, must } from "../helpers/run.ts";
import { type IdleGuest, Testbed } from "../helpers/testbed.ts";

const PORT = 25441;
const NEEDS = requirements({
  packages: ["iputils-ping", "iputils-tracepath", "traceroute", "gcc"],
});

async function output(guest: IdleGuest, line: string): Promise<string> {
  const command = line.split(" ");
  const result = await guest.run(command);
  assertEquals(result.code, 0, describe(command, result));
  return result.stdout;
}

for (const user of [false, true]) {
  Deno.test({
    name: `ping: echo by ping sockets${user ? ", as an ordinary user" : ""}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest();
      for (const family of [4, 6] as const) {
        const { remote } = Testbed.addresses(family);
        for (const size of [0, 56, 1400, 20_000]) {
          await t.step(`IPv${family}, ${size} bytes`, async () => {
            const text = await output(
              guest,
              `ping -${family} -n -i 0.05 -c 5 -W 5 -s ${size} ${remote}`,
            );
            assertStringIncludes(text, "5 received");
          });
        }
        await t.step(`IPv${family}, ten at the same time`, async () => {
          const line = `ping -${family} -n -i 0.1 -c 5 -W 5 ${remote}`;
          const texts = await Promise.all(Array.from({ length: 10 }, () => output(guest, line)));
          for (const text of texts) assertStringIncludes(text, "5 received");
        });
      }
    },
  });
}

Deno.test({
  name: "ping: without ping sockets, root's raw sockets serve",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create({ pingSockets: false });
    const guest = await bed.idleGuest();
    for (const family of [4, 6] as const) {
      const { remote } = Testbed.addresses(family);
      const text = await output(guest, `ping -${family} -n -i 0.1 -c 3 -W 5 ${remote}`);
      assertStringIncludes(text, "3 received");
    }
  },
});

Deno.test({
  name: "ping: without ping sockets and without rights there is one warning, and the rest works",
  ...NEEDS,
  async fn() {
    const program = await peer();
    await using bed = await Testbed.create({ pingSockets: false, user: true });
    await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
    const guest = await bed.idleGuest();
    const { remote } = Testbed.addresses(4);
    for (let i = 0; i < 3; i++) {
      assert((await guest.run(["ping", "-n", "-c", "1", "-W", "1", remote])).code !== 0);
    }
    assertEquals((await edge(guest, "connect", remote, PORT)).error, "");
    const warnings = guest.background.stderr.split("\n").filter((line) => /ping/i.test(line));
    assertEquals(warnings.length, 1, guest.background.stderr);
  },
});

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";
  Deno.test({
    name: `ping: a time to live of one is exceeded at the gateway${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user, far: true });
      const guest = await bed.idleGuest();
      for (const family of [4, 6] as const) {
        await t.step(`IPv${family}`, async () => {
          const { far, gateway } = Testbed.addresses(family);
          const { stdout } = await guest.run(["ping", "-n", "-c", "1", "-W", "5", "-t", "1", far]);
          assertMatch(stdout, /exceeded/i);
          assertStringIncludes(stdout.toLowerCase(), gateway);
        });
      }
    },
  });

  Deno.test({
    name: `traceroute: finds every hop${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user, far: true });
      const guest = await bed.idleGuest();
      for (const family of [4, 6] as const) {
        const { far, gateway } = Testbed.addresses(family);
        for (const method of ["", " -I"]) {
          await t.step(`IPv${family}${method}`, async () => {
            const text = await output(
              guest,
              `traceroute -${family} -n -q 2 -w 5 -m 5${method} ${far}`,
            );
            const hops = [...text.matchAll(/^ *\d+ +(\S+)/gm)].map((match) => match[1]);
            assertEquals(hops, [gateway, far], text);
          });
        }
      }
    },
  });

  Deno.test({
    name: `tracepath: finds every hop and the narrowest link${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user, far: true, uplinkMtu: 1500 });
      for (const [namespace, device] of [[bed.remote, "far0"], [bed.far, "near0"]] as const) {
        await must(["ip", "-n", namespace, "link", "set", device, "mtu", "1400"]);
      }
      const guest = await bed.idleGuest({ options: ["-m", "1500"] });
      for (const family of [4, 6] as const) {
        await t.step(`IPv${family}`, async () => {
          const { far, gateway } = Testbed.addresses(family);
          const text = await output(guest, `tracepath -${family} -n -m 5 ${far}`);
          assertStringIncludes(text, gateway);
          assertMatch(text, /pmtu 1400/);
          assertMatch(text, /reached/);
        });
      }
    },
  });
}
