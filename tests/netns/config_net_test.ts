// SPDX-License-Identifier: GPL-2.0-or-later
/** What --config-net copies from the host, and the options that change it. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { attempt, must } from "../helpers/run.ts";
import { type GuestOptions, type IdleGuest, Net, Testbed, UPLINK } from "../helpers/testbed.ts";

const PORT = 25511;
const SECOND4 = "192.0.2.99";
const SECOND6 = "2001:db8:1::99";
const NEEDS = requirements({ packages: ["iproute2", "socat"], tubetti: true });

const SHOW = ["/bin/sh", "-c", "ip -o addr; ip route; ip -6 route; ip -o link; ip neigh"];

async function show(bed: Testbed, options: string[], more: GuestOptions = {}): Promise<string> {
  const result = await bed.guest(SHOW, { options, ...more });
  assertEquals(result.code, 0, result.stderr);
  return result.stdout;
}

async function addHost(bed: Testbed, ...lines: string[]): Promise<void> {
  await must(["ip", "-n", bed.host, "-batch", "-"], { stdin: lines.join("\n") + "\n" });
}

/** Starts servers on the remote that tell who asks: TCP and UDP, IPv4 and IPv6. */
async function serveWho(bed: Testbed): Promise<void> {
  const who = "SYSTEM:read line; echo $SOCAT_PEERADDR";
  for (const family of [4, 6] as const) {
    const { remote } = Testbed.addresses(family);
    const own = family === 4 ? `bind=${remote}` : `ipv6only=1,bind=[${remote}]`;
    const port = PORT + family;
    await bed.serveRemote(["socat", `TCP${family}-LISTEN:${port},fork,${own}`, who], { tcp: port });
    await bed.serveRemote(["socat", `UDP${family}-RECVFROM:${port},fork,${own}`, who], {
      udp: port,
    });
  }
}

/** The address by which the remote sees the guest; empty when nobody answers, in three tries. */
function seenAs(guest: IdleGuest, protocol: string, family: number): Promise<string> {
  return attempt(() => askWho(guest, protocol, family), (answer) => answer !== "");
}

/** Asks once and waits a second. */
async function askWho(guest: IdleGuest, protocol: string, family: number): Promise<string> {
  const { remote } = Testbed.addresses(family as 4 | 6);
  const to = `${protocol}${family}:${family === 4 ? remote : `[${remote}]`}:${PORT + family}`;
  const options = protocol === "TCP" ? ",connect-timeout=1" : "";
  const { stdout } = await guest.run(["socat", "-t", "1", "-", `${to}${options}`], {
    stdin: "who\n",
  });
  return stdout.trim();
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `config-net: all addresses and routes of the interface are copied${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
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
    name:
      `config-net: no address is tentative when the command starts, nor is there one too many${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      const text =
        (await bed.guest(["/bin/sh", "-c", "ip -o -6 addr; sleep 3; ip -o -6 addr"])).stdout;
      assert(!text.includes("tentative"), text);
      const global = text.split("\n").filter((line) => line.includes("scope global"));
      assertEquals(global.length, 2, text); // one, shown twice
    },
  });

  Deno.test({
    name: `config-net: names, addresses, routes and MAC addresses as options say${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
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
          `ping -n -c 1 -W 5 ${Net.GATEWAY4} >/dev/null; ip neigh show ${Net.GATEWAY4}`,
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
    name: `config-net: -o, --outbound-if4 and --outbound-if6 choose what the remote sees${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      await addHost(
        bed,
        `addr add ${SECOND4}/24 dev ${UPLINK}`,
        `addr add ${SECOND6}/64 dev ${UPLINK} nodad`,
        "link add dead0 type veth peer name dead1",
        "link set dead0 up",
      );
      await serveWho(bed);
      const all: [number, string][] = [4, 6].flatMap((family) =>
        ["TCP", "UDP"].map((protocol): [number, string] => [family, protocol])
      );
      await t.step("-o for both families", async () => {
        const guest = await bed.idleGuest({ options: ["-o", SECOND4, "-o", SECOND6] });
        const expected = { 4: SECOND4, 6: "[2001:0db8:0001:0000:0000:0000:0000:0099]" };
        for (const [family, protocol] of all) {
          assertEquals(await seenAs(guest, protocol, family), expected[family as 4 | 6], protocol);
        }
        await guest.stop();
      });
      await t.step("interface of the default route", async () => {
        const options = ["--outbound-if4", UPLINK, "--outbound-if6", UPLINK];
        const guest = await bed.idleGuest({ options });
        for (const [family, protocol] of all) {
          const expected = family === 4 ? Net.HOST4 : "[2001:0db8:0001:";
          assertStringIncludes(await seenAs(guest, protocol, family), expected, protocol);
        }
        await guest.stop();
      });
      await t.step("interface that leads nowhere", async () => {
        const options = ["--outbound-if4", "dead0", "--outbound-if6", "dead0"];
        const guest = await bed.idleGuest({ options });
        for (const [family, protocol] of all) {
          assertEquals(await askWho(guest, protocol, family), "", protocol);
        }
        await guest.stop();
      });
    },
  });
}
