// SPDX-License-Identifier: GPL-2.0-or-later
/** What --config-net copies from the host, and the options that change it. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { edge } from "../helpers/edge.ts";
import { requirements } from "../helpers/require.ts";
import { must } from "../helpers/run.ts";
import { type GuestOptions, Net, Testbed, UPLINK } from "../helpers/testbed.ts";

const PORT = 25511;
const SECOND4 = "192.0.2.99";
const SECOND6 = "2001:db8:1::99";
const NEEDS = requirements({ packages: ["iproute2", "socat", "python3"], tubetti: true });

const SHOW = ["/bin/sh", "-c", "ip -o addr; ip route; ip -6 route; ip -o link; ip neigh"];

async function show(bed: Testbed, options: string[], more: GuestOptions = {}): Promise<string> {
  const result = await bed.guest(SHOW, { options, ...more });
  assertEquals(result.code, 0, result.stderr);
  return result.stdout;
}

async function addHost(bed: Testbed, ...lines: string[]): Promise<void> {
  await must(["ip", "-n", bed.host, "-batch", "-"], { stdin: lines.join("\n") + "\n" });
}

Deno.test({
  name: "config-net: all addresses and routes of the interface are copied",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await addHost(
      bed,
      `addr add ${SECOND4}/24 dev ${UPLINK}`,
      `addr add ${SECOND6}/64 dev ${UPLINK} nodad`,
      `route add 10.50.0.0/16 via ${Net.GATEWAY4} dev ${UPLINK}`,
      `route add 2001:db8:50::/48 via ${Net.GATEWAY6} dev ${UPLINK}`,
    );
    const text = await show(bed, []);
    for (
      const address of [`${Net.HOST4}/24`, `${SECOND4}/24`, `${Net.HOST6}/64`, `${SECOND6}/64`]
    ) {
      assertStringIncludes(text, address);
    }
    assertMatch(text, new RegExp(`^default via ${Net.GATEWAY4} `, "m"));
    assertMatch(text, new RegExp(`^default via ${Net.GATEWAY6} `, "m"));
    assertMatch(text, new RegExp(`^10.50.0.0/16 via ${Net.GATEWAY4} `, "m"));
    assertMatch(text, new RegExp(`^2001:db8:50::/48 via ${Net.GATEWAY6} `, "m"));
    assertMatch(text, new RegExp(`: ${UPLINK}: <[A-Z,_]*UP`));
  },
});

Deno.test({
  name: "config-net: no address is tentative when the command starts, nor is there one too many",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const text =
      (await bed.guest(["/bin/sh", "-c", "ip -o -6 addr; sleep 3; ip -o -6 addr"])).stdout;
    assert(!text.includes("tentative"), text);
    const global = text.split("\n").filter((line) => line.includes("scope global"));
    assertEquals(global.length, 2, text); // one, shown twice
  },
});

Deno.test({
  name: "config-net: names, addresses, routes and MAC addresses as options say",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await t.step("-I, -m, --ns-mac-addr", async () => {
      const text = await show(bed, [
        "-I",
        "net7",
        "-m",
        "1700",
        "--ns-mac-addr",
        "02:00:00:00:00:07",
      ]);
      assertMatch(text, /: net7: .* mtu 1700 .*link\/ether 02:00:00:00:00:07/);
    });
    await t.step("-a, -n, -g for both families", async () => {
      const v4 = ["-a", "10.1.2.3", "-n", "255.255.240.0", "-g", "10.1.0.1"];
      const text = await show(bed, [...v4, "-a", "2001:db8:9::5", "-g", "2001:db8:9::1"]);
      assertStringIncludes(text, "10.1.2.3/20");
      assertMatch(text, /^default via 10\.1\.0\.1 /m);
      assertStringIncludes(text, "2001:db8:9::5/64");
      assertMatch(text, /^default via 2001:db8:9::1 /m);
      assert(!text.includes(Net.HOST4), text);
    });
    await t.step("-M is our address as the guest sees it", async () => {
      const command = [
        "/bin/sh",
        "-c",
        `ping -n -c 1 -W 2 ${Net.GATEWAY4} >/dev/null; ip neigh show ${Net.GATEWAY4}`,
      ];
      const { stdout } = await bed.guest(command, { options: ["-M", "02:00:00:00:00:08"] });
      assertStringIncludes(stdout, "lladdr 02:00:00:00:00:08");
    });
    await t.step("-i takes another interface", async () => {
      await addHost(
        bed,
        "link add other0 type veth peer name other1",
        "addr add 10.77.0.2/24 dev other0",
        "link set other0 up",
        "link set other1 up",
        "route add default via 10.77.0.1 dev other0 metric 500",
      );
      const text = await show(bed, ["-i", "other0", "-4"]);
      assertStringIncludes(text, "10.77.0.2/24");
      assertMatch(text, /^default via 10\.77\.0\.1 dev other0/m);
    });
  },
});

Deno.test({
  name: "config-net: -o and --outbound-if4 choose what the remote sees",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    await addHost(
      bed,
      `addr add ${SECOND4}/24 dev ${UPLINK}`,
      `addr add ${SECOND6}/64 dev ${UPLINK} nodad`,
    );
    const who = "SYSTEM:echo from $SOCAT_PEERADDR";
    const bound = (address: string) => `bind=${address.includes(":") ? `[${address}]` : address}`;
    await bed.serveRemote(["socat", `TCP4-LISTEN:${PORT},fork,${bound(Net.REMOTE4)}`, who], {
      tcp: PORT,
    });
    await bed.serveRemote(
      ["socat", `TCP6-LISTEN:${PORT + 1},fork,ipv6only=1,${bound(Net.REMOTE6)}`, who],
      { tcp: PORT + 1 },
    );
    const ask = (to: string) => ["socat", "-u", `${to},connect-timeout=3`, "-"];
    await t.step("-o for both families", async () => {
      const options = ["-o", SECOND4, "-o", SECOND6];
      const v4 = await bed.guest(ask(`TCP4:${Net.REMOTE4}:${PORT}`), { options });
      assertStringIncludes(v4.stdout, `from ${SECOND4}`);
      const v6 = await bed.guest(ask(`TCP6:[${Net.REMOTE6}]:${PORT + 1}`), { options });
      assertMatch(v6.stdout, /from \[2001:0db8:0001:[0:]*:0099\]/);
    });
    await t.step("--outbound-if4", async () => {
      const good = await bed.guest(ask(`TCP4:${Net.REMOTE4}:${PORT}`), {
        options: ["--outbound-if4", UPLINK],
      });
      assertStringIncludes(good.stdout, `from ${Net.HOST4}`);
      await addHost(bed, "link add dead0 type veth peer name dead1", "link set dead0 up");
      const guest = await bed.idleGuest({ options: ["--outbound-if4", "dead0"] });
      const { error } = await edge(guest, "connect", Net.REMOTE4, PORT);
      assert(error !== "", "reached by the wrong interface");
      await guest.stop();
    });
  },
});
