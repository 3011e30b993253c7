// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { Pif } from "../../lib/flow/side.ts";
import { FlowType } from "../../lib/flow/types.ts";
import {
  getOption,
  setOption,
  SO_KEEPALIVE,
  SO_OOBINLINE,
  SO_RCVBUF,
  SOL_SOCKET,
  TCP_NODELAY,
} from "../../lib/sys/socket.ts";
import { SpliceBit, SpliceWord } from "../../lib/tcp/splice_words.ts";
import { base } from "../../lib/tcp/words.ts";
import { LOOPBACK4 } from "../../lib/wire/address.ts";
import { address } from "../helpers/fake_context.ts";
import { counted, phase } from "../helpers/counted.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { freePort, spec, SpliceWorld } from "./splice_world.ts";
import { assertBytes, concat, HostSocket, pattern } from "./world.ts";

const ECONNRESET = 104, EAGAIN = 11; // errno(3)
const MSG_OOB = 1; // send(2)
const MIB = 1 << 20;

/** Reads until the end or a reset; everything before it, and how it ended. */
function readAll(world: SpliceWorld, socket: HostSocket): { bytes: Uint8Array; end: number } {
  const pieces: Uint8Array[] = [];
  const end = world.until(() => {
    const got = socket.receive();
    if (typeof got === "number") return got === -EAGAIN ? null : [got];
    pieces.push(got);
    return null;
  }, "end")[0];
  return { bytes: concat(pieces), end };
}

/** Sends everything, with turns whenever the socket is full; reads at the other end meanwhile. */
function transfer(world: SpliceWorld, from: HostSocket, to: HostSocket, bytes: number): void {
  const pieces: Uint8Array[] = [], data = pattern(bytes);
  let sent = 0, got = 0;
  world.until(() => {
    while (sent < bytes) {
      const n = from.send(data.subarray(sent, sent + 300_000));
      if (n < 0) break;
      sent += n;
    }
    for (let piece = to.receive(); typeof piece !== "number"; piece = to.receive()) {
      pieces.push(piece);
      got += piece.length;
    }
    return got === bytes;
  }, "everything received");
  assertBytes(concat(pieces), data);
}

for (const v6 of [false, true]) {
  Deno.test(`a spliced connection carries bytes both ways (IPv${v6 ? 6 : 4})`, () => {
    using world = new SpliceWorld();
    const { client, server } = world.connect(v6);
    assertEquals(world.table.typeOf(0), FlowType.TCP_SPLICE);
    const [ini, tgt] = [world.table.side(0, 0), world.table.side(0, 1)];
    assertEquals([ini.pif, ini.eport], [Pif.HOST, client.port]);
    assertEquals([tgt.pif, tgt.eport], [Pif.SPLICE, server.port]);
    for (const bytes of [1, 2, 1000, 32_768, 32_769, 65_536, 100_000, 8 * MIB]) {
      transfer(world, client, server, bytes);
      transfer(world, server, client, bytes);
    }
    const total = [1, 2, 1000, 32_768, 32_769, 65_536, 100_000, 8 * MIB].reduce((a, b) => a + b);
    assertEquals(counted(world.table), [total, total]);
    assertEquals(phase(world.table), "open");
    client.close();
    assertEquals(readAll(world, server).end, 0);
    assertEquals(phase(world.table), "closing");
    server.close();
    world.settle();
    assertEquals(phase(world.table), "closed");
  });
}

Deno.test("a connection to the namespace's listener goes to the host's loopback", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const port = freePort();
  assert(world.tcp.listen(spec(port, listener.port, { pif: Pif.SPLICE })) >= 0);
  using client = HostSocket.connect(port);
  using server = world.until(() => listener.accept(), "accept");
  assertEquals([world.table.side(0, 0).pif, world.table.side(0, 1).pif], [Pif.SPLICE, Pif.HOST]);
  assertEquals(world.tcp.unsettled(), true);
  transfer(world, client, server, 5000);
  client.shutdown();
  assertEquals(readAll(world, server).end, 0);
  assertEquals(world.tcp.unsettled(), false); // what the guest had to say has arrived
  server.close();
  client.close();
  world.settle();
});

Deno.test("a connection to the namespace's listener from elsewhere than loopback is reset", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const port = freePort();
  const index = world.tcp.listen(
    spec(port, listener.port, { pif: Pif.SPLICE, target: address("2001:db8::1") }),
  );
  assert(index >= 0);
  using client = HostSocket.connect(port); // a target of the other family serves as the reason
  world.until(() => client.receive() === -ECONNRESET, "reset");
  assertEquals([listener.accept(), world.table.activeCount], [null, 0]);
});

Deno.test("both sockets have TCP_NODELAY, keepalive and urgent data in line", () => {
  using world = new SpliceWorld();
  const { client, server } = world.connect();
  for (const s of [0, 1]) {
    const fd = world.table.data[base(0) + SpliceWord.FD + s];
    const options = [[6, TCP_NODELAY], [SOL_SOCKET, SO_KEEPALIVE], [SOL_SOCKET, SO_OOBINLINE]];
    assertEquals(options.map(([level, name]) => getOption(fd, level, name)), [1, 1, 1]);
  }
  client.close();
  server.close();
  world.settle();
});

for (const first of ["client", "server"] as const) {
  Deno.test(`half-close by the ${first}: the other direction goes on`, () => {
    using world = new SpliceWorld();
    const before = descriptors() + 1; // epoll
    const ends = world.connect();
    const one = ends[first], other = first === "client" ? ends.server : ends.client;
    one.send(pattern(70_000));
    one.shutdown();
    const { bytes, end } = readAll(world, other);
    assertBytes(bytes, pattern(70_000));
    assertEquals(end, 0);
    transfer(world, other, one, 300_000);
    other.shutdown();
    assertEquals(readAll(world, one), { bytes: new Uint8Array(0), end: 0 });
    one.close();
    other.close();
    world.second();
    assertEquals([world.table.activeCount, world.table.firstFree], [0, 0]);
    world.second(); // the pipes
    assertEquals(descriptors(), before + world.guest.ready);
  });

  Deno.test(`reset by the ${first}: what was sent before arrives, then the reset`, () => {
    using world = new SpliceWorld();
    const ends = world.connect();
    const one = ends[first], other = first === "client" ? ends.server : ends.client;
    one.send(pattern(50_000));
    one.reset();
    const { bytes, end } = readAll(world, other);
    assertBytes(bytes, pattern(50_000)); // it was in our socket already, and stays readable there
    assertEquals(end, -ECONNRESET);
    other.close();
    world.second();
    assertEquals(world.table.activeCount, 0);
  });

  Deno.test(`reset by the ${first} after it had half-closed is noticed`, () => {
    using world = new SpliceWorld();
    const ends = world.connect();
    const one = ends[first], other = first === "client" ? ends.server : ends.client;
    one.shutdown();
    assertEquals(readAll(world, other).end, 0);
    one.reset();
    world.until(() => other.send(pattern(1)) < 0, "reset");
    other.close();
    world.second();
    assertEquals(world.table.activeCount, 0);
  });

  Deno.test(`the ${first} closes with data unread: the other's last words still arrive`, () => {
    using world = new SpliceWorld();
    const ends = world.connect();
    const one = ends[first], other = first === "client" ? ends.server : ends.client;
    other.send(pattern(1000));
    world.settle();
    one.send(pattern(2000));
    one.close(); // with unread data: the kernel sends a reset
    const { bytes, end } = readAll(world, other);
    assertBytes(bytes, pattern(2000));
    assertEquals(end, -ECONNRESET);
    other.close();
  });
}

Deno.test("a port that nobody serves: the client is reset", () => {
  using world = new SpliceWorld();
  const before = descriptors();
  const port = freePort();
  assert(world.tcp.listen(spec(port, freePort())) >= 0);
  for (let k = 0; k < 3; k++) {
    using client = HostSocket.connect(port);
    world.until(() => client.receive() === -ECONNRESET, "reset");
  }
  assertEquals(world.table.activeCount, 0);
  assertEquals(descriptors(), before + 2 + world.guest.ready); // epoll and the listener
});

Deno.test("a guest without its address yet is reached by its loopback", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const port = freePort();
  world.ctx.features.hostLoToNsLo = false;
  world.ctx.ip4!.addrSeen.set(address("224.0.0.1")); // connect(2) says ENETUNREACH at once
  assert(world.tcp.listen(spec(port, listener.port)) >= 0);
  using client = HostSocket.connect(port);
  const server = world.until(() => listener.accept(), "accept");
  transfer(world, client, server, 100);
  assertEquals(world.table.side(0, 1).words.slice(0, 4), LOOPBACK4);
  client.close();
  server.close();
  world.settle();
});

Deno.test("a given target that cannot be reached is not replaced", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const port = freePort();
  const target = address("224.0.0.1");
  assert(world.tcp.listen(spec(port, listener.port, { target })) >= 0);
  using client = HostSocket.connect(port);
  world.until(() => client.receive() === -ECONNRESET, "reset");
  assertEquals(listener.accept(), null);
});

Deno.test("a client that goes away while connect(2) is under way takes the flow along", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen(false, { backlog: 0 });
  // its queue full, a listener does not answer any more
  const fill = Array.from({ length: 4 }, () => HostSocket.connect(listener.port));
  const port = freePort();
  assert(world.tcp.listen(spec(port, listener.port)) >= 0);
  const client = HostSocket.connect(port);
  world.until(() => world.table.activeCount > 0, "flow");
  client.send(pattern(10));
  assertEquals(world.settle() < 10, true);
  assertEquals(world.table.data[base(0) + SpliceWord.BITS] & SpliceBit.CONNECTING, 1);
  client.reset();
  world.settle();
  world.second();
  assertEquals(world.table.activeCount, 0);
  for (const socket of fill) socket.close();
});

Deno.test("a client that sent everything before it was accepted is served in full", () => {
  using world = new SpliceWorld();
  using listener = HostSocket.listen();
  const port = freePort();
  assert(world.tcp.listen(spec(port, listener.port)) >= 0);
  const client = HostSocket.connect(port);
  client.send(pattern(40_000));
  client.shutdown();
  const server = world.until(() => listener.accept(), "accept");
  assertBytes(readAll(world, server).bytes, pattern(40_000));
  transfer(world, server, client, 40_000);
  server.close();
  assertEquals(readAll(world, client).end, 0);
  client.close();
  world.settle();
  world.second();
  assertEquals(world.table.activeCount, 0);
});

Deno.test("urgent data arrives in line, and what follows it, too", () => {
  using world = new SpliceWorld();
  const { client, server } = world.connect();
  const sent = pattern(200_000);
  client.send(sent.subarray(0, 100_000), MSG_OOB);
  client.send(sent.subarray(100_000));
  client.shutdown();
  assertBytes(readAll(world, server).bytes, sent);
  client.close();
  server.close();
  world.settle();
});

Deno.test("urgent data behind a bulk transfer does not stop it", () => {
  using world = new SpliceWorld();
  const { client, server } = world.connect();
  transfer(world, client, server, 4 * MIB);
  const sent = pattern(300_000);
  client.send(sent.subarray(0, 299_999));
  client.send(sent.subarray(299_999), MSG_OOB);
  client.shutdown();
  assertBytes(readAll(world, server).bytes, sent);
  client.close();
  server.close();
  world.settle();
});

Deno.test("a reader that stops holds the writer back, costs nothing, and gets everything later", () => {
  using world = new SpliceWorld();
  const { client, server } = world.connect();
  setOption(server.fd, SOL_SOCKET, SO_RCVBUF, 65_536);
  const data = pattern(64 * MIB);
  let sent = 0;
  const push = () => {
    for (;;) {
      const n = client.send(data.subarray(sent, sent + MIB));
      if (n < 0) return;
      sent += n;
    }
  };
  for (let quiet = 0; quiet < 5; quiet++) {
    const before = sent;
    push();
    if (world.turn(50) > 0 || sent > before) quiet = 0;
  }
  assert(sent < 40 * MIB, `${sent} bytes were taken`); // two sockets' buffers and one pipe
  const before = world.events;
  for (let k = 0; k < 10; k++) world.turn(20);
  assert(world.events - before < 5, "asleep, but for what the kernels still have to say");
  const delivered = counted(world.table)[0];
  assert(delivered > 0 && delivered < sent, `${delivered} of ${sent}`); // the rest has not moved out
  client.shutdown();
  const { bytes, end } = readAll(world, server);
  assertBytes(bytes, data.subarray(0, sent));
  assertEquals(end, 0);
  assertEquals([counted(world.table), phase(world.table)], [[sent, 0], "closing"]);
  server.close();
  client.close();
  world.settle();
});

Deno.test("a flow that moves much lets others have their turn", () => {
  using world = new SpliceWorld();
  const { client, server } = world.connect();
  const data = pattern(MIB);
  // both buffers as large as they get
  let sent = 0;
  for (let quiet = 0; quiet < 5; quiet++) {
    const n = client.send(data);
    if (n > 0) {
      sent += n;
      quiet = 0;
    }
    world.turn();
  }
  let got = 0;
  world.until(() => {
    for (let piece = server.receive(); typeof piece !== "number"; piece = server.receive()) {
      got += piece.length;
    }
    return got === sent;
  }, "everything");
  client.close();
  server.close();
  world.settle();
});

Deno.test("an event for a flow that has ended, or a listener that is closed, is harmless", () => {
  using world = new SpliceWorld();
  const { client, server } = world.connect();
  client.reset();
  world.settle();
  world.tcp.spliceEvent(0, 0x2015);
  world.tcp.spliceEvent(1, 0x2015);
  world.second();
  world.tcp.spliceEvent(0, 0x2015);
  world.tcp.listenEvent(0);
  world.tcp.listenEvent(77);
  server.close();
  assertEquals(world.table.activeCount, 0);
});

Deno.test("a full flow table: the client is reset, nothing stays open", () => {
  using world = new SpliceWorld({ capacity: 1 });
  const { client, server } = world.connect();
  const before = descriptors() - world.guest.ready;
  using listener = HostSocket.listen();
  const port = freePort();
  world.tcp.listen(spec(port, listener.port));
  using second = HostSocket.connect(port);
  world.until(() => second.receive() === -ECONNRESET, "reset");
  assertEquals(descriptors(), before + world.guest.ready + 3); // two listeners and the second client
  client.close();
  server.close();
  world.settle();
});
