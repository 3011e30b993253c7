// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { SysError } from "../../lib/sys/errno.ts";
import { folderOf, leadsTo, linkHint, openNamed, statusAt, statusOf } from "../../lib/sys/file.ts";
import { libc } from "../../lib/sys/libc.ts";
import { requirements } from "../helpers/require.ts";

const O_RDONLY = 0, O_WRONLY_CREAT = 0o101; // asm-generic/fcntl.h
const ENOENT = 2, ELOOP = 40; // asm-generic/errno.h
const SOMEBODY = 1000, OTHER = 1001;

/** Calls `test` with a folder that is removed afterwards. */
function inFolder(test: (folder: string) => void): () => void {
  return () => {
    const folder = Deno.makeTempDirSync({ prefix: "tubetti-file-" });
    try {
      test(folder);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  };
}

/** Opens and closes. @returns 0 or a negative errno */
function opens(path: string, flags: number = O_WRONLY_CREAT): number {
  const fd = openNamed(path, flags, 0o600);
  if (fd >= 0) libc.close(fd);
  return Math.min(0, fd);
}

Deno.test(
  "statusOf() and statusAt() tell which file it is, whose, and of what kind",
  inFolder((folder) => {
    const path = `${folder}/file`;
    const fd = openNamed(path, O_WRONLY_CREAT, 0o600), status = statusOf(fd);
    assertEquals(status, statusAt(path));
    assertEquals([status.isRegular, status.uid], [true, Deno.uid()]);
    assertEquals(leadsTo(path, status.identity), true);
    assertEquals(leadsTo(folder, status.identity), false);
    Deno.removeSync(path);
    assertEquals(statusAt(path), -ENOENT);
    assertEquals(leadsTo(path, status.identity, true), false);
    libc.close(fd);
    assertEquals((statusAt(folder) as { isRegular: boolean }).isRegular, false);
    assertThrows(() => statusOf(-1), SysError, "EBADF");
    assertEquals(opens("/proc/self/fd/999999/x"), -ENOENT);
  }),
);

Deno.test("folderOf() gives the folder of the last component", () => {
  for (const [path, folder] of [["/a/b", "/a"], ["/a", "/"], ["a", "."], ["a/b", "a"]] as const) {
    assertEquals(folderOf(path), folder);
  }
});

Deno.test({
  name: "openNamed() follows links of root, of ourselves and of the folder's owner, and no others",
  ...requirements(),
  fn: inFolder((folder) => {
    const target = `${folder}/target`, link = `${folder}/link`;
    Deno.chmodSync(folder, 0o777);
    Deno.symlinkSync(target, link);
    const own = (path: string, uid: number) =>
      libc.lchown(new TextEncoder().encode(`${path}\0`), uid, uid);
    assertEquals(opens(link), 0, "root's");
    Deno.removeSync(target);
    own(link, SOMEBODY);
    for (const flags of [O_RDONLY, O_WRONLY_CREAT]) assertEquals(opens(link, flags), -ELOOP);
    assertEquals(statusAt(target), -ENOENT, "nothing was made");
    assertMatch(linkHint(ELOOP), /link that belongs to somebody else/);
    own(folder, OTHER);
    assertEquals(opens(link), -ELOOP);
    own(folder, SOMEBODY);
    assertEquals(opens(link), 0, "the folder's owner");
  }),
});

Deno.test("openNamed() follows what leads to our own descriptors", () => {
  assertEquals(opens("/dev/stdin", O_RDONLY), 0);
  assertEquals(opens("/dev/fd/0", O_RDONLY), 0);
});
