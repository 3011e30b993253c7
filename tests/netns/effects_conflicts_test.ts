// SPDX-License-Identifier: GPL-2.0-or-later
/** Options that contradict each other: which one counts, as a real namespace shows, and what is refused. */
import { assert, assertMatch } from "@std/assert";
import { assertRefused, type Look, OTHER, Port, SECOND4, World } from "../helpers/effects.ts";
import { asks, config, inside, messages, services, userStart } from "../helpers/effects_looks.ts";
import { requirements } from "../helpers/require.ts";
import { Net } from "../helpers/testbed.ts";

const NEEDS = requirements({ packages: ["iproute2", "iputils-ping", "python3"], tubetti: true });

/** A part of the command line; where it depends on the world, a function makes it. */
type Part = string | ((world: World) => string);

/** Two parts, the look at what they do, and what it shows in this order and in the other. */
type Row = readonly [Part, Part, Look, RegExp, RegExp];

const REMOTE = `tcp ${Net.REMOTE4} ${Port.REMOTE}`;
const target = (world: World) => `/proc/${world.target}/ns`;

/** A path that only one of the two looks at. */
const file = (option: string, name: string) => ({ folder }: World) => `${option} ${folder}/${name}`;

/** An ordinary user joins a process's network namespace. */
const joins: Look = (world, options) =>
  userStart(world, ["--netns", `${target(world)}/net`, ...options]);

/** Names of the files that there are while a command runs. */
const files: Look = async (world, options) => {
  const { stdout } = await world.guest(["ls", world.folder], ["--config-net", ...options]);
  for (const { name } of Deno.readDirSync(world.folder)) Deno.removeSync(`${world.folder}/${name}`);
  return stdout;
};

const LAST: readonly Row[] = [
  ["-4", "-6", config, /^(?!.* 192\.0\.2\.2\/)/s, /^(?!.* 2001:db8:1::2\/)/s],
  ["-q", "-d", messages, /Flow 0/, /^$/],
  ["-q", "--trace", messages, /ICMP/, /^$/],
  ["-d", "--trace", messages, /: .*\bICMP\b.*192\.0\.2\.2/, /: .*\bICMP\b.*192\.0\.2\.2/],
  ["-m 1400", "-m 1500", config, /uplink0: .* mtu 1500 /, /uplink0: .* mtu 1400 /],
  ["-m 1400", "--mtu=0", config, /uplink0: .* mtu 1500 /, /uplink0: .* mtu 1400 /],
  ["-I one", "--ns-ifname two", config, /: two: /, /: one: /],
  ["-i uplink0", `-i ${OTHER.name}`, config, / 10\.77\.0\.2\//, / 192\.0\.2\.2\//],
  [`-i ${OTHER.name}`, "--outbound-if4 uplink0", config, / 10\.77\.0\.2\//, / 10\.77\.0\.2\//],
  ["-a 10.1.1.1", "-a 10.1.1.2", config, / 10\.1\.1\.2\/8 /, / 10\.1\.1\.1\/8 /],
  ["-a 10.1.1.1/24", "-a 10.1.1.2", config, / 10\.1\.1\.2\/8 /, / 10\.1\.1\.1\/24 /],
  ["-a 10.1.1.1", "-n 20", config, / 10\.1\.1\.1\/20 /, / 10\.1\.1\.1\/20 /],
  ["-a 10.1.1.1", "-a fd00::7", config, /10\.1\.1\.1\/8 .*fd00::7\/64 /s, /10\.1\.1\.1.*fd00::7/s],
  ["-4", "-a fd00::7", config, /^(?!.*fd00::7)/s, /^(?!.*fd00::7)/s],
  ["-n 20", "-n 255.255.0.0", config, / 192\.0\.2\.2\/16 /, / 192\.0\.2\.2\/20 /],
  ["-g 192.0.2.8", "-g 192.0.2.9", config, /^default via \S+\.9 /m, /^default via \S+\.8 /m],
  ["-M 2:0:0:0:0:1", "-M 2:0:0:0:0:2", services, /^ra 1 020000000002$/m, /^ra 1 020000000001$/m],
  [`-o ${SECOND4}`, `-o ${Net.HOST4}`, asks(REMOTE), /by 192\.0\.2\.2$/m, /by 192\.0\.2\.99$/m],
  [
    `--outbound-if4 ${OTHER.name}`,
    "--outbound-if4 uplink0",
    asks(REMOTE),
    /by 192\.0\.2\.2$/m,
    /by 10\.77\.0\.2$/m,
  ],
  ["--dhcp-dns -D none", "-D 10.1.1.1", services, /^dhcp 6 0a010101$/m, /^(?!.*^dhcp 6 )/ms],
  [
    "--dhcp-dns -D 10.1.1.2",
    "-D 10.1.1.1",
    services,
    /^dhcp 6 0a0101020a010101$/m,
    /^dhcp 6 0a0101010a010102$/m,
  ],
  ["--dhcp-search -S none", "-S a.test", services, /^dhcp 119 0161/m, /^(?!.*^dhcp 119 )/ms],
  [
    "--dhcp-search -S b.test",
    "-S a.test",
    services,
    /^dhcp 119 0162.*0161/m,
    /^dhcp 119 0161.*0162/m,
  ],
  ["-H one", "--hostname two", services, /^dhcp 12 74776f$/m, /^dhcp 12 6f6e65$/m],
  [
    "--fqdn one.test",
    "--fqdn two.test",
    services,
    /^dhcp 81 \w+0374776f/m,
    /^dhcp 81 \w+036f6e65/m,
  ],
  [
    "--dns-forward 192.0.2.53",
    "-D none",
    asks(`tcp 192.0.2.53 ${Port.DNS}`),
    /: $/m,
    /: $/m,
  ],
  [
    "--no-map-gw",
    "--map-host-loopback 192.0.2.77",
    asks(`tcp 192.0.2.77 ${Port.LOOPBACK}`, `tcp ${Net.GATEWAY4} ${Port.LOOPBACK}`),
    /: 127\.0\.0\.1 .*\n.*: 192\.0\.2\.1 /,
    /: 127\.0\.0\.1 .*\n.*: 192\.0\.2\.1 /,
  ],
  [
    "--map-host-loopback none",
    `--map-host-loopback ${Net.GATEWAY4}`,
    asks(`tcp ${Net.GATEWAY4} ${Port.LOOPBACK}`),
    /: 127\.0\.0\.1 /,
    /: 192\.0\.2\.1 /,
  ],
  [
    "--map-guest-addr none",
    "--map-guest-addr 192.0.2.78",
    asks(`tcp 192.0.2.78 ${Port.HOST}`),
    /: 192\.0\.2\.2 /,
    /: $/m,
  ],
  [
    "--netns-only",
    (world) => `--userns ${target(world)}/user`,
    joins,
    /^exit 0$/m,
    /^exit 1\n/,
  ],
  [
    "--userns /nowhere",
    (world) => `--userns ${target(world)}/user`,
    joins,
    /^exit 0$/m,
    /^exit 1\n/,
  ],
  ["--runas 1000:7", "--runas 1001:8", inside, /^user +0 +1001 /m, /^user +0 +1000 /m],
  [file("-l", "one"), file("-l", "two"), files, /^two$/m, /^one$/m],
  [file("-l", "one"), "-e", files, /^one$/m, /^one$/m],
  [file("-p", "one"), file("-p", "two"), files, /^(?!.*one).*two$/ms, /^(?!.*two).*one$/ms],
  [file("-P", "one"), file("-P", "two"), files, /^(?!.*one).*two$/ms, /^(?!.*two).*one$/ms],
  ["-f", "-q", config, / 192\.0\.2\.2\//, / 192\.0\.2\.2\//],
];

/** Refused in either order, and what the line says in this order; the other order's, where it differs. */
const REFUSED: readonly (readonly [string, string, RegExp, RegExp?])[] = [
  ["-a 10.1.1.1/24", "-n 16", /^-n 16: the length was already given with -a$/],
  ["-a 10.1.1.1", "-g 10.1.1.1", /^-g 10\.1\.1\.1: this is the guest's own address/],
  ["-M 2:0:0:0:0:1", "--ns-mac-addr 2:0:0:0:0:1", /^--ns-mac-addr: must differ/],
  ["-t none", "-t 22", /^-t 22: "22" contradicts "none"/, /^-t none: "none" contradicts "22"/],
  ["-u none", "-u auto", /^-u auto: "auto" contra/, /^-u none: "none" contra/],
  ["-T 22", "-T 20-30", /^-T 20-30: .* overlaps/, /^-T 22: .* overlaps/],
  ["-U 53", "-U 53", /^-U 53: .* overlaps/],
  ["-m 576", "-6", /^-m 576: IPv6 needs an MTU of at least 1280, and -6 is given$/],
  ["--netns /nowhere", "-q", /^echo: --netns takes neither PID nor command$/],
  ["--no-copy-routes", "-q", /^--no-copy-routes: needs --config-net$/],
  ["--no-copy-addrs", "-q", /^--no-copy-addrs: needs --config-net$/],
  ["-s /nowhere", "--config-net", /^-s: only for passt, not for pasta$/],
  ["--dhcp-dns", "--no-dhcp-dns", /^--no-dhcp-dns: only for passt, not for pasta$/],
];

const words = (...parts: string[]) => parts.join(" ").split(" ");

Deno.test({
  name: "conflicts: the last one counts where options contradict, and both where they do not",
  ...NEEDS,
  async fn(t) {
    await using world = await World.create();
    for (const [one, other, look, expected, swapped] of LAST) {
      const [first, second] = [one, other].map((part) =>
        typeof part === "string" ? part : part(world)
      );
      const name = [first, second].join(" and ").replaceAll(`${world.folder}/`, "");
      await t.step(name.replace(/\/proc\/\d+/, "/proc/PID"), async () => {
        assertMatch(await look(world, words(first!, second!)), expected);
        const flags = first!.startsWith("--dhcp-") ? first!.split(" ", 1) : [];
        const rest = words(first!).slice(flags.length);
        assertMatch(await look(world, [...flags, ...words(second!), ...rest]), swapped);
      });
    }
  },
});

Deno.test({
  name: "conflicts: what cannot go together is refused in one line, in any order",
  ...NEEDS,
  async fn(t) {
    await using world = await World.create();
    for (const [one, other, message, swapped = message] of REFUSED) {
      await t.step(`${one} and ${other}`, async () => {
        for (
          const [parts, expected] of [[[one, other], message], [[other, one], swapped]] as const
        ) {
          const result = await world.start(["echo", "ran"], words(...parts));
          const line = /^tubetti: (.*)\n$/.exec(result.stderr)?.[1] ?? result.stderr;
          assertMatch(line, expected);
          assertRefused(result, line);
        }
      });
    }
    assert(world.bed.engineProcesses().length === 0);
  },
});
