// SPDX-License-Identifier: GPL-2.0-or-later
/** User namespaces: those of others that a command or a namespace belongs to, and none at all. */
import { assertEquals, assertMatch } from "@std/assert";
import { NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { describe } from "../helpers/run.ts";
import { assertNothingLeft, Targets } from "../helpers/targets.ts";
import { programUnderTest, Testbed } from "../helpers/testbed.ts";
import { userCopy } from "../helpers/user_copy.ts";

const NEEDS = requirements({ tubetti: true, packages: ["iputils-ping"] });

/** As a rootless engine does it: a user namespace with its own mounts, and a namespace bound there. */
const ENGINE = `
set -e
if [ -n "$INSTANCES" ]; then echo "$INSTANCES" >/proc/sys/user/max_inotify_instances; fi
mount -t tmpfs tmpfs /mnt
mkdir /mnt/netns
touch /mnt/netns/one
unshare -n sh -c 'mount --bind /proc/$$/ns/net /mnt/netns/one'
"$@" --netns /mnt/netns/one &
instance=$!
inside() { nsenter --net=/mnt/netns/one "$@"; }
until inside ip route | grep -q default; do sleep 0.1; done
inside ping -n -q -c 1 -W 10 "$REMOTE" >/dev/null
echo served
umount -l /mnt/netns/one
rm /mnt/netns/one
wait $instance
echo left
`;

Deno.test({
  name: "attach: a namespace bound by a rootless engine, from within its user namespace",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create({ user: true });
    const { deno, project } = await userCopy();
    const engine = ["unshare", "-Urm", "sh", "-c", ENGINE, "sh"];
    const { remote } = Testbed.addresses(4);
    for (const instances of ["", "0"]) { // with inotify, and with the timer
      const result = await bed.guest([], {
        program: [...engine, ...programUnderTest(deno, project)],
        options: ["-f", "-q", ...NOTHING],
        env: { REMOTE: remote, INSTANCES: instances },
      });
      assertEquals([result.code, result.stdout], [0, "served\nleft\n"], describe(engine, result));
      assertEquals(result.stderr, "");
    }
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "attach: a command with --netns-only has a network namespace only",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const own = Deno.readLinkSync("/proc/self/ns/user");
    await t.step("as root", async () => {
      const script = "readlink /proc/self/ns/user; ip -o link show up | cut -d: -f2; exit 3";
      const options = ["-q", "--netns-only"];
      const result = await bed.guest(["sh", "-c", script], { options });
      assertEquals([result.code, result.stdout], [3, `${own}\n lo\n uplink0\n`], result.stderr);
    });
    await t.step("an ordinary user cannot", async () => {
      const result = await bed.guest(["true"], { options: ["-q", "--netns-only"], user: true });
      assertEquals(result.code, 1);
      assertMatch(result.stderr, /^tubetti: clone namespaces: EPERM \(--netns-only .*\n$/);
    });
    await assertNothingLeft(bed);
  },
});

/** What a command sees of its user namespace, and whether it has a network. */
const LOOK = `
readlink /proc/self/ns/user
tr -s ' ' </proc/self/uid_map
readlink /proc/self/ns/net
ip -o link show up | cut -d: -f2
ping -n -q -c 1 -W 10 "$REMOTE" >/dev/null && echo answered
exit 5
`;

for (const user of [false, true]) {
  Deno.test({
    name: `attach: --userns with a command runs it there${user ? ", as an ordinary user" : ""}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await using targets = new Targets(bed, user);
      const target = await targets.process("-Ur"), path = `/proc/${target.pid}/ns`;
      const { remote } = Testbed.addresses(4);
      const options = ["-q", "--config-net", ...NOTHING, "--userns", `${path}/user`];
      await t.step("with a network, and exit code", async () => {
        const env = { REMOTE: remote };
        const result = await bed.guest(["sh", "-c", LOOK], { options, env });
        const [its, map, net, ...lines] = result.stdout.trimEnd().split("\n");
        assertEquals([result.code, result.stderr], [5, ""]);
        assertEquals(its, Deno.readLinkSync(`${path}/user`));
        assertEquals(
          map,
          Deno.readTextFileSync(`/proc/${target.pid}/uid_map`).replaceAll(/ +/g, " ").trimEnd(),
        );
        assertEquals(
          net === Deno.readLinkSync(`${path}/net`),
          false,
          "a network namespace of its own",
        );
        assertEquals(lines, [" lo", " uplink0", "answered"]);
      });
      await t.step("a command that does not exist", async () => {
        const result = await bed.guest(["/nonexistent/program"], { options });
        assertEquals(result.code, 127);
        assertMatch(result.stderr, /^tubetti: execve \/nonexistent\/program: ENOENT .*\n$/);
      });
      if (user) {
        await t.step("one that is not ours", async () => {
          await using others = new Targets(bed);
          const foreign = await others.process("-Ur");
          const userns = ["--userns", `/proc/${foreign.pid}/ns/user`];
          const result = await bed.guest(["true"], { options: ["-q", ...NOTHING, ...userns] });
          assertEquals(result.code, 1);
          assertMatch(result.stderr, /^tubetti: --userns .*: only its owner, and root .*\n$/);
        });
      }
      await assertNothingLeft(bed);
    },
  });
}
