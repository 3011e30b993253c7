// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the network benchmark measures: programs that serve a guest, and a bare veth pair.
 *
 * Each target offers the same: a place to run clients in, the address under which they reach a
 * server, a way to start that server, and what the serving processes have used so far. Clients of
 * a program reach the host's loopback by the gateway's address, so that nothing but the tap and
 * the program lies in between; clients of the veth pair reach the other end of the pair.
 *
 * @module
 */
import { type Runner, type Serve } from "../helpers/iperf.ts";
import type { Result } from "../helpers/run.ts";
import { type IdleGuest, Net, Testbed } from "../helpers/testbed.ts";
import { cpuOf, memoryOf } from "../helpers/usage.ts";

/** A program to be measured. */
export interface Program {
  readonly name: string;
  /** Its command line up to the options; this project's when not given. */
  readonly command?: readonly string[];
}

/** What to measure, and how thoroughly. */
export interface NetBenchOptions {
  /** The program to compare with; null: none. */
  peer: Program | null;
  /** This project; null: only the peer and the veth pair. */
  own: Program | null;
  /** Runs per figure. */
  runs: number;
  /** Seconds per throughput run. */
  seconds: number;
  mtus: readonly number[];
  /** Names of sections to run; all when empty. */
  sections: readonly string[];
  /** Keep all processors awake with work of the lowest priority, for steady latencies. */
  spin: boolean;
}

/** What is measured at one MTU. */
export interface Target extends Runner {
  readonly name: string;
  /** Address of the server as clients know it. */
  readonly server: string;
  readonly serve: Serve;
  /** Processor time that the serving processes have used, user and system, in seconds. */
  cpuSeconds(): number;
  /** Most memory the serving processes have had at once, in MB; NaN for the kernel. */
  peakMemory(): number;
  /** Memory they have now, in MB. */
  memory(): number;
  close(): Promise<void>;
}

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

/** A guest of a program. */
class ProgramTarget implements Target {
  readonly server = Net.GATEWAY4;
  readonly serve: Serve;
  readonly #pids: number[];

  constructor(readonly name: string, readonly guest: IdleGuest, pids: number[]) {
    this.serve = guest.bed.serveHost.bind(guest.bed);
    this.#pids = pids;
  }

  run(command: readonly string[], options = {}): Promise<Result> {
    return this.guest.run(command, options);
  }

  cpuSeconds(): number {
    return sum(this.#pids.map(cpuOf));
  }

  peakMemory(): number {
    return sum(this.#pids.map((pid) => memoryOf(pid, "VmHWM")));
  }

  memory(): number {
    return sum(this.#pids.map((pid) => memoryOf(pid, "VmRSS")));
  }

  async close(): Promise<void> {
    for (const pid of this.#pids) {
      try {
        Deno.kill(pid, "SIGTERM");
      } catch {
        // gone already
      }
    }
    await this.guest.background.stop("SIGTERM");
  }
}

/** Starts a program with a guest that waits. */
export async function openProgram(bed: Testbed, program: Program, mtu: number): Promise<Target> {
  const before = new Set(bed.engineProcesses().map(({ pid }) => pid));
  const guest = await bed.idleGuest({
    options: ["-m", `${mtu}`],
    ...(program.command ? { program: program.command } : {}),
  });
  const pids = bed.engineProcesses().map(({ pid }) => pid).filter((pid) => !before.has(pid));
  return new ProgramTarget(program.name, guest, pids);
}

/** Two namespaces joined by a veth pair of this MTU. */
class VethTarget implements Target {
  readonly name = "veth";
  readonly server = Net.GATEWAY4;
  readonly serve: Serve;

  constructor(readonly bed: Testbed) {
    this.serve = bed.serveRemote.bind(bed);
  }

  run(command: readonly string[], options = {}): Promise<Result> {
    return this.bed.runHost(command, options);
  }

  cpuSeconds(): number {
    return NaN;
  }

  peakMemory(): number {
    return NaN;
  }

  memory(): number {
    return NaN;
  }

  async close(): Promise<void> {
    await this.bed[Symbol.asyncDispose]();
  }
}

/** Makes a veth pair to measure. */
export async function openVeth(mtu: number): Promise<Target> {
  return new VethTarget(await Testbed.create({ uplinkMtu: mtu }));
}
