// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { must } from "../helpers/run.ts";
import { CpioWriter } from "./cpio.ts";

Deno.test({
  name: "CpioWriter makes archives that busybox unpacks",
  ...requirements({ packages: ["busybox-static"] }),
  async fn() {
    const writer = new CpioWriter();
    writer.file("a/b/file", "content\n", 0o751);
    writer.file("a/empty", "");
    writer.link("a/link", "b/file");
    writer.device("a/console", 5, 1);
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-cpio-` });
    try {
      await Deno.writeFile(`${folder}/archive`, writer.finish());
      const unpack = "busybox cpio -i -d <archive 2>/dev/null && cd a && ";
      const show = "cat link && stat -c '%n %A %t:%T' b b/file empty link console";
      const text = await must(["sh", "-ec", unpack + show], { cwd: folder });
      assertEquals(text.trim().split("\n"), [
        "content",
        "b drwxr-xr-x 0:0",
        "b/file -rwxr-x--x 0:0",
        "empty -rw-r--r-- 0:0",
        "link lrwxrwxrwx 0:0",
        "console crw------- 5:1",
      ]);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
