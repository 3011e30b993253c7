// SPDX-License-Identifier: GPL-2.0-or-later
/** Options that switch something off: what is off then, and that all else still works. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { attempt, must } from "../helpers/run.ts";
import { type IdleGuest, Net, Testbed, UPLINK } from "../helpers/testbed.ts";

const PORT = 25711;
const DHCPV6_SERVER_PORT = 547; // RFC 8415 §7.2
const DHCPV6_CLIENT_PORT = 546;
const SECOND4 = "192.0.2.99";
const SECOND6 = "2001:db8:1::99";
const NEEDS = requirements({ packages: ["iproute2", "iputils-ping", "socat"], tubetti: true });

/** What can be asked of a guest's network. */
const PROBES = ["TCP4", "TCP6", "UDP4", "UDP6", "ping4", "ping6", "DHCPv6"] as const;
type Probe = (typeof PROBES)[number];

/** Starts servers on the remote that send back what they get. */
async function serveEcho(bed: Testbed): Promise<void> {
  for (const family of [4, 6] as const) {
    const { remote } = Testbed.addresses(family);
    const own = family === 4 ? `bind=${remote}` : `ipv6only=1,bind=[${remote}]`;
    const port = PORT + family;
    await bed.serveRemote(["socat", `TCP${family}-LISTEN:${port},fork,${own}`, "EXEC:cat"], {
      tcp: port,
    });
    await bed.serveRemote(["socat", `UDP${family}-RECVFROM:${port},fork,${own}`, "EXEC:cat"], {
      udp: port,
    });
  }
}

/** A DHCPv6 SOLICIT (RFC 8415 §8, §21.2, §21.4) with a client's DUID and a request for an address. */
const SOLICIT = "\\001\\001\\002\\003" +
  "\\000\\001\\000\\012\\000\\003\\000\\001\\002\\000\\000\\000\\000\\011" +
  "\\000\\003\\000\\014\\000\\000\\000\\001\\000\\000\\000\\000\\000\\000\\000\\000";
/** Type of an ADVERTISE in octal (RFC 8415 §7.3). */
const ADVERTISE = "002";

/** Asks once. @returns whether there was an answer within a second or two */
async function answers(guest: IdleGuest, probe: Probe): Promise<boolean> {
  const family = probe.endsWith("4") ? 4 : 6;
  const { remote } = Testbed.addresses(family);
  if (probe.startsWith("ping")) {
    return (await guest.run(["ping", `-${family}`, "-n", "-c", "1", "-W", "1", remote])).code === 0;
  }
  if (probe === "DHCPv6") {
    const to = `UDP6-DATAGRAM:[ff02::1:2%${UPLINK}]:${DHCPV6_SERVER_PORT}`;
    const line =
      `printf '${SOLICIT}' | socat -t 1 - ${to},bind=[::]:${DHCPV6_CLIENT_PORT} | od -An -b`;
    return (await guest.run(["sh", "-c", line])).stdout.trim().startsWith(ADVERTISE);
  }
  const host = family === 4 ? remote : `[${remote}]`;
  const more = probe.startsWith("TCP") ? ",connect-timeout=1" : "";
  const to = `${probe}:${host}:${PORT + family}${more}`;
  const { stdout } = await guest.run(["socat", "-t", "1", "-", to], { stdin: "echo\n" });
  return stdout === "echo\n";
}

/** Options, and the probes that have no answer with them. */
const OFF: readonly [string[], readonly Probe[]][] = [
  [[], []],
  [["--no-tcp"], ["TCP4", "TCP6"]],
  [["--no-udp"], ["UDP4", "UDP6"]],
  [["--no-icmp"], ["ping4", "ping6"]],
  [["--no-dhcpv6"], ["DHCPv6"]],
  [["--no-ndp"], ["TCP6", "UDP6", "ping6"]],
  [["-4"], ["TCP6", "UDP6", "ping6", "DHCPv6"]],
  [["-6"], ["TCP4", "UDP4", "ping4"]],
  [["-4", "-6", "-4"], ["TCP6", "UDP6", "ping6", "DHCPv6"]],
];

/** Whether the first question about each protocol is answered where it should. */
async function check(guest: IdleGuest, off: readonly Probe[]): Promise<void> {
  for (const probe of PROBES) {
    const expected = !off.includes(probe);
    const there = () => answers(guest, probe);
    const found = expected ? await attempt(there, (answer) => answer) : await there();
    assertEquals(found, expected, probe);
  }
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `options: what --no-tcp and its like switch off is off, and all else works${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await serveEcho(bed);
      for (const [options, off] of OFF) {
        await t.step(options.join(" ") || "none", async () => {
          const guest = await bed.idleGuest({ options });
          await check(guest, off);
          await guest.stop();
        });
      }
    },
  });
}

/** Addresses and routes of a guest, one a line. */
async function configured(bed: Testbed, options: string[]): Promise<string[]> {
  const lines = "ip -o addr show scope global; ip route; ip -6 route";
  const { code, stdout, stderr } = await bed.guest(["sh", "-c", lines], { options });
  assertEquals(code, 0, stderr);
  return stdout.split("\n");
}

Deno.test({
  name:
    "options: --no-copy-addrs leaves one address of a family, --no-copy-routes the default route",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const more = [
      `addr add ${SECOND4}/24 dev ${UPLINK}`,
      `addr add ${SECOND6}/64 dev ${UPLINK} nodad`,
      `route add 10.50.0.0/16 via ${Net.GATEWAY4} dev ${UPLINK}`,
      `route add 2001:db8:50::/48 via ${Net.GATEWAY6} dev ${UPLINK}`,
    ];
    await must(["ip", "-n", bed.host, "-batch", "-"], { stdin: `${more.join("\n")}\n` });
    const count = (lines: string[], pattern: RegExp) =>
      lines.filter((line) => pattern.test(line)).length;
    for (
      const [options, addresses, routes] of [
        [[], 4, 2],
        [["--no-copy-addrs"], 2, 2],
        [["--no-copy-routes"], 4, 0],
        [["--no-copy-addrs", "--no-copy-routes"], 2, 0],
      ] as [string[], number, number][]
    ) {
      await t.step(options.join(" ") || "neither", async () => {
        const lines = await configured(bed, options);
        const text = lines.join("\n");
        assertEquals(count(lines, / inet6? /), addresses, text);
        assertEquals(count(lines, /^(10\.50|2001:db8:50:)/), routes, text);
        assertMatch(text, new RegExp(`^default via ${Net.GATEWAY4} `, "m"));
        assertMatch(text, new RegExp(`^default via ${Net.GATEWAY6} `, "m"));
      });
    }
  },
});

Deno.test({
  name: "options: cut short and in any order, they mean the same; of two, the last one counts",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const options = [
      "--no-copy-a",
      "--mt",
      "1400",
      "-I",
      "first",
      "--ns-if=second",
      "-6",
      "-4",
      "-e",
    ];
    const { stdout, stderr } = await bed.guest(["ip", "-o", "link"], { options });
    assertMatch(stdout, /: second: .* mtu 1400 /);
    assert(!stdout.includes("first"), stdout);
    assert(!stderr.includes("IPv6"), stderr);
  },
});

Deno.test({
  name: "options: a wrong one ends the start with 1 and one line, and leaves nothing",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create({ isolated: true });
    for (
      const [options, line] of [
        [["--confg-net"], "--confg-net: unknown option (did you mean --config-net?)"],
        [
          ["--no-d"],
          "--no-d: not clear which of --no-dhcp-dns, --no-dhcp-search, --no-dhcp, " +
          "--no-dhcpv6 is meant",
        ],
        [["--vhost-user"], "--vhost-user: only for passt, not for pasta"],
        [["--splice-only"], "--splice-only: not available yet"],
        [["--netns", "/nowhere"], "true: --netns takes neither PID nor command"],
      ] as [string[], string][]
    ) {
      await t.step(options.join(" "), async () => {
        const { code, stdout, stderr } = await bed.guest(["true"], { options });
        assertEquals([code, stdout, stderr], [1, "", `tubetti: ${line}\n`]);
        assertEquals(bed.engineProcesses(), []);
      });
    }
  },
});
