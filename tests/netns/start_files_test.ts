// SPDX-License-Identifier: GPL-2.0-or-later
/** Files that options name: whose links are followed, descriptors of the caller, and failed starts. */
import { assertEquals, assertMatch } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { programUnderTest, STAY_ROOT, Testbed } from "../helpers/testbed.ts";

const NEEDS = requirements({ tubetti: true });
const NOT_FOUND = 127, NOT_EXECUTABLE = 126;
const SOMEBODY = 1000;

/** A testbed without an uplink, and a folder that anybody may write to. */
class Place implements AsyncDisposable {
  private constructor(readonly bed: Testbed, readonly folder: string) {}

  static async create(): Promise<Place> {
    const folder = await Deno.makeTempDir({ prefix: "tubetti-files-" });
    await Deno.chmod(folder, 0o777); // not sticky: there the kernel may refuse by itself
    return new Place(await Testbed.create({ isolated: true }), folder);
  }

  /** Runs the program under test, by way of a shell script if one is given. */
  start(options: readonly string[], command: readonly string[], script = 'exec "$@"') {
    const program = [...programUnderTest(), "-q", ...STAY_ROOT, ...options, "--", ...command];
    return this.bed.runHost(["sh", "-c", script, "sh", ...program], { mark: this.bed.guestMark });
  }

  names(): string[] {
    return [...Deno.readDirSync(this.folder)].map(({ name }) => name).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.bed[Symbol.asyncDispose]();
    await Deno.remove(this.folder, { recursive: true });
  }
}

Deno.test({
  name: "files: -P and -l do not follow somebody else's symbolic link",
  ...NEEDS,
  async fn(t) {
    await using place = await Place.create();
    const { folder } = place, target = `${folder}/target`, link = `${folder}/link`;
    await Deno.writeTextFile(target, "precious\n");
    const linkOf = (uid: number) => `ln -sf ${target} ${link}; chown -h ${uid} ${link}; exec "$@"`;
    for (const option of ["-P", "-l"]) {
      await t.step(option, async () => {
        const started = place.start([option, link], ["echo", "ran"], linkOf(SOMEBODY));
        const { code, stdout, stderr } = await started;
        assertEquals([code, stdout, Deno.readTextFileSync(target)], [1, "", "precious\n"]);
        assertMatch(stderr, /^tubetti: [^\n]*ELOOP[^\n]*somebody else[^\n]*\n$/);
      });
      await t.step(`${option}, root's own link`, async () => {
        const started = place.start([option, link], ["echo", "ran"], linkOf(0));
        const { code, stdout, stderr } = await started;
        assertEquals([code, stdout, stderr], [0, "ran\n", ""]);
        await Deno.writeTextFile(target, "precious\n");
      });
    }
  },
});

Deno.test({
  name: "files: -P and -l take descriptors of the caller, which the command does not get",
  ...NEEDS,
  async fn() {
    await using place = await Place.create();
    const { folder } = place, script = `exec 5>${folder}/pid 6>${folder}/log; exec "$@"`;
    const options = ["-P", "/dev/fd/5", "-l", "/dev/fd/6"];
    const command = ["sh", "-c", `cat ${folder}/pid; ls /proc/self/fd`];
    const { code, stdout, stderr } = await place.start(options, command, script);
    assertEquals([code, stderr], [0, ""]);
    const [pid, ...fds] = stdout.trim().split("\n");
    assertMatch(pid!, /^\d+$/);
    assertEquals(fds.filter((fd) => Number(fd) > 3), []);
    assertMatch(Deno.readTextFileSync(`${folder}/log`), /^tubetti /);
  },
});

Deno.test({
  name: "files: a command that cannot be executed leaves an older -P file as it was",
  ...NEEDS,
  async fn(t) {
    await using place = await Place.create();
    const { folder } = place, file = `${folder}/pid`;
    await Deno.writeTextFile(`${folder}/text`, "no program\n", { mode: 0o644 });
    const cases = [["/nonexistent", NOT_FOUND], [`${folder}/text`, NOT_EXECUTABLE]] as const;
    for (const [command, status] of cases) {
      await t.step(`${status}`, async () => {
        await Deno.writeTextFile(file, "4194304 and more\n");
        const older = await place.start(["-P", file], [command]);
        assertEquals([older.code, Deno.readTextFileSync(file)], [status, "4194304 and more\n"]);
        await Deno.remove(file);
        assertEquals((await place.start(["-P", file], [command])).code, status);
        assertEquals(place.names(), ["text"]);
      });
    }
  },
});
