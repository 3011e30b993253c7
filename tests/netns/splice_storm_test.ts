// SPDX-License-Identifier: GPL-2.0-or-later
/** Spliced connections that end in every way, many at once, with every byte compared. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { peer, storm } from "../helpers/peer.ts";
import { descriptorsOf, engineOf, hostOf, limited, optionsFor } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { Background, run, sleep, until } from "../helpers/run.ts";
import { type IdleGuest, Testbed } from "../helpers/testbed.ts";
import { cpuOf } from "../helpers/usage.ts";

const PORT = 8121;
const HOST_PORT = 8122;
const OPTIONS = optionsFor({ t: `${PORT}`, T: `${HOST_PORT}` });
const NEEDS = requirements({ packages: ["gcc"], tubetti: true });

const COUNT = 1500;
const WIDTH = 150;

async function weather(
  place: ReturnType<typeof hostOf>,
  address: string,
  port: number,
  seed: number,
): Promise<void> {
  const command = [await storm(), "run", address, port, COUNT, seed, WIDTH].map(String);
  const { stdout, stderr } = await place.run(command);
  const found = /^good (\d+) reset (\d+) bad 0 server good \d+ bad 0$/.exec(stdout.trim());
  assert(found, `seed ${seed}: ${stdout}${stderr}`);
  assertEquals(Number(found[1]) + Number(found[2]), COUNT, stdout);
}

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `splice storm: half-closed and reset connections, byte by byte${as}`,
    ...NEEDS,
    async fn(t) {
      const program = await storm();
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest({ options: OPTIONS });
      const server = guest.start([program, "serve", `${PORT}`]);
      await server.waitFor("ready\n");
      const hostServer = await bed.serveHost([program, "serve", `${HOST_PORT}`], {
        text: "ready\n",
      });
      const engine = engineOf(bed);
      const before = descriptorsOf(engine);
      const seed = Math.floor(Math.random() * 1e9); // in the message when it fails
      for (const [i, address] of ["127.0.0.1", "::1"].entries()) {
        for (const given of user ? [seed + i] : [1 + i, seed + i]) {
          await t.step(`-t, ${address}, seed ${given}`, async () => {
            await weather(hostOf(bed), address, PORT, given);
          });
          await t.step(`-T, ${address}, seed ${given}`, async () => {
            await weather(guest, address, HOST_PORT, given);
          });
        }
      }
      assertEquals([server.stderr, hostServer.stderr], ["", ""]);
      await t.step("nothing is left of them", async () => {
        const extra = () => descriptorsOf(engine) - before;
        const most = user ? POOLED : KEPT;
        assert(await until(() => extra() < most, 40_000), `${extra()} descriptors stay open`);
      });
    },
  });
}

/** Descriptors that may stay open a while for connections to come: sockets and pipes. */
const POOLED = 700;
/** What stays when that while is over. */
const KEPT = 20;

/** Opens connections to an echo server that stay until the returned process is stopped. */
async function echo(
  place: { enter(command: readonly string[]): string[] },
  mark: string,
  port: number,
  count: number,
): Promise<Background> {
  const command = [await storm(), "echo", "127.0.0.1", `${port}`, `${count}`];
  // its standard input is a pipe that stays open
  const line = ["/bin/sh", "-c", 'sleep 1000 | "$@"', "sh", ...command];
  const held = new Background(place.enter(line), { mark });
  await held.waitFor("echoed", 60_000);
  return held;
}

/** Enters the host's namespace. */
function hostPlace(bed: Testbed): { enter(command: readonly string[]): string[] } {
  return { enter: (command) => ["ip", "netns", "exec", bed.host, ...command] };
}

/** Ends what {@linkcode echo} started: the program behind the shell has a pipe to wait for. */
async function hangUp(held: Background): Promise<void> {
  await run(["pkill", "-KILL", "-P", `${held.pid}`]);
  await held.stop();
}

const MANY = 3000;
const MOST_PER_CONNECTION = 6;

for (const [name, inbound] of [["-t", true], ["-T", false]] as const) {
  Deno.test({
    name: `splice many: 3,000 connections at once through ${name}, each with an echo`,
    ...NEEDS,
    async fn() {
      const program = await peer();
      await using bed = await Testbed.create();
      const guest: IdleGuest = await bed.idleGuest({ options: OPTIONS });
      if (inbound) await guest.start([program, "serve", `${PORT}`]).waitFor("ready\n");
      else await bed.serveHost([program, "serve", `${HOST_PORT}`], { tcp: HOST_PORT });
      const engine = engineOf(bed);
      const before = descriptorsOf(engine);
      const [place, port] = inbound ? [hostPlace(bed), PORT] : [guest, HOST_PORT];
      const held = await echo(place, bed.guestMark, port, MANY);
      assertStringIncludes(held.stdout, `echoed ${MANY} failed 0`);
      const each = (descriptorsOf(engine) - before) / MANY;
      assert(each >= 2 && each <= MOST_PER_CONNECTION, `${each} descriptors per connection`);
      const cpu = cpuOf(engine);
      await sleep(1000);
      assert(cpuOf(engine) - cpu < 0.2, `${cpuOf(engine) - cpu} s in a second of silence`);
      await hangUp(held);
      const extra = () => descriptorsOf(engine) - before;
      assert(await until(() => extra() < POOLED), `${extra()} descriptors stay open`);
    },
  });
}

const LOW_LIMIT = 400;

for (const user of [false, true]) {
  Deno.test({
    name: `splice many: more connections than descriptors, and life goes on${
      user ? ", as an ordinary user" : ""
    }`,
    ...NEEDS,
    async fn(t) {
      const program = await peer();
      await using bed = await Testbed.create({ user });
      const guest = await bed.idleGuest({
        options: OPTIONS,
        program: await limited(LOW_LIMIT, user),
      });
      await guest.start([program, "serve", `${PORT}`]).waitFor("ready\n");
      const engine = engineOf(bed);
      const held = await echo(hostPlace(bed), bed.guestMark, PORT, LOW_LIMIT);
      await t.step("those that fit are served", () => {
        const [, served] = /echoed (\d+) failed \d+/.exec(held.stdout)!;
        assert(Number(served) >= LOW_LIMIT / (MOST_PER_CONNECTION + 2), held.stdout);
        assert(Number(served) < LOW_LIMIT, held.stdout);
      });
      await t.step("no busy loop over those that don't", async () => {
        const cpu = cpuOf(engine);
        await sleep(2000);
        assert(cpuOf(engine) - cpu < 0.5, `${cpuOf(engine) - cpu} s in 2 s`);
      });
      await t.step("new ones work when old ones have gone", async () => {
        await hangUp(held);
        const short = [program, "short", "127.0.0.1", `${PORT}`, "50", "1000", "5"];
        const works = async () => (await bed.runHost(short)).stdout.startsWith("ok 50 failed 0");
        assert(await until(works), "connections still fail");
      });
      await t.step("the log says so in few lines", () => {
        const lines = guest.background.stderr.split("\n");
        const told = lines.filter((line) => /descriptor|EMFILE/i.test(line));
        assert(told.length >= 1 && told.length <= 10, guest.background.stderr.slice(-2000));
        assertMatch(told[0]!, /\S/);
      });
    },
  });
}
