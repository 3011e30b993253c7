// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What processes have used: processor time, memory, wake-ups, from /proc as proc(5) describes it.
 *
 * @module
 */
import type { Testbed } from "./testbed.ts";

/** Kernel clock ticks per second in /proc/PID/stat: USER_HZ, the same on all Linux machines. */
const TICKS_PER_SECOND = 100;

/** Places of utime and stime after the command's name in /proc/PID/stat. */
const UTIME = 11;
const STIME = 12;

const BYTES_PER_KIB = 1024;
const BYTES_PER_MB = 1e6;

function sum(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0);
}

/** Processor time of one process, all threads, user and system, in seconds; 0 when it is gone. */
export function cpuOf(pid: number): number {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
  } catch {
    return 0;
  }
}

/** A figure of /proc/PID/status in MB (10⁶ bytes); 0 when the process is gone. */
export function memoryOf(pid: number, field: "VmHWM" | "VmRSS"): number {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const kib = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status)?.[1];
    return Number(kib) * BYTES_PER_KIB / BYTES_PER_MB;
  } catch {
    return 0;
  }
}

/** Times the thread that runs the event loop, the main one, gave up the processor by waiting. */
export function loopWakeUpsOf(pid: number): number {
  const status = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/status`);
  return Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1]);
}

/** Processor time of all programs under test in a testbed, in seconds. */
export function cpuSeconds(bed: Testbed): number {
  return sum(bed.engineProcesses().map(({ pid }) => cpuOf(pid)));
}
