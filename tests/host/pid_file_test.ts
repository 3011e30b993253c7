// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { PidFile } from "../../lib/host/pid_file.ts";
import { SysError } from "../../lib/sys/errno.ts";

/** Calls `test` with a folder that is removed afterwards. */
function inFolder(test: (folder: string) => void): () => void {
  return () => {
    const folder = Deno.makeTempDirSync({ prefix: "tubetti-pid-" });
    try {
      test(folder);
    } finally {
      Deno.removeSync(folder, { recursive: true });
    }
  };
}

const names = (folder: string) => [...Deno.readDirSync(folder)].map(({ name }) => name);
const modeOf = (path: string) => (Deno.statSync(path).mode ?? 0) & 0o777;

Deno.test(
  "PidFile holds the number when it is written, mode 0644, and is removed at the end",
  inFolder((folder) => {
    const path = `${folder}/pid`;
    const file = PidFile.open(path);
    assertEquals(Deno.readTextFileSync(path), "");
    file.write(4711);
    assertEquals(Deno.readTextFileSync(path), "4711\n");
    assertEquals(modeOf(path), 0o644);
    file.close();
    file.close();
    assertEquals(names(folder), []);
  }),
);

Deno.test(
  "PidFile leaves nothing when the start fails, and an older file as it was",
  inFolder((folder) => {
    PidFile.open(`${folder}/new`).close();
    assertEquals(names(folder), []);
    const path = `${folder}/old`;
    Deno.writeTextFileSync(path, "99\n", { mode: 0o600 });
    PidFile.open(path).close();
    assertEquals(Deno.readTextFileSync(path), "99\n");
    assertEquals(modeOf(path), 0o600);
  }),
);

Deno.test(
  "PidFile refuses a file whose owner lives, and names it",
  inFolder((folder) => {
    const path = `${folder}/pid`;
    const first = PidFile.open(path);
    first.write(4711);
    assertThrows(() => PidFile.open(path), SysError, "belongs to process 4711, which still runs");
    assertEquals(Deno.readTextFileSync(path), "4711\n");
    first.close();
    PidFile.open(path).close();
  }),
);

Deno.test(
  "PidFile takes over the file of a killed owner, whatever its length",
  inFolder((folder) => {
    const path = `${folder}/pid`;
    Deno.writeTextFileSync(path, "4194304 and more\n");
    const file = PidFile.open(path);
    file.write(1);
    assertEquals(Deno.readTextFileSync(path), "1\n");
    file.close();
    assertEquals(names(folder), []);
  }),
);

Deno.test(
  "PidFile does not remove another file that is there by then",
  inFolder((folder) => {
    const path = `${folder}/pid`;
    const file = PidFile.open(path);
    file.write(1);
    Deno.removeSync(path);
    Deno.writeTextFileSync(path, "2\n");
    file.close();
    assertEquals(Deno.readTextFileSync(path), "2\n");
  }),
);

Deno.test(
  "PidFile finds its file again from another folder",
  inFolder((folder) => {
    const before = Deno.cwd();
    Deno.chdir(folder);
    try {
      const file = PidFile.open("pid");
      Deno.chdir("/");
      file.write(1);
      assertEquals(names(folder), ["pid"]);
      file.close();
      assertEquals(names(folder), []);
    } finally {
      Deno.chdir(before);
    }
  }),
);

Deno.test("PidFile writes to a device and leaves it", () => {
  const file = PidFile.open("/dev/null");
  file.write(1);
  file.close();
  assert(Deno.statSync("/dev/null").isCharDevice);
});

for (const path of ["/nonexistent/pid", "/", "/proc/version/pid"]) {
  Deno.test(`PidFile says why ${path} cannot be written`, () => {
    assertThrows(() => PidFile.open(path), SysError, `-P: open ${path}: E`);
  });
}

Deno.test(
  "PidFile.undo() gives an older file back what it held, and close() leaves it",
  inFolder((folder) => {
    const path = `${folder}/pid`;
    const before = "4194304 and more\n".repeat(100);
    Deno.writeTextFileSync(path, before, { mode: 0o600 });
    const file = PidFile.open(path);
    file.undo();
    file.write(1);
    assertEquals(Deno.readTextFileSync(path), "1\n");
    file.undo();
    file.close();
    assertEquals([Deno.readTextFileSync(path), modeOf(path)], [before, 0o600]);
    const made = PidFile.open(`${folder}/new`);
    made.write(1);
    made.undo();
    made.close();
    assertEquals(names(folder), ["pid"]);
  }),
);
