// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { EPOLL, Epoll } from "../../lib/sys/epoll.ts";
import { SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { exitCode, openPidfd, pollExit, waitExit } from "../../lib/sys/process.ts";
import { raiseDescriptorLimit } from "../../lib/sys/rlimit.ts";
import { Script } from "../../lib/sys/script.ts";
import { run } from "../helpers/run.ts";

const SIGKILL = 9, SIGTERM = 15;

/** A child that reads from a pipe until that is closed, and exits with 5. */
function child(): { pid: number; release: () => void } {
  const fds = new Int32Array(2);
  libc.pipe2(fds, 0);
  const [readEnd, writeEnd] = fds;
  const script = new Script();
  script.clone(0);
  script.call("close", [writeEnd]);
  script.call("read", [readEnd, script.address(script.reserve(1)), 1]);
  script.exit(5);
  const pid = script.run();
  libc.close(readEnd);
  return { pid, release: () => libc.close(writeEnd) }; // the script's memory stays: the child runs
}

Deno.test("exitCode() is the status, or 128 + N after signal N", () => {
  assertEquals([0, 7 << 8, 255 << 8].map(exitCode), [0, 7, 255]);
  assertEquals([SIGKILL, SIGTERM, SIGTERM | 0x80].map(exitCode), [137, 143, 143]);
});

Deno.test("openPidfd() becomes readable when the process ends", () => {
  const { pid, release } = child();
  const pidfd = openPidfd(pid);
  const epoll = new Epoll();
  epoll.add(pidfd, EPOLL.IN, 0, 0);
  assertEquals([epoll.wait(0), pollExit(pid)], [0, null]);
  release();
  assertEquals(epoll.wait(5000), 1);
  assertEquals(pollExit(pid), 5);
  assertThrows(() => pollExit(pid), SysError, "ECHILD");
  epoll.close();
  libc.close(pidfd);
});

Deno.test("waitExit() waits for the end and reports a signal", () => {
  const { pid, release } = child();
  libc.kill(pid, SIGKILL);
  assertEquals(waitExit(pid), 137);
  assertThrows(() => waitExit(pid), SysError, "ECHILD");
  release();
});

Deno.test("openPidfd() names the process that is not there", () => {
  assertThrows(() => openPidfd(0x3fffffff), SysError, "pidfd_open 1073741823: ESRCH");
});

Deno.test("raiseDescriptorLimit() raises the soft limit to the hard one", async () => {
  const module = new URL("../../lib/sys/rlimit.ts", import.meta.url).href;
  const script = `import { raiseDescriptorLimit } from "${module}";
    console.log(raiseDescriptorLimit(), raiseDescriptorLimit());
    console.log(Deno.readTextFileSync("/proc/self/limits").match(/Max open files +(\\d+) +(\\d+)/).slice(1));`;
  const shell = 'ulimit -Sn 300 && ulimit -Hn 700 && exec "$0" eval "$1"';
  const result = await run(["sh", "-c", shell, Deno.execPath(), script]);
  assertEquals(result.stdout, '700 700\n[ "700", "700" ]\n', result.stderr);
  assert(raiseDescriptorLimit() >= 700);
});
