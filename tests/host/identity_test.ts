// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { ConfigError } from "../../lib/config/error.ts";
import { identityChange, identityOf } from "../../lib/host/identity.ts";
import { currentIdentity, findGroup, findUser } from "../../lib/sys/credentials.ts";
import { must, run } from "../helpers/run.ts";
import { requirements } from "../helpers/require.ts";
import { userCopy } from "../helpers/user_copy.ts";

const FIXTURE = new URL("identity_fixture.ts", import.meta.url).pathname;
const WARNING = "Started as root: running as nobody (--runas 0 stays root)\n";

/** The command that runs the fixture. */
function fixture(...args: string[]): string[] {
  return [Deno.execPath(), "run", "--quiet", "--no-prompt", "--allow-all", FIXTURE, ...args];
}

Deno.test("findUser() and findGroup() give what getent(1) gives", async () => {
  for (const name of ["root", "nobody", "daemon"]) {
    const fields = (await must(["getent", "passwd", name])).split(":");
    assertEquals(findUser(name), { uid: Number(fields[2]), gid: Number(fields[3]) });
  }
  const fields = (await must(["getent", "group", "tty"])).split(":");
  assertEquals(findGroup("tty"), Number(fields[2]));
  assertEquals([findUser("no such user"), findGroup("no such group")], [null, null]);
});

Deno.test("identityOf() takes numbers and names, for user and group", () => {
  const nobody = findUser("nobody")!;
  assertEquals(identityOf("0"), { uid: 0, gid: 0 });
  assertEquals(identityOf("5"), { uid: 5, gid: 5 });
  assertEquals(identityOf("5:7"), { uid: 5, gid: 7 });
  assertEquals(identityOf("nobody"), nobody);
  assertEquals(identityOf("nobody:tty"), { uid: nobody.uid, gid: findGroup("tty")! });
  assertEquals(identityOf("5:tty"), { uid: 5, gid: findGroup("tty")! });
  assertEquals(identityOf("nobody:5"), { uid: nobody.uid, gid: 5 });
  assertEquals(identityOf("4294967294"), { uid: 4294967294, gid: 4294967294 });
});

Deno.test("identityOf() names who is unknown", () => {
  const refused = [["elvis", "no user elvis"], ["0:elvis", "no group elvis"]];
  refused.push(["4294967295", "no user 4294967295"], ["-1", "no user -1"], ["1e3", "no user 1e3"]);
  for (const [text, cause] of refused) {
    assertThrows(() => identityOf(text!), ConfigError, `--runas ${text}: ${cause}`);
  }
});

Deno.test("identityChange() is none to who we are", () => {
  const { uid, gid } = currentIdentity();
  assertEquals(identityChange(`${uid}:${gid}`), null);
  if (uid !== 0) assertEquals(identityChange(null), null);
});

Deno.test({
  name: "assumeIdentity() changes every thread and drops groups and capabilities",
  ...requirements(),
  async fn(t) {
    const nobody = identityOf("nobody");
    for (
      const [args, { uid, gid }, warning] of [
        [[], nobody, WARNING],
        [["5:7"], { uid: 5, gid: 7 }, ""],
        [["nobody"], nobody, ""],
      ] as const
    ) {
      await t.step(args.join() || "unasked", async () => {
        // with groups that are to go
        const command = ["setpriv", "--groups", "5,6", "--", ...fixture(...args)];
        const { stdout, stderr, code } = await run(command);
        assertEquals([code, stderr], [0, warning]);
        const { count, identities, ownsProc } = JSON.parse(stdout);
        assert(count > 1, "the runtime has threads");
        const four = (id: number) => Array(4).fill(id).join(" ");
        const none = "0".repeat(16);
        assertEquals(identities, [
          `Uid: ${four(uid)}, Gid: ${four(gid)}, Groups:, CapPrm: ${none}, CapEff: ${none}`,
        ]);
        assertEquals(ownsProc, true);
      });
    }
  },
});

Deno.test({
  name: "assumeIdentity() leaves root, and says so, where only root may use the tun device",
  ...requirements(),
  async fn() {
    const device = await Deno.makeTempFile({ prefix: "tubetti-tun-" });
    await Deno.chmod(device, 0o600);
    const { stdout, stderr, code } = await run(["env", `TUN=${device}`, ...fixture()]);
    await Deno.remove(device);
    const warning = "Started as root, and stays root: nobody else may use /dev/net/tun\n";
    assertEquals([code, stderr], [0, warning]);
    assertMatch(JSON.parse(stdout).identities.join("; "), /^Uid: 0 0 0 0, Gid: 0 0 0 0,[^;]*$/);
  },
});

Deno.test({
  name: "assumeIdentity() leaves root with --runas 0, and root of a user namespace",
  ...requirements(),
  async fn() {
    for (const command of [fixture("0"), ["unshare", "-r", ...fixture()]]) {
      const { stdout, stderr, code } = await run(command);
      assertEquals([code, stderr], [0, ""]);
      assertMatch(JSON.parse(stdout).identities.join("; "), /^Uid: 0 0 0 0, Gid: 0 0 0 0,[^;]*$/);
    }
  },
});

Deno.test({
  name: "assumeIdentity() refuses what an ordinary user may not",
  ...requirements(),
  async fn() {
    const { deno, project, denoDir } = await userCopy();
    await Deno.mkdir(`${project}/tests/host`, { recursive: true });
    const copy = `${project}/tests/host/identity_fixture.ts`;
    await Deno.copyFile(FIXTURE, copy);
    await Deno.chmod(copy, 0o644);
    const user = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups", "--"];
    const program = [deno, "run", "--quiet", "--no-prompt", "--allow-all", copy];
    const options = { env: { DENO_DIR: denoDir }, cwd: "/" };
    for (
      const [args, code, stderr] of [[["5"], 1, /^set\w+: EPERM \([^\n]*\)\n$/], [
        [],
        0,
        /^$/,
      ]] as const
    ) {
      const result = await run([...user, ...program, ...args], options);
      assertMatch(result.stderr, stderr);
      assertEquals(result.code, code);
    }
  },
});
