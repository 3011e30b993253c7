// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type GuestProcess, spawnGuest } from "../../lib/host/spawn.ts";
import { E, SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import {
  closeNamespace,
  guestSockets,
  type Namespace,
  openGuestNetwork,
  openNamespace,
  tunHint,
  userNamespaceHint,
} from "../../lib/sys/namespace.ts";
import { AF_INET, AF_INET6, bindSocket, SOCK_DGRAM, SOCK_STREAM } from "../../lib/sys/socket.ts";
import { negotiateOffloads, TUN } from "../../lib/sys/tun.ts";
import { requirements } from "../helpers/require.ts";
import { run } from "../helpers/run.ts";

const TAP = { ifname: "tap0", vnetHeader: true };

function descriptors(): number {
  return [...Deno.readDirSync("/proc/self/fd")].length;
}

/** Runs `test` with a guest whose command waits to be released, and checks that nothing is left. */
async function withGuest(
  test: (namespace: Namespace, guest: GuestProcess) => unknown,
): Promise<void> {
  const before = descriptors();
  const guest = spawnGuest({ command: ["true"] });
  const namespace = openNamespace(guest.pid);
  try {
    await test(namespace, guest);
  } finally {
    closeNamespace(namespace);
    guest.close();
  }
  assertEquals(descriptors(), before);
}

/** Runs a command in the guest's network namespace, which a root outside may enter. */
async function inNamespace({ pid }: GuestProcess, ...command: string[]): Promise<string> {
  return (await run(["nsenter", "-t", `${pid}`, "-U", "--preserve-credentials", "-n", ...command]))
    .stdout;
}

const needs = requirements({ packages: ["iproute2"] });

Deno.test({
  name: "openGuestNetwork() makes a tap with a 12-byte header there, and none here",
  ...needs,
  fn: () =>
    withGuest(async (namespace, guest) => {
      const here = Deno.readTextFileSync("/proc/self/net/dev");
      const network = openGuestNetwork(namespace, TAP);
      const links = await inNamespace(guest, "ip", "-o", "-d", "link", "show", "tap0");
      assert(links.includes("tun type tap pi off vnet_hdr on"), links);
      assertEquals(Number(links.split(":")[0]), network.ifindex);
      const size = new Int32Array(1), TUNGETVNETHDRSZ = 0x800454d7;
      libc.ioctl(network.tap, TUNGETVNETHDRSZ, size);
      assertEquals(size[0], 12);
      assertEquals(network.ifname, "tap0");
      assert(!here.includes("tap0"));
      libc.close(network.tap);
      libc.close(network.netlink);
    }),
});

Deno.test({
  name:
    "openGuestNetwork() opens one descriptor for each queue, and takes the kernel's choice of name",
  ...needs,
  fn: () =>
    withGuest((namespace) => {
      const options = { ifname: "many%d", vnetHeader: true, queues: 3 };
      const { taps, netlink, ifname } = openGuestNetwork(namespace, options);
      assertEquals([taps.length, new Set(taps).size, ifname], [3, 3, "many0"]);
      [...taps, netlink].forEach((fd) => libc.close(fd));
    }),
});

Deno.test({
  name: "openGuestNetwork() closes everything when a step fails, and names the step",
  ...needs,
  fn: () =>
    withGuest((namespace) => {
      const network = openGuestNetwork(namespace, TAP);
      const before = descriptors();
      assertThrows(() => openGuestNetwork(namespace, TAP), SysError, "ioctl TUNSETIFF: EBUSY");
      assertEquals(descriptors(), before);
      const name = { ifname: "sixteen-bytes-is", vnetHeader: true };
      assertThrows(() => openGuestNetwork(namespace, name), RangeError, "sixteen-bytes-is");
      const wrong = { user: namespace.user, net: namespace.user };
      assertThrows(() => openGuestNetwork(wrong, TAP), SysError, "setns network namespace: EINVAL");
      libc.close(network.tap);
      libc.close(network.netlink);
    }),
});

Deno.test({
  name: "guestSockets() makes sockets that belong to the guest's namespace",
  ...needs,
  fn: () =>
    withGuest(async (namespace, guest) => {
      const fds = guestSockets(namespace, [
        { family: AF_INET, type: SOCK_STREAM, protocol: 0 },
        { family: AF_INET6, type: SOCK_DGRAM, protocol: 0 },
      ]);
      const any = new Int32Array([0, 0, 0xffff, 0]);
      assertEquals(bindSocket(fds[0], any, 0, 4711), 0);
      assertEquals(libc.listen(fds[0], 1), 0);
      assert((await inNamespace(guest, "ss", "-ltn")).includes("0.0.0.0:4711"));
      assert(!(await run(["ss", "-ltn"])).stdout.includes(":4711"));
      const before = descriptors();
      const refused = [{ family: AF_INET, type: SOCK_STREAM, protocol: 0 }, {
        family: 999,
        type: 1,
        protocol: 0,
      }];
      assertThrows(() => guestSockets(namespace, refused), SysError, "EAFNOSUPPORT");
      assertEquals(descriptors(), before);
      fds.forEach((fd) => libc.close(fd));
    }),
});

Deno.test({
  name: "negotiateOffloads() falls back step by step",
  ...needs,
  fn: () =>
    withGuest((namespace) => {
      const { tap, netlink } = openGuestNetwork(namespace, TAP);
      const { csum, tso } = negotiateOffloads(tap);
      assertEquals([csum, tso], [true, true]);
      libc.close(tap);
      libc.close(netlink);
      // not a tap: nothing is accepted
      assertEquals(negotiateOffloads(namespace.net), { csum: false, tso: false, uso: false });
      assertEquals(libc.ioctlNumber(namespace.net, TUN.SETOFFLOAD, 0), -1);
    }),
});

Deno.test("openNamespace() of a process that is not there says which file", () => {
  assertThrows(() => openNamespace(0x3fffffff), SysError, "open /proc/1073741823/ns/user: ENOENT");
});

Deno.test("hints say what to do about a refused namespace or tap", () => {
  for (const errno of [E.ENOSPC, E.EPERM, E.EINVAL]) assert(userNamespaceHint(errno) !== "");
  for (const errno of [E.ENOENT, E.ENODEV, E.EACCES, E.EPERM]) assert(tunHint(errno) !== "");
  assertEquals([userNamespaceHint(E.ENOMEM), tunHint(E.ENOMEM)], ["", ""]);
});
