// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The network namespaces of a testbed: how they are made, joined and found again.
 *
 * @module
 */
import { killHard, markedProcesses, must, processState, run } from "./run.ts";

/** Where everything is. */
export const Net = {
  HOST4: "192.0.2.2",
  HOST6: "2001:db8:1::2",
  GATEWAY4: "192.0.2.1",
  GATEWAY6: "2001:db8:1::1",
  REMOTE4: "198.51.100.1",
  REMOTE6: "2001:db8:2::1",
  FAR4: "203.0.113.2",
  FAR6: "2001:db8:3::2",
} as const;

/** Name of the host's interface towards the remote. */
export const UPLINK = "uplink0";

const FAR_MTU = 1500;

/** Fixed, so that neighbours need not be looked for: a fresh link may lose the first question. */
const MACS = {
  uplink0: "02:00:00:00:01:02",
  down0: "02:00:00:00:01:01",
  far0: "02:00:00:00:03:01",
  near0: "02:00:00:00:03:02",
} as const;

/** Runs lines of ip(8) in a namespace. */
export async function ip(namespace: string, lines: readonly string[]): Promise<void> {
  await must(["ip", "-n", namespace, "-batch", "-"], { stdin: lines.join("\n") + "\n" });
}

/** Makes a namespace whose loopback is up, which forwards and waits for no address. */
export async function addNamespace(namespace: string, pingSockets: boolean): Promise<void> {
  await must(["ip", "netns", "add", namespace]);
  const range = pingSockets ? "0 2147483647" : "1 0";
  await must(["ip", "netns", "exec", namespace, "sysctl", "-q", "-w"].concat(
    "net.ipv6.conf.all.accept_dad=0",
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    `net.ipv4.ping_group_range=${range}`,
    // servers and clients of many connections
    "net.ipv4.ip_local_port_range=10000 65535",
    "net.core.somaxconn=65535",
    // every error is sent, however many there were
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv6.icmp.ratelimit=0",
    // no client's port may be one that a test's server is about to listen on
    "net.ipv4.ip_local_reserved_ports=25000-25999",
  ));
  await ip(namespace, ["link set lo up"]);
}

/** Makes a veth pair between two namespaces. */
async function addPair(
  [name, namespace]: [keyof typeof MACS, string],
  [peer, peerNamespace]: [keyof typeof MACS, string],
  mtu: number,
): Promise<void> {
  const end = (name: keyof typeof MACS, namespace: string) =>
    `${name} netns ${namespace} address ${MACS[name]} mtu ${mtu}`;
  const line = `ip link add ${end(name, namespace)} type veth peer ${end(peer, peerNamespace)}`;
  await must(line.split(" "));
}

/** Joins host and remote; `only` leaves the other family out. */
export async function addUplink(
  host: string,
  remote: string,
  mtu: number,
  only: 4 | 6 | undefined,
): Promise<void> {
  await addPair(["uplink0", host], ["down0", remote], mtu);
  const v4 = only !== 6;
  const v6 = only !== 4;
  await ip(remote, [
    ...(v4 ? [`addr add ${Net.GATEWAY4}/24 dev down0`, `addr add ${Net.REMOTE4}/32 dev lo`] : []),
    ...(v6 ? [`addr add ${Net.GATEWAY6}/64 dev down0 nodad`] : []),
    ...(v6 ? [`addr add ${Net.REMOTE6}/128 dev lo nodad`] : []),
    "link set down0 up",
    ...(v6 ? [`neigh add ${Net.HOST6} lladdr ${MACS.uplink0} dev down0 nud permanent`] : []),
  ]);
  await ip(host, [
    ...(v4 ? [`addr add ${Net.HOST4}/24 dev ${UPLINK}`] : []),
    ...(v6 ? [`addr add ${Net.HOST6}/64 dev ${UPLINK} nodad`] : []),
    `link set ${UPLINK} up`,
    ...(v4 ? [`route add default via ${Net.GATEWAY4}`] : []),
    ...(v6 ? [`route add ::/0 via ${Net.GATEWAY6}`] : []),
    ...(v6 ? [`neigh add ${Net.GATEWAY6} lladdr ${MACS.down0} dev ${UPLINK} nud permanent`] : []),
  ]);
}

/** Joins remote and far. */
export async function addFar(remote: string, far: string): Promise<void> {
  await addPair(["far0", remote], ["near0", far], FAR_MTU);
  await ip(remote, [
    "addr add 203.0.113.1/24 dev far0",
    "addr add 2001:db8:3::1/64 dev far0 nodad",
    "link set far0 up",
    `neigh add ${Net.FAR6} lladdr ${MACS.near0} dev far0 nud permanent`,
  ]);
  await ip(far, [
    `addr add ${Net.FAR4}/24 dev near0`,
    `addr add ${Net.FAR6}/64 dev near0 nodad`,
    "link set near0 up",
    "route add default via 203.0.113.1",
    "route add ::/0 via 2001:db8:3::1",
    `neigh add 2001:db8:3::1 lladdr ${MACS.far0} dev near0 nud permanent`,
  ]);
}

/** Folders in which test runs leave things named after their process, and the names' beginning. */
const LEFT_IN = { "/run/netns": "tbt", "/etc/netns": "tbt", "/tmp": "tubetti" } as const;

/** Removes what killed test runs have left behind: things named after processes that are gone. */
export async function sweep(): Promise<void> {
  for (const [folder, prefix] of Object.entries(LEFT_IN)) {
    for (const name of namesIn(folder)) {
      const [first, owner] = name.split("-");
      if (first !== prefix || !/^\d{1,7}$/.test(owner ?? "")) continue;
      if (processState(Number(owner)) !== null) continue;
      for (const mark of [name.slice(0, -2), `${name.slice(0, -2)}-guest`]) {
        for (const { pid } of markedProcesses(mark)) killHard(pid);
      }
      if (folder === "/run/netns") await run(["ip", "netns", "del", name]);
      else await Deno.remove(`${folder}/${name}`, { recursive: true }).catch(() => {});
    }
  }
}

function namesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name);
  } catch {
    return [];
  }
}

/** Network namespace of a process, as `net:[INODE]`; null when it is gone. */
export function networkOf(pid: number): string | null {
  try {
    return Deno.readLinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return null;
  }
}

/** State of a listening socket in /proc/net/tcp: TCP_LISTEN of include/net/tcp_states.h. */
const LISTEN_STATE = "0A";
/** Field of a line of /proc/net/{tcp,udp}* that names the socket's inode (proc_net(5)). */
const INODE_FIELD = 9;

/** Inodes of the sockets that a process has open. */
export function socketsOf(pid: number): Set<string> {
  const found = new Set<string>();
  try {
    for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(Deno.readLinkSync(`/proc/${pid}/fd/${name}`))?.[1];
      if (inode) found.add(inode);
    }
  } catch {
    // the process or one of its descriptors is gone
  }
  return found;
}

/** Local ends of the sockets that a process itself has bound (UDP) or listening (TCP). */
export function boundPorts(pid: number, protocol: "tcp" | "udp"): number[] {
  const own = socketsOf(pid);
  const ports: number[] = [];
  for (const file of [protocol, `${protocol}6`]) {
    let text: string;
    try {
      text = Deno.readTextFileSync(`/proc/${pid}/net/${file}`);
    } catch {
      continue; // no such family, or the process is gone
    }
    for (const line of text.split("\n").slice(1)) {
      const fields = line.trim().split(/\s+/), [, local, , state] = fields;
      if (!own.has(fields[INODE_FIELD]!)) continue;
      if (protocol === "udp" || state === LISTEN_STATE) {
        ports.push(parseInt(local!.split(":")[1]!, 16));
      }
    }
  }
  return ports;
}

/** Whether a process itself has a port bound (UDP) or listens on it (TCP), in its namespace. */
export function hasPort(pid: number, protocol: "tcp" | "udp", port: number): boolean {
  return boundPorts(pid, protocol).includes(port);
}
