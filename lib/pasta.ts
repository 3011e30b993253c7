// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * pasta mode: a guest in namespaces, a tap there, and the loop that serves it.
 *
 * Theory of operation: first the guest is taken hold of (`host/guest.ts`). It may be a command: its
 * process is made, in new namespaces, and held before execve. Or it may be there already. A helper joins
 * its namespaces and leaves us the tap and a netlink socket; with them the interface is configured. Only
 * when everything is ready is the caller told, and does the command run. We end with the guest, a command
 * with us, and its exit code is ours. If a step fails, what the steps before it made is undone.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Options } from "./config/options.ts";
import { type Context, EventType } from "./context.ts";
import { FlowTable } from "./flow/table.ts";
import { BoundPorts } from "./forward/bound_ports.ts";
import type { Readiness } from "./host/background.ts";
import { checkOutbound } from "./host/check_outbound.ts";
import { forwardRules } from "./host/forward_rules.ts";
import { Forwarder } from "./host/forwarder.ts";
import { type Guest, openGuest } from "./host/guest.ts";
import { buildNetwork, type Network } from "./host/network.ts";
import { configureGuest } from "./host/guest_network.ts";
import { type HostNetwork, readHostNetwork } from "./host/host_network.ts";
import { CommandError } from "./host/spawn.ts";
import { summary } from "./host/summary.ts";
import type { Link } from "./link/link.ts";
import { ObservedLink } from "./link/observed.ts";
import { PcapFile } from "./link/pcap.ts";
import { TapLink } from "./link/tap.ts";
import { FrameTrace } from "./link/trace.ts";
import { Loop, watchLink } from "./loop.ts";
import { monotonicMs } from "./sys/clock.ts";
import { EPOLL, Epoll } from "./sys/epoll.ts";
import { SysError } from "./sys/errno.ts";
import { GuestSockets, makerIn } from "./sys/guest_sockets.ts";
import { libc } from "./sys/libc.ts";
import {
  type GuestNetwork,
  type Namespace,
  openGuestNetwork,
  openProcNet,
} from "./sys/namespace.ts";
import { SIGNAL_BASE } from "./sys/process.ts";
import { openDescriptors, raiseDescriptorLimit } from "./sys/rlimit.ts";
import { AF_NETLINK, NETLINK_SOCK_DIAG } from "./sys/sock_diag.ts";
import { newSocket, SOCK_RAW } from "./sys/socket.ts";
import { installSignals, SIG, type Signals } from "./sys/signal.ts";
import { negotiateOffloads } from "./sys/tun.ts";
import { udpDescriptors, udpKeptPorts, udpListen, udpUnlisten } from "./udp/mod.ts";

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
  namespace: Namespace,
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
    features: {
      tcp,
      udp,
      icmp,
      dhcp,
      dhcpv6,
      ndp,
      ra,
      spliceInbound: !options.noSplice,
      hostLoToNsLo: options.hostLoToNsLo,
    },
    hostname: options.hostname,
    fqdn: options.fqdn,
    guestMac,
    link,
    guest: new GuestSockets(makerIn(namespace)),
    table,
    epoll: new Epoll(),
    nowMs: monotonicMs(),
    closing: 0,
  };
}

/** The forwarder of an instance. It holds descriptors until the process ends. */
function makeForwarder(
  ctx: Context,
  loop: Loop,
  options: Options,
  guest: Guest,
  descriptors: number,
): Forwarder {
  return new Forwarder({
    tcp: loop.tcp,
    udp: {
      listen: (spec) => udpListen(ctx, spec),
      unlisten: (index) => udpUnlisten(ctx, index),
      kept: (pif) => udpKeptPorts(ctx, pif),
    },
    ...forwardRules(options),
    freebind: options.freebind,
    ipv4: ctx.ip4 !== null,
    ipv6: ctx.ip6 !== null,
    descriptors,
    bound: {
      guest: new BoundPorts(
        openProcNet(guest.namespace),
        ctx.guest!.take(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, ctx.nowMs),
      ),
      host: new BoundPorts("/proc/self/net", newSocket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)),
    },
  });
}

/** Our exit code after the signal that has come, null: we go on. */
function onSignal(signals: Signals, guest: Guest): number | null {
  const signal = signals.next();
  return signal === 0 ? null : guest.onSignal(signal);
}

/** Watches what the loop waits for from the start. @throws SysError */
function watch(ctx: Context, signals: Signals, guest: Guest): void {
  const watched: [number, number, string][] = [
    [signals.fd, EventType.SIGNAL, "signals"],
    [guest.fd, EventType.CHILD, "guest"],
  ];
  for (const [fd, type, what] of watched) {
    if (fd < 0) continue; // nothing to wait for
    const result = ctx.epoll.add(fd, EPOLL.IN, type, 0);
    if (result < 0) throw new SysError("epoll_ctl", what, -result);
  }
  watchLink(ctx);
}

/** What an instance is made from. */
interface Parts {
  readonly options: Options;
  readonly guest: Guest;
  readonly signals: Signals;
  readonly readiness: Readiness;
  /** Number of descriptors the process may have. */
  readonly descriptors: number;
}

/** The link to the guest, configured. */
function openLink(
  options: Options,
  namespace: Namespace,
  host: HostNetwork,
  network: Network,
  pcap: PcapFile | null,
): { link: Link; guestMac: Uint8Array<ArrayBuffer>; tap: GuestNetwork } {
  const tap = openGuestNetwork(namespace, { ifname: network.ifname, vnetHeader: true });
  const link = makeLink(tap.tap, pcap);
  const guestMac = configureGuest(tap.netlink, tap.ifindex, options, host, network);
  libc.close(tap.netlink);
  return { link, guestMac, tap };
}

/** Serves a guest that waits to be released until it, or we, are told to end. */
function serve(parts: Parts): number {
  const { options, guest, signals, descriptors } = parts;
  const { namespace } = guest;
  const host = readHostNetwork(options);
  const network = buildNetwork(options, host);
  const pcap = options.pcap === null ? null : new PcapFile(options.pcap);
  const { link, guestMac, tap } = openLink(options, namespace, host, network, pcap);
  const ctx = makeContext(options, network, guestMac, link, namespace);
  const loop = new Loop(ctx, {
    signal: () => onSignal(signals, guest),
    childFd: guest.fd,
    child: () => guest.status(),
    linkLost: () => guest.onInterfaceLost(tap.ifname),
  });
  watch(ctx, signals, guest);
  checkOutbound(ctx, options);
  const forwarder = makeForwarder(ctx, loop, options, guest, descriptors);
  forwarder.open(openDescriptors());
  ctx.guest?.close(); // what listeners have left over
  udpDescriptors(ctx, descriptors - openDescriptors());
  if (forwarder.scans) loop.everySecond(() => forwarder.scan());
  pcap?.open(); // last, so that a start that fails leaves no file
  for (const line of [...host.notes, ...guest.warnings, ...summary(network, options)]) {
    getLogger().info(line);
  }
  const early = signals.next(); // whoever waits for us must not take this for a start
  if (early !== 0) return SIGNAL_BASE + early;
  parts.readiness.ready(); // first, so that the command finds the process number's file
  try {
    return guest.release() ?? loop.run();
  } catch (error) {
    if (error instanceof CommandError) pcap?.discard();
    throw error;
  }
}

/**
 * Gives the guest that the options name a network, and serves it to its end.
 *
 * @param readiness told when the guest is served
 * @returns the command's exit code, 128 + N when it or we ended by signal N; 0 when namespaces that we
 *   joined are gone, or SIGTERM or SIGQUIT told us to leave them
 * @throws SysError, ConfigError or CommandError when it cannot be started; nothing is left behind
 */
export function runPasta(options: Options, readiness: Readiness): number {
  const descriptors = raiseDescriptorLimit();
  const signals = installSignals([SIG.HUP, SIG.INT, SIG.QUIT, SIG.TERM]);
  try {
    const guest = openGuest(options, signals);
    try {
      return serve({ options, guest, signals, readiness, descriptors });
    } finally {
      guest.close();
    }
  } finally {
    signals.restore();
  }
}
