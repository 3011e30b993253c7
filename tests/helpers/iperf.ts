// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * iperf3: command lines, and what its JSON report says.
 *
 * @module
 */
import type { Background, Result, RunOptions } from "./run.ts";

/** One measurement. */
export interface IperfReport {
  /** What arrived, in Gb/s (10⁹ bits). */
  readonly gbps: number;
  /** What arrived, in bytes. */
  readonly bytes: number;
  /** TCP segments sent again, as the sender's kernel counts them. */
  readonly retransmits: number;
  /** Rate of each interval, in Gb/s. */
  readonly samples: readonly number[];
  /** UDP: share of datagrams that did not arrive, 0–1. */
  readonly loss: number;
  /** Why it failed; empty when it did not. */
  readonly error: string;
}

/** What to measure. */
export interface IperfOptions {
  server: string;
  port: number;
  seconds: number;
  /** The server sends. */
  reverse?: boolean;
  /** Parallel streams. */
  streams?: number;
  /** UDP at this rate (iperf3's notation, 0 = as fast as it can) with such datagrams. */
  udp?: { rate: string; length: number };
  /** Address the server binds to: UDP answers must come from the address that was asked. */
  bind?: string;
  /** Socket buffers of both programs, in bytes; the kernel's choice when not given. */
  buffer?: number;
  /** Length of an interval in seconds. */
  interval?: number;
}

/** The client's command line. */
export function iperfCommand(options: IperfOptions): string[] {
  const command = ["iperf3", "-J", "-c", options.server, "-p", `${options.port}`];
  command.push("-t", `${options.seconds}`, "-i", `${options.interval ?? 1}`);
  if (options.reverse) command.push("-R");
  if (options.streams !== undefined) command.push("-P", `${options.streams}`);
  if (options.buffer !== undefined) command.push("-w", `${options.buffer}`);
  if (options.udp) command.push("-u", "-b", options.udp.rate, "-l", `${options.udp.length}`);
  return command;
}

/** What starting and ending may take on a busy machine, in seconds. */
const SLACK_SECONDS = 20;

/** Time after which a measurement of `seconds` counts as hung, in milliseconds. */
export function iperfTimeout(seconds: number): number {
  return (seconds + SLACK_SECONDS) * 1000;
}

interface Sum {
  bytes?: number;
  bits_per_second?: number;
  retransmits?: number;
  lost_percent?: number;
}

interface Json {
  error?: string;
  intervals?: { sum: Sum }[];
  end?: { sum?: Sum; sum_sent?: Sum; sum_received?: Sum };
}

const BITS_PER_GBIT = 1e9;
const PERCENT = 100;

/** Reads the client's report; a run that failed gives zeros and the reason. */
export function iperfReport(result: Result): IperfReport {
  let json: Json = {};
  try {
    json = JSON.parse(result.stdout);
  } catch {
    json = { error: `no report, exit ${result.code} ${result.stderr.trim()}` };
  }
  const received = json.end?.sum_received ?? json.end?.sum ?? {};
  const loss = (json.end?.sum?.lost_percent ?? 0) / PERCENT;
  return {
    gbps: (received.bits_per_second ?? 0) / BITS_PER_GBIT,
    bytes: received.bytes ?? 0,
    retransmits: json.end?.sum_sent?.retransmits ?? 0,
    samples: (json.intervals ?? []).map(({ sum }) => (sum.bits_per_second ?? 0) / BITS_PER_GBIT),
    loss,
    error: json.error ?? (result.code === 0 ? "" : `exit ${result.code}`),
  };
}

/** Something commands can be run in: a guest, or a namespace. */
export interface Runner {
  run(command: readonly string[], options?: RunOptions): Promise<Result>;
}

/** What starts a server and waits until it listens: a method of a testbed. */
export type Serve = (command: readonly string[], ready: { tcp: number }) => Promise<Background>;

/** Runs one measurement against a server of its own, which is gone afterwards. */
export async function iperf(
  client: Runner,
  serve: Serve,
  options: IperfOptions,
): Promise<IperfReport> {
  const command = ["iperf3", "-s", "-1", "-p", `${options.port}`];
  if (options.bind) command.push("-B", options.bind);
  const server = await serve(command, { tcp: options.port });
  try {
    const timeoutMs = iperfTimeout(options.seconds);
    return iperfReport(await client.run(iperfCommand(options), { timeoutMs }));
  } finally {
    await server.stop();
  }
}
