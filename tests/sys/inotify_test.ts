// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertThrows } from "@std/assert";
import { E, SysError } from "../../lib/sys/errno.ts";
import { DirectoryWatch } from "../../lib/sys/inotify.ts";
import { Ticker } from "../../lib/sys/ticker.ts";

function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** Runs `body` with a folder that holds the files `name` and `other`, and its watch. */
function withWatch(body: (folder: string, watch: DirectoryWatch) => void): void {
  const root = Deno.makeTempDirSync({ prefix: `tubetti-${Deno.pid}-inotify-` });
  const folder = `${root}/folder`, before = descriptors();
  Deno.mkdirSync(folder);
  for (const name of ["name", "other"]) Deno.writeTextFileSync(`${folder}/${name}`, "");
  const watch = new DirectoryWatch(folder);
  try {
    body(folder, watch);
  } finally {
    watch.close();
    Deno.removeSync(root, { recursive: true });
  }
  assertEquals(descriptors(), before);
}

Deno.test("DirectoryWatch tells when a name is removed, moved away or replaced", () => {
  withWatch((folder, watch) => {
    assertEquals(watch.clear(), false);
    Deno.renameSync(`${folder}/name`, `${folder}/../name`);
    assertEquals([watch.clear(), watch.clear()], [true, false]);
    Deno.renameSync(`${folder}/../name`, `${folder}/other`);
    assertEquals([watch.clear(), watch.clear()], [true, false]);
    Deno.removeSync(`${folder}/other`);
    assertEquals([watch.clear(), watch.clear()], [true, false]);
  });
});

Deno.test("DirectoryWatch does not tell of new names and of reading and writing", () => {
  withWatch((folder, watch) => {
    Deno.writeTextFileSync(`${folder}/new`, "x");
    Deno.readTextFileSync(`${folder}/name`);
    Deno.chmodSync(`${folder}/name`, 0o600);
    assertEquals(watch.clear(), false);
  });
});

Deno.test("DirectoryWatch tells when the directory itself goes", () => {
  withWatch((folder, watch) => {
    Deno.renameSync(folder, `${folder}-moved`);
    assertEquals(watch.clear(), true);
  });
  withWatch((folder, watch) => {
    Deno.removeSync(folder, { recursive: true });
    assertEquals(watch.clear(), true);
  });
});

Deno.test("DirectoryWatch refuses what is no directory, and leaves no descriptor", () => {
  const before = descriptors();
  const missing = () => new DirectoryWatch("/nonexistent");
  assertEquals(assertThrows(missing, SysError, "inotify_add_watch /nonexistent").errno, E.ENOENT);
  assertEquals(
    assertThrows(() => new DirectoryWatch("/etc/passwd"), SysError).errno,
    E.ENOTDIR,
  );
  assertEquals(descriptors(), before);
});

Deno.test("Ticker is readable once an interval", async () => {
  const before = descriptors();
  const ticker = new Ticker(100), began = performance.now();
  assertEquals(ticker.clear(), false);
  let ticks = 0;
  while (ticks < 3) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    if (ticker.clear()) ticks++;
  }
  assertEquals(performance.now() - began >= 290, true);
  ticker.close();
  const slow = new Ticker(1000);
  assertEquals(slow.clear(), false);
  slow.close();
  assertEquals(descriptors(), before);
});
