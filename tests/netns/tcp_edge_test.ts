// SPDX-License-Identifier: GPL-2.0-or-later
/** TCP off the beaten track: slow readers, half-closed connections, resets, refusals, loss. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { edge, edgeCommand, type EdgeResult } from "../helpers/edge.ts";
import { iperf, type IperfReport } from "../helpers/iperf.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, must } from "../helpers/run.ts";
import { type IdleGuest, Testbed } from "../helpers/testbed.ts";

const PORT = 25421;
const CLOSED_PORT = 25429;
const NEEDS = requirements({ packages: ["python3"] });

/** Refusals must come at once, not after a SYN sent again a second later (RFC 6298 §2.1). */
const AT_ONCE_MS = 900;

/** Tries to connect, again where it takes long; {@linkcode assert} on what comes back. */
function connectAtOnce(guest: IdleGuest, server: string, port: number): Promise<EdgeResult> {
  return attempt(() => edge(guest, "connect", server, port), ({ ms }) => ms! < AT_ONCE_MS);
}

/**
 * The kernel reports an unreachable IPv6 network when the first SYN sent again meets it, after a
 * second; the next one would follow two seconds later.
 */
const UNREACHABLE_MS = 2_900;

/** Longest time for 30 MB whose beginning is read slowly; it takes two seconds. */
const SLOW_READER_SECONDS = 12;

type Conversation = (guest: IdleGuest, server: string) => Promise<void>;

const CONVERSATIONS: Record<string, Conversation> = {
  "a server that reads slowly gets everything": async (guest, server) => {
    assertEquals((await edge(guest, "client", server, PORT, "slow_server")).equal, true);
  },
  "a guest that reads slowly gets everything": async (guest, server) => {
    const { seconds } = await attempt(
      () => edge(guest, "client", server, PORT, "slow_client"),
      ({ seconds }) => seconds! < SLOW_READER_SECONDS,
    );
    assert(seconds! < SLOW_READER_SECONDS, `${seconds} s`);
  },
  "the guest half-closes and still receives": async (guest, server) => {
    const { reply } = await edge(guest, "client", server, PORT, "half_client");
    assertEquals(reply, "100000 bytes");
  },
  "the server half-closes and still receives": async (guest, server) => {
    const { reply } = await edge(guest, "client", server, PORT, "half_server");
    assertEquals(reply, "from server");
    assertEquals((await edge(guest, "client", server, PORT, "last")).reply, "100000 bytes");
  },
  "a reset by the server reaches the guest": async (guest, server) => {
    const { error } = await edge(guest, "client", server, PORT, "reset_server");
    assertEquals(error, "ECONNRESET");
  },
  "a reset by the guest reaches the server": async (guest, server) => {
    await edge(guest, "client", server, PORT, "reset_client");
    assertEquals((await edge(guest, "client", server, PORT, "last")).reply, "ECONNRESET");
  },
  "a closed port refuses at once": async (guest, server) => {
    const { error, ms } = await connectAtOnce(guest, server, CLOSED_PORT);
    assertEquals(error, "ECONNREFUSED");
    assert(ms! < AT_ONCE_MS, `${ms} ms`);
  },
};

for (const user of [false, true]) {
  Deno.test({
    name: `tcp_edge: conversations${user ? ", as an ordinary user" : ""}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await bed.serveRemote(edgeCommand("server", PORT), { tcp: PORT });
      const guest = await bed.idleGuest({ options: ["-m", "1500"] });
      for (const family of [4, 6] as const) {
        for (const [name, conversation] of Object.entries(CONVERSATIONS)) {
          const server = Testbed.addresses(family).remote;
          await t.step(`${name}, IPv${family}`, () => conversation(guest, server));
        }
      }
    },
  });
}

Deno.test({
  name: "tcp_edge: an unreachable destination fails soon, by ICMP or reset",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const routes = ["192.0.2.128/25", "203.0.113.0/24", "2001:db8:3::/64"];
    for (const route of routes.slice(1)) {
      await must(["ip", "-n", bed.remote, "route", "add", "unreachable", route]);
    }
    await must(["ip", "-n", bed.host, "route", "add", "unreachable", "233.252.0.0/24"]);
    const guest = await bed.idleGuest();
    for (const server of ["203.0.113.2", "2001:db8:3::2", "233.252.0.1"]) {
      await t.step(server, async () => {
        const { error, ms } = await edge(guest, "connect", server, PORT);
        assertMatch(error!, /^(EHOSTUNREACH|ENETUNREACH|ECONNREFUSED|ECONNRESET)$/);
        assert(ms! < UNREACHABLE_MS, `${ms} ms`);
      });
    }
  },
});

Deno.test({
  name: "tcp_edge: segments fit the MTU given",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await bed.serveRemote(edgeCommand("server", PORT), { tcp: PORT });
    for (const mtu of [1280, 1500, 9000]) {
      const guest = await bed.idleGuest({ options: ["-m", `${mtu}`] });
      for (const family of [4, 6] as const) {
        const { mss } = await edge(guest, "mss", Testbed.addresses(family).remote, PORT);
        const headers = family === 4 ? 40 : 60;
        // timestamps take 12 bytes more
        assert(mss! <= mtu - headers && mss! >= mtu - headers - 12, `${mss} at MTU ${mtu}`);
      }
      await guest.stop();
    }
  },
});

/** Name of the guest's interface other than the loopback one. */
async function tapName(guest: IdleGuest): Promise<string> {
  const { stdout } = await guest.run(["ip", "-o", "link", "show", "up"]);
  const names = [...stdout.matchAll(/^\d+: ([^:@]+)/gm)].map((match) => match[1]!);
  return names.find((name) => name !== "lo")!;
}

/** What every second of a connection must carry; one that waits for timers only does far less. */
const LEAST_LOSSY_GBPS = 0.02;

/** Rules for nft(8): one frame in a hundred is lost in each direction. */
function lossRules(device: string): string {
  const chains = ["ingress", "egress"].map((hook) =>
    `chain ${hook} { type filter hook ${hook} device "${device}" priority 0;
      numgen random mod 100 == 0 drop; }`
  );
  return `table netdev loss {\n${chains.join("\n")}\n}\n`;
}

Deno.test({
  name: "tcp_edge: lost frames are recovered without stalls",
  ...requirements({ packages: ["iperf3", "nftables"], tubetti: true }),
  async fn(t) {
    await using bed = await Testbed.create();
    const serve = bed.serveRemote.bind(bed);
    for (const mtu of [1500, 65520]) {
      const guest = await bed.idleGuest({ options: ["-m", `${mtu}`] });
      const tap = await tapName(guest);
      await must(guest.enter(["nft", "-f", "-"]), { stdin: lossRules(tap) });
      for (const reverse of [false, true]) {
        await t.step(`MTU ${mtu}, ${reverse ? "host to guest" : "guest to host"}`, async () => {
          const server = Testbed.addresses(4).remote;
          const how = { server, port: PORT, seconds: 4, reverse };
          const slowest = ({ samples }: IperfReport) => Math.min(...samples);
          const report = await attempt(
            () => iperf(guest, serve, how),
            (report) => report.error === "" && slowest(report) > LEAST_LOSSY_GBPS,
          );
          assertEquals(report.error, "");
          assert(slowest(report) > LEAST_LOSSY_GBPS, `samples ${report.samples} Gb/s`);
        });
      }
      await guest.stop();
    }
  },
});
