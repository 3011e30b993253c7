// SPDX-License-Identifier: GPL-2.0-or-later
/** Without --config-net: real clients configure the guest's interface. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { describe } from "../helpers/run.ts";
import { Net, Testbed } from "../helpers/testbed.ts";

const TAP = "tap0";
const MTU = 1400;
const SCRIPT = new URL("../helpers/dhcp_script.sh", import.meta.url);
const MODE_ALL = 0o777;
/** Asks for a name and all that is configured. */
const DHCLIENT_CONFIG = `send fqdn.fqdn "client.example.";
send fqdn.encoded on;
send fqdn.server-update off;
also request host-name, fqdn.fqdn, interface-mtu, domain-search, dhcp6.fqdn;
`;
const NEEDS = requirements({
  packages: ["isc-dhcp-client", "udhcpc", "iputils-ping", "iproute2"],
});

/** A folder that every user can write, with the clients' script in it. */
class Workspace {
  private constructor(readonly folder: string) {}

  static async create(): Promise<Workspace> {
    const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-dhcp-` });
    await Deno.chmod(folder, MODE_ALL);
    await Deno.copyFile(SCRIPT, `${folder}/script`);
    await Deno.chmod(`${folder}/script`, MODE_ALL);
    await Deno.writeTextFile(`${folder}/config`, DHCLIENT_CONFIG);
    return new Workspace(folder);
  }

  /** What the client told its script: the last value of each variable. */
  async variables(): Promise<Record<string, string>> {
    const text = await Deno.readTextFile(`${this.folder}/variables`).catch(() => "");
    const found: Record<string, string> = {};
    for (const line of text.split("\n")) {
      const at = line.indexOf("=");
      if (at > 0) found[line.slice(0, at)] = line.slice(at + 1);
    }
    return found;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

/** Runs shell lines in an unconfigured guest; they must succeed. */
async function inGuest(
  bed: Testbed,
  work: Workspace,
  lines: string[],
  more: string[] = [],
): Promise<string> {
  const command = ["/bin/sh", "-ec", lines.join("\n")];
  const result = await bed.guest(command, {
    unconfigured: true,
    options: ["-I", TAP, "-m", `${MTU}`, "--dhcp-dns", "--dhcp-search", ...more],
    env: { OUT: `${work.folder}/variables` },
    timeoutMs: 120_000,
  });
  assertEquals(result.code, 0, describe(command, result));
  return result.stdout;
}

/** Runs dhclient until its script was called for `reason`; prints its log. */
function dhclient(work: Workspace, family: 4 | 6, reason = "BOUND"): string {
  const { folder } = work;
  const files = `-cf ${folder}/config -lf ${folder}/leases${family} -pf ${folder}/pid${family}`;
  return `timeout 60 dhclient -${family} -1 -d -e OUT=$OUT ${files} -sf ${folder}/script ${TAP} ` +
    `>${folder}/log 2>&1 & client=$!; ` +
    `for i in $(seq 300); do grep -q "^reason=${reason}" $OUT 2>/dev/null && break; sleep 0.1; done; ` +
    `kill $client; cat ${folder}/log`;
}

const PING4 = `ping -n -c 1 -W 5 ${Net.REMOTE4}`;
const PING6 = `ping -6 -n -c 1 -W 5 ${Net.REMOTE6}`;

/** Waits until a line of `ip` has a pattern. */
function waitFor(command: string, pattern: string): string {
  return `for i in $(seq 300); do ${command} | grep -q "${pattern}" && break; sleep 0.1; done`;
}

/** Brings the interface up, until it has a link-local address and a router. */
const LINK_UP6 = [
  `ip link set ${TAP} up`,
  waitFor(`ip -6 addr show dev ${TAP} -tentative`, "fe80"),
  waitFor("ip -6 route", "^default"),
];

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `dhcp: dhclient -4 gets address, route, resolver, search list and MTU${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using work = await Workspace.create();
      const text = await inGuest(bed, work, [dhclient(work, 4), PING4]);
      assertStringIncludes(text, "1 received");
      const found = await work.variables();
      assertEquals(found["new_ip_address"], Net.HOST4);
      assertEquals(found["new_subnet_mask"], "255.255.255.0");
      assertEquals(found["new_routers"], Net.GATEWAY4);
      assertEquals(found["new_domain_name_servers"], Net.REMOTE4);
      assertEquals(found["new_interface_mtu"], `${MTU}`);
      assertMatch(found["new_domain_search"] ?? "", /example\.com/);
    },
  });

  Deno.test({
    name: `dhcp: dhclient -6 gets address, resolver and search list${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using work = await Workspace.create();
      const text = await inGuest(bed, work, [
        ...LINK_UP6,
        dhclient(work, 6),
        PING6,
      ]);
      assertStringIncludes(text, "1 received");
      const found = await work.variables();
      assertEquals(found["new_ip6_address"], Net.HOST6);
      assertEquals(found["new_dhcp6_name_servers"], Net.REMOTE6);
      assertMatch(found["new_dhcp6_domain_search"] ?? "", /example\.com/);
    },
  });

  Deno.test({
    name: `dhcp: names, resolvers and search list are those of -H, --fqdn, -D and -S${as}`,
    ...NEEDS,
    async fn(t) {
      const [dns4, dns6] = ["198.51.100.53", "2001:db8:2::53"];
      const names = ["-H", "guesthost", "--fqdn", "guest.example.org"];
      const options = [...names, "-D", dns4, "-D", dns6, "-S", "one.example two.example"];
      await using bed = await Testbed.create({ user });
      await t.step("DHCP", async () => {
        await using work = await Workspace.create();
        await inGuest(bed, work, [dhclient(work, 4)], options);
        const found = await work.variables();
        assertEquals(found["new_host_name"], "guesthost");
        assertEquals(found["new_fqdn_fqdn"], "guest.example.org");
        assertEquals(found["new_domain_name_servers"], dns4);
        assertEquals(found["new_domain_search"], "one.example. two.example.");
      });
      await t.step("DHCPv6", async () => {
        await using work = await Workspace.create();
        await inGuest(bed, work, [...LINK_UP6, dhclient(work, 6)], options);
        const found = await work.variables();
        assertEquals(found["new_dhcp6_name_servers"], dns6);
        assertEquals(found["new_dhcp6_domain_search"], "one.example. two.example.");
      });
    },
  });

  Deno.test({
    name: `dhcp: dhclient -6 has its lease confirmed and renewed${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using work = await Workspace.create();
      const leases = `${work.folder}/leases6`;
      const text = await inGuest(bed, work, [
        ...LINK_UP6,
        dhclient(work, 6),
        // as if the lease were to be renewed soon: ours last for ever
        `sed -i 's/renew .*;/renew 2;/; s/rebind .*;/rebind 20;/' ${leases}`,
        dhclient(work, 6, "RENEW6"),
        PING6,
      ]);
      assertMatch(text, /XMT: Confirm on tap0/);
      assertMatch(text, /XMT: Renew on tap0/);
      assertEquals(text.match(/XMT: Solicit/g)?.length, 1, text);
      const found = await work.variables();
      assertEquals(found["reason"], "RENEW6");
      assertEquals(found["new_ip6_address"], Net.HOST6);
      assertStringIncludes(text, "1 received");
    },
  });

  Deno.test({
    name: `dhcp: udhcpc gets address, route and resolver${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using work = await Workspace.create();
      const text = await inGuest(bed, work, [
        `ip link set ${TAP} up`,
        `timeout 60 udhcpc -i ${TAP} -n -q -f -O search -O mtu -s ${work.folder}/script 2>&1`,
        PING4,
      ]);
      assertStringIncludes(text, "1 received");
      const found = await work.variables();
      assertEquals(found["ip"], Net.HOST4);
      assertEquals(found["router"], Net.GATEWAY4);
      assertEquals(found["dns"], Net.REMOTE4);
      assertEquals(found["mtu"], `${MTU}`);
      assertMatch(found["search"] ?? "", /example\.com/);
    },
  });

  Deno.test({
    name: `dhcp: the kernel configures itself by router advertisement${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using work = await Workspace.create();
      const text = await inGuest(bed, work, [
        `ip link set ${TAP} up`,
        waitFor("ip -6 route", "^default"),
        waitFor(`ip -6 addr show dev ${TAP} scope global -tentative`, "2001:db8:1:"),
        `ip -6 addr show dev ${TAP}; ip -6 route; cat /proc/sys/net/ipv6/conf/${TAP}/mtu`,
        PING6,
      ]);
      assertMatch(text, /inet6 2001:db8:1:[0-9a-f:]+\/64 scope global/);
      assertMatch(text, new RegExp(`^default via fe80:\\S+ dev ${TAP} proto ra`, "m"));
      assertMatch(text, new RegExp(`^${MTU}$`, "m"));
      assertStringIncludes(text, "1 received");
    },
  });
}

Deno.test({
  name: "dhcp: without the services nobody answers",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const command =
      `ip link set ${TAP} up; timeout 20 udhcpc -i ${TAP} -n -q -f -t 2 -T 1 -s /bin/true;
      ip -6 route | grep -c ^default`;
    const off = ["--no-dhcp", "--no-ra"];
    const options = { unconfigured: true, options: ["-I", TAP, ...off], timeoutMs: 30_000 };
    const { stdout, stderr } = await bed.guest(["/bin/sh", "-c", command], options);
    assertMatch(stdout + stderr, /no lease/);
    assertEquals(stdout.trim().split("\n").at(-1), "0");
  },
});
