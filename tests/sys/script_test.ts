// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { E, SysError } from "../../lib/sys/errno.ts";
import { waitExit } from "../../lib/sys/process.ts";
import { AT_FDCWD, CLONE, Script, SCRIPT_FAILED } from "../../lib/sys/script.ts";

const HELPER = CLONE.VM | CLONE.VFORK | CLONE.FILES;

function openDescriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** Runs a script's child to its end. */
function finish(script: Script): number {
  return waitExit(script.run());
}

Deno.test("Script.run() makes calls in this process when nothing is cloned", () => {
  const script = new Script();
  script.call("getpid", []);
  assertEquals(script.run(), Deno.pid);
  script.dispose();
});

Deno.test("Script.run() only records errors when nothing is cloned", () => {
  const script = new Script();
  script.call("close", [-1], { exitOnZero: true });
  assertEquals(script.run(), -E.EBADF);
  assertEquals(script.failure()!.message, "close: EBADF");
  script.dispose();
});

Deno.test("Script.call() passes an earlier result on as first argument", () => {
  const path = Deno.makeTempFileSync();
  try {
    const script = new Script();
    script.clone(0);
    const O_WRONLY = 1;
    const file = script.call("openat", [AT_FDCWD, path, O_WRONLY]);
    const first = script.call("write", [file, "some ", 5]);
    script.call("write", [file, "text", 4]);
    script.call("close", [file]);
    script.exit(0);
    assertEquals(finish(script), 0);
    assertEquals(script.result(first), 5);
    assertEquals(script.failure(), null);
    assertEquals(Deno.readTextFileSync(path), "some text");
    script.dispose();
  } finally {
    Deno.removeSync(path);
  }
});

Deno.test("Script.failure() names the step that ended the child, its object and the hint", () => {
  const script = new Script();
  script.clone(0);
  const failing = script.call("openat", [AT_FDCWD, "/no/such/file", 0], {
    what: "/no/such/file",
    hint: (errno) => `number ${errno}`,
  });
  const after = script.call("getpid", []);
  script.exit(0);
  assertEquals(finish(script), SCRIPT_FAILED);
  assertEquals(script.result(failing), -E.ENOENT);
  assertEquals(script.failure()!.message, "openat /no/such/file: ENOENT (number 2)");
  assertEquals(script.errorOf(after), null);
  assert(script.result(after) < 0, "the step after was not reached");
  script.dispose();
});

Deno.test("Script goes on after errors that are tolerated or not required", () => {
  const script = new Script();
  script.clone(0);
  const tolerated = script.call("close", [-1], { tolerate: E.EBADF });
  const soft = script.call("close", [-1], { required: false });
  script.exit(3);
  assertEquals(finish(script), 3);
  assertEquals([script.result(tolerated), script.result(soft)], [-E.EBADF, -E.EBADF]);
  assertEquals(script.failure(), null);
  assertEquals(script.errors(false).map(({ code }) => code), ["EBADF"]);
  script.dispose();
});

Deno.test("Script ends the child at an end of file when asked to", () => {
  const script = new Script();
  script.clone(0);
  const file = script.call("openat", [AT_FDCWD, "/dev/null", 0]);
  const read = script.call("read", [file, script.address(script.reserve(1)), 1], {
    exitOnZero: true,
  });
  script.exit(0);
  assertEquals(finish(script), SCRIPT_FAILED);
  assertEquals(script.result(read), 0);
  script.dispose();
});

Deno.test("Script.closeOpened() closes what the child opened for us", () => {
  const script = new Script();
  const before = openDescriptors();
  script.clone(HELPER);
  for (let i = 0; i < 3; i++) script.call("openat", [AT_FDCWD, "/dev/null", 0], { opens: true });
  script.exit(0);
  assertEquals(finish(script), 0);
  assertEquals(openDescriptors(), before + 3);
  script.closeOpened();
  assertEquals(openDescriptors(), before);
  script.dispose();
});

Deno.test("Script blocks signals for the child and gives our mask back to both", () => {
  const masks = () => Deno.readTextFileSync("/proc/thread-self/status").match(/SigBlk.*/)![0];
  const before = masks();
  const script = new Script();
  script.clone(0);
  const set = script.reserve(16);
  const SIG_BLOCK = 0;
  script.call("rt_sigprocmask", [SIG_BLOCK, 0, script.address(set), 8]);
  script.restoreSignals();
  script.call("rt_sigprocmask", [SIG_BLOCK, 0, script.address(set + 8), 8]);
  script.exit(0);
  assertEquals(finish(script), 0);
  const view = script.view(set, 16);
  assertEquals(view.getUint32(0, true), 0xfffbfeff); // all but SIGKILL and SIGSTOP
  assertEquals(view.getUint32(8, true), 0);
  assertEquals(masks(), before);
  script.dispose();
});

Deno.test("Script.run() throws when clone is refused, and leaves no child", () => {
  const script = new Script();
  const CLONE_THREAD_ALONE = 0x10000; // EINVAL without CLONE_VM and CLONE_SIGHAND
  script.clone(CLONE_THREAD_ALONE, { what: "nothing" });
  script.exit(0);
  const error = assertThrows(() => script.run(), SysError);
  assertEquals((error as SysError).message, "clone nothing: EINVAL");
  assertEquals(Deno.readTextFileSync("/proc/thread-self/children"), "");
  script.dispose();
});

Deno.test("Script.run() refuses a table whose child would return into our code", () => {
  const script = new Script();
  script.clone(0);
  script.call("getpid", []);
  assertThrows(() => script.run(), Error, "Child would return");
  script.dispose();
});

Deno.test("Script refuses more steps or data than it has room for", () => {
  const script = new Script();
  assertThrows(() => script.reserve(1 << 30), RangeError);
  assertThrows(() => {
    for (;;) script.call("getpid", []);
  }, RangeError);
  script.dispose();
});

Deno.test("Script.succeed() leaves a child of ours that the first child has made", () => {
  const script = new Script();
  script.clone(0);
  script.succeed(0);
  const pid = script.call("getpid", []);
  script.exit(7);
  const first = script.run();
  assertEquals(waitExit(first), 0);
  const { successor } = script;
  assert(successor > 0 && successor !== first);
  assertEquals(waitExit(successor), 7);
  assertEquals(script.result(pid), successor);
  assertEquals(script.failure(), null);
  script.dispose();
});

Deno.test("Script.succeed() that is refused ends the first child, and says why", () => {
  const script = new Script();
  script.clone(0);
  script.succeed(CLONE.NEWUSER | CLONE.FILES | 0x200, { what: "nothing" }); // CLONE_FS, clone(2)
  script.exit(7);
  assertEquals(waitExit(script.run()), SCRIPT_FAILED);
  assertEquals(script.successor, 0);
  assertEquals(script.failure()!.message, "clone nothing: EINVAL");
  script.dispose();
});
