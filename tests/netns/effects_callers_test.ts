// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Command lines as engines build them: containers/common (podman, buildah) and rootlesskit. Each is run as
 * an engine without root's rights does: the end of the process that it starts means that all is ready.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { effectsCommand, Port, World } from "../helpers/effects.ts";
import { requirements } from "../helpers/require.ts";
import { describe, markedProcesses, until } from "../helpers/run.ts";
import { Net, programUnderTest } from "../helpers/testbed.ts";
import { userCopy } from "../helpers/user_copy.ts";

const NEEDS = requirements({ packages: ["iproute2", "iputils-ping", "python3"], tubetti: true });

const DNS = "169.254.1.1";
const HOST = "169.254.1.2";
const NOTHING = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
const { FORWARDED, GUEST } = Port;
const PUBLISHED = `${FORWARDED}-${FORWARDED}:${GUEST}-${GUEST}`;
const ASKED = `127.0.0.1 ${FORWARDED}`;

/** What every guest of an engine can do. */
const OUTBOUND = [
  `tcp ${Net.REMOTE4} ${Port.REMOTE}`,
  `udp ${Net.REMOTE4} ${Port.REMOTE}`,
  `ping ${Net.REMOTE4}`,
];

interface Case {
  readonly name: string;
  /** PID and FOLDER stand for what is known when the engine runs only. */
  readonly options: readonly string[];
  /** How the namespace came to be: bound to a file, or that of a process. */
  readonly namespace: "bound" | "process" | "process with its own users";
  /** Questions from within that are answered. */
  readonly answered: readonly string[];
  /** Questions from within that must not be. */
  readonly unanswered?: readonly string[];
  /** Questions from the host, answered by the guest. */
  readonly published?: readonly string[];
  /** Addresses of the interface. */
  readonly shows: RegExp;
}

const BOUND = "/mnt/netns/one";

const ROOTLESSKIT = [
  "--stderr",
  "--ns-ifname=tap0",
  "--mtu=65520",
  "--config-net",
  "--address=10.0.2.100",
  "--netmask=24",
  "--gateway=10.0.2.2",
  "--dns-forward=10.0.2.3",
];

const CASES: readonly Case[] = [
  {
    name: "podman 5.0, with a published port",
    namespace: "bound",
    options: [
      ...["--config-net", "-t", PUBLISHED, "--dns-forward", DNS, "-u", "none", "-T", "none"],
      ...["-U", "none", "--no-map-gw", "--quiet", "--netns", BOUND],
    ],
    answered: [...OUTBOUND, `tcp ${Net.REMOTE6} ${Port.REMOTE}`, `udp ${DNS} ${Port.DNS}`],
    unanswered: [`tcp ${HOST} ${Port.HOST}`],
    published: [`tcp ${ASKED}`],
    shows: / 192\.0\.2\.2\/24 .* 2001:db8:1::2\/64 /s,
  },
  {
    name: "podman 5.4, with published ports of an address",
    namespace: "bound",
    options: [
      ...["--config-net", "-t", `127.0.0.1/${PUBLISHED}`, "-u", `127.0.0.1/${PUBLISHED}`],
      ...["--dns-forward", DNS, "-T", "none", "-U", "none", "--no-map-gw", "--quiet"],
      ...["--netns", BOUND, "--map-guest-addr", HOST],
    ],
    answered: [...OUTBOUND, `udp ${DNS} ${Port.DNS}`, `tcp ${HOST} ${Port.HOST}`],
    published: [`tcp ${ASKED}`, `udp ${ASKED}`],
    shows: / 192\.0\.2\.2\/24 /,
  },
  {
    name: "podman 6, with the file of its number, and options of the user",
    namespace: "bound",
    options: [
      ...["--config-net", "--pid", "FOLDER/pasta.pid", "--ipv4-only", "-a", "10.0.2.0", "-n", "24"],
      ...["-g", "10.0.2.2", "--dns-forward", "10.0.2.3", "-m", "1500", "--no-ndp", "--no-dhcpv6"],
      ...["--no-dhcp", ...NOTHING, "--no-map-gw", "--quiet", "--map-guest-addr", HOST],
      ...["--netns", BOUND],
    ],
    answered: [...OUTBOUND, `udp 10.0.2.3 ${Port.DNS}`],
    unanswered: [`tcp ${HOST} ${Port.HOST}`], // the guest's address is not the host's
    shows: /mtu 1500 .* 10\.0\.2\.0\/24 /s,
  },
  {
    name: "podman, with --map-gw and ports found by themselves",
    namespace: "bound",
    options: [
      ...["--config-net", "-T", `${Port.LOOPBACK}`, "-t", "auto", "--dns-forward", DNS],
      ...["-u", "none", "-U", "none", "--quiet", "--map-guest-addr", HOST, "--netns", BOUND],
    ],
    answered: [
      ...OUTBOUND,
      `tcp 127.0.0.1 ${Port.LOOPBACK}`,
      `tcp ${Net.GATEWAY4} ${Port.LOOPBACK}`,
    ],
    published: [`tcp 127.0.0.1 ${GUEST}`],
    shows: / 192\.0\.2\.2\/24 /,
  },
  {
    name: "buildah run",
    namespace: "process",
    options: [
      ...["--config-net", "--dns-forward", DNS, ...NOTHING, "--no-map-gw", "--quiet"],
      ...["--netns", "/proc/PID/ns/net", "--map-guest-addr", HOST],
    ],
    answered: [...OUTBOUND, `udp ${DNS} ${Port.DNS}`, `tcp ${HOST} ${Port.HOST}`],
    shows: / 192\.0\.2\.2\/24 /,
  },
  {
    name: "rootlesskit",
    namespace: "process with its own users",
    options: [...ROOTLESSKIT, "--ipv4-only", "--tcp-ports=none", "--udp-ports=none", "PID"],
    answered: [...OUTBOUND, `udp 10.0.2.3 ${Port.DNS}`, `tcp 10.0.2.2 ${Port.LOOPBACK}`],
    shows: /tap0: .* 10\.0\.2\.100\/24 /s,
  },
  {
    name: "rootlesskit, with ports found by themselves and a namespace beside it",
    namespace: "process with its own users",
    options: [
      ...[...ROOTLESSKIT, "--no-map-gw", "--tcp-ports=auto", "--udp-ports=auto"],
      ...["--userns=/proc/PID/ns/user", "--netns=/proc/PID/ns/net"],
    ],
    answered: [...OUTBOUND, `tcp ${Net.REMOTE6} ${Port.REMOTE}`],
    published: [`tcp 127.0.0.1 ${GUEST}`],
    shows: /tap0: .* 10\.0\.2\.100\/24 .* 2001:db8:1::2\/64 /s,
  },
];

/** Shell lines that make the namespace; they set `pid` and `enter`. */
const MAKE: Record<Case["namespace"], string> = {
  "bound": `
mount -t tmpfs tmpfs /mnt
mkdir /mnt/netns
touch ${BOUND}
unshare -n sh -c 'mount --bind /proc/$$/ns/net ${BOUND}'
enter="nsenter --net=${BOUND}"
pid=0`,
  "process": `
mkfifo made
unshare -n sh -c 'echo >made; exec sleep 1000' & pid=$!
read line <made
enter="nsenter -t $pid -n"`,
  "process with its own users": `
mkfifo made
unshare -Urn sh -c 'echo >made; exec sleep 1000' & pid=$!
read line <made
enter="nsenter -t $pid -U --preserve-credentials -n"`,
};

/** Shell lines that take the namespace away. */
const LEAVE: Record<Case["namespace"], string> = {
  "bound": `umount -l ${BOUND}; rm ${BOUND}`,
  "process": "kill $pid",
  "process with its own users": "kill $pid",
};

const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(" ");

/** What an engine does: a namespace, the program, the guest, and the end of the namespace. */
function engine(folder: string, { namespace, answered, unanswered = [], published = [] }: Case) {
  const [python, , ...serve] = effectsCommand("serve", `0.0.0.0 ${GUEST}`);
  const script = `${folder}/effects.py`;
  const ask = (questions: readonly string[]) =>
    questions.length > 0 ? quoted([python!, script, "ask", ...questions]) : "true";
  return `
set -e
cd ${folder}
rm -f made served pasta.pid
${MAKE[namespace]}
for word do
  shift
  set -- "$@" "$(printf %s "$word" | sed "s,PID,$pid,; s,FOLDER,${folder},")"
done
"$@" >said 2>&1 || { cat said; exit 1; }
echo ready
$enter ip -o link
$enter ip -o addr
if [ -e pasta.pid ]; then echo "number $(cat pasta.pid)"; fi
$enter ${quoted([python!, script, ...serve])} >served & server=$!
until grep -q ready served; do sleep 0.05; done
$enter ${ask([...answered, ...unanswered])}
seen=
for i in $(seq 100); do # ports that are found by themselves are looked for each second
  seen=$(${ask(published)})
  case "$seen" in *": ") sleep 0.1;; *) break;; esac
done
echo "$seen"
kill $server
${LEAVE[namespace]}
echo left`;
}

Deno.test({
  name: "callers: lines of podman, buildah and rootlesskit give a namespace its network",
  ...NEEDS,
  async fn(t) {
    await using world = await World.create();
    const { bed, folder } = world;
    const { deno, project } = await userCopy();
    await Deno.copyFile(effectsCommand("ask")[1]!, `${folder}/effects.py`);
    await Deno.chmod(`${folder}/effects.py`, 0o644);
    for (const one of CASES) {
      await t.step(one.name, async () => {
        const users = one.namespace === "process with its own users" ? [] : ["unshare", "-Urm"];
        const command = [...users, "sh", "-c", engine(folder, one), "sh"];
        const result = await bed.guest([], {
          program: [...command, ...programUnderTest(deno, project)],
          options: one.options,
          unconfigured: true,
          user: true,
        });
        const { code, stdout } = result;
        assertEquals(code, 0, describe(one.options, result));
        const lines = stdout.trimEnd().split("\n");
        assertEquals([lines[0], lines.at(-1)], ["ready", "left"], stdout);
        assertMatch(stdout, one.shows);
        for (const question of [...one.answered, ...one.published ?? []]) {
          assert(
            lines.some((line) => line.startsWith(`${question}: `) && !line.endsWith(": ")),
            stdout,
          );
        }
        for (const question of one.unanswered ?? []) {
          assert(lines.includes(`${question}: `), stdout);
        }
        assertEquals(/^number \d+$/m.test(stdout), one.options.includes("--pid"), stdout);
        assert(
          await until(() => markedProcesses(bed.guestMark).length === 0),
          "processes are left",
        );
      });
    }
  },
});
