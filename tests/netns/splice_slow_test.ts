// SPDX-License-Identifier: GPL-2.0-or-later
/** Spliced connections whose ends are slow, gone, closed, or not there at all. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { edge, edgeCommand } from "../helpers/edge.ts";
import {
  ask,
  descriptorsOf,
  engineOf,
  hostOf,
  optionsFor,
  ports,
  portsCommand,
  resultOf,
  startPorts,
} from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { attempt, Background, sleep, until } from "../helpers/run.ts";
import { Testbed } from "../helpers/testbed.ts";
import { cpuOf, loopWakeUpsOf, memoryOf } from "../helpers/usage.ts";

const PORT = 8131;
const HOST_PORT = 8132;
const OPTIONS = optionsFor({ t: `${PORT}`, T: `${HOST_PORT}` });
const NEEDS = requirements({ packages: ["python3"], tubetti: true });

const SLOW = 50;
/** More than sockets and pipes hold. */
const SLOW_BYTES = 16_000_000;
const STUCK_SECONDS = 2;
const MOST_STUCK_CPU = 0.05;
const MOST_STUCK_WAKE_UPS = 10;
const MOST_GROWTH_MB = 16;

/** Descriptors that may stay open a while for connections to come: sockets and pipes. */
const POOLED = 700;

for (const [name, inbound] of [["-t", true], ["-T", false]] as const) {
  Deno.test({
    name: `splice slow: 50 readers that sleep cost neither memory nor time, ${name}`,
    ...NEEDS,
    async fn() {
      await using bed = await Testbed.create();
      const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-slow-` });
      const file = `${folder}/go`;
      try {
        const guest = await bed.idleGuest({ options: OPTIONS });
        const engine = engineOf(bed);
        const port = inbound ? PORT : HOST_PORT;
        const sink = portsCommand("sink", port, SLOW, file);
        if (inbound) await guest.start(sink).waitFor("ready\n");
        else await bed.serveHost(sink, { text: "ready\n" });
        const memory = memoryOf(engine, "VmRSS");
        const eager = portsCommand("eager", "127.0.0.1", port, SLOW, SLOW_BYTES);
        const writer = inbound
          ? new Background(["ip", "netns", "exec", bed.host, ...eager], { mark: bed.guestMark })
          : guest.start(eager);
        await writer.waitFor("stuck", 60_000);
        const [cpu, woken] = await attempt(async () => {
          const [cpu, woken] = [cpuOf(engine), loopWakeUpsOf(engine)];
          await sleep(STUCK_SECONDS * 1000);
          return [cpuOf(engine) - cpu, loopWakeUpsOf(engine) - woken];
        }, ([cpu, woken]) => cpu! <= MOST_STUCK_CPU && woken! <= MOST_STUCK_WAKE_UPS);
        assert(cpu! <= MOST_STUCK_CPU, `${cpu} s in ${STUCK_SECONDS} s of silence`);
        assert(woken! <= MOST_STUCK_WAKE_UPS, `${woken} wake-ups in ${STUCK_SECONDS} s of silence`);
        const growth = memoryOf(engine, "VmRSS") - memory;
        assert(growth < MOST_GROWTH_MB, `${growth} MB more`);
        await Deno.writeTextFile(file, "");
        assertEquals(await writer.wait(90_000), 0, writer.stderr);
        assertEquals(resultOf(writer.stdout).wrong, 0);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    },
  });

  Deno.test({
    name: `splice slow: slow readers, half-closed and reset connections, ${name}`,
    ...NEEDS,
    async fn(t) {
      await using bed = await Testbed.create();
      const guest = await bed.idleGuest({ options: OPTIONS });
      const port = inbound ? PORT : HOST_PORT;
      const server = edgeCommand("server", port);
      if (inbound) await guest.start(server).waitFor("ready\n");
      else await bed.serveHost(server, { text: "ready\n" });
      const place = inbound ? hostOf(bed) : guest;
      for (const address of ["127.0.0.1", "::1"]) {
        const converse = (mode: string) => edge(place, "client", address, port, mode);
        if (address === (inbound ? "127.0.0.1" : "::1")) {
          await t.step(`the server reads slowly, ${address}`, async () => {
            assertEquals((await converse("slow_server")).equal, true);
          });
          await t.step(`the client reads slowly, ${address}`, async () => {
            assert((await converse("slow_client")).seconds! > 1);
          });
        }
        await t.step(`the client shuts down first, ${address}`, async () => {
          assertEquals((await converse("half_client")).reply, "100000 bytes");
        });
        await t.step(`the server shuts down first, ${address}`, async () => {
          assertEquals((await converse("half_server")).reply, "from server");
          assertEquals((await converse("last")).reply, "100000 bytes");
        });
        await t.step(`the server resets, ${address}`, async () => {
          assertEquals((await converse("reset_server")).error, "ECONNRESET");
        });
        await t.step(`the client resets, ${address}`, async () => {
          await converse("reset_client");
          await until(async () => (await converse("last")).reply === "ECONNRESET", 5_000, 100);
          assertEquals((await converse("last")).reply, "ECONNRESET");
        });
      }
    },
  });
}

/** How often a kernel sends a SYN again in a namespace that is told not to try for minutes. */
const SYN_RETRIES = 1;
/** One second, then two, then it gives up; with room for a noisy machine. */
const SYN_TIMEOUT_MS = 15_000;

for (const user of [false, true]) {
  const as = user ? ", as an ordinary user" : "";

  Deno.test({
    name: `splice slow: targets that refuse, or never answer${as}`,
    ...requirements({ packages: ["python3", "nftables"], tubetti: true }),
    async fn(t) {
      await using bed = await Testbed.create({ user });
      const options = optionsFor({ t: `${PORT},${PORT + 10}`, T: `${HOST_PORT}` });
      const guest = await bed.idleGuest({ options });
      const engine = engineOf(bed);
      const before = descriptorsOf(engine);
      await t.step("refused: the client is told at once", async () => {
        for (const [place, port] of [[hostOf(bed), PORT], [guest, HOST_PORT]] as const) {
          const start = performance.now();
          const replies = await ask(place, "tcp", port, "127.0.0.1", "::1");
          for (const reply of Object.values(replies)) {
            assertMatch(reply, /^(ECONNRESET|ECONNREFUSED)$/);
          }
          assert(performance.now() - start < SYN_TIMEOUT_MS);
        }
      });
      await startPorts(guest, "who", PORT);
      await guest.run(["sysctl", "-qw", `net.ipv4.tcp_syn_retries=${SYN_RETRIES}`]);
      await guest.run(["nft", "-f", "-"], {
        stdin: `table inet hole { chain in { type filter hook input priority 0\n` +
          `tcp dport ${PORT + 10} drop\n}\n}\n`,
      });
      const hole = portsCommand("ask", "tcp", PORT + 10, "127.0.0.1");
      const start = performance.now();
      const waiting = new Background(["ip", "netns", "exec", bed.host, ...hole], {
        mark: bed.guestMark,
      });
      await t.step("others don't wait for one that never answers", async () => {
        for (const address of ["127.0.0.1", "::1"]) {
          const replies = await ask(hostOf(bed), "tcp", PORT, address);
          assertEquals(Object.values(replies)[0]!.split(" ")[0], `${PORT}`);
        }
      });
      await t.step("clients that leave while it is tried", async () => {
        await ports(hostOf(bed), "leave", "127.0.0.1", PORT + 10, 100);
        await ports(hostOf(bed), "leave", "127.0.0.1", PORT, 100);
      });
      await t.step("it ends when the kernel gives up", async () => {
        assertEquals(await waiting.wait(SYN_TIMEOUT_MS), 0, waiting.stderr);
        const [reply] = Object.values(resultOf(waiting.stdout).replies!);
        assertMatch(reply!, /^(ECONNRESET|ETIMEDOUT)$/);
        assert(performance.now() - start > 1000, "it was not tried again");
      });
      await t.step("nothing is left of them, and nothing runs", async () => {
        const extra = () => descriptorsOf(engine) - before;
        assert(await until(() => extra() < POOLED), `${extra()} descriptors more than before`);
        const cpu = cpuOf(engine);
        await sleep(1000);
        assert(cpuOf(engine) - cpu < 0.1, `${cpuOf(engine) - cpu} s in a second`);
      });
      await t.step("the listener still works", async () => {
        const replies = await ask(hostOf(bed), "tcp", PORT, "127.0.0.1", "::1");
        for (const reply of Object.values(replies)) assertEquals(reply.split(" ")[0], `${PORT}`);
      });
    },
  });
}

Deno.test({
  name: "splice slow: a server that closes at once, a thousand times",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const guest = await bed.idleGuest({ options: OPTIONS });
    await startPorts(guest, "who", PORT);
    const engine = engineOf(bed);
    const before = descriptorsOf(engine);
    const list = Array.from({ length: 500 }, () => PORT).join(",");
    const replies = await ask(hostOf(bed), "tcp", list, "127.0.0.1", "::1");
    for (const reply of Object.values(replies)) assertEquals(reply.split(" ")[0], `${PORT}`);
    const extra = () => descriptorsOf(engine) - before;
    assert(await until(() => extra() < POOLED), `${extra()} descriptors more than before`);
  },
});
