// SPDX-License-Identifier: GPL-2.0-or-later
/** The command and the program end together, whatever ends first, and nothing stays behind. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { peer } from "../helpers/peer.ts";
import { NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, killHard, markedProcesses, sleep, until } from "../helpers/run.ts";
import { programUnderTest, Testbed } from "../helpers/testbed.ts";
import { loopWakeUpsOf } from "../helpers/usage.ts";

const PORT = 25491;
const NEEDS = requirements();
const OURS = requirements({ tubetti: true });

/** 128 + N, as shells have it. */
const SIGINT_STATUS = 130;
const SIGKILL_STATUS = 137;
const SIGTERM_STATUS = 143;

/** Longest time in which everything must be gone, in milliseconds: far more than it takes. */
const END_MS = 15_000;

/** Network namespaces in use by any process, by inode. */
function namespacesInUse(): Set<string> {
  const found = new Set<string>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      found.add(Deno.readLinkSync(`/proc/${name}/ns/net`));
    } catch {
      // gone, or a kernel thread
    }
  }
  return found;
}

/** Waits until no process of the guest or the program is left; fails with their list. */
async function assertNothingLeft(bed: Testbed, namespace?: string): Promise<void> {
  await until(() => markedProcesses(bed.guestMark).length === 0, END_MS);
  assertEquals(markedProcesses(bed.guestMark), []);
  if (namespace) assert(!namespacesInUse().has(namespace), "the guest's namespace is still in use");
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `lifecycle: the command's status becomes ours${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const cases: [string, number][] = [
        ["exit 0", 0],
        ["exit 3", 3],
        ["exit 255", 255],
        ["kill -TERM $$", SIGTERM_STATUS],
        ["kill -KILL $$", SIGKILL_STATUS],
      ];
      for (const [line, code] of cases) {
        await t.step(line, async () => {
          // the first process of a PID namespace ignores its own signals: a child must do it
          const result = await bed.guest(["/bin/sh", "-c", `sh -c '${line}'; exit $?`]);
          assertEquals(result.code, code, result.stderr);
        });
      }
      await assertNothingLeft(bed);
    },
  });

  for (
    const [signal, status] of [["SIGTERM", SIGTERM_STATUS], ["SIGINT", SIGINT_STATUS]] as const
  ) {
    Deno.test({
      name: `lifecycle: ${signal} ends both and leaves nothing${as}`,
      ...OURS,
      async fn() {
        await using bed = await Testbed.create({ user });
        const guest = await bed.idleGuest();
        const namespace = Deno.readLinkSync(`/proc/${guest.pid}/ns/net`);
        guest.background.kill(signal);
        assertEquals(await guest.background.wait(END_MS), status);
        await assertNothingLeft(bed, namespace);
      },
    });
  }

  Deno.test({
    name: `lifecycle: SIGKILL of the guest's processes ends us${as}`,
    ...OURS,
    async fn() {
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest();
      const namespace = Deno.readLinkSync(`/proc/${guest.pid}/ns/net`);
      for (const { pid } of bed.guestProcesses()) killHard(pid);
      assertEquals(await guest.background.wait(END_MS), SIGKILL_STATUS);
      await assertNothingLeft(bed, namespace);
    },
  });

  Deno.test({
    name: `lifecycle: SIGKILL of ours ends the guest, busy or not${as}`,
    ...requirements({ tubetti: true, packages: ["gcc"] }),
    async fn(t) {
      const program = await peer();
      for (const busy of [false, true]) {
        await t.step(busy ? "busy" : "idle", async () => {
          await using bed = await Testbed.create({ user });
          await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
          const guest = await bed.idleGuest();
          const namespace = Deno.readLinkSync(`/proc/${guest.pid}/ns/net`);
          const { remote } = Testbed.addresses(4);
          const load = guest.start([program, "crr", remote, `${PORT}`, busy ? "60" : "0"]);
          await sleep(200);
          for (const { pid } of bed.engineProcesses()) killHard(pid);
          await guest.background.wait(END_MS);
          await until(() => bed.guestProcesses().every(({ command }) => command.includes("crr")));
          await load.stop(); // entered from outside: not a process of the guest
          await assertNothingLeft(bed, namespace);
        });
      }
    },
  });

  Deno.test({
    name: `lifecycle: neither a good nor a bad end leaves a file${as}`,
    ...OURS,
    async fn() {
      await using bed = await Testbed.create({ user });
      const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-tmp-` });
      try {
        await Deno.chmod(folder, 0o777);
        const env = { TMPDIR: folder, XDG_RUNTIME_DIR: folder };
        const shared = () => [...Deno.readDirSync("/dev/shm")].map(({ name }) => name).sort();
        const before = shared();
        assertEquals((await bed.guest(["true"], { env })).code, 0);
        const guest = await bed.idleGuest({ env });
        for (const { pid } of bed.engineProcesses()) killHard(pid);
        await guest.background.wait(END_MS);
        assertEquals([...Deno.readDirSync(folder)], []);
        assertEquals(shared(), before);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

Deno.test({
  name: "lifecycle: background processes of the command end with it",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const result = await bed.guest(["/bin/sh", "-c", "sleep 1000 & setsid sleep 1001 & exit 4"]);
    assertEquals(result.code, 4);
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "lifecycle: input, output, environment and folder are the command's own",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    await t.step("standard input and output, a megabyte", async () => {
      const text = "0123456789abcdef".repeat(65536);
      const result = await bed.guest(["cat"], { stdin: text });
      assertEquals(result.stdout.length, text.length);
      assert(result.stdout === text);
    });
    await t.step("environment and folder", async () => {
      const command = ["/bin/sh", "-c", "echo $COLOUR; pwd"];
      const { stdout } = await bed.guest(command, { env: { COLOUR: "green" }, cwd: "/usr/share" });
      assertEquals(stdout, "green\n/usr/share\n");
    });
    await t.step("arguments arrive as they are", async () => {
      const odd = ["a b", "", "--help", "-m", "$HOME", "é"];
      const { stdout } = await bed.guest(["printf", "%s|", ...odd]);
      assertEquals(stdout, odd.map((word) => `${word}|`).join(""));
    });
    await t.step("only standard descriptors are open", async () => {
      const { stdout } = await bed.guest(["ls", "/proc/self/fd"]);
      assertEquals(stdout.trim().split("\n"), ["0", "1", "2", "3"]); // 3: the folder itself
    });
    await t.step("without a command, the user's shell", async () => {
      const { stdout, code } = await bed.guest([], {
        stdin: "echo shell $((6 * 7)); exit 9\n",
        env: { SHELL: "/bin/sh" },
      });
      assertStringIncludes(stdout, "shell 42");
      assertEquals(code, 9);
    });
    await t.step("without SHELL, /bin/sh", async () => {
      const command = ["env", "-u", "SHELL", ...programUnderTest()];
      const { stdout, code } = await bed.guest([], {
        program: command,
        stdin: 'echo "shell $0 $((6 * 7))"; exit 8\n',
      });
      assertMatch(stdout, /shell \S*\bsh 42/);
      assertEquals(code, 8);
    });
    await t.step("quiet says nothing of its own", async () => {
      const result = await bed.guest(["true"], { options: ["-q"] });
      assertEquals([result.code, result.stdout, result.stderr], [0, "", ""]);
    });
  },
});

Deno.test({
  name: "lifecycle: a deleted interface is one warning, and the command's status counts",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    const lines = "ip link del tap7; sleep 2; echo still here; exit 6";
    const before = performance.now();
    const result = await bed.guest(["/bin/sh", "-c", lines], { options: ["-q", "-I", "tap7"] });
    assertEquals([result.code, result.stdout], [6, "still here\n"]);
    assertEquals(
      result.stderr,
      "Interface tap7 is gone, and the network of the command with it\n",
    );
    assert(performance.now() - before < END_MS);
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "lifecycle: an ignored SIGCHLD hides no status, and the command finds it ignored",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    const program = ["bash", "-c", "trap '' CHLD; exec \"$@\"", "bash", ...programUnderTest()];
    for (const [options, mask] of [[{ program }, "10000"], [{}, "00000"]] as const) {
      const ended = await bed.guest(["/bin/sh", "-c", "exit 5"], options);
      assertEquals(ended.code, 5, ended.stderr);
      const { stdout } = await bed.guest(["grep", "SigIgn", "/proc/self/status"], options);
      assertEquals(stdout.trim().slice(-5), mask);
    }
    await assertNothingLeft(bed);
  },
});

/** Starts a command on a terminal of its own. @returns it, and the program under test's process */
async function onTerminal(bed: Testbed, command: readonly string[]) {
  const wrapper = ["/bin/sh", "-c", 'exec script -qec "exec $*" /dev/null', "sh"];
  const background = await bed.startGuest(command, {
    program: [...wrapper, ...programUnderTest()],
    options: ["-q"],
  });
  await background.waitFor("ready");
  const engine = bed.engineProcesses().find(({ command }) => command.startsWith(Deno.execPath()));
  return { background, pid: engine!.pid };
}

Deno.test({
  name: "lifecycle: Ctrl-C is the command's where it handles it",
  ...OURS,
  async fn(t) {
    const folder = await Deno.makeTempDir({ prefix: "tubetti-tty-" });
    const file = `${folder}/command`;
    const loop = "echo ready; while :; do sleep 0.1; done\n";
    await Deno.writeTextFile(file, `trap 'exit 7' INT; ${loop}`);
    try {
      await using bed = await Testbed.create();
      await t.step("on its terminal", async () => {
        const { background, pid } = await onTerminal(bed, ["/bin/sh", file]);
        Deno.kill(-pid, "SIGINT"); // to the foreground process group, as a terminal does
        assertEquals(await background.wait(END_MS), 7);
      });
      await t.step("not in a session that the terminal does not reach", async () => {
        const { background, pid } = await onTerminal(bed, ["setsid", "/bin/sh", file]);
        Deno.kill(-pid, "SIGINT");
        assertEquals(await background.wait(END_MS), SIGINT_STATUS);
      });
      await t.step("not without a terminal", async () => {
        const background = await bed.startGuest(["/bin/sh", file], { options: ["-q"] });
        await background.waitFor("ready");
        background.kill("SIGINT");
        assertEquals(await background.wait(END_MS), SIGINT_STATUS);
      });
      await t.step("not where it does not handle it", async () => {
        await Deno.writeTextFile(file, loop);
        const { background, pid } = await onTerminal(bed, ["/bin/sh", file]);
        Deno.kill(-pid, "SIGINT");
        assertEquals(await background.wait(END_MS), SIGINT_STATUS);
      });
      await assertNothingLeft(bed);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "lifecycle: -d tells of flows, --trace of packets, on standard error only",
  ...requirements({ tubetti: true, packages: ["iputils-ping", "gcc"] }),
  async fn(t) {
    const program = await peer();
    await using bed = await Testbed.create();
    await bed.serveRemote([program, "serve", `${PORT}`], { tcp: PORT });
    const { remote } = Testbed.addresses(4);
    const lines = [
      `ping -n -c 1 -W 5 ${remote} >/dev/null`,
      `${program} short ${remote} ${PORT} 1 1000 1 >/dev/null`,
    ];
    const traced = async (option: string) => {
      const result = await bed.guest(["/bin/sh", "-ec", lines.join("\n")], { options: [option] });
      assertEquals([result.code, result.stdout], [0, ""], result.stderr);
      return result.stderr;
    };
    const packet = new RegExp(`from guest, \\d+ bytes: 192\\.0\\.2\\.2 > ${remote} `);
    await t.step("-d", async () => {
      const text = await traced("-d");
      assertMatch(text, /Flow \d+ \(.*TCP.*\): /);
      assertMatch(text, /Flow \d+ \(.*(ping|ICMP).*\): /i);
      assert(!packet.test(text), text);
    });
    await t.step("--trace", async () => {
      const text = await traced("--trace");
      assertMatch(text, /Flow \d+ \(.*TCP.*\): /);
      assertMatch(text, packet);
      assertMatch(text, /to guest, \d+ bytes: \S+ > 192\.0\.2\.2 TCP \d+ > \d+ SA /);
      assertMatch(text, /ICMP type 8/);
    });
  },
});

Deno.test({
  name: "lifecycle: nothing runs while nothing happens",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await bed.idleGuest({ options: NOTHING });
    await sleep(2500); // neighbour discovery and router advertisements settle
    const [engine] = bed.engineProcesses();
    // the guest's kernel may still have something to say now and then
    const wakeUps = await attempt(async () => {
      const before = loopWakeUpsOf(engine!.pid);
      await sleep(3000);
      return loopWakeUpsOf(engine!.pid) - before;
    }, (count) => count <= 1);
    assert(wakeUps <= 1, `${wakeUps} wake-ups in 3 s with an empty table`);
  },
});

Deno.test({
  name: "lifecycle: a command that cannot be run gives 127 or 126, as in shells",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    for (
      const [name, code] of [["/nonexistent", 127], ["nonexistent-command", 127], ["/etc", 126]]
    ) {
      const result = await bed.guest([`${name}`]);
      assertEquals(result.code, code, result.stderr);
      assertMatch(result.stderr.trim().split("\n").at(-1)!, new RegExp(`${name}`));
    }
    await assertNothingLeft(bed);
  },
});
