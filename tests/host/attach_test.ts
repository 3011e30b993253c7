// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { ConfigError } from "../../lib/config/error.ts";
import { type Options, parseOptions } from "../../lib/config/options.ts";
import { attachGuest } from "../../lib/host/attach.ts";
import { watchPath, watchProcess } from "../../lib/host/namespace_watch.ts";
import { EPOLL, Epoll } from "../../lib/sys/epoll.ts";
import { type FileStatus, statusAt } from "../../lib/sys/file.ts";
import { libc } from "../../lib/sys/libc.ts";
import { namespaceType } from "../../lib/sys/namespace.ts";
import { openPidfd } from "../../lib/sys/process.ts";
import { CLONE } from "../../lib/sys/script.ts";
import { SIG } from "../../lib/sys/signal.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { requirements } from "../helpers/require.ts";
import { Background, must, until } from "../helpers/run.ts";

const needs = requirements({ packages: ["iproute2"] });
/** Longest time until something is noticed that a descriptor tells of, and that a timer does. */
const TOLD_MS = 500;
const TIMED_MS = 3000;
const NOBODY_HAS = 4_000_000;

function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

function options(...args: string[]): Options {
  return parseOptions(["pasta", ...args]);
}

function identityOf(path: string): string {
  return (statusAt(path) as FileStatus).identity;
}

/** Watches a descriptor from now on, as the loop does. */
function watching(fd: number): { told(timeoutMs: number): boolean; [Symbol.dispose](): void } {
  const epoll = new Epoll(1);
  assertEquals(epoll.add(fd, EPOLL.IN, 0, 0), 0);
  return { told: (timeoutMs) => epoll.wait(timeoutMs) > 0, [Symbol.dispose]: () => epoll.close() };
}

/** A process in namespaces of its own. */
async function process(...unshare: string[]): Promise<Background> {
  const background = new Background(["unshare", ...unshare, "sh", "-c", "echo up; exec sleep 60"]);
  await background.waitFor("up");
  return background;
}

Deno.test({
  name: "attachGuest() takes a process's namespaces, and goes with it",
  ...needs,
  async fn() {
    const before = descriptors(), target = await process("-Urn");
    const held = descriptors(); // the streams of the process, too
    const guest = attachGuest(options(`${target.pid}`));
    const { user, net } = guest.namespace;
    assertEquals(namespaceType(user), CLONE.NEWUSER);
    assertEquals(namespaceType(net), CLONE.NEWNET);
    assertEquals(
      Deno.statSync(`/proc/self/fd/${net}`).ino,
      Deno.statSync(`/proc/${target.pid}/ns/net`).ino,
    );
    const loop = watching(guest.fd);
    assertEquals([loop.told(0), guest.status(), guest.release()], [false, null, null]);
    await target.stop();
    assertEquals([loop.told(TOLD_MS), guest.status()], [true, 0]);
    loop[Symbol.dispose]();
    assertEquals(guest.release(), 0); // gone before all was ready
    guest.close();
    assert(descriptors() <= held && descriptors() >= before);
  },
});

Deno.test({
  name: "attachGuest() joins no user namespace that is ours, and none with --netns-only",
  ...needs,
  async fn() {
    const same = await process("-n"), other = await process("-Urn");
    try {
      const guest = attachGuest(options(`${same.pid}`));
      assertEquals(guest.namespace.user, -1);
      guest.close();
      const alone = attachGuest(options("--netns-only", `${other.pid}`)); // root may
      assertEquals(alone.namespace.user, -1);
      alone.close();
      const named = attachGuest(options("--userns", `/proc/${other.pid}/ns/user`, `${other.pid}`));
      assertEquals(
        Deno.statSync(`/proc/self/fd/${named.namespace.user}`).ino,
        Deno.statSync(`/proc/${other.pid}/ns/user`).ino,
      );
      named.close();
    } finally {
      await same.stop();
      await other.stop();
    }
  },
});

Deno.test({
  name: "attachGuest() takes a bound path, which can be unmounted, and goes with it",
  ...needs,
  async fn() {
    const before = descriptors();
    for (const way of ["delete", "unmount", "unmount and delete"]) {
      await using namespace = await TestNamespace.create();
      const path = `/run/netns/${namespace.name}`;
      const guest = attachGuest(options("--netns", namespace.name));
      using loop = watching(guest.fd);
      assertEquals([guest.namespace.user, guest.status()], [-1, null]);
      await using other = await TestNamespace.create();
      assertEquals(guest.status(), null, other.name);
      if (way !== "unmount and delete") await must(["umount", path]);
      if (way === "delete") {
        assert(loop.told(TOLD_MS));
        assertEquals(guest.status(), 0); // the file below is another one
        await Deno.remove(path);
      }
      if (way === "unmount and delete") await must(["ip", "netns", "del", namespace.name]);
      assertEquals([loop.told(TOLD_MS), guest.status()], [true, 0], way);
      guest.close();
    }
    assertEquals(descriptors(), before);
  },
});

Deno.test({
  name: "attachGuest() notices that another namespace is bound to the path",
  ...needs,
  async fn() {
    await using one = await TestNamespace.create();
    await using other = await TestNamespace.create();
    const guest = attachGuest(options("--netns", `/run/netns/${one.name}`));
    using loop = watching(guest.fd);
    await must(["mount", "--bind", `/run/netns/${other.name}`, `/run/netns/${one.name}`]);
    assertEquals([loop.told(TOLD_MS), guest.status()], [true, 0]);
    guest.close();
    await must(["umount", `/run/netns/${one.name}`]);
  },
});

Deno.test({
  name: "attachGuest() watches nothing with --no-netns-quit",
  ...needs,
  async fn() {
    await using namespace = await TestNamespace.create();
    const before = descriptors();
    const guest = attachGuest(options("--no-netns-quit", "--netns", namespace.name));
    await must(["ip", "netns", "del", namespace.name]);
    assertEquals([guest.fd, guest.status()], [-1, null]);
    guest.close();
    assertEquals(descriptors(), before);
  },
});

Deno.test({
  name: "attachGuest() ends with 0 where a service is told to end, else as by the signal",
  ...needs,
  async fn() {
    await using namespace = await TestNamespace.create();
    const guest = attachGuest(options("--netns", namespace.name));
    const codes = [SIG.TERM, SIG.QUIT, SIG.INT, SIG.HUP].map((signal) => guest.onSignal(signal));
    assertEquals(codes, [0, 0, 130, 129]);
    guest.close();
  },
});

Deno.test({
  name: "attachGuest() says in one line what cannot be joined, and leaves nothing open",
  ...needs,
  async fn() {
    const target = await process("-Urn"), before = descriptors();
    const own = "this is the network namespace that we are in ourselves";
    const cases: [string[], string][] = [
      [[`${NOBODY_HAS}`], `PID ${NOBODY_HAS}: no such process, or it has ended`],
      [[`${Deno.pid}`], `PID ${Deno.pid}: ${own}`],
      [["--netns", "/proc/self/ns/net"], `--netns /proc/self/ns/net: ${own}`],
      [["--netns", "no-such"], "--netns /run/netns/no-such: there is no /run/netns/no-such"],
      [["--netns", "/etc/passwd/x"], "--netns /etc/passwd/x: there is no /etc/passwd/x"],
      [["--netns", "/etc/passwd"], "--netns /etc/passwd: not a network namespace"],
      [["--netns", "/etc"], "--netns /etc: not a network namespace"],
      [["--netns", "/dev/null"], "--netns /dev/null: not a network namespace"],
      [["--netns", `/proc/${target.pid}/ns/user`], "not a network namespace"],
      [["--userns", "/nonexistent", `${target.pid}`], "--userns /nonexistent: there is no"],
      [["--userns", `/proc/${target.pid}/ns/net`, `${target.pid}`], "not a user namespace"],
    ];
    try {
      for (const [args, message] of cases) {
        const { message: said } = assertThrows(() => attachGuest(options(...args)), ConfigError);
        assert(said.includes(message), `${args}: ${said}`);
        assert(!said.includes("\n"));
      }
      // its network namespace belongs to another user namespace than the one named
      const wrong = await process("-Ur"), ns = `/proc/${wrong.pid}/ns/user`;
      const join = () => attachGuest(options("--userns", ns, `${target.pid}`));
      const { message } = assertThrows(join, ConfigError);
      assertMatch(message, /^PID \d+: setns network namespace: EPERM \(it does not belong to/);
      await wrong.stop();
      assert(descriptors() <= before);
    } finally {
      await target.stop();
    }
  },
});

Deno.test({
  name: "attachGuest() opens neither a pipe nor a device",
  ...needs,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-attach-` });
    try {
      await must(["mkfifo", `${folder}/pipe`]);
      const attach = () => attachGuest(options("--netns", `${folder}/pipe`));
      assertThrows(attach, ConfigError, "not a network namespace"); // at once
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "watchPath() looks once a second where nothing tells: at a link of procfs",
  ...needs,
  async fn() {
    const target = await process("-n"), path = `/proc/${target.pid}/ns/net`;
    const watch = watchPath(path, identityOf(path));
    try {
      using loop = watching(watch.fd);
      assertEquals(watch.gone(), false);
      assert(loop.told(TIMED_MS));
      assertEquals([watch.gone(), loop.told(0)], [false, false]); // the tick is taken
      await target.stop();
      assert(await until(() => loop.told(0) && watch.gone(), TIMED_MS));
    } finally {
      watch.close();
    }
  },
});

Deno.test({
  name: "watchPath() wakes nobody while nothing happens",
  ...needs,
  async fn() {
    await using namespace = await TestNamespace.create();
    const path = `/run/netns/${namespace.name}`;
    const watch = watchPath(path, identityOf(path));
    using loop = watching(watch.fd);
    // other tests mount, too
    assert(await until(() => !loop.told(300) || watch.gone(), TIMED_MS));
    assertEquals(watch.gone(), false);
    watch.close();
  },
});

Deno.test({
  name: "watchProcess() tells of a process that is no child of ours",
  ...needs,
  async fn() {
    const shell = new Background(["sh", "-c", "sleep 60 & echo pid $!; wait"]);
    await shell.waitFor("pid");
    const pid = Number(/pid (\d+)/.exec(shell.stdout)![1]);
    const pidfd = openPidfd(pid), watch = watchProcess(pidfd);
    using loop = watching(watch.fd);
    assertEquals([loop.told(0), watch.gone()], [false, false]);
    Deno.kill(pid, "SIGKILL");
    assertEquals([loop.told(TOLD_MS), watch.gone()], [true, true]);
    watch.close();
    libc.close(pidfd);
    await shell.stop();
  },
});
