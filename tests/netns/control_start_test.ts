// SPDX-License-Identifier: GPL-2.0-or-later
/** Starts with `--control` and `--flow-table`: what they may be, and what is told when there is no start. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { FlowReader } from "../../lib/flow/reader.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { monotonicMs } from "../../lib/sys/clock.ts";
import { SharedMapping } from "../../lib/sys/shared_memory.ts";
import { Controller } from "../helpers/controller.ts";
import { PYTHON } from "../helpers/edge.ts";
import { effectsCommand } from "../helpers/effects.ts";
import { NOTHING } from "../helpers/ports.ts";
import { requirements } from "../helpers/require.ts";
import { markedProcesses, until } from "../helpers/run.ts";
import { Net, programUnderTest, Testbed } from "../helpers/testbed.ts";

const TAKEN = 25953;
const NOT_FOUND = 127;
const NEEDS = requirements({ packages: ["python3"], tubetti: true });

Deno.test({
  name: "control: why there is no start is told, as well as printed",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const taken = effectsCommand("serve", `127.0.0.1 ${TAKEN}`);
    await bed.serveHost(taken, { text: "ready\n" });
    const cases: [string[], number, object][] = [
      [["--config-net", "--", "/no/such"], NOT_FOUND, {
        name: "CommandError",
        exitCode: NOT_FOUND,
      }],
      [["-t", `${TAKEN}`, "--", "true"], 1, { name: "ConfigError" }],
      [["--netns", "/no/such"], 1, { name: "ConfigError" }],
      [["-P", "/no/such/file", "--", "true"], 1, { name: "SysError", errno: 2 }],
      [["--no-such-option"], 1, { name: "ConfigError" }],
      [["-m", "70000"], 1, { name: "ConfigError" }],
    ];
    for (const [args, code, expected] of cases) {
      await t.step(args.join(" "), async () => {
        await using controller = new Controller(bed, args);
        const { failed } = await controller.hear(({ failed }) => failed);
        assertEquals(await controller.end(), code);
        const { message, ...rest } = failed!;
        assertEquals({ ...rest, ...expected }, rest);
        assertEquals(controller.heard.length, 1);
        assertEquals(controller.stderr.trimEnd().split("\n").at(-1), `tubetti: ${message}`);
      });
    }
    assert(await until(() => markedProcesses(bed.guestMark).length === 0));
  },
});

Deno.test({
  name: "control: descriptors that cannot be used are refused in one line",
  ...NEEDS,
  async fn(t) {
    await using bed = await Testbed.create();
    const socketpair = `import os, socket, sys
a, b = socket.socketpair(); os.dup2(b.fileno(), 9)
u = socket.socket(socket.AF_UNIX); os.dup2(u.fileno(), 8)
m = os.memfd_create("m"); os.ftruncate(m, 4096); os.dup2(m, 7)
f = os.memfd_create("f"); os.ftruncate(f, 1 << 20); os.dup2(os.open("/proc/self/fd/%d" % f, 0), 6)
p, q = os.pipe(); os.dup2(p, 5)
d = os.memfd_create("d"); os.ftruncate(d, 1 << 20); os.pwrite(d, b"x", 100000); os.dup2(d, 10)
for k in 5, 6, 7, 8, 9, 10: os.set_inheritable(k, True)
os.execvp(sys.argv[1], sys.argv[1:])`;
    const program = [PYTHON, "-c", socketpair, ...programUnderTest()];
    const needed = FlowTable.byteLength(128);
    const cases: [string[], string][] = [
      [["--control", "2"], "--control 2: not a descriptor of a socket (a number from 3 on)"],
      [["--control", "x"], "--control x: not a descriptor of a socket (a number from 3 on)"],
      [["--control", "99"], "--control 99: no descriptor that we have inherited"],
      [["--control", "8"], "--control 8: not a connected UNIX stream socket"],
      [["--control", "7"], "--control 7: not a connected UNIX stream socket"],
      [["--flow-table", "-1"], "--flow-table -1: not a descriptor of a file (a number from 3 on)"],
      [["--flow-table", "99"], "--flow-table 99: no descriptor that we have inherited"],
      [["--flow-table", "9"], "--flow-table 9: not a regular file"],
      [["--flow-table", "5"], "--flow-table 5: not a regular file"],
      [
        ["--flow-table", "7"],
        `--flow-table 7: too small (4096 bytes, at least ${needed} are needed)`,
      ],
      [["--flow-table", "6"], "--flow-table 6: mmap 1048576 bytes at 0: EACCES"],
      [
        ["--flow-table", "10"],
        "--flow-table 10: not empty (each instance needs a new file, of zeroes only)",
      ],
      [["--control", "9", "--flow-table", "9"], "--flow-table 9: also given for another option"],
    ];
    for (const [options, message] of cases) {
      await t.step(options.join(" "), async () => {
        const result = await bed.guest(["echo", "it ran"], { program, options });
        assertEquals([result.code, result.stdout], [1, ""], result.stderr);
        assertMatch(result.stderr, /^[^\n]*\n$/);
        const [said, wanted] = [result.stderr.trimEnd(), `tubetti: ${message}`];
        if (options[1] === "6") {
          assert(/^tubetti: --flow-table 6: mmap .*: EACCES$/.test(said), said);
        } else assertEquals(said, wanted);
      });
    }
  },
});

Deno.test({
  name: "control: a file that has a name can be the table of one instance, and never of another",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const path = await Deno.makeTempFile({ prefix: `tubetti-${Deno.pid}-` });
    await Deno.truncate(path, FlowTable.byteLength(200));
    const program = ["sh", "-c", 'exec 5<>"$0"; exec "$@"', path, ...programUnderTest()];
    const options = [...NOTHING, "--flow-table", "5"];
    const first = await bed.idleGuest({ program, options });
    const second = await bed.guest(["echo", "it ran"], { program, options });
    await first.stop();
    const third = await bed.guest(["echo", "it ran"], { program, options });
    await Deno.remove(path);
    const message = "tubetti: --flow-table 5: not empty (each instance needs a new file, of " +
      "zeroes only)\n";
    for (const { code, stdout, stderr } of [second, third]) {
      assertEquals([code, stdout, stderr], [1, "", message]);
    }
  },
});

Deno.test({
  name: "control: the size of the table limits the number of flows",
  ...NEEDS,
  async fn() {
    await using bed = await Testbed.create();
    const flows = 200;
    const ask = `import socket, time
for k in range(300): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("${Net.REMOTE4}", 7))
print("sent", flush=True); time.sleep(3600)`;
    const args = ["--config-net", ...NOTHING, "--", PYTHON, "-c", ask];
    await using controller = new Controller(bed, args, {
      tableBytes: FlowTable.byteLength(flows) + 10,
    });
    await controller.ready();
    await until(() => controller.stdout.includes("sent"));
    const mapping = new SharedMapping(controller.table, { readOnly: true });
    const reader = new FlowReader(mapping.buffer());
    assertEquals(reader.capacity, flows);
    await until(() => [...reader.flows(monotonicMs())].length === flows);
    assertEquals([...reader.flows(monotonicMs())].length, flows);
    assertEquals(controller.code, null);
  },
});
