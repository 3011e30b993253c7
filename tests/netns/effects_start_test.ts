// SPDX-License-Identifier: GPL-2.0-or-later
/** How the program is called, what it leaves when it is told to end too early, and where its log goes. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { AttachedCase } from "../helpers/attached.ts";
import { requirements } from "../helpers/require.ts";
import { Background, describe, must, run, sleep, until } from "../helpers/run.ts";
import { Net, programUnderTest, STAY_ROOT, Testbed } from "../helpers/testbed.ts";

const OURS = requirements({ tubetti: true, packages: ["iproute2", "iputils-ping"] });
const PORT = 25921;
const SIGTERM_STATUS = 128 + 15; // sh(1), signal(7)
const END_MS = 20_000;
/** Moments of a start at which it is told to end, in milliseconds: from the first code to past readiness. */
const EARLY_MS = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 140, 170, 200];

/** A folder that is gone afterwards. */
async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: `tubetti-${Deno.pid}-start-` });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/**
 * A launcher and links to it, as an installed program has them: a link's own name becomes that of the
 * process, as when the kernel starts an executable by a link.
 */
async function install(folder: string): Promise<void> {
  const [deno, ...flags] = programUnderTest().slice(0, -1);
  const words = [deno!, ...flags].map((word) => `'${word}'`).join(" ");
  await Deno.writeTextFile(`${folder}/tubetti`, `#!/bin/bash\nexec -a "$0" ${words} "$@"\n`);
  await Deno.chmod(`${folder}/tubetti`, 0o755);
  for (const name of ["pasta", "passt"]) await Deno.symlink("tubetti", `${folder}/${name}`);
}

Deno.test({
  name: "start: links named pasta and passt are those modes, by path and over PATH",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    await withFolder(async (folder) => {
      await install(folder);
      const env = { PATH: `${folder}:${Deno.env.get("PATH")}` };
      const ping = ["ping", "-n", "-c", "1", "-W", "10", Net.REMOTE4];
      for (const name of ["pasta", `${folder}/pasta`]) {
        await t.step(
          `${name.split("/").at(-1)}, ${name === "pasta" ? "over PATH" : "by path"}`,
          async () => {
            const result = await bed.guest(ping, { program: [name], options: ["-q"], env });
            assertEquals([result.code, result.stderr], [0, ""], describe(ping, result));
            assertStringIncludes(result.stdout, "1 received");
            const help = await bed.runHost([name, "--help"], { env });
            assertMatch(help.stdout, /^Usage: pasta \[OPTION\]/);
          },
        );
      }
      await t.step("pasta, in the background", async () => {
        await using test = await AttachedCase.create(bed);
        const options = ["-q", "--config-net", "-P", test.pidFile, "--netns", test.name];
        const enter = ["ip", "netns", "exec", bed.host];
        const started = await run([...enter, "pasta", ...STAY_ROOT, ...options], {
          env,
          mark: test.name,
        });
        assertEquals([started.code, started.stderr], [0, ""]);
        const pinged = await test.inside(ping);
        assertEquals(pinged.code, 0, describe(ping, pinged));
        Deno.kill(test.pid, "SIGTERM");
        assert(await until(async () => (await test.left()).length === 0));
      });
      await t.step("passt", async () => {
        const help = await bed.runHost(["passt", "--help"], { env });
        assertMatch(help.stdout, /^Usage: passt \[OPTION\]/);
        const refused = await bed.runHost(["passt", "--config-net"], { env });
        const line = "tubetti: --config-net: only for pasta, not for passt\n";
        assertEquals([refused.code, refused.stdout, refused.stderr], [1, "", line]);
      });
      await t.step("tubetti, which wants a mode", async () => {
        const { code, stderr } = await bed.runHost(["tubetti", "--config-net"], { env });
        assertEquals(code, 1);
        assertMatch(stderr, /^tubetti: no mode given \([^\n]+\)\n$/);
      });
    });
  },
});

/** The second process of a start in the background, when it is there. */
function secondOf(test: AttachedCase, first: number): number | null {
  const found = test.processes().find(({ pid, command }) =>
    pid !== first && command.includes("pasta")
  );
  return found?.pid ?? null;
}

/** Sends SIGTERM to a process that may have ended by itself. */
function tellToEnd(pid: number): void {
  try {
    Deno.kill(pid, "SIGTERM");
  } catch {
    // it has
  }
}

/** Number of the instance that is ready; 0 when there is none. */
function numberOf(test: AttachedCase): number {
  try {
    return test.pid;
  } catch {
    return 0; // no file
  }
}

Deno.test({
  name: "start: told to end before it is ready, neither process of a start leaves anything",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create();
    for (const whom of ["parent", "child"] as const) {
      await t.step(`SIGTERM to the ${whom}`, async () => {
        let early = 0;
        for (const after of EARLY_MS) {
          await using test = await AttachedCase.create(bed);
          const log = `${test.folder}/pcap`;
          const started = new Background(test.command(["-q", "-p", log]), { mark: test.name });
          if (whom === "child") await until(() => secondOf(test, started.pid) !== null, END_MS, 1);
          await sleep(after);
          const told = whom === "parent" ? started.pid : secondOf(test, started.pid);
          if (told !== null) tellToEnd(told);
          const code = await started.wait(END_MS);
          assert([0, 1, SIGTERM_STATUS].includes(code), `status ${code}: ${started.stderr}`);
          if (code !== 0) early++;
          // the signal may have come too late: an instance is there then, and ends as always
          await until(() => test.processes().length === 0 || numberOf(test) > 0);
          const late = numberOf(test) > 0;
          if (late) { for (const { pid } of test.processes()) tellToEnd(pid); }
          const rest = async () =>
            (await test.left()).filter((name) => name !== "pcap" || !late && code !== 0);
          assert(
            await until(async () => (await rest()).length === 0),
            `${await rest()}, ${after} ms`,
          );
        }
        assert(early > 0, "no start was ended early");
      });
    }
    await t.step("with a command, which never runs, or is ended", async () => {
      for (const after of EARLY_MS) {
        await withFolder(async (folder) => {
          const guest = await bed.startGuest(["sleep", "1000"], {
            options: ["-q", "-P", `${folder}/pid`],
          });
          await sleep(after);
          guest.kill("SIGTERM");
          assertEquals(await guest.wait(END_MS), SIGTERM_STATUS, guest.stderr);
          assert(
            await until(() => [...bed.engineProcesses(), ...bed.guestProcesses()].length === 0),
          );
          assertEquals([...Deno.readDirSync(folder)], []);
        });
      }
    });
  },
});

Deno.test({
  name: "start: in the background, a relative -l, -p or -P is where the caller was",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await using test = await AttachedCase.create(bed);
    await withFolder(async (folder) => {
      const options = ["-d", "-l", "log", "-p", "frames.pcap", "-P", "number"];
      const { code, stdout, stderr } = await test.attach(options, { cwd: folder });
      assertEquals([code, stdout, stderr], [0, "", ""]);
      const names = () => [...Deno.readDirSync(folder)].map(({ name }) => name).toSorted();
      assertEquals(names(), ["frames.pcap", "log", "number"]);
      const pid = Number(await Deno.readTextFile(`${folder}/number`));
      assertEquals(Deno.readLinkSync(`/proc/${pid}/cwd`), "/");
      const before = (await Deno.stat(`${folder}/log`)).size;
      await test.inside(["ping", "-n", "-c", "1", "-W", "10", Net.REMOTE4]);
      const log = await Deno.readTextFile(`${folder}/log`);
      assert(log.length > before, "messages go there from the background, too");
      assertMatch(log, /ICMP ping sequence/);
      Deno.kill(pid, "SIGTERM");
      assert(await until(() => !names().includes("number")));
      assertEquals(names(), ["frames.pcap", "log"]);
    });
  },
});

Deno.test({
  name: "start: -m below 1280 is a guest with IPv4 only, one warning, and traffic as always",
  ...requirements({ tubetti: true, packages: ["iproute2", "socat"] }),
  async fn(t) {
    await using bed = await Testbed.create();
    const place = (kind: string, rest = "") => `${kind}:${PORT},bind=${Net.REMOTE4}${rest}`;
    const echo = (listen: string) => ["socat", place(listen, ",fork"), "EXEC:cat"];
    await bed.serveRemote(echo("TCP4-LISTEN"), { tcp: PORT });
    await bed.serveRemote(echo("UDP4-RECVFROM"), { udp: PORT });
    const script = `
ip -o link show uplink0
ip -o -6 addr show dev uplink0
head -c "$1" /dev/urandom >tcp
head -c "$2" /dev/urandom >udp
socat -t 20 - TCP4:${Net.REMOTE4}:${PORT} <tcp | cmp - tcp && echo TCP is whole
socat -t 1 -b 9000 - UDP4:${Net.REMOTE4}:${PORT} <udp | cmp - udp && echo UDP is whole`;
    for (
      const [mtu, tcp, udp] of [[68, 0, 40], [100, 20_000, 72], [576, 1_000_000, 500], [
        1279,
        1_000_000,
        1200,
      ]]
    ) {
      await t.step(`-m ${mtu}`, async () => {
        await withFolder(async (folder) => {
          const command = ["sh", "-c", script, "sh", `${tcp}`, `${udp}`];
          const result = await bed.guest(command, { options: ["-q", "-m", `${mtu}`], cwd: folder });
          const { code, stdout, stderr } = result;
          assertEquals(code, 0, describe(command, result));
          assertEquals(stderr, `-m ${mtu}: IPv6 needs an MTU of at least 1280: IPv4 only\n`);
          assertMatch(stdout, new RegExp(` mtu ${mtu} [^]*\nTCP is whole\nUDP is whole\n$`));
          assert(!stdout.includes("inet6"), stdout);
        });
      });
    }
    await t.step("-m 576 -4: without a warning", async () => {
      const { code, stderr } = await bed.guest(["true"], { options: ["-q", "-m", "576", "-4"] });
      assertEquals([code, stderr], [0, ""]);
    });
    await t.step("-m 1280: with IPv6", async () => {
      const command = ["ip", "-o", "-6", "addr", "show", "scope", "global"];
      const { stdout, stderr } = await bed.guest(command, { options: ["-q", "-m", "1280"] });
      assertEquals(stderr, "");
      assertStringIncludes(stdout, Net.HOST6);
    });
  },
});

Deno.test({
  name: "start: help fits the terminal, down to 40 columns",
  ...requirements({ tubetti: true, root: false, packages: ["bash"] }),
  async fn() {
    for (const columns of [40, 60, 80, 132]) {
      for (const mode of ["pasta", "passt"]) {
        const command = [...programUnderTest().slice(0, -1), mode, "--help"];
        const text = await must(command, { env: { COLUMNS: `${columns}` } });
        const lines = text.trimEnd().split("\n");
        assert(lines.length > 50, text);
        for (const line of lines) assert(line.length <= columns && line === line.trimEnd(), line);
      }
    }
  },
});
