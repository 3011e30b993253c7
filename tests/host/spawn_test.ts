// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { Background, describe, markedProcesses, type Result, run, until } from "../helpers/run.ts";
import { userCopy } from "../helpers/user_copy.ts";

const FIXTURE = new URL("./spawn_fixture.ts", import.meta.url).pathname;
const ROUNDS = 50;
const TIMEOUT_MS = 60_000;

type Who = "root" | "an ordinary user";

/** The fixture's command line, as root or as uid 1000. */
async function fixture(who: Who, ...args: string[]): Promise<string[]> {
  if (who === "root") {
    // namespaces of its own, so that what others do at the same time is not seen
    return ["unshare", "-mn", Deno.execPath(), "run", "-A", "--no-check", FIXTURE, ...args];
  }
  const { deno, project, denoDir } = await userCopy();
  await Deno.mkdir(`${project}/tests/host`, { recursive: true });
  await Deno.copyFile(FIXTURE, `${project}/tests/host/spawn_fixture.ts`);
  const copy = `${project}/tests/host/spawn_fixture.ts`;
  const program = [deno, "run", "-A", "--no-check", copy, ...args];
  const user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];
  return withTun("10 200", "666", [...user, "env", `DENO_DIR=${denoDir}`, ...program]);
}

/** Runs a command with a /dev/net/tun of its own device number and mode, which others don't see. */
function withTun(device: string, mode: string, command: string[]): string[] {
  const script =
    "mount -t tmpfs tmpfs /dev/net && mknod /dev/net/tun c $0 && chmod $1 /dev/net/tun" +
    ' && shift && exec "$@"';
  return ["unshare", "-mn", "sh", "-c", script.replace("$0", device), "sh", mode, ...command];
}

/** Runs a shell script in the guest. */
async function inGuest(who: Who, script: string): Promise<Result> {
  return await run(await fixture(who, "run", "sh", "-c", script), { timeoutMs: TIMEOUT_MS });
}

/** A signal set of /proc/PID/status without 32 and 33, which posix_spawn(3) leaves ignored. */
function signalSet(status: string, name: string): number {
  const set = BigInt(`0x${status.match(new RegExp(`${name}:\\s+(\\w+)`))![1]}`);
  return Number(set & ~(0x3n << 31n));
}

function assertExit(result: Result, code: number): void {
  assertEquals(result.code, code, describe(["fixture"], result));
}

const needs = requirements();

for (const who of ["root", "an ordinary user"] as const) {
  Deno.test({
    name: `spawnGuest() leaves nothing behind in ${ROUNDS} rounds as ${who}`,
    ...needs,
    async fn() {
      const result = await run(await fixture(who, "rounds", `${ROUNDS}`), {
        timeoutMs: TIMEOUT_MS,
      });
      assertEquals(result.stdout, "nothing left\n", result.stderr);
    },
  });

  Deno.test({
    name: `spawnGuest() makes the command root of its own namespaces as ${who}`,
    ...needs,
    async fn() {
      const result = await inGuest(
        who,
        "id -u; id -g; cat /proc/self/setgroups; echo $$; readlink /proc/self; ls /sys/class/net; " +
          "cat /proc/sys/net/ipv4/ping_group_range; ls /sys/fs/cgroup | wc -l",
      );
      assertExit(result, 0);
      const lines = result.stdout.trimEnd().split("\n");
      const cgroups = [...Deno.readDirSync("/sys/fs/cgroup")].length;
      assertMatch(lines.splice(4, 1)[0], /^\d+$/); // of readlink itself: /proc is that of the namespace
      assertEquals(lines, [
        ...["0", "0", "deny", "1", "lo", "tap0", "0\t0"],
        String(cgroups),
      ]);
    },
  });

  for (const code of [0, 7, 255]) {
    Deno.test({
      name: `spawnGuest() reports exit status ${code} as ${who}`,
      ...needs,
      fn: async () => assertExit(await inGuest(who, `exit ${code}`), code),
    });
  }

  Deno.test({
    name: `spawnGuest() reports 127 for an unknown command and 126 for no program as ${who}`,
    ...needs,
    async fn() {
      const unknown = await run(await fixture(who, "run", "no-such-command"));
      assertExit(unknown, 127);
      assertEquals(unknown.stderr, "execve no-such-command: ENOENT (command not found)\n");
      const absent = await run(await fixture(who, "run", "/no/such/command"));
      assertExit(absent, 127);
      const plain = await run(await fixture(who, "run", "/etc/passwd"));
      assertExit(plain, 126);
      assertEquals(
        plain.stderr,
        "execve /etc/passwd: EACCES (not an executable file, or not permitted)\n",
      );
    },
  });

  Deno.test({
    name: `the guest and all it started end when we are killed as ${who}`,
    ...needs,
    async fn() {
      const mark = crypto.randomUUID();
      const command = await fixture(
        who,
        "run",
        "sh",
        "-c",
        "sleep 97 & (setsid sleep 98 &) ; echo up; wait",
      );
      const program = new Background(command, { mark });
      try {
        await program.waitFor("up");
        assert(
          markedProcesses(mark).filter(({ command }) => command.includes("sleep")).length >= 2,
        );
        program.kill("SIGKILL");
        assertEquals(await program.wait(), 137);
        assert(await until(() => markedProcesses(mark).length === 0), "processes are left");
      } finally {
        await program.stop();
      }
    },
  });

  Deno.test({
    name: `the guest and all it started end with us at SIGTERM as ${who}`,
    ...needs,
    async fn() {
      const mark = crypto.randomUUID();
      const command = await fixture(who, "run", "sh", "-c", "sleep 97 & echo up; wait");
      const program = new Background(command, { mark });
      try {
        await program.waitFor("up");
        program.kill("SIGTERM");
        assertEquals(await program.wait(), 143);
        assertEquals(markedProcesses(mark), []);
      } finally {
        await program.stop();
      }
    },
  });

  Deno.test({
    name: `the guest's death by a signal is seen as 128 + N as ${who}`,
    ...needs,
    async fn() {
      const mark = crypto.randomUUID();
      const program = new Background(await fixture(who, "run", "sleep", "97"), { mark });
      try {
        const find = () => markedProcesses(mark).find(({ command }) => command === "sleep 97");
        assert(await until(() => find() !== undefined), "the command did not start");
        Deno.kill(find()!.pid, "SIGKILL");
        assertEquals(await program.wait(), 137);
      } finally {
        await program.stop();
      }
    },
  });
}

Deno.test({
  name: "the guest gets descriptors 0, 1 and 2 only",
  ...needs,
  async fn() {
    const inner = await fixture("root", "run", "ls", "/proc/self/fd");
    // 3 is the directory that ls reads
    const result = await run(["sh", "-c", 'exec 7</dev/null; exec "$@"', "sh", ...inner]);
    assertEquals(result.stdout, "0\n1\n2\n3\n");
  },
});

Deno.test({
  name: "the guest finds signals ignored that we found ignored",
  ...needs,
  async fn() {
    const inner = await fixture("root", "run", "cat", "/proc/self/status");
    const plain = await run(inner);
    assertEquals(signalSet(plain.stdout, "SigIgn"), 0);
    const result = await run(["sh", "-c", 'trap "" HUP; exec "$@"', "sh", ...inner]);
    assertEquals(signalSet(result.stdout, "SigBlk"), 0);
    assertEquals(signalSet(result.stdout, "SigIgn"), 1);
  },
});

Deno.test({
  name: "the guest gets our environment and arguments unchanged",
  ...needs,
  async fn() {
    const script = 'printf "%s|" "$@" "$GREETING"';
    const inner = await fixture("root", "run", "sh", "-c", script, "sh", "", "a b", "ü$'\"");
    const result = await run(inner, { env: { GREETING: "hello  world" } });
    assertEquals(result.stdout, "|a b|ü$'\"|hello  world|");
  },
});

Deno.test({
  name: "the guest's environment has no variable that our runtime had from the one that started it",
  ...needs,
  async fn() {
    const inner = await fixture("root", "run", "env");
    const variables = { DENO_EXTRA_STDIO_FDS: "3,4", DENO_EXTRA_STDIO: "5", OTHER: "7" };
    const { stdout } = await run(inner, { env: variables });
    const given = stdout.match(/^(?:DENO_EXTRA|OTHER=).*$/gm)?.sort();
    assertEquals(given, ["DENO_EXTRA_STDIO=5", "OTHER=7"]);
  },
});

Deno.test({
  name: "the guest's command is found where programs usually are when we were given no PATH",
  ...needs,
  async fn() {
    const inner = await fixture("root", "run", "env");
    const result = await run(["env", "-u", "PATH", ...inner]);
    assertExit(result, 0);
    assert(!/^PATH=/m.test(result.stdout), result.stdout); // the runtime's own is not for the guest
  },
});

Deno.test({
  name: "the guest's command is a script without an interpreter line: the shell runs it",
  ...needs,
  async fn() {
    const path = await Deno.makeTempFile();
    try {
      await Deno.writeTextFile(path, "echo $0 $1; exit 3\n");
      await Deno.chmod(path, 0o755);
      const result = await run(await fixture("root", "run", path, "x"));
      assertExit(result, 3);
      assertEquals(result.stdout, `${path} x\n`);
    } finally {
      await Deno.remove(path);
    }
  },
});

Deno.test({
  name: "the guest is the user's shell, as login shell, when no command is given",
  ...requirements({ packages: ["bash"] }),
  async fn() {
    const stdin = "shopt -q login_shell && echo $0; exit 4\n";
    const result = await run(await fixture("root", "run"), { env: { SHELL: "/bin/bash" }, stdin });
    assertExit(result, 4);
    assertStringIncludes(result.stdout, "-/bin/bash\n");
  },
});

Deno.test({
  name: "the guest's shell has job control on a terminal",
  ...requirements({ packages: ["bash", "bsdutils"] }),
  async fn() {
    const inner = (await fixture("root", "run", "bash", "--norc", "-i")).join(" ");
    const stdin = "sleep 50 & jobs; kill %1; wait; sleep 0.1; cat /proc/$$/stat; exit 6\n";
    const result = await run(["script", "-qec", inner, "/dev/null"], { stdin });
    assertExit(result, 6);
    assert(!result.stdout.includes("no job control"), result.stdout);
    assertMatch(result.stdout, /\[1\]\+ +Running +sleep 50/);
    // the shell leads a process group, and the terminal's foreground group is one of its jobs
    const [, group, session, foreground] = result.stdout.match(
      /\(bash\) \S \d+ (\d+) (\d+) \d+ (-?\d+)/,
    )!;
    assertEquals([group, session, Number(foreground) > 0], ["1", "0", true]);
  },
});

Deno.test({
  name: "the guest runs with a warning where /proc can't be mounted anew",
  ...needs,
  async fn() {
    // the kernel refuses a fresh /proc to those from whom parts of the present one are hidden
    const hide = 'mount --bind /dev/null /proc/uptime && exec "$@"';
    const inner = await fixture("root", "run", "sh", "-c", "echo $$");
    const result = await run(["unshare", "-m", "sh", "-c", hide, "sh", ...inner]);
    assertExit(result, 0);
    assertEquals([result.stdout, result.stderr], ["1\n", "warning: mount /proc: EPERM\n"]);
  },
});

const failures: [name: string, wrap: (command: string[]) => string[], message: RegExp][] = [
  [
    "/dev/net/tun is missing",
    (
      command,
    ) => ["unshare", "-m", "sh", "-c", 'mount -t tmpfs x /dev/net && exec "$@"', "sh", ...command],
    /^openat \/dev\/net\/tun: ENOENT \(no such device: load the tun module.*\)\n$/,
  ],
  [
    "/dev/net/tun has no driver",
    (command) => withTun("10 199", "666", command),
    /^openat \/dev\/net\/tun: ENODEV \(the kernel has no tun driver: modprobe tun\)\n$/,
  ],
  [
    "user namespaces are used up",
    (command) => [
      ...["unshare", "-Ur", "sh", "-c"],
      ...['echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh", ...command],
    ],
    /^clone namespaces: ENOSPC \(no more user namespaces allowed.*max_user_namespaces\)\n$/,
  ],
];

for (const [name, wrap, message] of failures) {
  Deno.test({
    name: `spawning says what to do when ${name}, and leaves nothing behind`,
    ...needs,
    async fn() {
      const mark = crypto.randomUUID();
      const result = await run(wrap(await fixture("root", "run", "sleep", "97")), { mark });
      assertExit(result, 1);
      assertMatch(result.stderr, message);
      assert(await until(() => markedProcesses(mark).length === 0), "processes are left");
    },
  });
}

Deno.test({
  name: "spawning says what to do when /dev/net/tun is not permitted",
  ...needs,
  async fn() {
    const command = (await fixture("an ordinary user", "run", "true")).map((word) =>
      word === "666" ? "600" : word
    );
    const result = await run(command);
    assertExit(result, 1);
    assertMatch(
      result.stderr,
      /^openat \/dev\/net\/tun: EACCES \(read and write permission.*\)\n$/,
    );
  },
});
