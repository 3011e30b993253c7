// SPDX-License-Identifier: GPL-2.0-or-later
/** The engine over a real tap whose offloads are refused, step by step. */
import { assertEquals, assertMatch } from "@std/assert";
import { EventType } from "../../lib/context.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { TapLink } from "../../lib/link/tap.ts";
import { Loop, watchLink } from "../../lib/loop.ts";
import { EPOLL, Epoll } from "../../lib/sys/epoll.ts";
import { check } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { openGuestNetwork } from "../../lib/sys/namespace.ts";
import { openPidfd } from "../../lib/sys/process.ts";
import { TUN, TUN_F } from "../../lib/sys/tun.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { fakeContext, GUEST_MAC } from "../helpers/fake_context.ts";
import type { FakeLink } from "../helpers/fake_link.ts";
import { hasPort } from "../helpers/netns.ts";
import { peer } from "../helpers/peer.ts";
import { requirements } from "../helpers/require.ts";
import { Background, until } from "../helpers/run.ts";

const PORT = 25531;
const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h
const TSO = TUN_F.TSO4 | TUN_F.TSO6;

/** What the kernel is told we take, and what the engine is told we may send. */
const STEPS = [
  { name: "checksums and TCP segmentation", flags: TUN_F.CSUM | TSO, tso: true },
  { name: "checksums only", flags: TUN_F.CSUM, tso: false },
  { name: "nothing", flags: 0, tso: false },
];

/** A tap in the namespace with these offloads, as a link. */
function openLink(namespace: TestNamespace, flags: number, tso: boolean): TapLink {
  const path = new TextEncoder().encode(`/run/netns/${namespace.name}\0`);
  const net = check(libc.open(path, O_CLOEXEC, 0), "open");
  const network = openGuestNetwork({ user: -1, net }, { ifname: "tap0", vnetHeader: true });
  libc.close(network.netlink);
  libc.close(net);
  check(libc.ioctlNumber(network.tap, TUN.SETOFFLOAD, flags), "TUNSETOFFLOAD");
  return new TapLink(network.tap, { tso, uso: false });
}

/** Serves a guest until `pid` has ended. */
function serveUntil(pid: number, link: TapLink): void {
  using stack = new DisposableStack();
  const epoll = stack.adopt(new Epoll(), (epoll) => epoll.close());
  const pidfd = stack.adopt(openPidfd(pid), libc.close);
  const table = new FlowTable({ capacity: 4096 });
  const ctx = fakeContext({ table, epoll, link: link as unknown as FakeLink });
  watchLink(ctx);
  epoll.add(pidfd, EPOLL.IN, EventType.CHILD, 0);
  const end = () => 0;
  new Loop(ctx, { signal: end, child: end, linkLost: end, childFd: pidfd }).run();
}

Deno.test({
  name: "offload: TCP works whatever the kernel refuses",
  ...requirements({ packages: ["iproute2", "gcc"] }),
  async fn(t) {
    const program = await peer();
    const server = new Background([program, "serve", `${PORT}`]);
    await until(() => hasPort(server.pid, "tcp", PORT));
    for (const { name, flags, tso } of STEPS) {
      for (const gateway of ["192.0.2.1", "2001:db8::1"]) {
        await t.step(`${name}, ${gateway}`, async () => {
          await using namespace = await TestNamespace.create();
          const link = openLink(namespace, flags, tso);
          await namespace.batch(`link set tap0 address ${GUEST_MAC} mtu 1500 txqlen 10000 up
addr add 192.0.2.2/24 dev tap0
addr add 2001:db8::2/64 dev tap0 nodad`);
          const short = [program, "short", gateway, `${PORT}`, "20", "500000", "5"];
          const client = new Deno.Command("ip", {
            args: ["netns", "exec", namespace.name, ...short],
            stdin: "null",
            stdout: "piped",
          }).spawn();
          serveUntil(client.pid, link);
          const { code, stdout } = await client.output();
          link.close();
          assertMatch(new TextDecoder().decode(stdout), /^ok 20 failed 0/);
          assertEquals(code, 0);
        });
      }
    }
    await server.stop();
  },
});
