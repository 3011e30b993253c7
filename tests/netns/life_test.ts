// SPDX-License-Identifier: GPL-2.0-or-later
/** The life of the process: who it is, where it runs, what it opens, and that nothing outlives it. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { AttachedCase } from "../helpers/attached.ts";
import { iperfCommand } from "../helpers/iperf.ts";
import { requirements } from "../helpers/require.ts";
import { killHard, markedProcesses, must, run, sleep, until } from "../helpers/run.ts";
import { programUnderTest, STAY_ROOT, Testbed } from "../helpers/testbed.ts";

const PORT = 25551;
const OURS = requirements({ tubetti: true });
const WITH_PYTHON = requirements({ tubetti: true, packages: ["python3"] });
const WITH_BASH = requirements({ tubetti: true, packages: ["bash"] });
const WITH_IPERF = requirements({ tubetti: true, packages: ["iperf3"] });

/** Longest time in which everything must be gone, in milliseconds: far more than it takes. */
const END_MS = 15_000;
const SIGTERM_STATUS = 143;
const SIGNALS = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"] as const;

function statusOf(pid: number, field: string): string {
  const status = Deno.readTextFileSync(`/proc/${pid}/status`);
  return new RegExp(`^${field}:\\s*(.*)$`, "m").exec(status)?.[1]?.replace(/\s+/g, " ") ?? "";
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

/** What a process has open that has a name, but the runtime's caches. */
function namedFiles(pid: number): string[] {
  const links = [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
    } catch {
      return ""; // closed meanwhile
    }
  });
  return links.filter((link) => link.startsWith("/") && !/_cache_v\d/.test(link));
}

/** Interfaces go a moment after the process that held them. */
async function assertGone(test: AttachedCase): Promise<void> {
  await until(async () => (await test.left()).length === 0, END_MS);
  assertEquals(await test.left(), []);
}

Deno.test({
  name: "life: the namespace has its hostname, its ping sockets and its loopback interface",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    await t.step("hostname", async () => {
      const { stdout } = await bed.guest(["hostname"]);
      assertEquals(stdout, `pasta-${Deno.hostname()}\n`);
    });
    await t.step("hostname, cut to 64 bytes", async () => {
      const long = "a".repeat(64);
      const program = ["unshare", "-u", "sh", "-c", `hostname ${long}; exec "$@"`, "sh"];
      const { stdout } = await bed.guest(["hostname"], {
        program: [...program, ...programUnderTest()],
      });
      assertEquals(stdout, `pasta-${long}`.slice(0, 64) + "\n");
    });
    await t.step("ping sockets", async () => {
      const { stdout } = await bed.guest(["cat", "/proc/sys/net/ipv4/ping_group_range"]);
      assertEquals(stdout, "0\t0\n");
    });
    await t.step("loopback", async () => {
      const { stdout } = await bed.guest(["ip", "-br", "address", "show", "lo"], {
        unconfigured: true,
      });
      assertMatch(stdout, /^lo\s+UNKNOWN\s+127\.0\.0\.1\/8 ::1\/128/);
    });
  },
});

Deno.test({
  name:
    "life: the command has the caller's umask and nothing that the caller left open, nor have we",
  ...WITH_BASH,
  async fn() {
    await using bed = await Testbed.create();
    const opening = ["bash", "-c", 'umask 027; exec 7</etc/passwd 8<>/dev/zero 99>&1; exec "$@"'];
    const guest = await bed.startGuest(
      ["bash", "-c", 'umask; ls /proc/$$/fd; echo "<ready>"; exec sleep 1000'],
      { program: [...opening, "bash", ...programUnderTest()] },
    );
    await guest.waitFor("<ready>");
    assertEquals(guest.stdout, "0027\n0\n1\n2\n<ready>\n");
    const engine = bed.engineProcesses().find(({ command }) => command.includes(" pasta "))!;
    const open = namedFiles(engine.pid);
    assertEquals(open.filter((name) => /passwd|zero/.test(name)), []);
    assertEquals(statusOf(engine.pid, "Umask"), "0077");
  },
});

Deno.test({
  name: "life: a caller that has signals blocked can end us, and its mask is the command's",
  ...WITH_PYTHON,
  async fn() {
    await using bed = await Testbed.create();
    const block = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, " +
      "[signal.SIGTERM, signal.SIGUSR1]); os.execvp(sys.argv[1], sys.argv[1:])";
    const start = (before: string[], command: string[]) => {
      const blocked = ["python3", "-c", block, ...programUnderTest(), "-q", ...STAY_ROOT];
      return bed.runHost([...before, ...blocked, "--", ...command], { mark: bed.guestMark });
    };
    const { stdout } = await start([], ["grep", "SigBlk", "/proc/self/status"]);
    assertEquals(stdout, "SigBlk:\t0000000000004200\n");
    const { code } = await start(["timeout", "-k", "20", "3"], ["sleep", "60"]);
    assertEquals(code, 124, "not killed");
  },
});

Deno.test({
  name: "life: root becomes nobody, and the command's root is nobody outside",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create({ user: true });
    await bed.guest(["true"]); // opens the tun device to all, as it is on most machines
    const folder = await Deno.makeTempDir({ prefix: "tubetti-nobody-" });
    const start = (options: string[], command: string[]) =>
      bed.runHost([...programUnderTest(), ...options, "--config-net", "--", ...command], {
        mark: bed.guestMark,
        cwd: "/",
      });
    try {
      await t.step(
        "with one line, and the number's file where only root may write",
        async () => {
          const file = `${folder}/pid`;
          const lines = `cat ${folder}/pid; cat /proc/self/uid_map; id -u; cat /etc/shadow`;
          await Deno.chmod(folder, 0o755);
          const { stdout, stderr } = await start(["-P", file], ["sh", "-c", lines]);
          assertMatch(stdout, /^\d+\n\s*0\s+65534\s+1\n0\n$/);
          const all = stderr.trimEnd().split("\n");
          assertEquals(all[0], "Started as root: running as nobody (--runas 0 stays root)");
          assertEquals(all.at(-1), "cat: /etc/shadow: Permission denied");
          assertEquals(Deno.readTextFileSync(file), "", "nobody can't remove it, only empty it");
        },
      );
      await t.step("the number's file is emptied where nobody cannot go", async () => {
        const closed = `${folder}/closed`;
        await Deno.mkdir(closed, { mode: 0o700 });
        const { code } = await start(["-q", "-P", `${closed}/pid`], ["true"]);
        assertEquals([code, Deno.readTextFileSync(`${closed}/pid`)], [0, ""]);
      });
      await t.step("-q: without a word", async () => {
        const { code, stderr } = await start(["-q"], ["true"]);
        assertEquals([code, stderr], [0, ""]);
      });
      await t.step("other processes of nobody cannot look into it", async () => {
        const file = `${folder}/pid`;
        const look = `setpriv --reuid nobody --clear-groups ls -l /proc/$pid/fd 2>&1`;
        const script = `"$@" | { read up; pid=$(cat ${file}); ${look}; kill $pid; }`;
        const guest = ["--", "sh", "-c", "echo up; exec sleep 60"];
        const command = [...programUnderTest(), "-q", "-P", file, "--config-net", ...guest];
        const options = { mark: bed.guestMark, cwd: "/", timeoutMs: 30_000 };
        const { stdout } = await bed.runHost(["sh", "-c", script, "sh", ...command], options);
        assertMatch(stdout, /^ls: cannot open directory [^\n]*: Permission denied\n$/);
      });
      await t.step("as somebody else", async () => {
        const show = ["cat", "/proc/self/uid_map", "/proc/self/gid_map"];
        const { stdout, stderr, code } = await start(["-q", "--runas", "1000:7"], show);
        assertEquals([code, stderr], [0, ""]);
        assertMatch(stdout, /^\s*0\s+1000\s+1\n\s*0\s+7\s+1\n$/);
      });
      await t.step("not with --runas 0", async () => {
        const { stdout, stderr } = await start(["-q", "--runas", "0"], [
          "cat",
          "/proc/self/uid_map",
        ]);
        assertEquals(stderr, "");
        assertMatch(stdout, /^\s*0\s+0\s+1\n$/);
      });
      await t.step("not in a user namespace", async () => {
        const program = ["unshare", "-r", ...programUnderTest(), "-q", "--config-net", "--"];
        const { stdout, stderr } = await bed.runHost([...program, "id", "-u"], { cwd: "/" });
        assertEquals([stdout, stderr], ["0\n", ""]);
      });
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name: "life: -P holds our number while the command runs, and keeps a second instance out",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    const folder = await Deno.makeTempDir({ prefix: "tubetti-pid-" });
    try {
      const file = `${folder}/pid`, options = ["-q", "-P", "pid"];
      const guest = await bed.startGuest(["sh", "-c", "cat pid; exec sleep 1000"], {
        options,
        cwd: folder,
      });
      await guest.waitFor("\n");
      const pid = Number(guest.stdout);
      assertEquals(Deno.readTextFileSync(file), `${pid}\n`);
      assertEquals((Deno.statSync(file).mode ?? 0) & 0o777, 0o644);
      assert(bed.engineProcesses().some((engine) => engine.pid === pid));
      const second = await bed.guest(["touch", "ran"], { options, cwd: folder });
      assertEquals([second.code, second.stdout], [1, ""]);
      assertMatch(second.stderr, new RegExp(`^tubetti: -P[^\\n]*process ${pid}, which[^\\n]*\n$`));
      Deno.kill(pid, "SIGTERM");
      assertEquals(await guest.wait(END_MS), SIGTERM_STATUS);
      assertEquals([...Deno.readDirSync(folder)], []);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

Deno.test({
  name:
    "life: attached to a namespace, the parent's exit means ready, and nothing holds the caller",
  ...WITH_BASH,
  async fn() {
    await using bed = await Testbed.create();
    await bed.serveRemote(["socat", `TCP-LISTEN:${PORT},fork`, "SYSTEM:echo here"], { tcp: PORT });
    await using test = await AttachedCase.create(bed);
    // reads to the end of its output, with more descriptors open than it should have
    const script = 'exec 7</etc/passwd; seen=$("$@" 2>&1); echo "$?"';
    const command = ["bash", "-c", script, "bash", ...test.command()];
    const { stdout } = await run(command, { mark: test.name, timeoutMs: 30_000 });
    assertEquals(stdout, "0\n");
    const { remote } = Testbed.addresses(4);
    const asked = await test.inside(["socat", "-", `TCP:${remote}:${PORT}`]);
    assertEquals(asked.stdout, "here\n", asked.stderr);
    const { pid } = test;
    assertEquals(Deno.readLinkSync(`/proc/${pid}/cwd`), "/");
    const files = namedFiles(pid);
    assert(files.includes(test.pidFile));
    assertEquals(files.filter((name) => /passwd/.test(name)), []);
    for (const fd of [0, 1, 2]) {
      assertEquals(Deno.readLinkSync(`/proc/${pid}/fd/${fd}`), "/dev/null");
    }
    Deno.kill(pid, "SIGTERM");
    await assertGone(test);
  },
});

Deno.test({
  name: "life: attached in the background or the foreground, every ending signal cleans up",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    for (const signal of SIGNALS) {
      await t.step(`${signal}, background`, async () => {
        await using test = await AttachedCase.create(bed);
        const { code, stderr } = await test.attach();
        assertEquals(code, 0, stderr);
        assertEquals((await test.interfaces()).length, 2);
        Deno.kill(test.pid, signal);
        await assertGone(test);
      });
    }
    await t.step("SIGTERM, foreground", async () => {
      await using test = await AttachedCase.create(bed);
      const foreground = test.attachForeground();
      await until(() => exists(test.pidFile) && Deno.statSync(test.pidFile).size > 0);
      Deno.kill(test.pid, "SIGTERM");
      assertEquals(await foreground.wait(END_MS), 0);
      await assertGone(test);
    });
  },
});

Deno.test({
  name: "life: a start in the background that fails prints one line and leaves nothing",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    const cases: Record<string, readonly string[]> = {
      "early": ["--runas", "elvis"],
      "late": ["--pcap", "/nonexistent/pcap"],
      "port": ["-t", "192.0.2.99/80"],
    };
    for (const [name, options] of Object.entries(cases)) {
      await t.step(name, async () => {
        await using test = await AttachedCase.create(bed);
        const { code, stdout, stderr } = await test.attach(["-q", ...options]);
        assertEquals([code, stdout], [1, ""], stderr);
        assertMatch(stderr, /^tubetti: [^\n]+\n$/);
        await assertGone(test);
      });
    }
  },
});

for (const attached of [false, true]) {
  Deno.test({
    name: `life: SIGTERM during four iperf3 streams, ${attached ? "attached" : "with a command"}`,
    ...WITH_IPERF,
    async fn() {
      await using bed = await Testbed.create();
      await bed.serveRemote(["iperf3", "-s", "-p", `${PORT}`], { tcp: PORT });
      await using test = await AttachedCase.create(bed);
      const server = Testbed.addresses(4).remote;
      const load = iperfCommand({ server, port: PORT, seconds: 60, streams: 4 });
      if (attached) {
        assertEquals((await test.attach()).code, 0);
        const client = test.inside(load);
        await sleep(1500);
        const began = performance.now();
        Deno.kill(test.pid, "SIGTERM");
        await until(() => !test.processes().some(({ command }) => command.includes("pasta")));
        assert(performance.now() - began < END_MS);
        for (const { pid } of test.processes()) killHard(pid);
        await client;
      } else {
        const guest = await bed.startGuest(load, { options: ["-P", test.pidFile] });
        await until(() => [...Deno.readDirSync(test.folder)].length > 0);
        await sleep(1500);
        Deno.kill(test.pid, "SIGTERM");
        assertEquals(await guest.wait(END_MS), SIGTERM_STATUS);
      }
      await assertGone(test);
    },
  });
}

/** Mounts, interfaces and files in shared folders that could stay behind. */
async function traces(bed: Testbed): Promise<Set<string>> {
  const mounts = Deno.readTextFileSync("/proc/self/mountinfo").split("\n");
  const interfaces = await must(["ip", "netns", "exec", bed.host, "ls", "/sys/class/net"]);
  const shared = [...Deno.readDirSync("/dev/shm")].map(({ name }) => name);
  // what other tests of the machine have in /run/netns comes and goes
  const ours = mounts.filter((line) => !line.includes("/netns/") || line.includes(bed.name));
  return new Set([...ours, ...interfaces.split("\n"), ...shared]);
}

const ROUNDS = 200;
const AT_ONCE = 4;

Deno.test({
  name: `life: ${ROUNDS} starts and ends leave no process, mount, interface or file`,
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    const before = await traces(bed);
    let next = 0;
    const worker = async () => {
      await using test = await AttachedCase.create(bed);
      // every other one attached; ports are not opened: all share one host
      const closed = ["-q", "-t", "none", "-u", "none", "-T", "none", "-U", "none"];
      for (let round = next++; round < ROUNDS; round = next++) {
        if (round % 2 === 0) {
          const options = [...closed, "-P", test.pidFile];
          const { code, stderr } = await bed.guest(["true"], { options });
          assertEquals([code, stderr], [0, ""]);
        } else {
          const { code, stderr } = await test.attach(closed);
          assertEquals([code, stderr], [0, ""]);
          const { pid } = test;
          Deno.kill(pid, "SIGTERM");
          await until(() => !exists(test.pidFile), END_MS, 5);
          await until(async () => (await test.interfaces()).length === 1, END_MS, 5);
        }
        assertEquals([...Deno.readDirSync(test.folder)], []);
      }
      assertEquals(await test.interfaces(), ["lo"]);
    };
    const workers = Array.from({ length: AT_ONCE }, worker);
    await Promise.all(workers);
    assertEquals(markedProcesses(bed.guestMark), []);
    assertEquals([...(await traces(bed)).difference(before)], []);
  },
});
