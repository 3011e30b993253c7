// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch } from "@std/assert";
import { needsBackground, seemsBackground } from "../../lib/host/background.ts";
import { defaultOptions } from "../../lib/config/model.ts";
import {
  killHard,
  markedProcesses,
  type Result,
  run,
  type RunOptions,
  until,
} from "../helpers/run.ts";
import { requirements } from "../helpers/require.ts";

const FIXTURE = new URL("background_fixture.ts", import.meta.url).pathname;
const PROGRAM = [Deno.execPath(), "run", "--quiet", "--no-prompt", "--allow-all", FIXTURE];

/** A place for files, and the processes that were started with its mark. */
class Case implements Disposable {
  readonly folder: string = Deno.makeTempDirSync({ prefix: "tubetti-background-" });
  readonly mark: string = this.folder;
  readonly file: string = `${this.folder}/pid`;

  run(args: readonly string[], options: RunOptions = {}): Promise<Result> {
    return run([...PROGRAM, ...args], { mark: this.mark, ...options });
  }

  /** Starts the fixture in the background. @returns its process number */
  async start(options: RunOptions = {}, args: readonly string[] = []): Promise<number> {
    const { code, stderr } = await this.run(["ok", this.file, ...args], options);
    assertEquals(code, 0, stderr);
    return Number(Deno.readTextFileSync(this.file));
  }

  /** Whether neither a file nor, within a moment, a process is left. */
  async isEmpty(): Promise<boolean> {
    return await until(() =>
      markedProcesses(this.mark).length === 0 && [...Deno.readDirSync(this.folder)].length === 0
    );
  }

  [Symbol.dispose](): void {
    for (const { pid } of markedProcesses(this.mark)) killHard(pid);
    Deno.removeSync(this.folder, { recursive: true });
  }
}

const NEEDS = requirements({ root: false, packages: ["bash"] });

function statOf(pid: number): { parent: number; group: number; session: number; terminal: number } {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ").map(Number);
  return { parent: fields[1]!, group: fields[2]!, session: fields[3]!, terminal: fields[4]! };
}

/** What a process has open, without what the runtime keeps for itself. */
function openFiles(pid: number): string[] {
  const links = [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) =>
    Deno.readLinkSync(`/proc/${pid}/fd/${name}`)
  );
  return links.filter((link) => !/^(anon_inode|socket):|_cache_v\d/.test(link));
}

for (
  const [line, expected] of [
    ["--netns /run/netns/a", true],
    ["--config-net -t none --netns=a -q", true],
    ["pasta 4711", true],
    ["-P /tmp/file -l /tmp/f --runas 0 4711", true],
    ["pasta", false],
    ["-t 80 -- sleep 5", false],
    ["-f 4711", false],
    ["-qf 4711", false],
    ["--netns a --foreground", false],
    ["--netns a --fore", false],
    ["--netns a --help", false],
    ["--netns a -h", false],
    ["--netns a --version", false],
  ] as const
) {
  Deno.test(`seemsBackground() says ${expected} to ${line}`, () => {
    assertEquals(seemsBackground(line.split(" ")), expected);
  });
}

Deno.test("runInBackground() says so when the second process declines", async () => {
  using place = new Case();
  const { code, stderr } = await place.run(["decline"]);
  assertEquals([code, stderr], [3, "starting\n"]);
  assert(await place.isEmpty());
});

Deno.test("needsBackground() is for namespaces of others, unless -f is given", () => {
  const options = defaultOptions("pasta");
  assertEquals(needsBackground(options), false);
  for (const target of [{ kind: "pid", pid: 7 }, { kind: "path", path: "/x" }] as const) {
    assertEquals(needsBackground({ ...options, target }), true);
    assertEquals(needsBackground({ ...options, target, foreground: true }), false);
  }
});

Deno.test({
  name:
    "runInBackground() leaves a process of its own session, folder and files, with the same name",
  ...NEEDS,
  async fn() {
    using test = new Case();
    const pid = await test.start({ cwd: test.folder });
    const { session, group, terminal } = statOf(pid);
    assertEquals([session, group, terminal], [pid, pid, 0]);
    assertEquals(Deno.readLinkSync(`/proc/${pid}/cwd`), "/");
    const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0").slice(0, -1);
    assertEquals(words, [...PROGRAM, "ok", test.file]);
    assertEquals(Deno.readTextFileSync(`/proc/${pid}/comm`), "deno\n");
    const files = openFiles(pid).filter((link) => !link.startsWith("pipe:"));
    assertEquals(new Set(files), new Set(["/dev/null", test.file]));
    Deno.kill(pid, "SIGTERM");
    assert(await test.isEmpty());
  },
});

Deno.test({
  name: "runInBackground() lets go of the caller's output at once",
  ...NEEDS,
  async fn() {
    using test = new Case();
    // the shell reads until the end of the pipe, as podman does
    const script = 'seen=$("$@" 2>&1); echo "$? [$seen]"';
    const command = ["bash", "-c", script, "bash", ...PROGRAM, "ok", test.file];
    const { stdout } = await run(command, { mark: test.mark, timeoutMs: 20_000 });
    assertEquals(stdout, "0 [starting]\n");
    const pid = Number(Deno.readTextFileSync(test.file));
    Deno.kill(pid, "SIGTERM");
    assert(await test.isEmpty());
  },
});

Deno.test({
  name: "runInBackground() inherits nothing that the caller left open",
  ...NEEDS,
  async fn() {
    using test = new Case();
    const script = 'exec 7</etc/passwd 200>"$0/left-open"; exec "$@"';
    const command = ["bash", "-c", script, test.folder, ...PROGRAM, "ok", test.file];
    assertEquals((await run(command, { mark: test.mark })).code, 0);
    const pid = Number(Deno.readTextFileSync(test.file));
    const files = openFiles(pid).filter((link) => !link.startsWith("pipe:"));
    assertEquals(new Set(files), new Set(["/dev/null", test.file]));
    Deno.removeSync(`${test.folder}/left-open`);
    Deno.kill(pid, "SIGTERM");
    assert(await test.isEmpty());
  },
});

Deno.test({
  name: "runInBackground() passes on how a start failed",
  ...NEEDS,
  async fn(t) {
    using test = new Case();
    await t.step("its exit code and its words", async () => {
      const { code, stdout, stderr } = await test.run(["fail", test.file]);
      assertEquals([code, stdout, stderr], [7, "", "starting\n"]);
      assert(await test.isEmpty());
    });
    await t.step("a file that belongs to another", async () => {
      const pid = await test.start();
      const { code, stderr } = await test.run(["ok", test.file]);
      assertEquals(code, 1);
      assertMatch(stderr, new RegExp(`^-P: flock [^\\n]*process ${pid}, which still runs\\)\n$`));
      Deno.kill(pid, "SIGTERM");
      assert(await test.isEmpty());
    });
    await t.step("a signal", async () => {
      const { code, stderr } = await test.run(["die", test.file]);
      assertEquals([code, stderr], [1, "starting\nstart ended by signal 9: EINTR\n"]);
      Deno.removeSync(test.file);
      assert(await test.isEmpty());
    });
  },
});

Deno.test({
  name: "runInBackground() leaves nothing when it is ended before all is ready",
  ...NEEDS,
  async fn() {
    using test = new Case();
    const starting = test.run(["slow", test.file], {
      onStart: async (pid) => {
        await until(() => markedProcesses(test.mark).length === 2);
        killHard(pid);
      },
    });
    assertEquals((await starting).code, 137);
    assert(await test.isEmpty(), "the second process ends when it finds itself alone");
  },
});

Deno.test({
  name: "runInBackground() tells nobody how it was started, and believes nobody who says so",
  ...NEEDS,
  async fn() {
    using test = new Case();
    const names = (text: string) => text.trim().split("\n").at(-2)!.split(",");
    const { stderr } = await test.run(["env", test.file]);
    assert(!names(stderr).some((name) => name.startsWith("TUBETTI_START")), stderr);
    Deno.kill(Number(Deno.readTextFileSync(test.file)), "SIGTERM");
    assert(await test.isEmpty());
    const { code, stderr: refused } = await test.run(["ok"], { env: { TUBETTI_START: "1:2" } });
    assertEquals(code, 1);
    assertMatch(refused, /^TUBETTI_START the process that started us has gone: ESRCH\n$/);
  },
});

Deno.test({
  name: "runInBackground() works where SIGCHLD is ignored",
  ...NEEDS,
  async fn() {
    using test = new Case();
    const ignoring = ["bash", "-c", "trap '' CHLD; exec \"$@\"", "bash", ...PROGRAM];
    const options = { mark: test.mark };
    assertEquals((await run([...ignoring, "fail"], options)).code, 1);
    assertEquals((await run([...ignoring, "ok", test.file], options)).code, 0);
    Deno.kill(Number(Deno.readTextFileSync(test.file)), "SIGTERM");
    assert(await test.isEmpty());
  },
});
