// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Podman with this program as its `pasta`: containers of an ordinary user in a Debian 13 machine.
 *
 * Run by `deno task test:podman`, not by the other tests: it needs a Debian root, which it builds
 * once (`scripts/podman_root.ts`). What it showed last is in `last_output.txt`.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { podmanRoot } from "../../scripts/podman_root.ts";
import { PYTHON } from "../helpers/edge.ts";
import { requirements } from "../helpers/require.ts";
import { type Result, run, until } from "../helpers/run.ts";
import { Net, Testbed } from "../helpers/testbed.ts";
import { explain, Machine, type Pasta, ROOTFS } from "./machine.ts";
import { Transcript } from "./transcript.ts";

const HTTP_PORT = 25451;
const UDP_PORT = 25452;
const HOST_PORT = 25461;
const NAME = "printer.example.com";
const ANSWERS = ["192.0.2.77", "2001:db8::77"];
/** Address of the resolver, and of the host, that podman gives to containers. */
const RESOLVER = "169.254.1.1", HOST = "169.254.1.2";
const FILE_BYTES = 20_000_000;
const STAY = "exec sleep 3600";

/** The root, or why there is none. */
async function rootOrReason(): Promise<{ root: string; reason: string }> {
  if (Deno.uid() !== 0) return { root: "", reason: "" }; // the requirements say so
  try {
    return { root: await podmanRoot(), reason: "" };
  } catch (error) {
    return { root: "", reason: String(error) };
  }
}

const { root, reason } = await rootOrReason();
if (reason !== "") console.log(`Skipped, no Debian root: ${reason}`);
const needs = requirements({ packages: ["socat", "python3", "dnsmasq-base"], tubetti: true });

/** A server in a container, or on the machine, that says who asked. */
const tcpServer = (port: number, says = "hello") =>
  `socat TCP6-LISTEN:${port},fork,reuseaddr,ipv6only=0 SYSTEM:'echo ${says} $SOCAT_PEERADDR'`;
const udpServer = (port: number) =>
  `socat UDP6-RECVFROM:${port},fork,ipv6only=0 SYSTEM:'echo hello $SOCAT_PEERADDR'`;

/** What a test works with. */
interface World {
  readonly bed: Testbed;
  readonly machine: Machine;
  readonly transcript: Transcript;
  /** SHA-256 of the file that the remote serves. */
  readonly digest: string;
}

/** Asks a server of {@linkcode tcpServer} or {@linkcode udpServer} until it answers. */
async function ask(run: (command: string[]) => Promise<Result>, target: string): Promise<string> {
  let text = "";
  await until(async () => {
    const line = `echo question | timeout 10 socat -t2 - ${target}`;
    text = (await run(["sh", "-c", line])).stdout.trim();
    return text !== "";
  });
  return text;
}

const fromRemote = ({ bed }: World) => (command: string[]) => bed.runRemote(command);
const fromMachine = ({ machine }: World) => (command: string[]) => machine.root(command);

/** Ends all containers; nothing may be left of them. */
async function clear({ machine }: World): Promise<void> {
  const removed = await machine.podman(["rm", "-f", "-a", "-t", "0"]);
  assertEquals(removed.code, 0, explain(["podman", "rm"], removed));
  assertEquals(await machine.leftovers(), []);
  const { stdout } = await machine.root(["ls", "/run/user/1000/netns"]);
  assertEquals(stdout, "", "network namespaces that are still mounted");
}

async function versions({ machine, transcript }: World): Promise<void> {
  for (const command of [["podman", "--version"], ["crun", "--version"], ["pasta", "--version"]]) {
    transcript.note((await machine.root(command)).stdout.split("\n")[0]!);
  }
}

async function outbound({ machine, transcript, digest }: World): Promise<void> {
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

async function names({ machine, transcript }: World): Promise<void> {
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

async function publishedTcp(world: World): Promise<void> {
  const { machine, transcript } = world;
  await machine.pastaCalls();
  await machine.detached("web", ["-p", "8080:80/tcp"], `exec ${tcpServer(80)}`);
  const remote = fromRemote(world), local = fromMachine(world);
  assertEquals(await ask(remote, `TCP:${Net.HOST4}:8080`), `hello ::ffff:${Net.GATEWAY4}`);
  assertEquals(await ask(remote, `TCP6:[${Net.HOST6}]:8080`), `hello ${Net.GATEWAY6}`);
  transcript.note(`from the host's loopback: ${await ask(local, "TCP:127.0.0.1:8080")}`);
  transcript.note(`from the host's loopback: ${await ask(local, "TCP6:[::1]:8080")}`);
  transcript.note((await machine.pastaCalls())[0]!);
  await clear(world);
}

async function publishedUdp(world: World): Promise<void> {
  const { machine, transcript } = world;
  const args = ["-p", "5353:53/udp", "-p", "127.0.0.1:8081:81", "-p", "8090-8092:90-92"];
  await machine.detached("names", args, `${tcpServer(81)} & ${tcpServer(92)} & ${udpServer(53)}`);
  const remote = fromRemote(world), local = fromMachine(world);
  assertEquals(await ask(remote, `UDP:${Net.HOST4}:5353`), `hello ::ffff:${Net.GATEWAY4}`);
  assertEquals(await ask(remote, `UDP6:[${Net.HOST6}]:5353`), `hello ${Net.GATEWAY6}`);
  assertMatch(await ask(local, "UDP:127.0.0.1:5353"), /^hello /);
  assertMatch(await ask(local, "TCP:127.0.0.1:8081"), /^hello /);
  assertMatch(await ask(remote, `TCP:${Net.HOST4}:8092`), /^hello /);
  const { code } = await world.bed.runRemote(["socat", "/dev/null", `TCP:${Net.HOST4}:8081`]);
  assertEquals(code, 1, "a port of the loopback address can be reached from elsewhere");
  transcript.note((await machine.pastaCalls())[0]!);
  await clear(world);
}

async function automatic(world: World): Promise<void> {
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
  assertEquals(answer, `hello ::ffff:${Net.GATEWAY4}`);
  await machine.podman(["exec", "auto", "pkill", "socat"]);
  const closed = async () => (await world.bed.runRemote(connect)).code === 1;
  assert(await until(closed), "the port stays open although nobody listens any more");
  transcript.note((await machine.pastaCalls())[0]!);
  await clear(world);
}

/** What a container sees of the host must be as with Debian's pasta. */
async function hostAddress(world: World): Promise<void> {
  const { machine, transcript } = world;
  const server = machine.serve(["sh", "-c", `exec ${tcpServer(HOST_PORT, "host saw")}`]);
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
    const saw = async (pasta: Pasta) => (await machine.container(args, line, pasta)).trim();
    const ours = await saw("tubetti");
    assertEquals(ours, await saw("debian"), name);
    transcript.note(`${name}: ${ours}`);
  }
  for (const call of (await machine.pastaCalls()).slice(4, 6)) transcript.note(call);
  await server.stop();
}

/** Podman's manual page has this line, for containers that expect slirp4netns' addresses. */
async function ownAddresses(world: World): Promise<void> {
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

async function otherOptions({ machine }: World): Promise<void> {
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

const MANY = [1, 2, 3, 4, 5];

async function several(world: World): Promise<void> {
  const { machine, transcript, digest } = world;
  await Promise.all(
    MANY.map((n) =>
      machine.detached(`c${n}`, ["-p", `${8100 + n}:80`], `exec ${tcpServer(80, `I am ${n},`)}`)
    ),
  );
  assertEquals((await machine.engines()).length, MANY.length);
  const remote = fromRemote(world);
  await Promise.all(MANY.map(async (n) => {
    const answer = await ask(remote, `TCP:${Net.HOST4}:${8100 + n}`);
    assertEquals(answer, `I am ${n}, ::ffff:${Net.GATEWAY4}`);
  }));
  const fetch = `curl -sS --fail http://${Net.REMOTE4}:${HTTP_PORT}/file | sha256sum`;
  await Promise.all(MANY.map(async (n) => {
    const result = await machine.podman(["exec", `c${n}`, "sh", "-c", fetch]);
    assertStringIncludes(result.stdout, digest, explain(["podman", "exec"], result));
  }));
  const { stdout } = await machine.root(["ps", "-eo", "rss=,args="]);
  const rss = stdout.split("\n").filter((line) => line.includes(" --config-net "))
    .map((line) => Math.round(parseInt(line) / 1024));
  transcript.note(`resident memory of each, shared pages included: ${rss.join(", ")} MiB`);
  await clear(world);
}

/** However a container ends, what served it goes. */
async function ends(world: World): Promise<void> {
  const { machine, transcript } = world;
  const ways: Record<string, readonly string[]> = {
    stop: ["stop", "-t", "1", "one"],
    kill: ["kill", "one"],
    "rm -f": ["rm", "-f", "-t", "0", "one"],
  };
  for (const [way, args] of Object.entries(ways)) {
    await machine.detached("one", ["-p", "8080:80"], STAY);
    assertEquals((await machine.engines()).length, 1);
    const began = performance.now();
    const result = await machine.podman(args);
    assertEquals(result.code, 0, explain(args, result));
    assertEquals(await machine.leftovers(), [], way);
    transcript.note(`podman ${way}: all gone after ${Math.round(performance.now() - began)} ms`);
    await clear(world);
  }
  await machine.detached("one", [], "sleep 1");
  assertEquals(await machine.leftovers(), [], "a container that ended itself");
  await clear(world);
}

async function restarts(world: World): Promise<void> {
  const { machine } = world;
  await machine.detached("again", ["-p", "8080:80"], `exec ${tcpServer(80)}`);
  for (
    const args of [["restart", "-t", "0", "again"], ["stop", "-t", "0", "again"], [
      "start",
      "again",
    ]]
  ) {
    const result = await machine.podman(args);
    assertEquals(result.code, 0, explain(args, result));
  }
  assertMatch(await ask(fromRemote(world), `TCP:${Net.HOST4}:8080`), /^hello /);
  assertEquals((await machine.engines()).length, 1);
  await clear(world);
}

/** Podman shows what pasta says, and leaves nothing behind. */
async function failures(world: World): Promise<void> {
  const { machine, transcript } = world;
  const server = machine.serve(["sh", "-c", `exec ${tcpServer(8080)}`]);
  await ask(fromMachine(world), "TCP:127.0.0.1:8080");
  for (
    const args of [["-p", "8080:80"], ["--network=pasta:--nonsense"], ["--network=pasta:-m,7"]]
  ) {
    const result = await machine.podman(["run", "--rm", ...args, ...ROOTFS, "true"]);
    assert(result.code !== 0, args.join(" "));
    assertMatch(result.stderr, /^Error: pasta failed with exit code 1:\n.*\S/);
    transcript.note(result.stderr);
    assertEquals(await machine.engines(), []);
  }
  await server.stop();
  await clear(world);
}

/** Containers of a pod share the network of its first one. */
async function pods(world: World): Promise<void> {
  const { machine } = world;
  const make = ["pod", "create", "--name", "pod", "--network=pasta", "-p", "8080:80"];
  const made = await machine.podman(make);
  assertEquals(made.code, 0, explain(make, made));
  await machine.detached("member", ["--pod", "pod"], `exec ${tcpServer(80)}`);
  assertMatch(await ask(fromRemote(world), `TCP:${Net.HOST4}:8080`), /^hello /);
  const result = await machine.podman(["pod", "rm", "-f", "-t", "0", "pod"]);
  assertEquals(result.code, 0, explain(["podman", "pod"], result));
  await clear(world);
}

/** Bridge networks of an ordinary user lie in a namespace of podman's, which has a pasta, too. */
async function bridges(world: World): Promise<void> {
  const { machine, transcript } = world;
  await machine.pastaCalls();
  const made = await machine.podman(["network", "create", "--ipv6", "net1"]);
  assertEquals(made.code, 0, explain(["podman", "network"], made));
  const { digest } = world;
  for (const address of [Net.REMOTE4, `[${Net.REMOTE6}]`]) {
    const fetch = `curl -gsS --fail http://${address}:${HTTP_PORT}/file | sha256sum`;
    assertStringIncludes(await machine.container(["--network=net1"], fetch), digest);
  }
  assertStringIncludes(
    await machine.container(["--network=net1"], `getent ahosts ${NAME}`),
    ANSWERS[0]!,
  );
  for (const call of (await machine.pastaCalls()).slice(0, 1)) transcript.note(call);
  await machine.podman(["network", "rm", "-f", "net1"]);
  await clear(world);
}

const ROUNDS = 7;

const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

/** Time of `podman run --rm true`, and what of it is pasta's. */
async function startTimes({ machine, transcript }: World): Promise<void> {
  const kinds = ["none", "debian", "tubetti"] as const;
  const times = new Map<string, number[]>(kinds.map((kind) => [kind, []]));
  for (let round = 0; round < ROUNDS; round++) {
    for (const kind of kinds) {
      const network = kind === "none" ? "none" : "pasta";
      const pasta = kind === "tubetti" ? "tubetti" : "debian";
      const args = ["run", "--rm", `--network=${network}`, ...ROOTFS, "true"];
      const result = await machine.podman(args, { pasta });
      assertEquals(result.code, 0, explain(args, result));
      times.get(kind)!.push(result.ms);
    }
  }
  const [none, debian, tubetti] = kinds.map((kind) => Math.round(median(times.get(kind)!)));
  transcript.note(
    `podman run --rm … true, median of ${ROUNDS}: without network ${none} ms, ` +
      `Debian's pasta ${debian} ms, this one ${tubetti} ms`,
  );
}

const STEPS: Record<string, (world: World) => Promise<void>> = {
  "versions": versions,
  "a container reaches others by TCP, UDP and ping, IPv4 and IPv6": outbound,
  "a container resolves names through 169.254.1.1": names,
  "-p 8080:80/tcp": publishedTcp,
  "-p 5353:53/udp, one address, a range": publishedUdp,
  "--network=pasta:-t,auto": automatic,
  "the host's address: --map-guest-addr, host.containers.internal, --map-gw": hostAddress,
  "addresses, gateway, resolver and MTU of one's own": ownAddresses,
  "-4, -I, --mtu, --pcap": otherOptions,
  "several containers at once": several,
  "nothing stays after stop, kill, rm": ends,
  "restart, stop and start": restarts,
  "what fails is said, and leaves nothing": failures,
  "pods": pods,
  "bridge networks": bridges,
  "start time beside Debian's pasta": startTimes,
};

async function makeWorld(
  bed: Testbed,
  machine: Machine,
  folder: string,
  transcript: Transcript,
): Promise<World> {
  const random = ["sh", "-c", `head -c ${FILE_BYTES} /dev/urandom >${folder}/file`];
  assertEquals((await run(random)).code, 0);
  const digest = (await run(["sha256sum", `${folder}/file`])).stdout.split(" ")[0]!;
  const http = ["-m", "http.server", `${HTTP_PORT}`, "--bind", "::", "--directory", folder];
  await bed.serveRemote([PYTHON, ...http], { tcp: HTTP_PORT });
  await bed.serveRemote(["socat", `UDP6-LISTEN:${UDP_PORT},fork,ipv6only=0`, "EXEC:cat"], {
    udp: UDP_PORT,
  });
  const addresses = ANSWERS.map((answer) => `--address=/${NAME}/${answer}`);
  const dns = ["dnsmasq", "--no-daemon", "--no-hosts", "--no-resolv", "--local=/invalid/"];
  await bed.serveRemote([...dns, ...addresses], { tcp: 53, udp: 53 });
  return { bed, machine, transcript, digest };
}

Deno.test({
  name: "podman: containers with this program as pasta",
  ...needs,
  ignore: needs.ignore || reason !== "",
  async fn(t) {
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-podman-` });
    const transcript = new Transcript();
    try {
      await using bed = await Testbed.create();
      await using machine = await Machine.start(bed, root);
      const world = await makeWorld(bed, machine, folder, transcript);
      for (const [name, step] of Object.entries(STEPS)) {
        await transcript.step(t, name, () => step(world));
      }
    } finally {
      await transcript.save();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
