// SPDX-License-Identifier: GPL-2.0-or-later
/** Port specifications that cannot be had: one line that names port and reason, and nothing left. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import {
  descriptorsOf,
  engineOf,
  limited,
  openPorts,
  optionsFor,
  type PortOptions,
} from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { markedProcesses, until } from "../helpers/run.ts";
import { type GuestOptions, Testbed } from "../helpers/testbed.ts";

const NEEDS = requirements({ packages: ["python3", "socat", "iproute2"], tubetti: true });

/** Runs a guest that must not start. @returns its only line on standard error */
async function refused(
  bed: Testbed,
  given: PortOptions | readonly string[],
  options: GuestOptions = {},
): Promise<string> {
  const list = Array.isArray(given) ? given : optionsFor(given as PortOptions);
  const result = await bed.guest(["echo", "it ran"], { ...options, options: list });
  assertEquals([result.code, result.stdout], [1, ""], result.stderr);
  const lines = result.stderr.trimEnd().split("\n");
  assertEquals(lines.length, 1, result.stderr);
  await until(() => markedProcesses(bed.guestMark).length === 0);
  assertEquals(markedProcesses(bed.guestMark), []);
  return lines[0]!;
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `forward errors: ports that are taken${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      for (const [type, letter] of [["TCP", "t"], ["UDP", "u"]] as const) {
        const protocol = letter === "t" ? "tcp" : "udp";
        const taken = ["socat", "-u", `${type}6-LISTEN:8105,ipv6only=0`, "-"];
        const server = await bed.serveHost(taken, { [protocol]: 8105 });
        for (const spec of ["8105", "8101-8110", "127.0.0.1/8105", "8104:1,8105:2"]) {
          await t.step(`-${letter} ${spec}`, async () => {
            const line = await refused(bed, { [letter]: spec });
            assertStringIncludes(line, "8105");
            assertMatch(line, /in use|EADDRINUSE/);
            assertMatch(line, new RegExp(`-${letter} `));
          });
        }
        // all that was opened before the mistake was found is closed again
        assertEquals(openPorts(server.pid, protocol), [8105]);
        await server.stop();
      }
    },
  });

  Deno.test({
    name: `forward errors: more ports than descriptors${as}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const program = await limited(200, user);
      for (const given of [{ t: "8001-8400" }, { u: "8001-8400" }, { T: "8001-8400" }]) {
        await t.step(optionsFor(given).join(" "), async () => {
          const line = await refused(bed, given, { program });
          assertMatch(line, /descriptor/);
          assertMatch(line, /8\d\d\d/);
        });
      }
    },
  });
}

Deno.test({
  name: "forward errors: ports below 1024, as an ordinary user",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create({ user: true });
    for (const given of [{ t: "81" }, { u: "81" }, { t: "80-90:8080-8090" }]) {
      await t.step(optionsFor(given).join(" "), async () => {
        const line = await refused(bed, given);
        assertMatch(line, /\b8[01]\b/);
        assertMatch(line, /EACCES|[Pp]ermission denied/);
        assertStringIncludes(line, "ip_unprivileged_port_start");
      });
    }
    await t.step("they are the user's where the host says so", async () => {
      await bed.runHost(["sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=81"]);
      const guest = await bed.idleGuest({ options: optionsFor({ t: "81", u: "81" }) });
      const engine = engineOf(bed);
      assertEquals([openPorts(engine, "tcp"), openPorts(engine, "udp")], [[81], [81]]);
      assertEquals(descriptorsOf(engine) < 100, true);
      await guest.stop();
      assertMatch(await refused(bed, { t: "80" }), /EACCES|[Pp]ermission denied/);
    });
    await t.step("in the namespace they are ours", async () => {
      const guest = await bed.idleGuest({ options: optionsFor({ T: "80:8080", U: "53:5353" }) });
      assertEquals([openPorts(guest.pid, "tcp"), openPorts(guest.pid, "udp")], [[80], [53]]);
      await guest.stop();
    });
  },
});

Deno.test({
  name: "forward errors: what is not the host's, overlaps and contradictions",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const cases: [given: readonly string[], pattern: RegExp][] = [
      [["-t", "203.0.113.77/8001"], /203\.0\.113\.77.*(EADDRNOTAVAIL|not an address)/],
      [["-u", "2001:db8:77::1/8001"], /2001:db8:77::1.*(EADDRNOTAVAIL|not an address)/],
      [["-t", "%nonexist0/8001"], /nonexist0.*(ENODEV|interface)/],
      [["-t", "8001,8001"], /8001/],
      [["-t", "8001-8005,8004:9000"], /8004/],
      [["-t", "8001", "-t", "8001"], /8001/],
      [["-t", "8001", "-t", "127.0.0.1/8001"], /8001/],
      [["-T", "8001-8003", "-T", "8003:1"], /8003/],
      [["-t", "none", "-t", "8001"], /none/],
      [["-t", "8001", "-t", "none"], /none/],
      [["-T", "127.0.0.1/8001"], /-T|--tcp-ns/],
      [["-t", "8001-8002:9001-9003"], /8001-8002:9001-9003|9001-9003/],
      [["-t", "8005-8001"], /8005-8001/],
      [["-t", "0"], /"?0"?/],
      [["-t", "65536"], /65536/],
      [["-t", ""], /-t|--tcp-ports/],
    ];
    for (const [given, pattern] of cases) {
      await t.step(given.join(" "), async () => assertMatch(await refused(bed, given), pattern));
    }
  },
});
