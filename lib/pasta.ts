// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * pasta mode: a command in new namespaces, a tap there, and the loop that serves it.
 *
 * Theory of operation: first the command's process is made, in its namespaces, and held before
 * execve. A helper joins those namespaces and leaves us the tap and a netlink socket; with them the
 * interface is configured. Only when everything is ready does the command run. It ends with us and
 * we end with it, with its exit code. If a step fails, what the steps before it made is undone.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Options } from "./config/options.ts";
import { type Context, EventType } from "./context.ts";
import { FlowTable } from "./flow/table.ts";
import { parsePortSpec, type PortRule } from "./forward/ports.ts";
import { buildNetwork, type Network } from "./host/network.ts";
import { configureGuest } from "./host/guest_network.ts";
import { readHostNetwork } from "./host/host_network.ts";
import { type Guest, spawnGuest } from "./host/spawn.ts";
import { summary } from "./host/summary.ts";
import type { Link } from "./link/link.ts";
import { ObservedLink } from "./link/observed.ts";
import { PcapFile } from "./link/pcap.ts";
import { TapLink } from "./link/tap.ts";
import { FrameTrace } from "./link/trace.ts";
import { Loop } from "./loop.ts";
import { monotonicMs } from "./sys/clock.ts";
import { EPOLL, Epoll } from "./sys/epoll.ts";
import { SysError } from "./sys/errno.ts";
import { libc } from "./sys/libc.ts";
import {
  closeNamespace,
  type GuestNetwork,
  openGuestNetwork,
  openNamespace,
} from "./sys/namespace.ts";
import { catches } from "./sys/process.ts";
import { raiseDescriptorLimit } from "./sys/rlimit.ts";
import { installSignals, SIG, type Signals } from "./sys/signal.ts";
import { negotiateOffloads } from "./sys/tun.ts";
import { udpListen } from "./udp/mod.ts";
import { formatAddress } from "./wire/address.ts";

/** Exit code of a process that ended by a signal, as shells have it. */
const SIGNAL_EXIT = 128;

/** The tap in the guest's namespace. */
function openTap(guest: Guest, ifname: string): GuestNetwork {
  const namespace = openNamespace(guest.pid);
  try {
    return openGuestNetwork(namespace, { ifname, vnetHeader: true });
  } finally {
    closeNamespace(namespace);
  }
}

/** The link over the tap, recorded and traced if asked for. */
function makeLink(tap: number, pcap: PcapFile | null): Link {
  let link: Link = new TapLink(tap, negotiateOffloads(tap));
  if (pcap) link = new ObservedLink(link, pcap);
  return getLogger().level <= LogLevels.TRACE ? new ObservedLink(link, new FrameTrace()) : link;
}

function makeContext(
  options: Options,
  network: Network,
  guestMac: Uint8Array<ArrayBuffer>,
  link: Link,
): Context {
  const { tcp, udp, icmp, dhcp, dhcpv6, ndp } = options;
  const ra = options.ra && !options.configNet; // the kernel would add an address of its own
  const log = getLogger();
  const debug = log.level <= LogLevels.DEBUG;
  const table: FlowTable = new FlowTable(
    debug ? { log: (i, message) => log.debug(table.logLine(i, message)) } : {},
  );
  return {
    ...network,
    features: { tcp, udp, icmp, dhcp, dhcpv6, ndp, ra },
    hostname: options.hostname,
    fqdn: options.fqdn,
    guestMac,
    link,
    table,
    epoll: new Epoll(),
    nowMs: monotonicMs(),
    closing: 0,
  };
}

/** Listens on what -t and -u name. */
function openPorts(ctx: Context, loop: Loop, options: Options): void {
  if (ctx.features.tcp) {
    for (const rule of options.tcpPorts.flatMap(parsePortSpec)) loop.tcp.listen(rule);
  }
  if (ctx.features.udp) {
    for (const rule of options.udpPorts.flatMap(parsePortSpec)) listenUdp(ctx, rule);
  }
}

function listenUdp(ctx: Context, rule: PortRule): void {
  const { address, device } = rule;
  for (let port = rule.first; port <= rule.last; port++) {
    const guestPort = rule.to + port - rule.first;
    const result = udpListen(ctx, { address, port, guestPort, device });
    if (result < 0) {
      const where = address ? `${formatAddress(address)} ` : "";
      throw new SysError("bind", `${where}UDP port ${port}`, -result);
    }
  }
}

/** What to do on a signal: end, unless the terminal gave it to the command too, which handles it. */
function onSignal(signals: Signals, guest: Guest): number | null {
  const signal = signals.next();
  if (signal === 0) return null;
  if (signal === SIG.INT && Deno.stdin.isTerminal() && catches(guest.pid, SIG.INT)) return null;
  return SIGNAL_EXIT + signal;
}

/** Serves a guest that waits to be released until it, or we, are told to end. */
function serve(options: Options, guest: Guest, signals: Signals): number {
  const host = readHostNetwork(options);
  const network = buildNetwork(options, host);
  for (const line of [...host.notes, ...guest.warnings]) getLogger().info(line);
  const pcap = options.pcap === null ? null : new PcapFile(options.pcap);
  const tap = openTap(guest, network.ifname);
  const link = makeLink(tap.tap, pcap);
  const guestMac = configureGuest(tap.netlink, tap.ifindex, options, host, network);
  libc.close(tap.netlink);
  const ctx = makeContext(options, network, guestMac, link);
  const loop = new Loop(ctx, {
    signal: () => onSignal(signals, guest),
    childFd: guest.pidfd,
    child: () => guest.status(),
    linkLost: () => guest.status() ?? 0,
  });
  ctx.epoll.add(link.fd, EPOLL.IN, EventType.LINK, 0);
  ctx.epoll.add(signals.fd, EPOLL.IN, EventType.SIGNAL, 0);
  ctx.epoll.add(guest.pidfd, EPOLL.IN, EventType.CHILD, 0);
  openPorts(ctx, loop, options);
  for (const line of summary(network)) getLogger().info(line);
  guest.release();
  return loop.run();
}

/**
 * Runs a command with a network, and waits for it.
 *
 * @returns the command's exit code, 128 + N when it or we ended by signal N
 * @throws SysError, ConfigError or CommandError when it cannot be started; nothing is left behind
 */
export function runPasta(options: Options): number {
  raiseDescriptorLimit();
  const signals = installSignals([SIG.HUP, SIG.INT, SIG.QUIT, SIG.TERM]);
  try {
    const guest = spawnGuest({ command: options.command });
    try {
      return serve(options, guest, signals);
    } finally {
      guest.close();
    }
  } finally {
    signals.restore();
  }
}
