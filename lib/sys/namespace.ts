// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The guest's namespaces, reached into from outside.
 *
 * Theory of operation: a process with threads can't join a user namespace, and we don't want to: the
 * process that moves packets stays where its sockets are. So a helper process that shares our table of
 * descriptors (CLONE_FILES) joins the guest's user and network namespaces, opens the tap, a netlink
 * socket or other sockets there, and is gone after a few hundred microseconds. What it opened is ours,
 * and goes on working in the namespace it was opened in. As the owner of the user namespace we may use
 * the netlink socket to configure the guest's interfaces, without holding a capability ourselves.
 *
 * @module
 */
import { check, E, SysError } from "./errno.ts";
import { ifreq } from "./layout.ts";
import { libc } from "./libc.ts";
import { waitExit } from "./process.ts";
import { AT_FDCWD, CLONE, Script, type Step } from "./script.ts";
import { AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, SOCK_NONBLOCK, SOCK_RAW } from "./socket.ts";
import { IFF, readIfreqName, TUN, TUN_DEVICE, VNET_HEADER_SIZE, writeIfreq } from "./tun.ts";

const O_RDWR = 2; // asm-generic/fcntl.h
const O_NONBLOCK = 0x800; // asm-generic/fcntl.h
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h
const AF_NETLINK = 16; // bits/socket.h
const NETLINK_ROUTE = 0; // linux/netlink.h
const SIOCGIFINDEX = 0x8933; // linux/sockios.h
const NS_GET_NSTYPE = 0xb703; // linux/nsfs.h

/** Flags of a helper: shares descriptors and memory with us, and we wait for its end. */
const HELPER = CLONE.VM | CLONE.VFORK | CLONE.FILES;

/** Steps that every helper takes: mask, clone, two setns, exit. */
const HELPER_STEPS = 5;
/** Files of the sockets of a namespace below /proc/PID/net (proc_net(5)): those of IPv6 may be missing. */
const PROC_NET_FILES = ["tcp", "tcp6", "udp", "udp6"] as const;
/** Steps of {@linkcode openGuestNetwork} per queue, and once. */
const QUEUE_STEPS = 3;
const NETWORK_STEPS = 4;

/** A guest's namespaces, as descriptors of nsfs. */
export interface Namespace {
  /** User namespace to join first, or -1 where we have the rights we need already. */
  readonly user: number;
  /** Network namespace. */
  readonly net: number;
}

/** The tap to make. */
export interface TapOptions {
  /** Interface name, 1 to 15 bytes. */
  readonly ifname: string;
  /** Whether frames carry a virtio network header of VNET_HEADER_SIZE bytes. */
  readonly vnetHeader: boolean;
  /** Queues, each with a descriptor of its own. Default 1. */
  readonly queues?: number;
}

/** Our hold on the guest's network. Descriptors are close-on-exec. */
export interface GuestNetwork {
  /** First (or only) queue of the tap, non-blocking. */
  readonly tap: number;
  /** All queues. */
  readonly taps: readonly number[];
  readonly ifname: string;
  readonly ifindex: number;
  /** NETLINK_ROUTE socket in the guest's namespace, blocking. */
  readonly netlink: number;
}

/** A socket to make: arguments of socket(2); SOCK_NONBLOCK and SOCK_CLOEXEC are added. */
export interface SocketSpec {
  readonly family: number;
  readonly type: number;
  readonly protocol: number;
}

/**
 * Opens a namespace by a file of nsfs (namespaces(7)).
 *
 * @returns a close-on-exec descriptor
 * @throws SysError
 */
export function openNamespaceFile(path: string): number {
  const flags = O_CLOEXEC | O_NONBLOCK; // a pipe must not keep us waiting
  return check(libc.open(new TextEncoder().encode(`${path}\0`), flags, 0), "open", path);
}

/**
 * What kind of namespace a descriptor is: `CLONE.NEWNET`, `CLONE.NEWUSER` …, or a negative number: none
 * (ioctl_nsfs(2)).
 */
export function namespaceType(fd: number): number {
  return libc.ioctlNumber(fd, NS_GET_NSTYPE, 0);
}

/**
 * Opens the user and network namespace of a process.
 *
 * @throws SysError
 */
export function openNamespace(pid: number): Namespace {
  const user = openNamespaceFile(`/proc/${pid}/ns/user`);
  try {
    return { user, net: openNamespaceFile(`/proc/${pid}/ns/net`) };
  } catch (error) {
    libc.close(user);
    throw error;
  }
}

/** Closes the descriptors of {@linkcode openNamespace}. */
export function closeNamespace(namespace: Namespace): void {
  if (namespace.user >= 0) libc.close(namespace.user);
  libc.close(namespace.net);
}

/** What a user can do when the kernel refuses a new user namespace. */
export function userNamespaceHint(errno: number): string {
  if (errno === E.ENOSPC || errno === E.EUSERS) {
    return "no more user namespaces allowed: see the sysctl user.max_user_namespaces";
  }
  if (errno === E.EPERM || errno === E.EACCES) {
    return "user namespaces are forbidden here: see the sysctls kernel.unprivileged_userns_clone " +
      "and kernel.apparmor_restrict_unprivileged_userns, or the container's seccomp profile";
  }
  return errno === E.EINVAL ? "the kernel was built without a namespace type" : "";
}

/** What a user can do when the user namespace can't be joined. */
export function userJoinHint(errno: number): string {
  return errno === E.EPERM
    ? "only the owner of a user namespace, and root (--runas 0), may join it"
    : "";
}

/** What a user can do when the network namespace can't be joined. */
function networkJoinHint(namespace: Namespace): (errno: number) => string {
  const hint = namespace.user >= 0
    ? "it does not belong to the user namespace that we join: see --userns and --netns-only"
    : "needs CAP_SYS_ADMIN in the user namespace it belongs to: name that with --userns, or be " +
      "root (--runas 0)";
  return (errno) => errno === E.EPERM ? hint : "";
}

/** What a user can do when the tap can't be made. */
export function tunHint(errno: number): string {
  if (errno === E.ENOENT) {
    return "no such device: load the tun module, or give it to the container (--device /dev/net/tun)";
  }
  if (errno === E.ENODEV || errno === E.ENXIO) return "the kernel has no tun driver: modprobe tun";
  if (errno === E.EACCES) {
    return "read and write permission is needed: usual mode is 0666, and root stays root with --runas 0";
  }
  return errno === E.EPERM ? "not permitted by the device cgroup, or not in the namespace" : "";
}

/**
 * Runs `build`'s steps inside the namespaces.
 *
 * @param steps how many there are at most, without those of the helper itself
 * @throws SysError naming the step that failed
 */
function inNamespace<T>(
  namespace: Namespace,
  steps: number,
  build: (script: Script) => () => T,
): T {
  const script = new Script(HELPER_STEPS + steps);
  try {
    script.clone(HELPER, { what: "helper" });
    if (namespace.user >= 0) {
      // EINVAL: it is our own already; if it is not, the next step says EPERM
      const options = { what: "user namespace", hint: userJoinHint, tolerate: E.EINVAL };
      script.call("setns", [namespace.user, CLONE.NEWUSER], options);
    }
    const options = { what: "network namespace", hint: networkJoinHint(namespace) };
    script.call("setns", [namespace.net, CLONE.NEWNET], options);
    const results = build(script);
    script.exit(0);
    const status = waitExit(script.run());
    const error = script.failure() ??
      (status === 0 ? null : new SysError("clone", `helper ended with status ${status}`, E.EINTR));
    if (error) {
      script.closeOpened();
      throw error;
    }
    return results();
  } finally {
    script.dispose();
  }
}

/** What a user can do when the tap can't have its name. */
function tapNameHint(ifname: string): (errno: number) => string {
  return (errno) => {
    if (errno === E.EBUSY) {
      return `the interface ${ifname} is in use by another program: see --ns-ifname`;
    }
    if (errno !== E.EINVAL) return tunHint(errno);
    return `the namespace has an interface ${ifname} that is no tap of ours: see --ns-ifname`;
  };
}

/** Adds the steps that open one queue of the tap. */
function addTap(script: Script, request: number, { ifname, vnetHeader }: TapOptions): Step {
  const what = TUN_DEVICE, hint = tunHint;
  const flags = O_RDWR | O_NONBLOCK | O_CLOEXEC;
  const tap = script.call("openat", [AT_FDCWD, TUN_DEVICE, flags], { what, hint, opens: true });
  const naming = { what: "TUNSETIFF", hint: tapNameHint(ifname) };
  script.call("ioctl", [tap, TUN.SETIFF, request], naming);
  if (vnetHeader) {
    const size = script.data(new Uint8Array(Int32Array.of(VNET_HEADER_SIZE).buffer));
    script.call("ioctl", [tap, TUN.SETVNETHDRSZ, size], { what: "TUNSETVNETHDRSZ" });
  }
  return tap;
}

/**
 * Makes a tap in the guest's namespace and opens a netlink socket there. Blocks for the helper.
 *
 * On failure nothing is left behind.
 *
 * @param namespace from {@linkcode openNamespace}; stays open
 * @throws SysError naming the step that failed, with what can be done
 */
export function openGuestNetwork(namespace: Namespace, options: TapOptions): GuestNetwork {
  const { ifname, vnetHeader, queues = 1 } = options;
  const flags = IFF.TAP | IFF.NO_PI | (vnetHeader ? IFF.VNET_HDR : 0) |
    (queues > 1 ? IFF.MULTI_QUEUE : 0);
  return inNamespace(namespace, NETWORK_STEPS + QUEUE_STEPS * queues, (script) => {
    const ifr = script.reserve(ifreq.size);
    writeIfreq(script.view(ifr, ifreq.size), ifname, flags);
    const taps: Step[] = [];
    // further queues find the name the kernel has chosen in the same request
    for (let i = 0; i < queues; i++) taps.push(addTap(script, script.address(ifr), options));
    const netlink = script.call("socket", [AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE], {
      what: "NETLINK_ROUTE",
      opens: true,
    });
    const any = script.call("socket", [AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0]);
    script.call("ioctl", [any, SIOCGIFINDEX, script.address(ifr)], { what: "SIOCGIFINDEX" });
    script.call("close", [any]);
    return () => {
      const view = script.view(ifr, ifreq.size);
      const fds = taps.map((tap) => script.result(tap));
      return {
        tap: fds[0],
        taps: fds,
        netlink: script.result(netlink),
        ifname: readIfreqName(view),
        ifindex: view.getInt32(ifreq.at.ifr_ifindex, true),
      };
    };
  });
}

/**
 * Makes sockets in the guest's namespace, non-blocking and close-on-exec. Blocks for the helper.
 *
 * @returns one descriptor for each of `specs`
 * @throws SysError; no socket is left then
 */
export function guestSockets(namespace: Namespace, specs: readonly SocketSpec[]): number[] {
  return inNamespace(namespace, specs.length, (script) => {
    const steps = specs.map(({ family, type, protocol }) =>
      script.call("socket", [family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol], {
        what: "in the guest's namespace",
        opens: true,
      })
    );
    return () => steps.map((step) => script.result(step));
  });
}

/**
 * Opens namespaces once more, by no path: a descriptor that was opened by the path of a bind mount keeps
 * that mount from being unmounted. Blocks for the helper.
 *
 * @param namespace stays open
 * @throws SysError when we may not join
 */
export function reopenNamespace(namespace: Namespace): Namespace {
  return inNamespace(namespace, 2, (script) => {
    const open = (name: string) => {
      const path = `/proc/thread-self/ns/${name}`;
      return script.call("openat", [AT_FDCWD, path, O_CLOEXEC], { what: path, opens: true });
    };
    const user = namespace.user < 0 ? null : open("user"), net = open("net");
    return () => ({ user: user ? script.result(user) : -1, net: script.result(net) });
  });
}

/**
 * Opens /proc/net/{tcp,tcp6,udp,udp6} of the guest's namespace, which they go on showing whoever reads
 * them, close-on-exec. No process in the namespace is needed. Blocks for the helper.
 *
 * @returns four descriptors, negative for those of a protocol that the kernel does not have
 * @throws SysError
 */
export function openProcNet(namespace: Namespace): number[] {
  return inNamespace(namespace, PROC_NET_FILES.length, (script) => {
    const steps = PROC_NET_FILES.map((name) => {
      const path = `/proc/thread-self/net/${name}`;
      const tolerate = name.endsWith("6") ? { tolerate: E.ENOENT } : {};
      const options = { what: path, opens: true, ...tolerate };
      return script.call("openat", [AT_FDCWD, path, O_CLOEXEC], options);
    });
    return () => steps.map((step) => script.result(step));
  });
}
