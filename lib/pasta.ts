// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * pasta mode: a guest in namespaces, a tap there.
 *
 * Theory of operation: first the guest is taken hold of (`host/guest.ts`). It may be a command: its
 * process is made, in new namespaces, and held before execve. Or it may be there already. A helper joins
 * its namespaces and leaves us the tap and a netlink socket; with them the interface is configured. Only
 * when everything is ready is the caller told, and does the command run. We end with the guest, a command
 * with us, and its exit code is ours. If a step fails, what the steps before it made is undone.
 *
 * @module
 */
import type { Options } from "./config/options.ts";
import { BoundPorts } from "./forward/bound_ports.ts";
import { type Guest, openGuest } from "./host/guest.ts";
import { buildNetwork, type Network } from "./host/network.ts";
import { configureGuest } from "./host/guest_network.ts";
import { type HostNetwork, readHostNetwork } from "./host/host_network.ts";
import { summary } from "./host/summary.ts";
import { observed, runInstance, type Surroundings } from "./instance.ts";
import type { Link } from "./link/link.ts";
import { PcapFile } from "./link/pcap.ts";
import { TapLink } from "./link/tap.ts";
import { monotonicMs } from "./sys/clock.ts";
import { GuestSockets, makerIn } from "./sys/guest_sockets.ts";
import { libc } from "./sys/libc.ts";
import {
  type GuestNetwork,
  type Namespace,
  openGuestNetwork,
  openProcNet,
} from "./sys/namespace.ts";
import { AF_NETLINK, NETLINK_SOCK_DIAG } from "./sys/sock_diag.ts";
import { newSocket, SOCK_RAW } from "./sys/socket.ts";
import { negotiateOffloads } from "./sys/tun.ts";

/** Where the ports are found that `auto` opens: those of the guest, and ours. */
function boundPorts(namespace: Namespace, sockets: GuestSockets) {
  return {
    guest: new BoundPorts(
      openProcNet(namespace),
      sockets.take(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG, monotonicMs()),
    ),
    host: new BoundPorts("/proc/self/net", newSocket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG)),
  };
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
  const link = observed(new TapLink(tap.tap, negotiateOffloads(tap.tap)), pcap);
  const guestMac = configureGuest(tap.netlink, tap.ifindex, options, host, network);
  libc.close(tap.netlink);
  return { link, guestMac, tap };
}

/** Serves a guest that waits to be released until it, or we, are told to end. */
function serve(options: Options, guest: Guest, surroundings: Surroundings): number {
  const { namespace } = guest;
  const host = readHostNetwork(options);
  const network = buildNetwork(options, host);
  const pcap = options.pcap === null ? null : new PcapFile(options.pcap);
  const { link, guestMac, tap } = openLink(options, namespace, host, network, pcap);
  const sockets = new GuestSockets(makerIn(namespace));
  return runInstance({
    options,
    network,
    link,
    guestMac,
    guest: sockets,
    bound: boundPorts(namespace, sockets),
    handlers: {
      childFd: guest.fd,
      child: () => guest.status(),
      linkLost: () => guest.onInterfaceLost(tap.ifname),
    },
    onSignal: (signal) => guest.onSignal(signal),
    pcap,
    socket: null,
    notes: [...host.notes, ...guest.warnings, ...summary(network, options)],
    release: () => guest.release(),
  }, surroundings);
}

/**
 * Gives the guest that the options name a network, and serves it to its end.
 *
 * @returns the command's exit code, 128 + N when it or we ended by signal N; 0 when namespaces that we
 *   joined are gone, or SIGTERM or SIGQUIT told us to leave them
 * @throws SysError, ConfigError or CommandError when it cannot be started; nothing is left behind
 */
export function runPasta(options: Options, surroundings: Surroundings): number {
  const guest = openGuest(options, surroundings.signals);
  try {
    return serve(options, guest, surroundings);
  } finally {
    guest.close();
  }
}
