// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Steps of the test with podman: what a container reaches, and from where it is reached.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { until } from "../helpers/run.ts";
import { Net } from "../helpers/testbed.ts";
import { explain } from "./machine.ts";
import { ANSWERS, HOST, HTTP_PORT, NAME, RESOLVER, STAY, UDP_PORT } from "./world.ts";
import { ask, clear, fromMachine, fromRemote, tcpServer, udpServer, type World } from "./world.ts";

export async function outbound({ machine, transcript, digest }: World): Promise<void> {
  transcript.note(await machine.container([], "ip -br address; ip route; ip -6 route"));
  for (const address of [Net.REMOTE4, `[${Net.REMOTE6}]`]) {
    const fetch = `curl -gsS --fail http://${address}:${HTTP_PORT}/file | sha256sum`;
    assertStringIncludes(await machine.container([], fetch), digest, address);
    const target = `${address}:${UDP_PORT}`;
    const udp = address.startsWith("[") ? `UDP6:${target}` : `UDP:${target}`;
    assertEquals(await machine.container([], `echo datagram | socat -t2 - ${udp}`), "datagram\n");
  }
  for (const address of [Net.REMOTE4, Net.REMOTE6]) {
    const text = await machine.container([], `ping -c 3 -i 0.2 ${address}`);
    assertMatch(text, /3 packets transmitted, 3 received, 0% packet loss/);
  }
  transcript.note((await machine.pastaCalls())[0]!);
}

export async function names({ machine, transcript }: World): Promise<void> {
  const file = await machine.container([], "cat /etc/resolv.conf /etc/hosts");
  assertMatch(file, new RegExp(`^nameserver ${RESOLVER}$`, "m"));
  assertMatch(file, new RegExp(`^${HOST}\\s+host.containers.internal`, "m"));
  transcript.note(file);
  for (const args of [[], ["--dns", RESOLVER], ["--dns", RESOLVER, "--dns-opt", "use-vc"]]) {
    const text = await machine.container(args, `getent ahosts ${NAME}`);
    for (const answer of ANSWERS) assertStringIncludes(text, answer, args.join(" "));
  }
  const missing = await machine.container(
    ["--dns", RESOLVER],
    "getent ahosts nobody.invalid || echo no",
  );
  assertEquals(missing, "no\n");
}

export async function publishedTcp(world: World): Promise<void> {
  const { machine, transcript } = world;
  await machine.pastaCalls();
  const remote = fromRemote(world), local = fromMachine(world);
  const seen: string[][] = [];
  for (const pasta of ["tubetti", "debian"] as const) {
    await machine.detached("web", ["-p", "8080:80/tcp"], `exec ${tcpServer(80)}`, pasta);
    seen.push([
      await ask(remote, `TCP:${Net.HOST4}:8080`),
      await ask(remote, `TCP6:[${Net.HOST6}]:8080`),
      await ask(local, "TCP:127.0.0.1:8080"),
      await ask(local, "TCP6:[::1]:8080"),
      await ask(local, `TCP:${Net.HOST4}:8080`),
    ]);
    await clear(world);
  }
  const [ours, debians] = seen;
  assertEquals(ours!.slice(0, 2), [`hello ${Net.GATEWAY4}`, `hello ${Net.GATEWAY6}`]);
  assertEquals(ours, debians);
  transcript.note((await machine.pastaCalls())[0]!);
}

export async function publishedUdp(world: World): Promise<void> {
  const { machine, transcript } = world;
  const args = ["-p", "5353:53/udp", "-p", "127.0.0.1:8081:81", "-p", "8090-8092:90-92"];
  await machine.detached("names", args, `${tcpServer(81)} & ${tcpServer(92)} & ${udpServer(53)}`);
  const remote = fromRemote(world), local = fromMachine(world);
  assertEquals(await ask(remote, `UDP:${Net.HOST4}:5353`), `hello ${Net.GATEWAY4}`);
  assertEquals(await ask(remote, `UDP6:[${Net.HOST6}]:5353`), `hello ${Net.GATEWAY6}`);
  assertMatch(await ask(local, "UDP:127.0.0.1:5353"), /^hello /);
  assertMatch(await ask(local, "TCP:127.0.0.1:8081"), /^hello /);
  assertMatch(await ask(remote, `TCP:${Net.HOST4}:8092`), /^hello /);
  const { code } = await world.bed.runRemote(["socat", "/dev/null", `TCP:${Net.HOST4}:8081`]);
  assertEquals(code, 1, "a port of the loopback address can be reached from elsewhere");
  transcript.note((await machine.pastaCalls())[0]!);
  await clear(world);
}

export async function automatic(world: World): Promise<void> {
  const { machine, transcript } = world;
  await machine.detached("auto", ["--network=pasta:-t,auto"], STAY);
  const connect = ["socat", "/dev/null", `TCP:${Net.HOST4}:8095`];
  assertEquals((await world.bed.runRemote(connect)).code, 1, "nobody listens yet");
  const server = await machine.podman([
    "exec",
    "-d",
    "auto",
    "sh",
    "-c",
    `exec ${tcpServer(8095)}`,
  ]);
  assertEquals(server.code, 0, explain(["podman", "exec"], server));
  const answer = await ask(fromRemote(world), `TCP:${Net.HOST4}:8095`);
  assertEquals(answer, `hello ${Net.GATEWAY4}`);
  await machine.podman(["exec", "auto", "pkill", "socat"]);
  const closed = async () => (await world.bed.runRemote(connect)).code === 1;
  assert(await until(closed), "the port stays open although nobody listens any more");
  transcript.note((await machine.pastaCalls())[0]!);
  await clear(world);
}
