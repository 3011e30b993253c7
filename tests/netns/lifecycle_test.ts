// SPDX-License-Identifier: GPL-2.0-or-later
/** The command and the program end together, whatever ends first, and nothing stays behind. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { killHard, markedProcesses, sleep, until } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { wakeUpsOf } from "../helpers/usage.ts";

const PORT = 25491;
const NEEDS = requirements();
const OURS = requirements({ tubetti: true });

/** 128 + N, as shells have it. */
const SIGINT_STATUS = 130;
const SIGKILL_STATUS = 137;
const SIGTERM_STATUS = 143;

/** Longest time in which everything must be gone, in milliseconds. */
const END_MS = 4_000;

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
    await t.step("quiet says nothing of its own", async () => {
      const result = await bed.guest(["true"], { options: ["-q"] });
      assertEquals([result.code, result.stdout, result.stderr], [0, "", ""]);
    });
  },
});

Deno.test({
  name: "lifecycle: nothing runs while nothing happens",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await bed.idleGuest();
    await sleep(2500); // neighbour discovery and router advertisements settle
    const [engine] = bed.engineProcesses();
    const before = wakeUpsOf(engine!.pid);
    await sleep(5000);
    const wakeUps = wakeUpsOf(engine!.pid) - before;
    assert(wakeUps <= 5, `${wakeUps} wake-ups in 5 s with an empty table`);
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
