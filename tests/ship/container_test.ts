// SPDX-License-Identifier: GPL-2.0-or-later
/** The image that `scripts/container.sh` makes; `tests/podman/image_test.ts` gives it to podman. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { VERSION, VERSION_TEXT } from "../../lib/config/version.ts";
import { must, run } from "../helpers/run.ts";
import { madeFolder, shipRequirements } from "./made.ts";

const SCRIPT = new URL("../../scripts/container.sh", import.meta.url).pathname;

async function inFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tubetti-test-" });
  try {
    await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name: "container.sh makes an image with the executable and all that it needs",
  ...shipRequirements(),
  fn: () =>
    inFolder(async (folder) => {
      const image = `${folder}/image.tar`;
      await must(["sh", SCRIPT, `${await madeFolder()}/tubetti`, image]);
      await must(["tar", "-xf", image, "-C", folder]);
      const text = (name: string) => Deno.readTextFileSync(`${folder}/${name}`);
      const [{ Config, RepoTags, Layers }] = JSON.parse(text("manifest.json"));
      assertEquals(RepoTags, [`localhost/tubetti:${VERSION.replace(/^tubetti /, "")}`]);
      const { rootfs, config } = JSON.parse(text(Config));
      const [sum] = (await must(["sha256sum", `${folder}/${Layers[0]}`])).split(" ");
      assertEquals(rootfs.diff_ids, [`sha256:${sum}`]);
      const root = `${folder}/root`;
      await Deno.mkdir(`${root}/proc`, { recursive: true });
      await must(["tar", "-xf", `${folder}/${Layers[0]}`, "-C", root]);
      const script = 'mount --bind /proc "$0/proc"; exec chroot "$0" "$@"';
      const inside = ["unshare", "-m", "sh", "-c", script, root];
      for (const command of [config.Entrypoint, ["/usr/bin/pasta"]]) {
        assertEquals(await must([...inside, ...command, "--version"]), `${VERSION_TEXT}\n`);
      }
    }),
});

Deno.test({
  name: "container.sh makes the same image of the same files",
  ...shipRequirements(),
  fn: () =>
    inFolder(async (folder) => {
      for (const name of ["one", "two"]) {
        await must(["sh", SCRIPT, `${await madeFolder()}/tubetti`, `${folder}/${name}`]);
      }
      await must(["cmp", `${folder}/one`, `${folder}/two`]);
    }),
});

Deno.test("container.sh says how it is called", async () => {
  const { code, stderr } = await run(["sh", SCRIPT]);
  assert(code === 1);
  assertStringIncludes(stderr, "Usage: ");
});
