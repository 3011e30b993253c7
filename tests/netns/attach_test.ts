// SPDX-License-Identifier: GPL-2.0-or-later
/** Namespaces that were there before us get a network, and lose it when we or they go. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { boundPorts } from "../helpers/netns.ts";
import { peer } from "../helpers/peer.ts";
import { NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { Background, describe, must, type Result, run, until } from "../helpers/run.ts";
import { assertNothingLeft, attach, END_MS, Targets } from "../helpers/targets.ts";
import { Testbed } from "../helpers/testbed.ts";

const NEEDS = requirements({ tubetti: true, packages: ["gcc"] });
const REMOTE_PORT = 25801, GUEST_PORT = 25802, HOST_PORT = 25803;
/** Below the testbed's ephemeral ports, which `auto` leaves out. */
const AUTO_PORT = 5804;
/** Time in which something that must not happen would. */
const NOT_MS = 1500;
const SIGINT_STATUS = 130, SIGHUP_STATUS = 129;
/** Runs a command in the network namespace of a process. */
function within(target: Background, command: readonly string[]) {
  return run(["nsenter", "-t", `${target.pid}`, "-n", "--", ...command]);
}

/** Names of the interfaces in a process's network namespace. */
async function interfaces(target: Background): Promise<string[]> {
  const { stdout } = await within(target, ["ip", "-o", "link", "show", "up"]);
  return stdout.trim().split("\n").map((line) => line.split(":")[1]!.trim());
}

/** Fails unless a client in `place` gets an answer. */
async function assertTalks(
  place: (command: string[]) => Promise<Result>,
  program: string,
  address: string,
  port: number,
): Promise<void> {
  const command = [program, "short", address, `${port}`, "1", "1000", "1"];
  const result = await place(command);
  assertEquals(result.code, 0, describe(command, result));
}

/** Starts the peer's server in the network namespace of a process. */
async function serveWithin(target: Background, program: string, port: number) {
  const server = new Background(
    ["nsenter", "-t", `${target.pid}`, "-n", "--", program, "serve", `${port}`],
  );
  assert(await until(() => boundPorts(server.pid, "tcp").includes(port)), server.stderr);
  return server;
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `attach: a process's namespaces get outbound and forwarded connections${as}`,
    ...NEEDS,
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      await using targets = new Targets(bed, user);
      await bed.serveRemote([program, "serve", `${REMOTE_PORT}`], { tcp: REMOTE_PORT });
      await bed.serveHost([program, "serve", `${HOST_PORT}`], { tcp: HOST_PORT });
      const target = await targets.process(user ? "-Urn" : "-n");
      const ports = ["-t", "auto", "-T", `${HOST_PORT}`, "-u", "none", "-U", "none"];
      const instance = await attach(bed, [...ports, `${target.pid}`]);
      const inside = (command: string[]) => within(target, command);
      const outside = (command: string[]) => bed.runHost(command);
      assertEquals(await interfaces(target), ["lo", "uplink0"]);
      for (const family of [4, 6] as const) {
        const { remote, host } = Testbed.addresses(family);
        const loopback = family === 4 ? "127.0.0.1" : "::1";
        await t.step(`outbound, IPv${family}`, () => {
          return assertTalks(inside, program, remote, REMOTE_PORT);
        });
        await t.step(`-T, IPv${family}`, () => {
          return assertTalks(inside, program, loopback, HOST_PORT);
        });
        await t.step(`-t auto finds what is bound inside, IPv${family}`, async () => {
          const server = await serveWithin(target, program, AUTO_PORT);
          const [engine] = bed.engineProcesses();
          const listens = () => boundPorts(engine!.pid, "tcp").includes(AUTO_PORT);
          try {
            assert(await until(listens));
            await assertTalks(outside, program, loopback, AUTO_PORT);
            await assertTalks((line) => bed.runRemote(line), program, host, AUTO_PORT);
          } finally {
            await server.stop();
          }
          assert(await until(() => !listens()));
        });
      }
      await t.step("it goes with the process", async () => {
        await target.stop();
        assertEquals(await instance.wait(END_MS), 0);
        await assertNothingLeft(bed);
      });
    },
  });

  Deno.test({
    name: `attach: a process's namespace by its path, with its user namespace${as}`,
    ...NEEDS,
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      await using targets = new Targets(bed, user);
      const target = await targets.process("-Urn"), folder = `/proc/${target.pid}/ns`;
      const names = ["--userns", `${folder}/user`, "--netns", `${folder}/net`];
      const ports = ["-t", `${GUEST_PORT}`, "-u", "none", "-T", "none", "-U", "none"];
      const instance = await attach(bed, [...ports, ...names]);
      const server = await serveWithin(target, program, GUEST_PORT);
      try {
        await assertTalks((line) => bed.runHost(line), program, "127.0.0.1", GUEST_PORT);
      } finally {
        await server.stop();
      }
      await target.stop();
      assertEquals(await instance.wait(END_MS), 0);
      await assertNothingLeft(bed);
    },
  });

  Deno.test({
    name: `attach: told to end, we take our interface and nothing else${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using targets = new Targets(bed, user);
      const target = await targets.process("-Urn");
      const enter = ["-t", `${target.pid}`, "-n"];
      await must(["nsenter", ...enter, "ip", "link", "add", "other0", "type", "bridge"]);
      await must(["nsenter", ...enter, "ip", "addr", "add", "192.0.2.77/32", "dev", "other0"]);
      const state = async () => {
        const { stdout } = await within(target, ["ip", "-o", "addr", "show", "dev", "other0"]);
        const sysctl = await within(target, ["sysctl", "net.ipv4.ping_group_range"]);
        return stdout + sysctl.stdout;
      };
      const before = await state();
      const cases = { SIGTERM: 0, SIGQUIT: 0, SIGINT: SIGINT_STATUS, SIGHUP: SIGHUP_STATUS };
      for (const [signal, code] of Object.entries(cases)) {
        const instance = await attach(bed, [...NOTHING, `${target.pid}`]);
        assertEquals(await interfaces(target), ["lo", "uplink0"]);
        const [engine] = bed.engineProcesses();
        Deno.kill(engine!.pid, signal as Deno.Signal);
        assertEquals(await instance.wait(END_MS), code, signal);
        assertEquals(await interfaces(target), ["lo"], signal);
        assertEquals(await state(), before);
      }
      await assertNothingLeft(bed);
    },
  });

  Deno.test({
    name: `attach: the second instance for an interface is refused, and one that is no tap${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using targets = new Targets(bed, user);
      const target = await targets.process("-Urn"), pid = `${target.pid}`;
      await attach(bed, [...NOTHING, pid]);
      const again = await bed.guest([], { options: ["-f", ...NOTHING, "-q", pid] });
      assertEquals(
        [again.code, again.stderr],
        [
          1,
          "tubetti: ioctl TUNSETIFF: EBUSY (the interface uplink0 is in use by another program: " +
          "see --ns-ifname)\n",
        ],
      );
      await must(["nsenter", "-t", pid, "-n", "ip", "link", "add", "br7", "type", "bridge"]);
      const options = ["-f", ...NOTHING, "-q", "-I", "br7", pid];
      const other = await bed.guest([], { options });
      assertEquals(other.code, 1);
      assertMatch(other.stderr, /^tubetti: .*EINVAL \(the namespace has an interface br7 .*\n$/);
      const second = await attach(bed, [...NOTHING, "-I", "second0", pid]);
      assertEquals(await interfaces(target), ["lo", "uplink0", "second0"]);
      second.kill("SIGTERM");
    },
  });

  Deno.test({
    name: `attach: what cannot be joined is said in one line${as}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create({ user });
      await using targets = new Targets(bed, user);
      await using others = new Targets(bed, false);
      const target = await targets.process("-Urn"), foreign = await others.process("-n");
      const cases: [string[], RegExp][] = [
        [["4000000"], /^tubetti: PID 4000000: no such process, or it has ended\n$/],
        [["--netns", "/nonexistent/ns"], /^tubetti: --netns .*: there is no \/nonexistent\/ns\n$/],
        [["--netns", "nonexistent"], /^tubetti: .*: there is no \/run\/netns\/nonexistent\n$/],
        [["--netns", "/etc/passwd"], /^tubetti: .*: not a network namespace\n$/],
        [["--netns", "/proc/self/ns/net"], /^tubetti: .*the network namespace that we are in.*\n$/],
        [["--userns", "/etc/passwd", `${target.pid}`], /^tubetti: .*: not a user namespace\n$/],
        [["--netns", bed.remote, `${target.pid}`], /^tubetti: .*neither PID nor command\n$/],
        [["--netns", bed.remote, "true"], /^tubetti: .*neither PID nor command\n$/],
      ];
      if (user) {
        cases.push(
          [[`${foreign.pid}`], /^tubetti: PID \d+: only its owner, and root .*\n$/],
          [["--netns", bed.remote], /^tubetti: --netns .*needs CAP_SYS_ADMIN in the user .*\n$/],
          [["--netns-only", `${target.pid}`], /^tubetti: PID .*needs CAP_SYS_ADMIN .*\n$/],
        );
      }
      for (const [args, message] of cases) {
        const options = ["-f", "-q", ...args];
        const result = await bed.guest([], { options });
        assertEquals(result.code, 1, describe(args, result));
        assertMatch(result.stderr, message);
      }
      await assertNothingLeft(bed);
    },
  });
}

Deno.test({
  name: "attach: a namespace of ip-netns(8) by name and by path, until it is deleted",
  ...NEEDS,
  async fn(t) {
    const program = await peer();
    await using bed = await Testbed.create();
    await using targets = new Targets(bed);
    await bed.serveRemote([program, "serve", `${REMOTE_PORT}`], { tcp: REMOTE_PORT });
    const { remote } = Testbed.addresses(4);
    for (const by of ["name", "path"]) {
      await t.step(by, async () => {
        const name = await targets.named();
        const netns = by === "name" ? name : `/run/netns/${name}`;
        const instance = await attach(bed, [...NOTHING, "--netns", netns]);
        const inside = (line: string[]) => run(["ip", "netns", "exec", name, ...line]);
        await assertTalks(inside, program, remote, REMOTE_PORT);
        await must(["ip", "netns", "del", name]);
        assertEquals(await instance.wait(END_MS), 0);
        assertStringIncludes(instance.stderr, "is gone: leaving\n");
      });
    }
    await t.step("-q: without a word", async () => {
      const name = await targets.named();
      const options = ["-f", "-q", ...NOTHING, "--netns", name];
      const instance = await bed.startGuest([], { options });
      const up = async () => (await run(["ip", "-n", name, "route"])).stdout.includes("default");
      assert(await until(up));
      await must(["ip", "netns", "del", name]);
      assertEquals([await instance.wait(END_MS), instance.stderr], [0, ""]);
    });
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "attach: --no-netns-quit stays, --netns-only is implied by a name",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await using targets = new Targets(bed);
    const name = await targets.named(), target = await targets.process("-Urn");
    for (const args of [["--netns", name], [`${target.pid}`]]) {
      const instance = await attach(bed, [...NOTHING, "-I", "stay0", "--no-netns-quit", ...args]);
      if (args.length === 2) await must(["ip", "netns", "del", name]);
      else await target.stop();
      assert(!await until(() => instance.code !== null, NOT_MS), instance.stderr);
      const [engine] = bed.engineProcesses();
      Deno.kill(engine!.pid, "SIGTERM");
      assertEquals(await instance.wait(END_MS), 0);
    }
    await assertNothingLeft(bed);
  },
});

Deno.test({
  name: "attach: we end when our interface is deleted",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    await using targets = new Targets(bed);
    const target = await targets.process("-Urn");
    const instance = await attach(bed, [...NOTHING, "-I", "gone0", `${target.pid}`]);
    await must(["nsenter", "-t", `${target.pid}`, "-n", "ip", "link", "del", "gone0"]);
    assertEquals(await instance.wait(END_MS), 1);
    const last = "Interface gone0 is gone, and the network of the namespace with it\n";
    assert(instance.stderr.endsWith(last), instance.stderr);
    await assertNothingLeft(bed);
  },
});
