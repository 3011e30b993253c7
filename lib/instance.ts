// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * An instance: what serving a namespace and serving a virtual machine have in common, from a link and a
 * decided network to the loop that runs.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Options } from "./config/options.ts";
import { type Context, EventType, type Family } from "./context.ts";
import type { SharedTable } from "./control/open.ts";
import type { Ready } from "./control/protocol.ts";
import type { ControlServer } from "./control/server.ts";
import { DEFAULT_CAPACITY, FlowTable } from "./flow/table.ts";
import type { Decider } from "./forward/decider.ts";
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
import { libc } from "./sys/libc.ts";
import { SIGNAL_BASE } from "./sys/process.ts";
import { openDescriptors } from "./sys/rlimit.ts";
import { SIG, type Signals } from "./sys/signal.ts";
import { udpDescriptors, udpKeptPorts, udpListen, udpUnlisten } from "./udp/mod.ts";
import { formatAddress, isUnspecified } from "./wire/address.ts";

/** What an instance runs in. */
export interface Surroundings {
  readonly signals: Signals;
  readonly readiness: Readiness;
  /** Number of descriptors the process may have. */
  readonly descriptors: number;
  /** The conversation with our controller; null: there is none. */
  readonly control: ControlServer | null;
  /** Who decides on the guest's connections that no rule is about; null: nobody. */
  readonly decider: Decider | null;
  /** Memory for the table of flows; null: it is to be ours alone. */
  readonly sharedTable: SharedTable | null;
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
  /** Path of the socket that a hypervisor connects to; null: there is none. */
  readonly socket: string | null;
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
function makePolicy(
  { policyRules }: Options,
  { ip4, ip6 }: Network,
  decider: Decider | null,
): Policy | null {
  if (policyRules.length === 0 && decider === null) return null;
  const policy = new Policy(policyRules, trustedResolvers([ip4, ip6]), undefined, decider);
  if (policy.unresolvable) {
    getLogger().warn("No resolver is known: rules with names are about no address");
  }
  return policy;
}

/** Memory for the table of an instance, if others read it. */
function tableMemory({ control, sharedTable }: Surroundings): SharedTable | null {
  if (sharedTable || !control) return sharedTable;
  const buffer = new ArrayBuffer(FlowTable.byteLength(DEFAULT_CAPACITY));
  return { buffer, capacity: DEFAULT_CAPACITY };
}

function makeContext(
  { options, network, guestMac, link, guest }: Served,
  memory: SharedTable | null,
  decider: Decider | null,
): Context {
  const { tcp, udp, icmp, dhcp, dhcpv6, ndp } = options;
  const ra = options.ra && !options.configNet; // the kernel would add an address of its own
  const log = getLogger();
  const debug = log.level <= LogLevels.DEBUG;
  const table: FlowTable = new FlowTable({
    ...memory,
    clock: monotonicMs,
    ...(debug ? { log: (i, message) => log.debug(table.logLine(i, message)) } : {}),
  });
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
    policy: makePolicy(options, network, decider),
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

/** An address as a controller is told it; null: there is none. */
function addressText(family: Family | null): string | null {
  return family && !isUnspecified(family.addr) ? formatAddress(family.addr) : null;
}

/** What a controller is told when all is ready. */
function readyNotice({ network: { ifname, ip4, ip6 }, guest, socket }: Served): Ready {
  return {
    pid: libc.getpid(),
    interface: guest ? ifname : null,
    address4: addressText(ip4),
    address6: addressText(ip6),
    socket,
  };
}

/** Gives an instance to its controller. @throws SysError */
function giveControl(
  ctx: Context,
  forwarder: Forwarder,
  { options, onSignal }: Served,
  { control }: Surroundings,
  memory: SharedTable,
): void {
  control?.steer({
    epoll: ctx.epoll,
    table: ctx.table,
    buffer: memory.buffer,
    forwarder,
    options,
    policy: ctx.policy,
    clock: monotonicMs,
    gone: () => onSignal(SIG.TERM) ?? SIGNAL_BASE + SIG.TERM,
  });
}

/**
 * The last steps of a start. A start that ends here leaves no file.
 *
 * @returns the exit code when it has come to an end already, null: the guest is served
 */
function finishStart(served: Served, surroundings: Surroundings): number | null {
  const { pcap } = served, { signals, readiness, control } = surroundings;
  pcap?.open();
  try {
    for (const line of served.notes) getLogger().info(line);
    const early = signals.next(); // whoever waits for us must not take this for a start
    const code = early !== 0 ? SIGNAL_BASE + early : control?.begin() ?? null;
    if (code === null) {
      readiness.ready(); // first, so that the command finds the process number's file
      const ended = served.release();
      if (ended === null) control?.ready(readyNotice(served));
      return ended;
    }
    pcap?.discard();
    return code;
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
  const { signals, descriptors, control } = surroundings;
  const memory = tableMemory(surroundings);
  const ctx = makeContext(served, memory, surroundings.decider);
  const signal = () => {
    const number = signals.next();
    return number === 0 ? null : served.onSignal(number);
  };
  const loop = new Loop(ctx, { ...handlers, signal, control });
  watch(ctx, signals, handlers.childFd);
  checkOutbound(ctx, options);
  const forwarder = makeForwarder(ctx, loop, served, descriptors);
  forwarder.open(openDescriptors());
  ctx.guest?.close(); // what listeners have left over
  udpDescriptors(ctx, descriptors - openDescriptors());
  if (forwarder.scans) loop.everySecond(() => forwarder.scan());
  if (memory) giveControl(ctx, forwarder, served, surroundings, memory);
  return finishStart(served, surroundings) ?? loop.run();
}
