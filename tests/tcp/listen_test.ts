// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { libc } from "../../lib/sys/libc.ts";
import { bindSocket, connectSocket, newSocket } from "../../lib/sys/socket.ts";
import { LOOPBACK4 } from "../../lib/wire/address.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { address } from "../helpers/fake_context.ts";
import { SYN } from "./segment.ts";
import { freePort, spec, SpliceWorld } from "./splice_world.ts";
import { HostSocket, World } from "./world.ts";

const RLIMIT_NOFILE = 7; // asm-generic/resource.h
const EAGAIN = 11, EADDRINUSE = 98, ENODEV = 19, ECONNRESET = 104, ECONNREFUSED = 111; // errno(3)

Deno.test("listen() serves a port and maps it", () => {
  using world = new World();
  for (const k of [0, 1]) {
    const port = freePort();
    assertEquals(world.tcp.listen(spec(port, 8000 + k)), k);
    using client = HostSocket.connect(port);
    world.until(() => world.link.sent.length > 0);
    const offer = world.one();
    assertEquals([offer.flags, offer.dport], [SYN, 8000 + k]);
    assertEquals(offer.source, [192, 0, 2, 1]); // the host's loopback as the guest knows it
    assert(client.fd > 0);
  }
});

Deno.test("listen() on one address takes connections to that address only", () => {
  using world = new World();
  const port = freePort();
  world.tcp.listen(spec(port, port, { address: address("127.0.0.2") }));
  using wrong = HostSocket.connect(port);
  world.settle();
  assertEquals(typeof wrong.receive(), "number");
  assertEquals(world.segments(), []);
  using right = new HostSocket(newSocket(2, 1, 0));
  connectSocket(right.fd, address("127.0.0.2"), 0, port);
  world.until(() => world.link.sent.length > 0);
  assertEquals(world.one().dport, port);
});

Deno.test("listen() says why a port cannot be had, and leaves nothing open", () => {
  using world = new World();
  using taken = HostSocket.listen();
  const before = descriptors();
  assertEquals(world.tcp.listen(spec(taken.port, 1, { address: LOOPBACK4 })), -EADDRINUSE);
  assertEquals(world.tcp.listen(spec(freePort(), 1, { device: "no-such-dev" })), -ENODEV);
  assertEquals(descriptors(), before);
});

Deno.test("a guest without an address of the client's family: the client is reset", () => {
  using world = new World({ ip6: null });
  const port = freePort();
  world.tcp.listen(spec(port, port));
  world.ctx.ip4!.addrSeen.fill(0);
  using client = HostSocket.connect(port);
  world.until(() => client.receive() === -ECONNRESET, "reset");
  assertEquals(world.table.activeCount, 0);
});

Deno.test("two clients that the guest could not tell apart: the second is reset", () => {
  using world = new World();
  const port = freePort();
  world.tcp.listen(spec(port, port));
  const sourcePort = freePort();
  const clients = ["127.0.0.1", "127.0.0.2"].map((source) => {
    const socket = new HostSocket(newSocket(2, 1, 0));
    bindSocket(socket.fd, address(source), 0, sourcePort);
    connectSocket(socket.fd, LOOPBACK4, 0, port);
    return socket;
  });
  world.until(() => clients[1].receive() === -ECONNRESET, "reset");
  world.settle();
  assertEquals([world.table.activeCount, world.one().flags], [1, SYN]);
  for (const client of clients) client.close();
});

Deno.test("close() stops listening", () => {
  using world = new World();
  const port = freePort();
  world.tcp.listen(spec(port, port));
  world.tcp.close();
  using client = HostSocket.connect(port);
  world.until(() => client.receive() === -ECONNREFUSED, "refused");
});

Deno.test("unlisten() closes one port, keeps its connections, and its index is used again", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const ports = [freePort(), freePort(), freePort()];
  const indices = ports.map((port) => world.tcp.listen(spec(port, listener.port)));
  assertEquals(indices, [0, 1, 2]);
  const client = HostSocket.connect(ports[1]);
  const server = world.until(() => listener.accept(), "accept");
  world.tcp.unlisten(1);
  world.tcp.unlisten(0);
  world.tcp.unlisten(0); // harmless
  world.tcp.unlisten(99);
  using refused = HostSocket.connect(ports[1]);
  assertEquals(refused.receive(), -ECONNREFUSED);
  client.send(Uint8Array.of(1, 2, 3));
  const received = world.until(() => {
    const got = server.receive();
    return typeof got === "number" ? null : got;
  }, "data");
  assertEquals(received, Uint8Array.of(1, 2, 3));
  assertEquals(world.tcp.listen(spec(ports[0], listener.port)), 0);
  assertEquals(world.tcp.listen(spec(ports[1], listener.port)), 1);
  assertEquals(world.tcp.listen(spec(freePort(), listener.port)), 3);
  using again = HostSocket.connect(ports[1]);
  world.until(() => listener.accept(), "accept").close();
  assert(again.fd > 0);
  client.close();
  server.close();
});

Deno.test("a client that waited when its listener was closed is reset, not left to a later one", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const port = freePort();
  world.tcp.listen(spec(port, listener.port));
  using client = HostSocket.connect(port);
  const { epoll } = world.ctx;
  assertEquals(epoll.wait(100), 1); // fetched, but not handled
  world.tcp.unlisten(epoll.data(0));
  world.tcp.listen(spec(freePort(), listener.port));
  world.tcp.listenEvent(epoll.data(0));
  world.settle();
  assertEquals([client.receive(), listener.accept()], [-ECONNRESET, null]);
});

Deno.test("a listener on which very many wait takes turns with the others", () => {
  using world = new SpliceWorld({ capacity: 512 });
  using listener = HostSocket.listen(false, { backlog: 512 });
  const [busy, quiet] = [freePort(), freePort()];
  for (const port of [busy, quiet]) world.tcp.listen(spec(port, listener.port));
  const clients = Array.from({ length: 300 }, () => HostSocket.connect(busy));
  clients.push(HostSocket.connect(quiet));
  world.turn(100);
  assert(world.table.activeCount < 200, `${world.table.activeCount} in the first turn`);
  assertEquals(world.tcp.timeoutMs(), 0);
  world.settle();
  assertEquals(world.table.activeCount, 301);
  for (const client of clients) client.close();
  for (let server = listener.accept(); server; server = listener.accept()) server.close();
  world.settle();
});

Deno.test("thousands of listeners open at once", () => {
  using world = new SpliceWorld();
  const before = descriptors() + 1; // the epoll instance
  const loopback = address("127.9.8.7"); // nobody else's
  const start = performance.now();
  for (let port = 10_001; port <= 15_000; port++) {
    assertEquals(world.tcp.listen(spec(port, port, { address: loopback })), port - 10_001);
  }
  const took = performance.now() - start;
  assertEquals(descriptors(), before + 5000);
  assert(took < 5000, `${took} ms`);
  using client = new HostSocket(newSocket(2, 1, 0));
  connectSocket(client.fd, loopback, 0, 15_000);
  world.until(() => client.receive() === -ECONNRESET, "reset"); // nobody serves it
  for (let index = 0; index < 5000; index++) world.tcp.unlisten(index);
  assertEquals(descriptors() - world.guest.ready, before + 1);
});

Deno.test("a listener that could not even refuse is looked at again a second later", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const port = freePort();
  world.tcp.listen(spec(port, listener.port));
  const client = HostSocket.connect(port);
  const limits = new BigUint64Array(2);
  libc.getrlimit(RLIMIT_NOFILE, limits);
  const usual = limits[0];
  try {
    limits[0] = 3n; // below every free number: the spare one, once closed, is not to be had again
    libc.setrlimit(RLIMIT_NOFILE, limits);
    world.settle(); // notices a spin
    assertEquals([world.tcp.timed, client.receive()], [true, -EAGAIN]);
    world.second();
    assertEquals([world.tcp.timed, client.receive()], [true, -EAGAIN]);
  } finally {
    limits[0] = usual;
    libc.setrlimit(RLIMIT_NOFILE, limits);
  }
  world.second();
  const server = world.until(() => listener.accept(), "accept");
  assertEquals(world.table.activeCount, 1);
  client.close();
  server.close();
  world.settle();
});
