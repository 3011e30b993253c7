// SPDX-License-Identifier: GPL-2.0-or-later
/** Bad options and a host that cannot serve: one line that names the cause, exit 1, nothing left. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import { markedProcesses, type Result, until } from "../helpers/run.ts";
import { Net, programUnderTest, Testbed } from "../helpers/testbed.ts";

const OURS = requirements({ tubetti: true });

/** Options, and what the message must name beside the option. */
const BAD: [string[], RegExp][] = [
  [["--frobnicate"], /--frobnicate/],
  [["-Z"], /-Z/],
  [["-a", "300.1.2.3"], /300\.1\.2\.3/],
  [["-a", "2001:db8::g"], /2001:db8::g/],
  [["-a", "0.0.0.0"], /0\.0\.0\.0/],
  [["-a", ""], /-a|--address/],
  [["-n", "255.0.255.0"], /255\.0\.255\.0/],
  [["-n", "33"], /33/],
  [["-g", "gateway"], /gateway/],
  [["-m", "67"], /67/],
  [["-m", "70000"], /70000/],
  [["-m", "1500x"], /1500x/],
  [["-M", "01:02:03"], /01:02:03/],
  [["-M", "zz:02:03:04:05:06"], /zz:02/],
  [["--ns-mac-addr", "1-2"], /1-2/],
  [["-D", "1.2.3"], /1\.2\.3/],
  [["-i", "nosuchif0"], /nosuchif0/],
  [["--outbound-if4", "nosuchif0"], /nosuchif0/],
  [["-I", "a-name-that-is-much-too-long"], /a-name-that-is-much-too-long/],
  [["-t", "0"], /0/],
  [["-t", "70000"], /70000/],
  [["-t", "80:"], /80:/],
  [["-u", "x"], /x/],
  [["-s", "/x"], /-s: only for passt/],
  [["--dns-forward", "nowhere"], /nowhere/],
  [["--map-host-loopback", "loop"], /loop/],
  [["-m"], /-m|--mtu/],
];

function assertOneLine(result: Result, cause: RegExp): void {
  assertEquals(result.code, 1, result.stdout + result.stderr);
  assertEquals(result.stdout, "");
  const lines = result.stderr.trimEnd().split("\n");
  assertEquals(lines.length, 1, result.stderr);
  assertMatch(lines[0]!, cause);
}

async function assertNothingLeft(bed: Testbed): Promise<void> {
  await until(() => markedProcesses(bed.guestMark).length === 0);
  assertEquals(markedProcesses(bed.guestMark), []);
}

Deno.test({
  name: "bad input: one line that names it, exit 1",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    for (const [options, cause] of BAD) {
      await t.step(options.join(" "), async () => {
        assertOneLine(await bed.guest(["true"], { options }), cause);
      });
    }
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "bad input: a port that is taken is named",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await bed.serveHost(["socat", "TCP6-LISTEN:25499,ipv6only=0,fork", "EXEC:true"], {
      tcp: 25499,
    });
    const message = "tubetti: -t 25499:80: cannot listen on TCP port 25499: EADDRINUSE " +
      "(the port is in use)\n";
    const folder = await Deno.makeTempDir({ prefix: "tubetti-bad-" });
    const options = ["-t", "25498,25499:80", "-p", `${folder}/frames.pcap`];
    const result = await bed.guest(["true"], { options });
    assertEquals([result.code, result.stderr], [1, message]);
    assertEquals([...Deno.readDirSync(folder)], [], "a capture file of a failed start");
    await Deno.remove(folder);
    await bed.serveHost(["socat", "UDP6-RECVFROM:25499,ipv6only=0,fork", "EXEC:true"], {
      udp: 25499,
    });
    assertOneLine(
      await bed.guest(["true"], { options: ["-u", "25499"] }),
      /-u 25499: cannot listen on UDP port 25499: EADDRINUSE \(the port is in use\)$/,
    );
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "bad input: a port below 1024 is refused to an ordinary user, with a hint",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create({ user: true });
    for (const [option, protocol] of [["-t", "TCP"], ["-u", "UDP"]] as const) {
      assertOneLine(
        await bed.guest(["true"], { options: [option, "80"] }),
        new RegExp(
          `${option} 80: cannot listen on ${protocol} port 80: EACCES \\(ports below 1024`,
        ),
      );
    }
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "bad input: -o must be an address of the host",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    for (const address of [Net.REMOTE4, Net.REMOTE6]) {
      assertOneLine(
        await bed.guest(["true"], { options: ["-o", address] }),
        new RegExp(`-o ${address}: .*EADDRNOTAVAIL \\(not an address of this host\\)$`),
      );
    }
    const options = ["-o", Net.HOST4, "-o", Net.HOST6, "-q"];
    const result = await bed.guest(["true"], { options });
    assertEquals([result.code, result.stderr], [0, ""]);
    await assertNothingLeft(bed);
  },
});

/** Runs the program in a mount namespace of its own after some shell lines. */
async function prepared(bed: Testbed, lines: string, options: { user?: boolean } = {}) {
  const program = ["unshare", "-m", "/bin/sh", "-c", `${lines}\nexec "$@"`, "sh"];
  return await bed.guest(["true"], { program: [...program, ...programUnderTest()], ...options });
}

Deno.test({
  name: "bad host: no /dev/net/tun",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    await t.step("absent", async () => {
      const hide = "mount -t tmpfs none /dev/net";
      assertOneLine(await prepared(bed, hide), /\/dev\/net\/tun/);
    });
    await t.step("not permitted", async () => {
      // another node of the same device, on a file system that allows no devices
      const forbid = "mount -t tmpfs -o nodev none /dev/net; mknod /dev/net/tun c 10 200";
      assertOneLine(await prepared(bed, forbid), /\/dev\/net\/tun/);
    });
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "bad host: user namespaces forbidden",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    const program = ["unshare", "-Ur", "/bin/sh", "-c"];
    const lines = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"';
    const result = await bed.guest(["true"], {
      program: [...program, lines, "sh", ...programUnderTest()],
    });
    // with root's rights in its own user namespace it may also do without another one
    if (result.code !== 0) assertOneLine(result, /namespace/i);
    assert(result.code === 0 || result.code === 1);
    await assertNothingLeft(bed);
  },
});
