// SPDX-License-Identifier: GPL-2.0-or-later
/** What a guest can make us write, and where messages go: standard error, log file, system logger. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { LOG_BURST } from "../../lib/host/log_limit.ts";
import { limited, NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { type Background, describe, must, run, sleep } from "../helpers/run.ts";
import { programUnderTest, Testbed } from "../helpers/testbed.ts";
import type { Wanted } from "../host/logging_probe.ts";

const OURS = requirements({ tubetti: true, packages: ["python3"] });
const PROBE = new URL("../host/logging_probe.ts", import.meta.url).pathname;

const MIN_SIZE = 40960;
const MAX_LINE = 1024;
/** Few, so that a guest runs into their limit. */
const DESCRIPTORS = 200;
const SECONDS = 6;

/** Connects, sends and pings as fast as it can, from and to ever new ports, for so many seconds. */
const HOSTILE = `
import errno, os, socket, struct, sys, time
v4, v6, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
held, at, end = [], 1024, time.monotonic() + seconds
echo = {socket.AF_INET: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
        socket.AF_INET6: socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58)}
def send(kind, family, address, port):
    s = socket.socket(family, kind)
    s.setblocking(False)
    held.append(s)
    try:
        s.connect((address, port))
        s.send(b"x" * 100)
    except OSError:
        pass
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
while time.monotonic() < end:
    for family, address, ask in (socket.AF_INET, v4, 8), (socket.AF_INET6, v6, 128):
        send(socket.SOCK_DGRAM, family, address, at)
        send(socket.SOCK_STREAM, family, address, at)
        head = struct.pack("!BBHHH", ask, 0, 0, at, 1)
        head = struct.pack("!BBHHH", ask, 0, checksum(head) if ask == 8 else 0, at, 1)
        try:
            echo[family].sendto(head, (address, 0))
        except OSError:
            pass
    at = 1024 + (at - 1023) % 60000
    while len(held) > 100:
        held.pop(0).close()
`;

function hostile(seconds = SECONDS): string[] {
  const [v4, v6] = ([4, 6] as const).map((family) => Testbed.addresses(family).remote);
  return ["/usr/bin/python3", "-c", HOSTILE, v4, v6, `${seconds}`];
}

/** Largest size of a file while a process runs. */
async function largestSize(file: string, guest: Background): Promise<number> {
  let largest = 0;
  while (guest.code === null) {
    largest = Math.max(largest, Deno.statSync(file).size);
    await sleep(5);
  }
  return Math.max(largest, Deno.statSync(file).size);
}

/** A folder for everybody that is gone afterwards. */
async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tubetti-log-" });
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test({
  name: "logging: a hostile guest gets few lines written to standard error",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create({ pingSockets: false, user: true });
    const program = await limited(DESCRIPTORS, true);
    const result = await bed.guest(hostile(), { options: NOTHING, program });
    assertEquals(result.code, 0, result.stderr);
    const lines = result.stderr.trimEnd().split("\n");
    const warnings = lines.filter((line) => /descriptor|dropped|refused/.test(line));
    assert(warnings.length > 0, result.stderr);
    assert(lines.length <= LOG_BURST + 2 * result.ms / 1000, `${lines.length} lines`);
    for (const line of lines) assert(line.length < MAX_LINE, line);
  },
});

Deno.test({
  name: "logging: a hostile guest cannot make the log file larger than --log-size, traced or not",
  ...OURS,
  async fn(t) {
    await using bed = await Testbed.create({ pingSockets: false });
    for (const level of [["--trace"], ["-d"], []]) {
      await t.step(level.join("") || "default", async () => {
        await withFolder(async (folder) => {
          const file = `${folder}/log`;
          Deno.writeTextFileSync(file, "");
          const log = ["-l", file, "--log-size", `${MIN_SIZE}`];
          const guest = await bed.startGuest(hostile(SECONDS / 2), {
            options: [...NOTHING, ...level, ...log],
            program: await limited(DESCRIPTORS, false),
          });
          const largest = await largestSize(file, guest);
          assertEquals([guest.code, guest.stderr], [0, ""]);
          assert(largest <= MIN_SIZE, `${largest} bytes`);
          const lines = Deno.readTextFileSync(file).trimEnd().split("\n");
          assertMatch(lines[0], /^tubetti .* \(\d+\), /);
          for (const line of lines.slice(1)) assertMatch(line, /^\d+\.\d{4}: [\x20-\x7e…]+$/);
          if (level.length === 0) return;
          assertStringIncludes(lines[0], "continued");
          assert(largest > MIN_SIZE / 2, `${largest} bytes`);
        });
      });
    }
  },
});

Deno.test({
  name: "logging: traffic goes on when the log's disk is full",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await withFolder(async (folder) => {
      const lines = `mount -t tmpfs -o size=16k none ${folder}; exec "$@"`;
      const check = `python3 -c "$@"; tail -c 1 ${folder}/log | od -An -c; wc -c <${folder}/log`;
      const [, ...script] = hostile(2).slice(1);
      const result = await bed.guest(["/bin/sh", "-c", check, "sh", ...script], {
        options: [...NOTHING, "--trace", "-l", `${folder}/log`],
        program: ["unshare", "-m", "/bin/sh", "-c", lines, "sh", ...programUnderTest()],
      });
      assertEquals([result.code, result.stderr], [0, ""]);
      assertEquals(result.stdout.trim().split("\n").at(-1), "16384");
    });
  },
});

Deno.test({
  name: "logging: -l takes a path from where we were started, and makes a file for its owner only",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await withFolder(async (folder) => {
      const result = await bed.guest(["true"], { options: ["-l", "log"], cwd: folder });
      assertEquals([result.code, result.stdout, result.stderr], [0, "", ""]);
      assertEquals(Deno.statSync(`${folder}/log`).mode! & 0o777, 0o600);
      assertStringIncludes(Deno.readTextFileSync(`${folder}/log`), "info:    Template interface");
    });
  },
});

Deno.test({
  name: "logging: the command does not get the log file",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await withFolder(async (folder) => {
      const options = ["-q", "-l", `${folder}/log`];
      const result = await bed.guest(["ls", "-l", "/proc/self/fd"], { options });
      assertEquals([result.code, result.stdout.includes(folder)], [0, false], result.stdout);
    });
  },
});

/** A /dev of its own, in a mount namespace of its own. */
const OWN_DEV = `
mount -t tmpfs none /dev
mkdir /dev/net
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/urandom c 1 9
mknod -m 666 /dev/net/tun c 10 200
`;

/** Writes each message to a file as one line. */
const LOGGER = `
import signal, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
out = open(sys.argv[1], "ab", buffering=0)
def take(flags):
    message = s.recv(65536, flags)
    assert b"\\n" not in message and len(message) <= 1024
    out.write(message + b"\\n")
def end(*_): # told to end, it still takes what has come
    try:
        while True: take(socket.MSG_DONTWAIT)
    except BlockingIOError: sys.exit()
signal.signal(signal.SIGTERM, end)
s.bind("/dev/log")
while True: take(0)
`;

/** A command line that runs another one in a mount namespace with a system logger. */
function withLogger(file: string, command: readonly string[]): string[] {
  const script = `${OWN_DEV}
python3 -c '${LOGGER}' ${file} >/dev/null 2>&1 &
until [ -S /dev/log ]; do sleep 0.05; done
"$@"
code=$?
kill $!
wait $!
exit $code`;
  return ["unshare", "-m", "/bin/sh", "-c", script, "sh", ...command];
}

Deno.test({
  name: "logging: the system logger gets what is not for debugging",
  ...OURS,
  async fn(t) {
    const cases: [Omit<Wanted, "count">, string][] = [
      [{ level: "INFO" }, "info warn error the"],
      [{ level: "WARN" }, "warn error the"],
      [{ level: "DEBUG" }, ""],
      [{ level: "INFO", background: true }, "info warn error the"],
      [{ level: "TRACE", background: true }, "warn error the"],
      [{ level: "INFO", background: true, logFile: "/dev/null" }, ""],
    ];
    for (const [wanted, expected] of cases) {
      await t.step(JSON.stringify(wanted), async () => {
        await withFolder(async (folder) => {
          const file = `${folder}/messages`;
          await must(["touch", file]);
          const probe = JSON.stringify({ ...wanted, count: 1 });
          const command = withLogger(file, [
            ...[Deno.execPath(), "run", "--quiet", "--no-check", "-A", PROBE, probe],
          ]);
          const result = await run(command);
          assertEquals([result.code, result.stdout], [0, "done\n"], describe(command, result));
          const lines = Deno.readTextFileSync(file).split("\n").filter((line) => line !== "");
          for (const line of lines) {
            assertMatch(line, /^<\d+>\w+ [ \d]\d [\d:]{8} pasta\[\d+\]: \w/);
          }
          const words = lines.map((line) => /\]: (\w+)/.exec(line)![1]);
          assertEquals(words.join(" "), expected);
        });
      });
    }
  },
});

Deno.test({
  name: "logging: the summary goes to standard error and to the system logger, with -q to neither",
  ...OURS,
  async fn() {
    await using bed = await Testbed.create();
    await withFolder(async (folder) => {
      const file = `${folder}/messages`;
      await must(["touch", file]);
      const program = withLogger(file, programUnderTest());
      const quiet = await bed.guest(["true"], { program, options: ["-q"] });
      assertEquals([quiet.code, quiet.stderr, Deno.readTextFileSync(file)], [0, "", ""]);
      const { code, stderr } = await bed.guest(["true"], { program });
      assertEquals(code, 0, stderr);
      assertMatch(stderr, /^Template interface: .*\nNamespace interface: .*\nMAC:\n {4}host: /);
      const heard = Deno.readTextFileSync(file).replace(/^<30>.*? pasta\[\d+\]: /gm, "");
      assertEquals(heard, stderr);
    });
  },
});
