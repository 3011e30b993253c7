// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Local traffic between host and guest: connections to 127.0.0.1 and ::1 that a program hands from
 * one namespace to the other, beside another program and the loopback interface itself.
 *
 * ```text
 *  host: client ── 127.0.0.1:IN ── program ── server on all addresses :guest
 *  host: server on all addresses ── program ── 127.0.0.1:OUT ── client :guest
 * ```
 *
 * Each program has a testbed of its own, so that all use the same ports.
 *
 * @module
 */
import { peer } from "../helpers/peer.ts";
import { Testbed } from "../helpers/testbed.ts";
import { cpuSeconds } from "../helpers/usage.ts";
import {
  LATENCY_NAMES,
  latencyTable,
  measureLatency,
  measureThroughput,
  type Named,
  type Path,
  type Row,
  Spinners,
  takeTurns,
  throughputTable,
} from "./rows.ts";
import type { NetBenchOptions, Program } from "./targets.ts";

/** Ports forwarded to the guest, and from it. */
const IN = { iperf: 25601, echo: 25603 };
const OUT = { iperf: 25602, echo: 25604 };

const BASE = "loopback";
const LATENCY_SECONDS = 1;
/** Datagrams as they usually are, and as large as an interface of 65,520 bytes makes worthwhile. */
const DATAGRAMS = [1400, 16_384];

/** One of the ways that local traffic goes. */
interface Way {
  readonly toGuest: boolean;
  readonly family: 4 | 6;
}

const WAYS: readonly Way[] = [true, false].flatMap((toGuest) =>
  ([4, 6] as const).map((family) => ({ toGuest, family }))
);

function nameOf({ toGuest, family }: Way): string {
  return `${toGuest ? "-t host→guest" : "-T guest→host"}, IPv${family}`;
}

function loopback(family: 4 | 6): string {
  return family === 4 ? "127.0.0.1" : "::1";
}

/** What is measured: clients and servers on the right sides of a program. */
interface SpliceTarget extends Named {
  path(way: Way): Path;
  cpuSeconds(): number;
  close(): Promise<void>;
}

async function openProgram(program: Program): Promise<SpliceTarget> {
  const bed = await Testbed.create({ user: true });
  const inbound = Object.values(IN).join(","), outbound = Object.values(OUT).join(",");
  const guest = await bed.idleGuest({
    options: ["-t", inbound, "-u", inbound, "-T", outbound, "-U", outbound],
    ...(program.command ? { program: program.command } : {}),
  });
  const host = { run: bed.runHost.bind(bed), serve: bed.serveHost.bind(bed) };
  const inside = { run: guest.run.bind(guest), serve: guest.serve.bind(guest) };
  return {
    name: program.name,
    path({ toGuest, family }) {
      const [client, server] = toGuest ? [host, inside] : [inside, host];
      return { run: client.run, serve: server.serve, server: loopback(family) };
    },
    cpuSeconds: () => cpuSeconds(bed),
    close: () => bed[Symbol.asyncDispose](),
  };
}

/** Client and server in one namespace, with nothing in between. */
async function openLoopback(): Promise<SpliceTarget> {
  const bed = await Testbed.create({ isolated: true });
  return {
    name: BASE,
    path: ({ family }) => ({
      run: bed.runHost.bind(bed),
      serve: bed.serveHost.bind(bed),
      server: loopback(family),
    }),
    cpuSeconds: () => NaN,
    close: () => bed[Symbol.asyncDispose](),
  };
}

function throughputRow(
  way: Way,
  label: string,
  how: { seconds: number; streams?: number; udp?: { rate: string; length: number } },
): Row<SpliceTarget> {
  const port = (way.toGuest ? IN : OUT).iperf;
  return {
    label,
    measure: (target) =>
      measureThroughput(`${target.name}, ${label}`, target.path(way), target.cpuSeconds, {
        port,
        ...how,
      }),
  };
}

function tcpRows(seconds: number): Row<SpliceTarget>[] {
  return [1, 4].flatMap((streams) =>
    WAYS.map((way) => throughputRow(way, `TCP ${nameOf(way)} ×${streams}`, { seconds, streams }))
  );
}

function udpRows(seconds: number): Row<SpliceTarget>[] {
  return DATAGRAMS.flatMap((length) =>
    WAYS.map((way) => {
      const udp = { rate: "0", length };
      return throughputRow(way, `UDP ${nameOf(way)}, ${length} B`, { seconds, udp });
    })
  );
}

function latencyRows(program: string): Row<SpliceTarget>[] {
  return Object.entries(LATENCY_NAMES).flatMap(([mode, name]) =>
    WAYS.map((way) => {
      const label = `${name} ${nameOf(way)}`;
      const port = `${(way.toGuest ? IN : OUT).echo}`;
      return {
        label,
        measure(target: SpliceTarget) {
          const path = target.path(way);
          const command = [program, mode, path.server, port, `${LATENCY_SECONDS}`];
          return measureLatency(`${target.name}, ${label}`, path, command);
        },
      };
    })
  );
}

/** Starts echo servers on both sides of every target. */
async function serveEcho(targets: readonly SpliceTarget[], program: string): Promise<void> {
  for (const target of targets) {
    for (const toGuest of [true, false]) {
      const port = (toGuest ? IN : OUT).echo;
      const { serve } = target.path({ toGuest, family: 4 });
      await serve([program, "serve", `${port}`], { tcp: port });
    }
  }
}

/** Throughput and latency of local traffic. */
export async function benchSplice(options: NetBenchOptions): Promise<void> {
  const { peer: other, own, runs, seconds } = options;
  const program = await peer();
  const targets: SpliceTarget[] = [];
  const columns = { peer: other?.name, own: own?.name, base: BASE, runs };
  try {
    for (const tested of [other, own]) if (tested) targets.push(await openProgram(tested));
    targets.push(await openLoopback());
    await serveEcho(targets, program);
    {
      await using _spinners = new Spinners(program, options.spin);
      const latency = await takeTurns(latencyRows(program), targets, runs);
      console.log(latencyTable(latency, columns) + "\n");
    }
    for (const rows of [tcpRows(seconds), udpRows(seconds)]) {
      console.log(throughputTable(await takeTurns(rows, targets, runs), columns) + "\n");
    }
  } finally {
    for (const target of targets) await target.close();
  }
}
