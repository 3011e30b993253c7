// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What is shipped, with podman, as an ordinary user: the image of `scripts/container.sh`, and the executable as
 * podman's `pasta`. Like `podman_test.ts`, this needs a
 * Debian root, and is run by `deno task test tests/podman/image_test.ts`.
 *
 * @module
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { VERSION_TEXT } from "../../lib/config/version.ts";
import { podmanRoot } from "../../scripts/podman_root.ts";
import { must, until } from "../helpers/run.ts";
import { Net, PROJECT, Testbed } from "../helpers/testbed.ts";
import { madeFolder, shipRequirements } from "../ship/made.ts";
import { explain, Machine, type Pasta, ROOTFS } from "./machine.ts";
import { ask, tcpServer } from "./world.ts";

/** A folder that git does not look at, and that the machine has as part of the project. */
const FOLDER = ".tmp";
const SCRIPT = `${PROJECT}/scripts/container.sh`;

async function podman(machine: Machine, ...args: string[]): Promise<string> {
  const result = await machine.podman(args);
  if (result.code !== 0) throw new Error(explain(["podman", ...args], result));
  return result.stdout + result.stderr;
}

/** Makes the image and has podman load it. @returns its name */
async function load(machine: Machine): Promise<string> {
  const file = `${FOLDER}/image-${Deno.pid}.tar`;
  await Deno.mkdir(`${PROJECT}/${FOLDER}`, { recursive: true });
  try {
    await must(["sh", SCRIPT, `${await madeFolder()}/tubetti`, `${PROJECT}/${file}`]);
    const output = await podman(machine, "load", "-i", `/opt/tubetti/${file}`);
    return /Loaded image: (\S+)/.exec(output)![1]!;
  } finally {
    await Deno.remove(`${PROJECT}/${file}`).catch(() => {});
  }
}

Deno.test({
  name: "podman: the image of this program",
  ...shipRequirements(),
  async fn(t) {
    await using bed = await Testbed.create();
    await using machine = await Machine.start(bed, await podmanRoot());
    const name = await load(machine);
    await t.step("answers", async () => {
      const output = await podman(machine, "run", "--rm", "--network=none", name, "--version");
      assertEquals(output, `${VERSION_TEXT}\n`);
    });
    await t.step("runs a command with a network, in an ordinary container", async () => {
      const line = ["run", "--rm", "--network=host", "--device=/dev/net/tun", name];
      const command = ["pasta", "--config-net", "--", "/usr/bin/tubetti", "--version"];
      const output = await podman(machine, ...line, ...command);
      assertStringIncludes(output, VERSION_TEXT);
      assertStringIncludes(output, "assign: 192.0.2.2");
    });
    await t.step("serves virtual machines, through a folder of the host", async () => {
      const line = ["run", "-d", "--name=vm", "--network=host", "-v", "/tmp:/run/vm", name];
      await podman(machine, ...line, "passt", "-f", "-s", "/run/vm/vm.socket");
      const there = async () => (await machine.root(["test", "-S", "/tmp/vm.socket"])).code === 0;
      assert(await until(there));
      await podman(machine, "rm", "-f", "-t", "5", "vm");
      assert(!await there());
    });
  },
});

/** Starts of each kind that are measured, by turns. */
const STARTS = 9;

/** Milliseconds that a container takes which does nothing: the median for each pasta. */
async function startTimes(machine: Machine, kinds: readonly Pasta[]): Promise<string> {
  const line = ["run", "--rm", "--network=pasta", ...ROOTFS, "true"];
  const times = new Map(kinds.map((kind) => [kind, [] as number[]]));
  for (let n = 0; n < STARTS; n++) {
    for (const kind of kinds) {
      times.get(kind)!.push((await machine.podman(line, { pasta: kind })).ms);
    }
  }
  const middle = (list: number[]) => Math.round(list.sort((a, b) => a - b)[STARTS >> 1]!);
  return kinds.map((kind) => `${kind} ${middle(times.get(kind)!)} ms`).join(", ");
}

Deno.test({
  name: "podman: a link to the executable as pasta",
  ...shipRequirements({ packages: ["socat"] }),
  async fn(t) {
    await using bed = await Testbed.create();
    await using machine = await Machine.start(bed, await podmanRoot());
    const file = `${FOLDER}/tubetti-${Deno.pid}`;
    await Deno.mkdir(`${PROJECT}/${FOLDER}`, { recursive: true });
    try {
      await Deno.copyFile(`${await madeFolder()}/tubetti`, `${PROJECT}/${file}`);
      await machine.addCompiled(file);
      await t.step("a container has a network, a resolver, and a published port", async () => {
        const server = `exec ${tcpServer(80)}`;
        await machine.detached("web", ["-p", "8080:80/tcp"], server, "compiled");
        const [engine] = await machine.processes().then((all) =>
          all.filter(({ command }) =>
            command.startsWith("/opt/helpers/compiled/pasta --config-net")
          )
        );
        assert(engine);
        const asked = (command: string[]) => bed.runRemote(command);
        assertMatch(await ask(asked, `TCP:${Net.HOST4}:8080`), /^hello /);
        const output = await machine.container(
          [],
          "ip -br -4 addr; cat /etc/resolv.conf",
          "compiled",
        );
        assertStringIncludes(output, `${Net.HOST4}/24`);
        assertStringIncludes(output, "nameserver 169.254.1.1");
      });
      await t.step("nothing is left when the container goes", async () => {
        const removed = await machine.podman(["rm", "-f", "-t", "0", "web"]);
        assertEquals(removed.code, 0, explain(["podman", "rm"], removed));
        assertEquals(await machine.leftovers(), []);
      });
      await t.step("what fails is said", async () => {
        const line = ["run", "--rm", "--network=pasta:--nonsense", ...ROOTFS, "true"];
        const { stderr } = await machine.podman(line, { pasta: "compiled" });
        assertStringIncludes(stderr, "tubetti: --nonsense: unknown option");
      });
      console.log(`Starts: ${await startTimes(machine, ["debian", "tubetti", "compiled"])}`);
    } finally {
      await Deno.remove(`${PROJECT}/${file}`).catch(() => {});
    }
  },
});
