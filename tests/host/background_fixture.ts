// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A small program around `lib/host/background.ts`, run by `background_test.ts`: it goes to the background
 * as the real one does, with `-P FILE` or without, and once ready waits for a signal. `fail` ends it with
 * 7 before, `decline` after it has declined (3 is what the first one makes of that), `die` by SIGKILL, `slow` takes a second, `env` prints the environment that a child would get.
 *
 * @module
 */
import { Background, foregroundReadiness, runInBackground } from "../../lib/host/background.ts";
import { closeInherited, tightenUmask } from "../../lib/host/hygiene.ts";
import { PidFile } from "../../lib/host/pid_file.ts";
import { EPOLL, Epoll } from "../../lib/sys/epoll.ts";
import { SysError } from "../../lib/sys/errno.ts";
import { installSignals, SIG } from "../../lib/sys/signal.ts";

function serve(background: Background | null, [how, file]: string[]): number {
  closeInherited();
  tightenUmask();
  const pidFile = file === undefined ? null : PidFile.open(file);
  const signals = installSignals([SIG.TERM]);
  try {
    console.error("starting");
    if (how === "decline") background?.decline();
    if (how === "fail" || how === "decline") return 7;
    if (how === "die") Deno.kill(Deno.pid, "SIGKILL");
    if (how === "slow") Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1000);
    (background?.readiness(pidFile) ?? foregroundReadiness(pidFile)).ready();
    console.log("not to be seen by the caller");
    const epoll = new Epoll();
    epoll.add(signals.fd, EPOLL.IN, 0, 0);
    epoll.wait(-1);
    return 0;
  } finally {
    pidFile?.close();
  }
}

try {
  const background = Background.take();
  if (Deno.args[0] === "env") console.error(Object.keys(Deno.env.toObject()).join());
  Deno.exit(background ? serve(background, Deno.args) : runInBackground() ?? 3);
} catch (error) {
  if (!(error instanceof SysError)) throw error;
  console.error(error.message);
  Deno.exit(1);
}
