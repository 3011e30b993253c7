// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * An instance: what serving a namespace and serving a virtual machine have in common, from a link and a
 * decided network to the loop that runs.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Options } from "./config/options.ts";
import { type Context, EventType } from "./context.ts";
import { FlowTable } from "./flow/table.ts";
import { Policy, trustedResolvers } from "./forward/policy.ts";
import type { Readiness } from "./host/background.ts";
import { checkOutbound } from "./host/check_outbound.ts";
import { forwardRules } from "./host/forward_rules.ts";
import { Forwarder, type ForwarderOptions } from "./host/forwarder.ts";
import type { Network } from "./host/network.ts";
import type { Link } from "./link/link.ts";
import { ObservedLink } from "./link/observed.ts";
import type { PcapFile } from "./link/pcap.ts";
import { FrameTrace } from "./link/trace.ts";
import { Loop, type LoopHandlers, watchLink } from "./loop.ts";
import { monotonicMs } from "./sys/clock.ts";
import { EPOLL, Epoll } from "./sys/epoll.ts";
import { SysError } from "./sys/errno.ts";
import type { GuestSockets } from "./sys/guest_sockets.ts";
import { SIGNAL_BASE } from "./sys/process.ts";
import { openDescriptors } from "./sys/rlimit.ts";
import type { Signals } from "./sys/signal.ts";
import { udpDescriptors, udpKeptPorts, udpListen, udpUnlisten } from "./udp/mod.ts";

/** What an instance runs in. */
export interface Surroundings {
  readonly signals: Signals;
  readonly readiness: Readiness;
  /** Number of descriptors the process may have. */
  readonly descriptors: number;
}

/** Whom an instance serves, and how it is told from others. */
export interface Served {
  readonly options: Options;
  readonly network: Network;
  readonly link: Link;
  /** Its MAC address; all ones where it is to be learnt. */
  readonly guestMac: Uint8Array<ArrayBuffer>;
  /** Sockets in its namespace; null: it is a virtual machine. */
  readonly guest: GuestSockets | null;
  /** Where the ports of `auto` rules are found; null: there are none. */
  readonly bound: ForwarderOptions["bound"];
  readonly handlers: Pick<LoopHandlers, "childFd" | "child" | "linkLost">;
  /** Our exit code after the signal, null: we go on. */
  onSignal(signal: number): number | null;
  readonly pcap: PcapFile | null;
  /** What the user is told when all is ready. */
  readonly notes: readonly string[];
  /** All is ready. @returns our exit code when that is the end already, else null */
  release(): number | null;
}

/** The link recorded, and traced if that is asked for. */
export function observed(link: Link, pcap: PcapFile | null): Link {
  const recorded = pcap ? new ObservedLink(link, pcap) : link;
  const tracing = getLogger().level <= LogLevels.TRACE;
  return tracing ? new ObservedLink(recorded, new FrameTrace()) : recorded;
}

/** The policy that the options say; null: none. */
function makePolicy({ policyRules }: Options, { ip4, ip6 }: Network): Policy | null {
  if (policyRules.length === 0) return null;
  const policy = new Policy(policyRules, trustedResolvers([ip4, ip6]));
  if (policy.unresolvable) {
    getLogger().warn("No resolver is known: rules with names are about no address");
  }
  return policy;
}

function makeContext({ options, network, guestMac, link, guest }: Served): Context {
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
      spliceInbound: guest !== null && !options.noSplice,
      hostLoToNsLo: options.hostLoToNsLo,
    },
    hostname: options.hostname,
    fqdn: options.fqdn,
    guestMac,
    link,
    guest,
    table,
    epoll: new Epoll(),
    policy: makePolicy(options, network),
    nowMs: monotonicMs(),
    closing: 0,
  };
}

/** The forwarder of an instance. It holds descriptors until the process ends. */
function makeForwarder(
  ctx: Context,
  loop: Loop,
  { options, bound }: Served,
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
    bound,
  });
}

/** Watches what the loop waits for from the start. @throws SysError */
function watch(ctx: Context, signals: Signals, guest: number): void {
  const watched: [number, number, string][] = [
    [signals.fd, EventType.SIGNAL, "signals"],
    [guest, EventType.CHILD, "guest"],
  ];
  for (const [fd, type, what] of watched) {
    if (fd < 0) continue; // nothing to wait for
    const result = ctx.epoll.add(fd, EPOLL.IN, type, 0);
    if (result < 0) throw new SysError("epoll_ctl", what, -result);
  }
  watchLink(ctx);
}

/**
 * The last steps of a start. A start that ends here leaves no file.
 *
 * @returns the exit code when it has come to an end already, null: the guest is served
 */
function finishStart(served: Served, signals: Signals, readiness: Readiness): number | null {
  const { pcap } = served;
  pcap?.open();
  try {
    for (const line of served.notes) getLogger().info(line);
    const early = signals.next(); // whoever waits for us must not take this for a start
    if (early === 0) {
      readiness.ready(); // first, so that the command finds the process number's file
      return served.release();
    }
    pcap?.discard();
    return SIGNAL_BASE + early;
  } catch (error) {
    pcap?.discard();
    throw error;
  }
}

/**
 * Runs an instance to its end.
 *
 * @returns our exit code
 * @throws SysError or ConfigError when something cannot be had; what `served` holds is its owner's to undo
 */
export function runInstance(served: Served, surroundings: Surroundings): number {
  const { options, handlers } = served;
  const { signals, readiness, descriptors } = surroundings;
  const ctx = makeContext(served);
  const signal = () => {
    const number = signals.next();
    return number === 0 ? null : served.onSignal(number);
  };
  const loop = new Loop(ctx, { ...handlers, signal });
  watch(ctx, signals, handlers.childFd);
  checkOutbound(ctx, options);
  const forwarder = makeForwarder(ctx, loop, served, descriptors);
  forwarder.open(openDescriptors());
  ctx.guest?.close(); // what listeners have left over
  udpDescriptors(ctx, descriptors - openDescriptors());
  if (forwarder.scans) loop.everySecond(() => forwarder.scan());
  return finishStart(served, signals, readiness) ?? loop.run();
}
