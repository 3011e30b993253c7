// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { EPOLL, Epoll } from "../../lib/sys/epoll.ts";
import { libc } from "../../lib/sys/libc.ts";
import { installSignals, SIG } from "../../lib/sys/signal.ts";
import { run } from "../helpers/run.ts";

const WAIT_MS = 5000;

function statusLine(name: string): bigint {
  const status = Deno.readTextFileSync("/proc/self/status");
  return BigInt(`0x${status.match(new RegExp(`${name}:\\s+(\\w+)`))![1]}`);
}

Deno.test("installSignals() delivers each signal as a byte that epoll sees", () => {
  const signals = installSignals([SIG.TERM, SIG.HUP]);
  const epoll = new Epoll();
  epoll.add(signals.fd, EPOLL.IN, 1, 0);
  try {
    for (const signal of [SIG.TERM, SIG.HUP, SIG.TERM]) {
      assertEquals(signals.next(), 0);
      libc.kill(Deno.pid, signal);
      let ready = 0;
      for (let tries = 0; ready === 0 && tries < 3; tries++) ready = epoll.wait(WAIT_MS); // EINTR
      assertEquals(ready, 1);
      assertEquals(signals.next(), signal);
    }
  } finally {
    epoll.close();
    signals.restore();
  }
});

Deno.test("installSignals().restore() puts actions back and closes the pipe", () => {
  const descriptors = () => [...Deno.readDirSync("/proc/self/fd")].length;
  const caught = statusLine("SigCgt"), ignored = statusLine("SigIgn"), fds = descriptors();
  const signals = installSignals([SIG.TERM]);
  assertEquals(statusLine("SigCgt"), caught | 1n << BigInt(SIG.TERM - 1));
  signals.restore();
  assertEquals([statusLine("SigCgt"), statusLine("SigIgn"), descriptors()], [caught, ignored, fds]);
});

Deno.test("installSignals() ends the ignoring of SIGCHLD, says so, and restore() puts it back", async () => {
  const module = new URL("../../lib/sys/signal.ts", import.meta.url).href;
  const script = `import { installSignals, SIG } from "${module}";
    const ignored = () => Deno.readTextFileSync("/proc/self/status").match(/SigIgn.*/)[0].slice(-5);
    const before = ignored(), signals = installSignals([SIG.TERM]);
    console.log(before, ignored(), signals.ignored.join());
    signals.restore();
    console.log(ignored());`;
  // bit 12 is SIGPIPE, bit 16 SIGCHLD
  for (const [trap, expected] of [["CHLD", "11000 01000 17\n11000\n"], ["USR2", "01"]] as const) {
    const shell = `trap "" ${trap}; exec "$0" eval "$1"`;
    const result = await run(["bash", "-c", shell, Deno.execPath(), script]);
    assertEquals(result.stdout.slice(0, expected.length), expected, result.stderr);
  }
});

Deno.test("installSignals() leaves SIGHUP, SIGINT and SIGQUIT ignored where they were", async () => {
  const module = new URL("../../lib/sys/signal.ts", import.meta.url).href;
  const script = `import { installSignals, SIG } from "${module}";
    installSignals([SIG.HUP, SIG.INT, SIG.QUIT, SIG.TERM]);
    const status = Deno.readTextFileSync("/proc/self/status");
    console.log(status.match(/SigIgn.*/)[0].slice(-4), status.match(/SigCgt.*/)[0].slice(-4));`;
  const shell = 'trap "" HUP INT QUIT TERM; exec "$0" eval "$1"';
  const result = await run(["sh", "-c", shell, Deno.execPath(), script]);
  // bits 0, 1, 2 and 12 (SIGPIPE); bits 6 and 10 are the runtime's own, bit 14 is SIGTERM
  assertEquals(result.stdout, "1007 4440\n", result.stderr);
});
