// SPDX-License-Identifier: GPL-2.0-or-later
/** `--allow-out`, `--deny-out` and `--policy` against everything that a guest may try. */
import { assertEquals, assertMatch } from "@std/assert";
import { effectsCommand } from "../helpers/effects.ts";
import { ip } from "../helpers/netns.ts";
import {
  assertReaches,
  At,
  dig,
  dnsmasq,
  EVIL,
  EVIL_PORT,
  forged,
  HOST_PORT,
  NEEDS,
  OTHER_PORT,
  policyFile,
  PORT,
  SPLICED,
  SPLICED_ALLOWED,
  v4,
  v6,
  world,
} from "../helpers/policy_world.ts";
import { type IdleGuest, Net, Testbed } from "../helpers/testbed.ts";

/** What would be reached if nothing were denied. */
const OPEN = [
  ...[At.ALLOWED, At.BELOW, At.PARENT, At.BY_TCP, At.EVIL, At.LITERAL].flatMap((n) =>
    [v4(n), v6(n)].flatMap((a) => [`tcp ${a} ${PORT}`, `udp ${a} ${OTHER_PORT}`, `ping ${a}`])
  ),
  ...[Net.GATEWAY4, Net.GATEWAY6].flatMap((
    a,
  ) => [`tcp ${a} ${HOST_PORT}`, `udp ${a} ${HOST_PORT}`]),
  ...["127.0.0.1", "::1"].flatMap((a) => [`tcp ${a} ${SPLICED}`, `udp ${a} ${SPLICED}`]),
];

const RULES = [
  `allowed.test:${PORT}/tcp`,
  "*.wild.test",
  EVIL,
  `${v4(At.LITERAL)}:${PORT}`,
  `[${v6(At.LITERAL)}]:${PORT}/tcp`,
  Net.GATEWAY4,
  Net.GATEWAY6,
];

/** What {@linkcode RULES} say, as a program. */
const PROGRAM = `
export default function (flow: { names: string[], address: string, port: number, protocol: string, resolver: boolean }) {
  const { names, address, port, protocol, resolver } = flow;
  const where = address + " " + port, tcp = protocol === "tcp";
  const ok = resolver || tcp && port === ${PORT} && names.includes("allowed.test") ||
    names.some((name) => name.endsWith(".wild.test")) ||
    ${JSON.stringify([EVIL, Net.GATEWAY4, Net.GATEWAY6])}.includes(address) ||
    protocol !== "icmp" && where === "${v4(At.LITERAL)} ${PORT}" ||
    tcp && where === "${v6(At.LITERAL)} ${PORT}";
  return ok ? "allow" : "reject";
}
`;

const allow = (...rules: string[]) => rules.flatMap((rule) => ["--allow-out", rule]);

async function testNames(guest: IdleGuest, t: Deno.TestContext): Promise<void> {
  const [name4, name6] = [`tcp ${v4(At.ALLOWED)} ${PORT}`, `tcp ${v6(At.ALLOWED)} ${PORT}`];
  await t.step("addresses are refused before anybody has asked for their names", async () => {
    await assertReaches(guest, [], [name4, name6, `tcp ${v4(At.BELOW)} ${PORT}`]);
  });
  await t.step("what another server says opens nothing, on any port", async () => {
    for (const port of [53, EVIL_PORT]) {
      const answer = await dig(guest, `@${EVIL}`, "-p", `${port}`, "allowed.test");
      assertEquals(answer, v4(At.EVIL));
      await dig(guest, `@${EVIL}`, "-p", `${port}`, "allowed.test", "AAAA");
    }
    await assertReaches(guest, [], [v4(At.EVIL), v6(At.EVIL)].map((a) => `tcp ${a} ${PORT}`));
  });
  await t.step("an answer of the resolver opens its addresses, for the rule's port", async () => {
    assertEquals(await dig(guest, `@${Net.REMOTE4}`, "allowed.test"), v4(At.ALLOWED));
    await assertReaches(guest, [name4], [name6, `tcp ${v4(At.ALLOWED)} ${OTHER_PORT}`]);
    assertEquals(await dig(guest, `@${Net.REMOTE6}`, "allowed.test", "AAAA"), v6(At.ALLOWED));
    await assertReaches(guest, [name4, name6], [`udp ${v4(At.ALLOWED)} ${PORT}`]);
  });
  await t.step("*.NAME is about names below it", async () => {
    for (const name of ["a.b.wild.test", "A.B.Wild.Test", "wild.test"]) {
      assertMatch(await dig(guest, `@${Net.REMOTE4}`, name), /^198/);
    }
    const below = [`tcp ${v4(At.BELOW)} ${PORT}`, `udp ${v4(At.BELOW)} ${OTHER_PORT}`];
    await assertReaches(guest, below, [`tcp ${v4(At.PARENT)} ${PORT}`]);
  });
  await t.step("answers over TCP open nothing", async () => {
    assertEquals(await dig(guest, "+tcp", `@${Net.REMOTE4}`, "tcp.wild.test"), v4(At.BY_TCP));
    await assertReaches(guest, [], [`tcp ${v4(At.BY_TCP)} ${PORT}`]);
  });
  await t.step("a name does not open the host", async () => {
    for (const name of ["gateway.wild.test", "loopback.wild.test"]) {
      await dig(guest, `@${Net.REMOTE4}`, name);
      await dig(guest, `@${Net.REMOTE4}`, name, "AAAA");
    }
    const gateways = [Net.GATEWAY4, Net.GATEWAY6].map((a) => `tcp ${a} ${HOST_PORT}`);
    await assertReaches(guest, [], gateways);
  });
}

async function testAddresses(guest: IdleGuest, t: Deno.TestContext): Promise<void> {
  await t.step("literals are allowed by their address, port and protocol only", async () => {
    const [one4, one6] = [v4(At.LITERAL), v6(At.LITERAL)];
    await assertReaches(guest, [
      `tcp ${one4} ${PORT}`,
      `udp ${one4} ${PORT}`,
      `tcp ${one6} ${PORT}`,
    ], [
      `tcp ${one4} ${OTHER_PORT}`,
      `udp ${one6} ${PORT}`,
      `tcp ${v4(At.PARENT)} ${PORT}`,
      `udp ${v6(At.PARENT)} ${PORT}`,
    ]);
  });
  await t.step(
    "the gateway's address does not open the host's loopback, nor do other ports",
    async () => {
      const gateways = [Net.GATEWAY4, Net.GATEWAY6].map((a) => `${a} ${HOST_PORT}`);
      await assertReaches(guest, [], gateways.flatMap((a) => [`tcp ${a}`, `udp ${a}`]));
    },
  );
  await t.step("the splice path is closed", async () => {
    const asked = ["127.0.0.1", "::1"].map((a) => `${a} ${SPLICED}`);
    await assertReaches(guest, [], asked.flatMap((a) => [`tcp ${a}`, `udp ${a}`]));
  });
  await t.step("pings are refused", async () => {
    await assertReaches(guest, [], [`ping ${v4(At.LITERAL)}`, `ping ${v6(At.LITERAL)}`]);
  });
  await t.step("a forged source gains nothing, and is told why", async () => {
    for (
      const [of, other, code] of [[v4, "10.9.9.9", "3 13"], [v6, "2001:db8:99::9", "1 1"]] as const
    ) {
      const [good, bad] = [of(At.LITERAL), of(At.PARENT)];
      assertEquals(await forged(guest, "udp", other, bad, `${PORT}`), `icmp ${code}`);
      assertEquals(await forged(guest, "tcp", other, bad, `${PORT}`), "tcp RST ACK");
      assertEquals(await forged(guest, "tcp", other, good, `${PORT}`), "tcp SYN ACK");
    }
    const answer = await forged(guest, "udp", "10.9.9.9", v4(At.LITERAL), `${PORT}`);
    assertMatch(answer, /^udp 198\.51\.100\.16 25981 asked by 192\.0\.2\.2$/);
  });
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `policy: nothing but what is allowed is reached, whatever the guest tries${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await world(user);
      const spliced = ["-T", `${SPLICED}:${HOST_PORT}`, "-U", `${SPLICED}:${HOST_PORT}`];
      await t.step("without rules everything is reached, also by a forged source", async () => {
        const guest = await bed.idleGuest({ options: spliced });
        await assertReaches(guest, OPEN, []);
        const parent = v4(At.PARENT);
        assertEquals(await forged(guest, "tcp", "10.9.9.9", parent, `${PORT}`), "tcp SYN ACK");
        await guest.stop();
      });
      await using file = await policyFile(PROGRAM);
      const means = { "by rules": allow(...RULES), "by a program": ["--policy", file.path] };
      for (const [by, options] of Object.entries(means)) {
        await t.step(by, async (t) => {
          const guest = await bed.idleGuest({ options: [...spliced, ...options] });
          await testNames(guest, t);
          await testAddresses(guest, t);
          await guest.stop();
        });
      }
    },
  });
}

Deno.test({
  name: "policy: --deny-out denies by either address, --allow-out by the real one, and redirects",
  ...NEEDS,
  async fn(t) {
    await using bed = await world(false);
    const loopback = [`127.0.0.1 ${HOST_PORT}`, `::1 ${HOST_PORT}`];
    await t.step("--deny-out leaves the rest allowed", async () => {
      const deny = ["127.0.0.0/8", `${v4(At.PARENT)}:${PORT}/tcp`, Net.GATEWAY6, "mock.test"];
      const guest = await bed.idleGuest({ options: deny.flatMap((rule) => ["--deny-out", rule]) });
      const [parent, mocked] = [v4(At.PARENT), `tcp ${v4(At.MOCKED)} ${PORT}`];
      await assertReaches(guest, [`udp ${parent} ${PORT}`, `tcp ${parent} ${OTHER_PORT}`, mocked], [
        `tcp ${parent} ${PORT}`,
        `tcp ${Net.GATEWAY4} ${HOST_PORT}`,
        `udp ${Net.GATEWAY4} ${HOST_PORT}`,
        `tcp ${Net.GATEWAY6} ${HOST_PORT}`,
      ]);
      assertEquals(await dig(guest, `@${Net.REMOTE4}`, "mock.test"), v4(At.MOCKED));
      await assertReaches(guest, [`ping ${v4(At.ALLOWED)}`], [mocked]);
      await guest.stop();
    });
    await t.step(
      "the host's loopback is allowed by its own address, and traffic is redirected",
      async () => {
        const target = `127.0.0.1:${HOST_PORT}`;
        const rules = [
          target,
          `[::1]:${HOST_PORT}`,
          `mock.test:80=${target}`,
          `${v4(At.PARENT)}=${v4(At.BELOW)}`,
        ];
        const spliced = [
          "-T",
          `${SPLICED_ALLOWED}:${HOST_PORT}`,
          "-U",
          `${SPLICED_ALLOWED}:${HOST_PORT}`,
        ];
        const guest = await bed.idleGuest({
          options: [...spliced, ...allow(...rules, "any/icmp")],
        });
        const gateways = [Net.GATEWAY4, Net.GATEWAY6].map((a) => `${a} ${HOST_PORT}`);
        const inside = ["127.0.0.1", "::1"].map((a) => `${a} ${SPLICED_ALLOWED}`);
        const yes = [...gateways, ...inside].flatMap((a) => [`tcp ${a}`, `udp ${a}`]);
        await assertReaches(guest, [...yes, `ping ${v4(At.ALLOWED)}`, `ping ${v6(At.ALLOWED)}`], [
          `tcp ${v4(At.MOCKED)} 80`,
          `tcp ${v4(At.ALLOWED)} ${PORT}`,
        ]);
        assertEquals(await dig(guest, `@${Net.REMOTE4}`, "mock.test"), v4(At.MOCKED));
        const questions = [
          `tcp ${v4(At.MOCKED)} 80`,
          `udp ${v4(At.MOCKED)} 80`,
          `udp ${v4(At.PARENT)} ${PORT}`,
        ];
        const { stdout } = await guest.run(effectsCommand("ask", ...questions));
        assertEquals(stdout.trimEnd().split("\n").map((line) => line.replace(/ asked by.*/, "")), [
          ...questions.slice(0, 2).map((question) => `${question}: ${loopback[0]}`),
          `${questions[2]}: ${v4(At.BELOW)} ${PORT}`,
        ]);
        await assertReaches(guest, [], [`tcp ${v4(At.MOCKED)} ${PORT}`]);
        await guest.stop();
      },
    );
  },
});

Deno.test({
  name: "policy: a guest that takes the place of a resolver on the host is not believed",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await ip(bed.remote, [`addr add ${v4(At.EVIL)}/32 dev lo`]);
    const served = effectsCommand("serve", `${v4(At.EVIL)} ${PORT}`);
    await bed.serveRemote(served, { text: "ready\n" });
    const name = "203.0.113.53", records = [`allowed.test,${v4(At.EVIL)}`];
    const dns = ["--dns-forward", name, "--dns-host", "127.0.0.1", ...allow("allowed.test")];
    const question = `tcp ${v4(At.EVIL)} ${PORT}`;
    await t.step("the guest answers on port 53 of the host", async () => {
      const guest = await bed.idleGuest({ options: ["-u", "53", ...dns] });
      await guest.serve(dnsmasq(`${Net.HOST4},127.0.0.1`, 53, records), { udp: 53 });
      assertEquals(await dig(guest, `@${name}`, "allowed.test"), v4(At.EVIL));
      await assertReaches(guest, [], [question]);
      await guest.stop();
    });
    await t.step("the host's own resolver is believed there", async () => {
      await bed.serveHost(dnsmasq("127.0.0.1", 53, records), { udp: 53 });
      const guest = await bed.idleGuest({ options: dns });
      assertEquals(await dig(guest, `@${name}`, "allowed.test"), v4(At.EVIL));
      await assertReaches(guest, [question], []);
      await guest.stop();
    });
  },
});

Deno.test({
  name: "policy: what --map-guest-addr leads to is allowed by the host's address only",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const hosts = [Net.HOST4, Net.HOST6], mapped = ["203.0.113.8", "2001:db8:3::8"];
    const served = effectsCommand("serve", ...hosts.map((address) => `${address} ${HOST_PORT}`));
    await bed.serveHost(served, { text: "ready\n" });
    const options = mapped.flatMap((address) => ["--map-guest-addr", address]);
    const questions = mapped.flatMap((a) => [`tcp ${a} ${HOST_PORT}`, `udp ${a} ${HOST_PORT}`]);
    for (const [rules, yes] of [[allow(...mapped), []], [allow(...hosts), questions]]) {
      const guest = await bed.idleGuest({ options: [...options, ...rules!] });
      await assertReaches(guest, yes!, questions.slice(yes!.length));
      await guest.stop();
    }
  },
});
