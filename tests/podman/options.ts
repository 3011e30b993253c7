// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Steps of the test with podman: what `--network=pasta:OPTIONS` hands on.
 *
 * @module
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Net } from "../helpers/testbed.ts";
import type { Pasta } from "./machine.ts";
import { ANSWERS, HOST, HOST_PORT, HTTP_PORT, NAME, plainAddresses } from "./world.ts";
import { ask, fromMachine, tcpServer, type World } from "./world.ts";

/** What a container sees of the host must be as with Debian's pasta. */
export async function hostAddress(world: World): Promise<void> {
  const { machine, transcript } = world;
  machine.serve(["sh", "-c", `exec ${tcpServer(HOST_PORT, "host saw")}`]);
  await ask(fromMachine(world), `TCP:127.0.0.1:${HOST_PORT}`);
  await machine.pastaCalls();
  const other = "169.254.9.9", option = `--network=pasta:--map-guest-addr,${other}`;
  const cases: readonly (readonly [string, readonly string[]])[] = [
    [HOST, []],
    ["host.containers.internal", []],
    [other, [option]],
    [Net.GATEWAY4, ["--network=pasta:--map-gw"]],
    [`[${Net.GATEWAY6}]`, ["--network=pasta:--map-gw"]],
  ];
  for (const [name, args] of cases) {
    const line = `socat -t2 - TCP:${name}:${HOST_PORT} </dev/null`;
    const saw = async (pasta: Pasta) =>
      plainAddresses((await machine.container(args, line, pasta)).trim());
    const ours = await saw("tubetti");
    assertEquals(ours, await saw("debian"), name);
    transcript.note(`${name}: ${ours}`);
  }
  for (const call of (await machine.pastaCalls()).filter((_, i) => i % 4 === 0)) {
    transcript.note(call);
  }
  await machine.stopServers();
}

/** Podman's manual page has this line, for containers that expect slirp4netns' addresses. */
export async function ownAddresses(world: World): Promise<void> {
  const { machine, transcript, digest } = world;
  const words = "-a,10.0.2.0,-n,24,-g,10.0.2.2,--dns-forward,10.0.2.3,-m,1500";
  const args = [`--network=pasta:${words},--no-ndp,--no-dhcpv6,--no-dhcp`];
  const show = "ip -4 -o address | sed 's/.*inet //; s/ .*//'; ip -4 route; cat /etc/resolv.conf";
  const ours = await machine.container(args, show);
  assertMatch(ours, /^10\.0\.2\.0\/24$/m);
  assertMatch(ours, /^default via 10\.0\.2\.2 /m);
  assertMatch(ours, /^nameserver 10\.0\.2\.3$/m);
  transcript.note(ours);
  const fetch = `curl -sS --fail http://${Net.REMOTE4}:${HTTP_PORT}/file | sha256sum`;
  assertStringIncludes(await machine.container(args, fetch), digest);
  assertStringIncludes(await machine.container(args, `getent ahostsv4 ${NAME}`), ANSWERS[0]!);
}

export async function otherOptions({ machine }: World): Promise<void> {
  const only4 = await machine.container(
    ["--network=pasta:-4"],
    "ip -6 -br address show scope global",
  );
  assertEquals(only4, "");
  const name = await machine.container(["--network=pasta:-I,tap7,--mtu,1400"], "ip link show tap7");
  assertMatch(name, /tap7: .* mtu 1400 /);
  const pcap = "/tmp/container.pcap";
  await machine.container([`--network=pasta:--pcap,${pcap}`], `ping -c 1 ${Net.REMOTE4}`);
  const magic = await machine.root(["od", "-An", "-tx4", "-N4", pcap]);
  assertEquals(magic.stdout.trim(), "a1b2c3d4");
}
