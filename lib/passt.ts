// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * passt mode: a virtual machine, whose hypervisor connects to a UNIX socket.
 *
 * Theory of operation: there is no namespace to set up and nobody to configure the guest's interface
 * but the guest itself, by DHCP, DHCPv6 and router advertisements. When the hypervisor leaves, we wait
 * for the next one, and the machine that comes finds the same network.
 *
 * @module
 */
import type { Options } from "./config/options.ts";
import { readHostNetwork } from "./host/host_network.ts";
import { buildNetwork } from "./host/network.ts";
import { summary } from "./host/summary.ts";
import { observed, runInstance, type Surroundings } from "./instance.ts";
import { Hypervisor } from "./link/hypervisor.ts";
import type { Link } from "./link/link.ts";
import { PcapFile } from "./link/pcap.ts";
import { StreamLink } from "./link/stream.ts";
import { VhostLink } from "./link/vhost/link.ts";
import { SIGNAL_BASE } from "./sys/process.ts";
import type { Identity } from "./sys/credentials.ts";
import { SIG } from "./sys/signal.ts";
import { MAC_SIZE } from "./wire/ethernet.ts";

/** Signals that are the usual way to end us. */
const STOP: readonly number[] = [SIG.TERM, SIG.QUIT];
/** The guest's address until it is learnt: whoever is there takes it (RFC 894). */
const BROADCAST_BYTE = 0xff;

/**
 * The socket that the options name.
 *
 * @param identity who we are going to be; null: who we are
 * @throws SysError or ConfigError when it cannot be had
 */
export function openHypervisor(
  { socketPath, fd, oneOff }: Options,
  identity: Identity | null,
): Hypervisor {
  if (fd !== null) return Hypervisor.connected(fd);
  const hypervisor = Hypervisor.listen(socketPath, oneOff);
  try {
    if (identity) hypervisor.give(identity.uid, identity.gid);
    return hypervisor;
  } catch (error) {
    hypervisor.close();
    throw error;
  }
}

/** How QEMU is told to connect. */
function usage(path: string, vhostUser: boolean): string[] {
  const device = "-device virtio-net-pci,netdev=n";
  if (!vhostUser) {
    const netdev = `-netdev stream,id=n,server=off,addr.type=unix,addr.path=${path}`;
    return [`Listening on ${path}, for QEMU: ${device} ${netdev}`];
  }
  const netdev = `-chardev socket,id=c,path=${path} -netdev vhost-user,id=n,chardev=c`;
  const memory = "-object memory-backend-memfd,id=m,size=SIZE,share=on -numa node,memdev=m";
  return [`Listening on ${path}, for QEMU: ${device} ${netdev} ${memory}`];
}

function absolute(path: string): string {
  return path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
}

function makeLink(hypervisor: Hypervisor, { vhostUser }: Options): Link {
  return vhostUser ? new VhostLink(hypervisor) : new StreamLink(hypervisor);
}

/**
 * Serves virtual machines, one after the other.
 *
 * @param hypervisor from {@linkcode openHypervisor}; the caller closes it
 * @returns 0 when the only client has left, or SIGTERM or SIGQUIT ended us; 128 + N for signal N
 * @throws SysError or ConfigError when it cannot be started; nothing is left behind
 */
export function runPasst(
  options: Options,
  hypervisor: Hypervisor,
  surroundings: Surroundings,
): number {
  const host = readHostNetwork(options);
  const network = buildNetwork(options, host);
  const pcap = options.pcap === null ? null : new PcapFile(options.pcap);
  const { path } = hypervisor;
  return runInstance({
    options,
    network,
    link: observed(makeLink(hypervisor, options), pcap),
    guestMac: new Uint8Array(MAC_SIZE).fill(BROADCAST_BYTE),
    guest: null,
    bound: null,
    handlers: { childFd: -1, child: () => null, linkLost: () => 0 },
    onSignal: (signal) => STOP.includes(signal) ? 0 : SIGNAL_BASE + signal,
    pcap,
    socket: path === "" ? null : absolute(path),
    notes: [
      ...host.notes,
      ...summary(network, options),
      ...(path === "" ? [] : usage(path, options.vhostUser)),
    ],
    release: () => null,
  }, surroundings);
}
