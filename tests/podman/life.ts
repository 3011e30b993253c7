// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Steps of the test with podman: many containers, their ends, what fails, and other networks.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Net } from "../helpers/testbed.ts";
import { explain, ROOTFS } from "./machine.ts";
import { ANSWERS, HTTP_PORT, NAME, STAY } from "./world.ts";
import { ask, clear, fromMachine, fromRemote, tcpServer, type World } from "./world.ts";

export const MANY = [1, 2, 3, 4, 5];

export async function several(world: World): Promise<void> {
  const { machine, transcript, digest } = world;
  await Promise.all(
    MANY.map((n) =>
      machine.detached(
        `c${n}`,
        ["-p", `${8100 + n}:80`],
        `exec ${tcpServer(80, `container ${n} answers`)}`,
      )
    ),
  );
  assertEquals((await machine.engines()).length, MANY.length);
  const remote = fromRemote(world);
  await Promise.all(MANY.map(async (n) => {
    const answer = await ask(remote, `TCP:${Net.HOST4}:${8100 + n}`);
    assertEquals(answer, `container ${n} answers ${Net.GATEWAY4}`);
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
export async function ends(world: World): Promise<void> {
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

export async function restarts(world: World): Promise<void> {
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
export async function failures(world: World): Promise<void> {
  const { machine, transcript } = world;
  machine.serve(["sh", "-c", `exec ${tcpServer(8080)}`]);
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
  await machine.stopServers();
  await clear(world);
}

/** Containers of a pod share the network of its first one. */
export async function pods(world: World): Promise<void> {
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
export async function bridges(world: World): Promise<void> {
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

export const ROUNDS = 7;

export const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

/** Time of `podman run --rm true`, and what of it is pasta's. */
export async function startTimes({ machine, transcript }: World): Promise<void> {
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
