// SPDX-License-Identifier: GPL-2.0-or-later
/** The executable that is shipped, where it is shipped to: an ordinary user's, alone in its folder. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { helpText } from "../../lib/config/help.ts";
import { VERSION_TEXT } from "../../lib/config/version.ts";
import { makeDist } from "../../scripts/dist.ts";
import { withProgram } from "../../scripts/standalone/segment.ts";
import { bundle } from "../../scripts/standalone/bundle.ts";
import { killHard, must, type Result, run, until } from "../helpers/run.ts";
import { Targets } from "../helpers/targets.ts";
import { PROJECT, USER_ID } from "../helpers/testbed.ts";
import { madeFolder, shipRequirements } from "./made.ts";
import { Shipped, WITHOUT, writableFolder } from "./shipped.ts";

const NEEDS = shipRequirements();
const USER = ["setpriv", "--reuid", `${USER_ID}`, "--regid", `${USER_ID}`, "--clear-groups", "--"];
const BARE_ROOT = new URL("bare_root.py", import.meta.url).pathname;
/** Everything that the runtime listens to, set so that it would do something else, or fail. */
const FOREIGN = {
  COMPLETE: "bash",
  DENO_CERT: "/nonexistent",
  DENO_COMPAT: "1",
  DENO_DIR: "/nonexistent/deno",
  DENO_INSPECT: "127.0.0.1:0",
  DENO_LOG: "trace",
  DENO_NO_CONFIG: "1",
  DENO_NO_PROMPT: "",
  DENO_PERMISSION_BROKER_PATH: "/nonexistent/socket",
  DENO_TLS_CA_STORE: "none-such",
  DENO_TRACE_PERMISSIONS: "1",
  DENO_UNSTABLE_NONE_SUCH: "1",
  DENO_V8_FLAGS: "--none-such",
  NODE_CHANNEL_FD: "77",
  NODE_OPTIONS: "--require /nonexistent",
  OTEL_DENO: "true",
};

function asUser(command: readonly string[], env: Record<string, string> = {}): Promise<Result> {
  return run([...USER, ...command], { cwd: "/", env });
}

Deno.test({
  name: "the executable is the same, byte by byte, when it is made again",
  ...NEEDS,
  async fn() {
    const made = await Deno.readFile(`${await madeFolder()}/tubetti`);
    const again = withProgram(await Deno.readFile(Deno.execPath()), await bundle());
    assert(made.length === again.length && made.every((byte, index) => byte === again[index]));
  },
});

Deno.test({
  name: "the executable answers under each of its names",
  ...NEEDS,
  async fn() {
    const folder = await madeFolder();
    for (
      const [name, args, expected] of [
        ["tubetti", ["--version"], VERSION_TEXT],
        ["tubetti", ["passt", "--help"], helpText("passt")],
        ["pasta", ["--help"], helpText("pasta", undefined, "pasta")],
        ["passt", ["--help"], helpText("passt", undefined, "passt")],
      ] as const
    ) {
      const { code, stdout, stderr } = await asUser([...WITHOUT, `${folder}/${name}`, ...args]);
      assertEquals([code, stdout.trimEnd(), stderr], [0, expected.trimEnd(), ""]);
    }
    const wrong = await asUser([...WITHOUT, `${folder}/pasta`, "--confg-net"]);
    assertEquals([wrong.code, wrong.stdout], [1, ""]);
    assertMatch(wrong.stderr, /^tubetti: .*did you mean --config-net\?\)\n$/);
  },
});

Deno.test({
  name: "the executable runs a command: arguments, standard streams, exit codes",
  ...NEEDS,
  async fn(t) {
    await using shipped = await Shipped.create();
    for (const name of ["tubetti", "pasta"] as const) {
      await t.step(`as ${name}, arguments arrive as they are`, async () => {
        const words = ["a b", "", "--", "--version", "ü\n", "-A", "$HOME"];
        const { code, stdout, stderr } = await shipped.guest(["printf", "[%s]", ...words], {
          name,
        });
        assertEquals([code, stdout, stderr], [0, words.map((word) => `[${word}]`).join(""), ""]);
      });
    }
    await t.step("standard input and output are the command's", async () => {
      const text = "line\n".repeat(50_000);
      const { code, stdout } = await shipped.guest(["cat"], { stdin: text });
      assert(code === 0 && stdout === text);
    });
    await t.step("it has the host's network", async () => {
      const { stdout } = await shipped.guest(["ip", "-br", "-4", "addr"]);
      assertStringIncludes(stdout, "192.0.2.2/24");
    });
    await t.step("exit codes: the command's own, not found, not executable", async () => {
      assertEquals((await shipped.guest(["sh", "-c", "exit 7"])).code, 7);
      assertEquals((await shipped.guest(["/nonexistent"])).code, 127);
      assertEquals((await shipped.guest(["/etc/passwd"])).code, 126);
    });
    await t.step("exit codes: 128 and the signal that ended the command", async () => {
      const guest = await shipped.bed.startGuest(["sleep", "3600"], {
        options: ["-q"],
        program: shipped.program(),
      });
      const sleeping = () =>
        shipped.bed.guestProcesses().find(({ command }) => command === "sleep 3600");
      assert(await until(() => sleeping() !== undefined));
      killHard(sleeping()!.pid);
      assertEquals(await guest.wait(), 128 + 9);
    });
  },
});

Deno.test({
  name: "the executable takes no notice of the runtime's variables, and hands them on",
  ...NEEDS,
  async fn() {
    await using shipped = await Shipped.create();
    const ours = Object.keys(Deno.env.toObject()).filter((name) =>
      /^(DENO_|NODE_|OTEL_)/.test(name) && !(name in FOREIGN)
    );
    const without = ours.flatMap((name) => ["-u", name]);
    const list = 'env | grep -E "^(DENO_|NODE_|COMPLETE=|OTEL_)" | sort';
    const print = ["env", ...without, "sh", "-c", list];
    const { code, stdout, stderr } = await shipped.bed.guest(print, {
      options: ["-q"],
      program: ["env", ...Object.entries(FOREIGN).map((pair) => pair.join("="))].concat(
        `${shipped.folder}/pasta`,
      ),
    });
    const expected = Object.entries(FOREIGN).map((pair) => pair.join("=")).sort().join("\n");
    assertEquals([code, stdout.trimEnd(), stderr], [0, expected, ""]);
    const none = await shipped.guest(print);
    assertEquals([none.code, none.stdout], [0, ""]);
  },
});

/** Name of a process as ps(1) shows it. */
function nameOf(pid: number): string {
  return Deno.readTextFileSync(`/proc/${pid}/comm`).trimEnd();
}

Deno.test({
  name: "the executable attaches to a process's namespaces in the background, and leaves with them",
  ...NEEDS,
  async fn() {
    await using shipped = await Shipped.create();
    await using targets = new Targets(shipped.bed, true);
    const target = await targets.process("-Urn");
    const folder = writableFolder();
    const file = `${folder}/pid`;
    const { code, stdout, stderr } = await shipped.bed.guest([], {
      options: ["-q", "-P", file, `${target.pid}`],
      program: shipped.program(),
    });
    assertEquals([code, stdout, stderr], [0, "", ""]);
    const pid = Number(await Deno.readTextFile(file));
    assertEquals(nameOf(pid), "pasta");
    const line = (await Deno.readTextFile(`/proc/${pid}/cmdline`)).split("\0");
    assertEquals(line.slice(0, 2), [`${shipped.folder}/pasta`, "--config-net"]);
    const inside = ["nsenter", "-t", `${target.pid}`, "-n", "ip", "-br", "addr"];
    assertStringIncludes(await must(inside), "192.0.2.2/24");
    await target.stop();
    assert(await until(() => shipped.bed.engineProcesses().length === 0));
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "the executable serves virtual machines in the background",
  ...NEEDS,
  async fn() {
    await using shipped = await Shipped.create();
    const folder = writableFolder();
    const { code, stderr } = await shipped.bed.guest([], {
      options: ["-q", "-s", `${folder}/socket`, "-P", `${folder}/pid`],
      program: shipped.program("passt"),
      unconfigured: true,
    });
    assertEquals(code, 0, stderr);
    const socket = await Deno.connect({ transport: "unix", path: `${folder}/socket` });
    socket.close();
    const pid = Number(await Deno.readTextFile(`${folder}/pid`));
    assertEquals(nameOf(pid), "passt");
    Deno.kill(pid, "SIGTERM");
    assert(await until(() => shipped.bed.engineProcesses().length === 0));
    assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), []);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "the executable writes nothing: home, temporary and working folder stay empty",
  ...NEEDS,
  async fn() {
    await using shipped = await Shipped.create();
    const folder = writableFolder();
    const names = ["HOME", "TMPDIR", "XDG_CACHE_HOME", "DENO_DIR"];
    const set = names.map((name) => `${name}=${folder}`);
    const { code } = await shipped.bed.guest(["true"], {
      program: ["env", "-C", folder, ...set, `${shipped.folder}/pasta`],
    });
    assertEquals(code, 0);
    const found = await must(["find", folder, shipped.folder, "-printf", "%f\n"]);
    const own = [folder, shipped.folder].map((path) => path.slice(path.lastIndexOf("/") + 1));
    const expected = [...own, "passt", "pasta", "tubetti"].sort();
    assertEquals(found.trimEnd().split("\n").sort(), expected);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name:
    "the executable works in a read-only root with nothing but the C library, the tun device and /proc",
  ...shipRequirements({ packages: ["python3"] }),
  async fn(t) {
    await using shipped = await Shipped.create();
    const bare = (args: readonly string[]) => {
      const start = ["unshare", "-m", "python3", BARE_ROOT, `${shipped.folder}/tubetti`];
      return shipped.bed.runHost([
        "env",
        "-i",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ...start,
        ...args,
      ]);
    };
    await t.step("an answer", async () => {
      const { code, stdout, stderr } = await bare(["/tubetti", "--version"]);
      assertEquals([code, stdout, stderr], [0, `${VERSION_TEXT}\n`, ""]);
    });
    await t.step("a command, which is the executable itself", async () => {
      const line = ["/pasta", "-q", "--runas", "0", "--config-net", "--", "/tubetti", "--version"];
      const { code, stdout, stderr } = await bare(line);
      assertEquals([code, stdout, stderr], [0, `${VERSION_TEXT}\n`, ""]);
    });
  },
});

Deno.test({
  name: "without /proc there is one line that says so, and exit code 1",
  ...NEEDS,
  async fn(t) {
    const script = 'mount -t tmpfs none /proc && exec "$@"';
    const source = [Deno.execPath(), "run", "--quiet", "--allow-all", `${PROJECT}/main.ts`];
    const programs = { executable: [`${await madeFolder()}/tubetti`], "deno run": source };
    for (const [name, program] of Object.entries(programs)) {
      for (const args of [["-q", "--", "true"], ["-q", "4711"], ["--version"]]) {
        await t.step(`${name}: ${args.join(" ")}`, async () => {
          const line = ["unshare", "-m", "sh", "-c", script, "sh", ...program, "pasta", ...args];
          const { code, stdout, stderr } = await run(line);
          assertEquals([code, stdout], [1, ""]);
          assertMatch(
            stderr,
            /^tubetti: open \/proc\/self\/\w+: ENOENT \(is \/proc mounted\?\)\n$/,
          );
        });
      }
    }
  },
});

Deno.test({
  name: "deno task dist: the executable, its links, manual page, completions, sums that are right",
  ...NEEDS,
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "tubetti-test-" });
    try {
      await makeDist(folder);
      const checked = await must(["sha256sum", "-c", "--quiet", "SHA256SUMS"], { cwd: folder });
      assertEquals(checked, "");
      const found = await must(["find", ".", "!", "-type", "d"], { cwd: folder });
      const names = found.trimEnd().split("\n").map((path) => path.slice("./".length)).sort();
      const completions = ["_tubetti", "tubetti.bash", "tubetti.fish"];
      assertEquals(names, [
        ...["LICENSE", "SHA256SUMS"],
        ...completions.map((name) => `completions/${name}`),
        ...["passt", "pasta", "tubetti", "tubetti.1"],
      ]);
      assertEquals(await must([`${folder}/passt`, "--version"]), `${VERSION_TEXT}\n`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
