// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { PortRule } from "../../lib/forward/ports.ts";
import { SysError } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { bindSocket, connectSocket, newSocket } from "../../lib/sys/socket.ts";
import { LOOPBACK4 } from "../../lib/wire/address.ts";
import { address } from "../helpers/fake_context.ts";
import { SYN } from "./segment.ts";
import { HostSocket, World } from "./world.ts";

function rule(first: number, options: Partial<PortRule> = {}): PortRule {
  return { first, last: first, to: first, address: null, device: null, ...options };
}

/** A port that was free a moment ago, and the next one likewise. */
function freePorts(): number {
  for (;;) {
    using socket = HostSocket.listen();
    const next = newSocket(2, 1, 0);
    const free = bindSocket(next, LOOPBACK4, 0, socket.port + 1) === 0;
    libc.close(next);
    if (free) return socket.port;
  }
}

Deno.test("listen() serves every port of a range and maps it", () => {
  using world = new World();
  const port = freePorts();
  world.tcp.listen(rule(port, { last: port + 1, to: 8000 }));
  for (const k of [0, 1]) {
    using client = HostSocket.connect(port + k);
    world.until(() => world.link.sent.length > 0);
    const offer = world.one();
    assertEquals([offer.flags, offer.dport], [SYN, 8000 + k]);
    assertEquals(offer.source, [192, 0, 2, 1]); // the host's loopback as the guest knows it
    assert(client.fd > 0);
  }
});

Deno.test("listen() on one address takes connections to that address only", () => {
  using world = new World();
  const port = freePorts();
  world.tcp.listen(rule(port, { address: address("127.0.0.2") }));
  using wrong = HostSocket.connect(port);
  world.settle();
  assertEquals(typeof wrong.receive(), "number");
  assertEquals(world.segments(), []);
  using right = new HostSocket(newSocket(2, 1, 0));
  connectSocket(right.fd, address("127.0.0.2"), 0, port);
  world.until(() => world.link.sent.length > 0);
  assertEquals(world.one().dport, port);
});

Deno.test("listen() names what could not be bound", () => {
  using world = new World();
  using taken = HostSocket.listen();
  const loopback = LOOPBACK4;
  const error = assertThrows(
    () => world.tcp.listen(rule(taken.port, { address: loopback })),
    SysError,
  );
  assertEquals(error.message, `bind 127.0.0.1 port ${taken.port}: EADDRINUSE`);
  const device = () => world.tcp.listen(rule(freePorts(), { device: "no-such-dev" }));
  assertEquals(assertThrows(device, SysError).code, "ENODEV");
});

Deno.test("a guest without an address of the client's family: the client is reset", () => {
  using world = new World({ ip6: null });
  const port = freePorts();
  world.tcp.listen(rule(port));
  world.ctx.ip4!.addrSeen.fill(0);
  using client = HostSocket.connect(port);
  world.until(() => client.receive() === -104, "reset"); // ECONNRESET
  assertEquals(world.table.activeCount, 0);
});

Deno.test("two clients that the guest could not tell apart: the second is reset", () => {
  using world = new World();
  const port = freePorts();
  world.tcp.listen(rule(port));
  const clients = ["127.0.0.1", "127.0.0.2"].map((source) => {
    const socket = new HostSocket(newSocket(2, 1, 0));
    bindSocket(socket.fd, address(source), 0, port + 1);
    connectSocket(socket.fd, LOOPBACK4, 0, port);
    return socket;
  });
  world.until(() => clients[1].receive() === -104, "reset");
  world.settle();
  assertEquals([world.table.activeCount, world.one().flags], [1, SYN]);
  for (const client of clients) client.close();
});

Deno.test("close() stops listening", () => {
  using world = new World();
  const port = freePorts();
  world.tcp.listen(rule(port));
  world.tcp.close();
  using client = HostSocket.connect(port);
  world.until(() => client.receive() === -111, "refused"); // ECONNREFUSED
});
