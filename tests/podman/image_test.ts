// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The image of `scripts/container.sh` in podman, as an ordinary user. Like `podman_test.ts`, this needs a
 * Debian root, and is run by `deno task test tests/podman/image_test.ts`.
 *
 * @module
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { VERSION_TEXT } from "../../lib/config/version.ts";
import { podmanRoot } from "../../scripts/podman_root.ts";
import { must, until } from "../helpers/run.ts";
import { PROJECT, Testbed } from "../helpers/testbed.ts";
import { madeFolder, shipRequirements } from "../ship/made.ts";
import { explain, Machine } from "./machine.ts";

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
