// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A small program around `lib/host/spawn.ts`, run by `spawn_test.ts` as root and as an ordinary user:
 *
 * - `rounds N` makes and ends N guests with a tap, and reports what they left behind;
 * - `run [COMMAND…]` runs a command with a tap as the real program does, and exits with its status.
 *
 * @module
 */
import { CommandError } from "../../lib/host/command_error.ts";
import { type GuestProcess, spawnGuest } from "../../lib/host/spawn.ts";
import { EPOLL, Epoll } from "../../lib/sys/epoll.ts";
import { SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import {
  closeNamespace,
  guestSockets,
  openGuestNetwork,
  openNamespace,
} from "../../lib/sys/namespace.ts";
import { waitExit } from "../../lib/sys/process.ts";
import { installSignals, SIG } from "../../lib/sys/signal.ts";
import { AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM } from "../../lib/sys/socket.ts";
import { negotiateOffloads } from "../../lib/sys/tun.ts";

/** Gives the guest a tap and sockets; returns all descriptors made. */
function connect(guest: GuestProcess): number[] {
  const namespace = openNamespace(guest.pid);
  try {
    const { tap, netlink, ifindex } = openGuestNetwork(namespace, {
      ifname: "tap0",
      vnetHeader: true,
    });
    if (ifindex < 2 || !negotiateOffloads(tap).csum) throw new Error(`Tap ${ifindex} is of no use`);
    const sockets = guestSockets(namespace, [
      { family: AF_INET, type: SOCK_STREAM, protocol: 0 },
      { family: AF_INET6, type: SOCK_DGRAM, protocol: 0 },
    ]);
    return [tap, netlink, ...sockets];
  } finally {
    closeNamespace(namespace);
  }
}

/** Everything of ours that a guest could leave behind. */
function belongings(): string {
  const fds = [...Deno.readDirSync("/proc/self/fd")].length;
  const children = [...Deno.readDirSync("/proc/self/task")]
    .map(({ name }) => Deno.readTextFileSync(`/proc/self/task/${name}/children`)).join("");
  const mounts = Deno.readTextFileSync("/proc/self/mountinfo");
  const interfaces = Deno.readTextFileSync("/proc/self/net/dev").match(/^\s*\S+:/gm)!.join();
  const maps = Deno.readTextFileSync("/proc/self/maps").match(/^.*\/dev\/zero.*$/gm)?.length;
  return JSON.stringify({ fds, children, mounts, interfaces, maps });
}

function round(k: number): void {
  const guest = spawnGuest({ command: ["sh", "-c", `exit ${k}`], hostname: `guest-${k}` });
  const fds = connect(guest);
  guest.release();
  const status = waitExit(guest.pid);
  if (status !== k) throw new Error(`Guest ${k} exited with ${status}`);
  libc.close(guest.pidfd);
  fds.forEach((fd) => libc.close(fd));
}

function rounds(n: number): void {
  round(0);
  const before = belongings();
  for (let k = 0; k < n; k++) round(k);
  const after = belongings();
  console.log(before === after ? "nothing left" : `${before}\n${after}`);
}

/** What `main.ts` does, without moving packets. */
function run(command: string[]): number {
  const signals = installSignals([SIG.TERM, SIG.INT, SIG.QUIT, SIG.HUP]);
  const guest = spawnGuest({ command });
  connect(guest);
  guest.release();
  for (const warning of guest.warnings) console.error(`warning: ${warning}`);
  const epoll = new Epoll();
  epoll.add(signals.fd, EPOLL.IN, 0, 0);
  epoll.add(guest.pidfd, EPOLL.IN, 1, 0);
  for (;;) {
    epoll.wait(-1);
    const signal = signals.next();
    const status = signal > 0 ? 128 + signal : guest.status();
    if (status === null) continue;
    guest.close();
    return status;
  }
}

try {
  const [mode, ...rest] = Deno.args;
  if (mode === "rounds") rounds(Number(rest[0]));
  else Deno.exit(run(rest));
} catch (error) {
  if (!(error instanceof SysError || error instanceof CommandError)) throw error;
  console.error(error.message);
  Deno.exit(error instanceof CommandError ? error.exitCode : 1);
}
