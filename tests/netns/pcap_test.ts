// SPDX-License-Identifier: GPL-2.0-or-later
/** What --pcap writes, decoded by tshark: no malformed frame, no bad checksum, nothing missing. */
import { assert, assertEquals } from "@std/assert";
import { edgeCommand } from "../helpers/edge.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { describe, run } from "../helpers/run.ts";
import { Net, Testbed } from "../helpers/testbed.ts";

const PORT = 25481;
const CLOSED_PORT = 25489;
const MODE_ALL = 0o777;
const NEEDS = requirements({
  packages: ["tshark", "gcc", "python3", "iputils-ping", "traceroute", "udhcpc", "isc-dhcp-client"],
});

const CHECKED = ["ip", "tcp", "udp"].flatMap((name) => ["-o", `${name}.check_checksum:TRUE`]);
/** What the test's programs say on ports of no meaning is no protocol that tshark may know there. */
const AS_DATA = ["tcp", "udp"].flatMap((name) => ["-d", `${name}.port==1024-65535,data`]);

/** Status of a bad checksum in tshark's `*.checksum.status`. */
const BAD = ["ip", "tcp", "udp", "icmp", "icmpv6"].map((name) => `${name}.checksum.status == 0`);

/** Lines of frames that match a display filter. */
async function frames(file: string, filter: string): Promise<string[]> {
  const command = ["tshark", "-n", "-r", file, ...CHECKED, ...AS_DATA, "-Y", filter];
  const result = await run(command, { timeoutMs: 120_000 });
  assertEquals(result.code, 0, describe(command, result));
  return result.stdout.split("\n").filter((line) => line !== "");
}

/** Runs shell lines in a guest with --pcap and hands the file to `check`. */
async function record(
  bed: Testbed,
  lines: readonly string[],
  options: { options: string[]; unconfigured?: boolean },
  check: (file: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-pcap-` });
  try {
    await Deno.chmod(folder, MODE_ALL);
    const file = `${folder}/frames.pcap`;
    const command = ["/bin/sh", "-c", lines.join("\n")];
    const own = [...options.options, "--pcap", file];
    const result = await bed.guest(command, { ...options, options: own, timeoutMs: 180_000 });
    assertEquals(result.code, 0, describe(command, result));
    const wrong = await frames(file, ["_ws.malformed", "_ws.short", ...BAD].join(" || "));
    assertEquals(wrong.slice(0, 10), []);
    await check(file);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function traffic(bed: Testbed): Promise<string[]> {
  const program = await peer();
  await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
  const quoted = (...args: (string | number)[]) => edgeCommand(...args).join(" ");
  return [Net.REMOTE4, Net.REMOTE6].flatMap((address) => [
    `ping -n -i 0.1 -c 12 -W 5 -s 1000 ${address}`,
    `${program} short ${address} ${PORT} 50 100000 10`,
    quoted("udp", address, PORT, 0, 1, 17, 1000, 1400),
    quoted("udpmany", address, PORT, 20),
    quoted("udperror", address, CLOSED_PORT),
    quoted("connect", address, CLOSED_PORT),
    `traceroute -n -q 1 -w 5 -m 3 ${address}`,
  ]).concat("true");
}

/** Frames whose checksums tshark has found good: they are complete, not left to a device. */
const GOOD = ["tcp", "udp", "icmp", "icmpv6"].map((name) => `${name}.checksum.status == 1`);

/** Kinds of frames that the traffic must have made. */
const KINDS = ["arp", "icmp.type == 0", "icmp.type == 3", "icmpv6.type == 129"].concat(
  ["icmpv6.type == 136", "tcp.len > 1000 && ip.dst == 192.0.2.2", "udp.length == 8 && ip"],
  ["icmpv6.type == 1", "tcp.flags.reset == 1", "ipv6 && tcp.len > 1000", "ipv6 && udp"],
);

for (const [mtu, user] of [[1500, false], [65520, false], [1500, true]] as const) {
  const as = user ? ", as an ordinary user" : "";
  Deno.test({
    name: `pcap: frames of mixed traffic are well-formed at MTU ${mtu}${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      const lines = await traffic(bed);
      await record(bed, lines, { options: ["-m", `${mtu}`] }, async (file) => {
        for (const kind of [...KINDS, ...GOOD]) {
          assert((await frames(file, kind)).length > 0, `no frame has ${kind}`);
        }
      });
    },
  });
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `pcap: frames of DHCP, DHCPv6 and router discovery are well-formed${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      const options = ["-I", "tap0", "--dhcp-dns", "--dhcp-search", "-m", "1500"];
      const lines = [
        "ip link set tap0 up",
        "timeout 60 udhcpc -i tap0 -n -q -f -s /bin/true 2>&1",
        "for i in $(seq 300); do ip -6 addr show dev tap0 -tentative | grep -q fe80 && break; sleep 0.1; done",
        // goes to the background once it has an address
        "timeout 60 dhclient -6 -1 -cf /dev/null -lf /dev/null -pf /dev/null -sf /bin/true tap0 2>&1",
        "true",
      ];
      await record(bed, lines, { options, unconfigured: true }, async (file) => {
        const kinds = ["dhcp.option.dhcp == 2", "dhcp.option.dhcp == 5", "icmpv6.type == 134"];
        for (const kind of [...kinds, "dhcpv6.msgtype == 2", "dhcpv6.msgtype == 7"]) {
          assert((await frames(file, kind)).length > 0, `no frame has ${kind}`);
        }
      });
    },
  });
}

Deno.test({
  name: "pcap: a file that cannot be written is one line, exit 1",
  ...requirements(),
  async fn() {
    await using bed = await Testbed.create();
    const result = await bed.guest(["true"], { options: ["--pcap", "/nonexistent/frames.pcap"] });
    assertEquals(result.code, 1);
    assertEquals(result.stderr.trim().split("\n").length, 1, result.stderr);
  },
});
