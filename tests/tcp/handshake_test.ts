// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { Ev, W } from "../../lib/tcp/words.ts";
import { ACK, FIN, RST, SYN, synOptions } from "./segment.ts";
import { freePort, spec } from "./splice_world.ts";
import { assertBytes, connected, Guest, HostSocket, pattern, World } from "./world.ts";

const CLOSED_PORT = 1; // tcpmux: nobody listens

function syn(world: World, guest: Guest, options: number[] = synOptions(1460, 7)): void {
  guest.send(SYN, { options });
  guest.seq = (guest.seq + 1) >>> 0;
  world.settle();
}

for (const v6 of [false, true]) {
  const name = v6 ? "IPv6" : "IPv4";
  Deno.test(`a SYN over ${name} becomes connect(2) and is answered when the server has accepted`, () => {
    using world = new World();
    using listener = HostSocket.listen(v6);
    const guest = new Guest(world, listener.port, { v6 });
    syn(world, guest);
    world.until(() => world.link.sent.length > 0);
    const answer = world.one();
    assertEquals(answer.flags, SYN | ACK);
    assertEquals(answer.ack, guest.seq);
    assertEquals([answer.sport, answer.dport], [listener.port, guest.sport]);
    assertEquals(answer.mss, v6 ? 1440 : 1460);
    assertEquals(answer.scale, 8);
    guest.ack = answer.seq + 1;
    guest.send(ACK);
    world.settle();
    assertEquals(world.segments(), []);
    assert(guest.word(W.EVENTS) & Ev.ESTABLISHED);
    using server = world.until(() => listener.accept());
    assert(server.fd > 0);
  });

  Deno.test(`a refused connection over ${name} is answered with RST at once`, () => {
    using world = new World();
    const guest = new Guest(world, CLOSED_PORT, { v6 });
    syn(world, guest);
    world.until(() => world.link.sent.length > 0);
    const answer = world.one();
    assertEquals([answer.flags, answer.ack], [RST | ACK, guest.seq]);
    assertEquals(guest.flow, -1);
    world.settle();
    world.scan();
    assertEquals(world.table.activeCount, 0);
  });
}

Deno.test("a SYN that comes again while connecting is not answered, nor taken for another", () => {
  // an address of RFC 5737 that drops what is sent there would be needed to hold a connect(2) open;
  // a listener whose backlog is full does the same on loopback
  using world = new World();
  using listener = HostSocket.listen(false, { backlog: 0 });
  const fillers = Array.from({ length: 4 }, () => HostSocket.connect(listener.port));
  const guest = new Guest(world, listener.port);
  syn(world, guest);
  guest.seq--;
  for (let k = 0; k < 3; k++) {
    guest.send(SYN, { options: synOptions(1460, 7) });
    world.settle();
  }
  assertEquals(world.table.activeCount, 1);
  assertEquals(world.segments(), []);
  assertEquals(guest.word(W.EVENTS), Ev.TAP_SYN_RCVD);
  // the guest gives up: RST with its next sequence number ends it, another does not
  guest.send(RST, { seq: guest.seq + 9 });
  world.settle();
  assert(guest.flow >= 0);
  guest.send(RST, { seq: guest.seq + 1 });
  world.settle();
  assertEquals(guest.flow, -1);
  for (const filler of fillers) filler.close();
});

Deno.test("a SYN that comes again after SYN-ACK gets the same SYN-ACK", () => {
  using world = new World();
  using listener = HostSocket.listen();
  const guest = new Guest(world, listener.port);
  syn(world, guest);
  world.until(() => world.link.sent.length > 0);
  const first = world.one();
  guest.send(SYN, { seq: guest.seq - 1, options: synOptions(1460, 7) });
  world.settle();
  const again = world.one();
  assertEquals(
    [again.flags, again.seq, again.ack, again.mss],
    [first.flags, first.seq, first.ack, first.mss],
  );
  guest.send(SYN, { seq: guest.seq + 1000, options: synOptions(1460, 7) }); // another connection
  world.settle();
  assertEquals(world.segments(), []);
});

Deno.test("SYN-ACK is sent again with backoff, then both sides are reset", () => {
  using world = new World();
  using listener = HostSocket.listen();
  const guest = new Guest(world, listener.port);
  syn(world, guest);
  world.until(() => world.link.sent.length > 0);
  const times: number[] = [];
  const start = world.ctx.nowMs;
  world.segments();
  let reset = 0;
  for (let k = 0; k < 4000 && !reset; k++) {
    world.ctx.nowMs += 50;
    world.turn();
    for (const { flags } of world.segments()) {
      if (flags & RST) reset = world.ctx.nowMs - start;
      else {
        assertEquals(flags, SYN | ACK);
        times.push(Math.round((world.ctx.nowMs - start) / 1000));
      }
    }
  }
  assertEquals(times, [1, 3, 7, 15, 31, 63]); // RFC 6298 §5.5, six times as Linux
  assert(reset >= 120_000 && reset <= 130_000, `${reset}`);
  using server = world.until(() => listener.accept());
  assertEquals(server.receive(), -104); // ECONNRESET
  world.settle();
  world.scan();
  assertEquals(world.table.activeCount, 0);
});

Deno.test("an ACK of something else than our SYN-ACK is answered with RST and changes nothing", () => {
  using world = new World();
  using listener = HostSocket.listen();
  const guest = new Guest(world, listener.port);
  syn(world, guest);
  world.until(() => world.link.sent.length > 0);
  const { seq } = world.one();
  for (const ack of [seq, seq + 2, seq - 1, seq + 0x80000000]) {
    guest.send(ACK, { ack });
    world.settle();
    const answer = world.one();
    assertEquals([answer.flags, answer.seq], [RST, ack >>> 0]);
  }
  guest.send(ACK, { ack: seq + 1 });
  world.settle();
  assert(guest.word(W.EVENTS) & Ev.ESTABLISHED);
});

Deno.test("payload and FIN on the ACK that ends the handshake are taken", () => {
  using world = new World();
  using listener = HostSocket.listen();
  const guest = new Guest(world, listener.port);
  syn(world, guest);
  world.until(() => world.link.sent.length > 0);
  guest.ack = world.one().seq + 1;
  guest.send(ACK | FIN, { payload: pattern(100) });
  world.settle();
  assertEquals(world.segments().at(-1)!.ack, guest.seq + 101);
  using server = world.until(() => listener.accept());
  assertBytes(server.receive(), pattern(100));
  assertEquals(server.receive(), 0);
});

Deno.test("segments that belong to no flow get RST as RFC 9293 §3.10.7.1 asks", () => {
  using world = new World();
  const guest = new Guest(world, CLOSED_PORT);
  guest.send(ACK, { ack: 77 });
  world.settle();
  let answer = world.one();
  assertEquals([answer.flags, answer.seq, answer.ack], [RST, 77, 0]);
  guest.send(FIN, { payload: pattern(10) });
  world.settle();
  answer = world.one();
  assertEquals([answer.flags, answer.seq, answer.ack], [RST | ACK, 0, guest.seq + 11]);
  guest.send(SYN | FIN);
  world.settle();
  answer = world.one();
  assertEquals([answer.flags, answer.ack], [RST | ACK, guest.seq + 2]);
  for (const flags of [RST, RST | ACK, RST | SYN]) guest.send(flags);
  world.settle();
  assertEquals(world.segments(), []);
});

Deno.test("nothing answers segments from or to groups, nobody, or loopback addresses", () => {
  using world = new World();
  using listener = HostSocket.listen();
  const guest = new Guest(world, listener.port);
  const odd = [[127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255], [0, 0, 0, 0]];
  for (const flags of [SYN, ACK]) {
    for (const dest of odd) guest.send(flags, { dest });
    for (const source of odd) guest.send(flags, { source });
  }
  const loopback6 = [...Array(15).fill(0), 1];
  guest.send(SYN, { v6: true, dest: loopback6 });
  guest.send(SYN, { v6: true, source: loopback6 });
  world.settle();
  assertEquals(world.segments(), []);
  assertEquals(world.table.activeCount, 0);
  assertEquals(listener.accept(), null);
});

Deno.test("port 0 and a family that is off are refused", () => {
  using world = new World({ ip6: null });
  new Guest(world, 0).send(SYN);
  new Guest(world, 80, { v6: true }).send(SYN);
  world.settle();
  assertEquals(world.segments().map(({ flags }) => flags), [RST | ACK, RST | ACK]);
});

Deno.test("a full flow table refuses new connections and leaves old ones alone", () => {
  using world = new World({ capacity: 1 });
  using old = connected(world);
  const guest = new Guest(world, old.listener.port);
  syn(world, guest);
  assertEquals(world.one().flags, RST | ACK);
  old.guest.data(pattern(10));
  world.settle();
  assertBytes(old.server.receive(), pattern(10));
});

const MSS = W.MSS, SHIFT = W.WND_SHIFT;
const SYN_OPTIONS: [string, number[], boolean, number, number][] = [
  ["absent over IPv4: 536 (RFC 9293 §3.7.1)", [], false, 536, 0],
  ["absent over IPv6: 1220", [], true, 1220, 0],
  ["of 0: taken for absent", synOptions(0), false, 536, 0],
  ["of 1: a floor protects us", synOptions(1), false, 64, 0],
  ["of 65535: the MTU bounds it", synOptions(65535), false, 1460, 0],
  ["with a shift of 0", synOptions(1000, 0), false, 1000, 0],
  ["with a shift of 14", synOptions(1000, 14), false, 1000, 14],
  ["with a shift above 14 (RFC 7323 §2.3)", synOptions(1000, 255), false, 1000, 14],
  ["that is cut off by the header's end", [3, 3, 7, 2], false, 536, 7],
  ["with a wrong length", [2, 3, 5, 1], false, 536, 0],
  ["with a length of 0", [2, 0, 5, 180], false, 536, 0],
];
for (const [name, options, v6, mss, shift] of SYN_OPTIONS) {
  Deno.test(`an MSS option ${name}`, () => {
    using world = new World();
    using listener = HostSocket.listen(v6);
    const guest = new Guest(world, listener.port, { v6 });
    syn(world, guest, options);
    world.until(() => world.link.sent.length > 0);
    const answer = world.one();
    const scales = options.some((byte, k) => byte === 3 && options[k + 1] === 3);
    assertEquals(answer.scale, scales ? 8 : undefined);
    assertEquals([guest.word(MSS), guest.word(SHIFT)], [mss, shift]);
    guest.ack = answer.seq + 1;
    guest.window = 1000;
    guest.send(ACK);
    world.settle();
    assertEquals(guest.word(W.WND_FROM_TAP), 1000 << shift);
    using server = world.until(() => listener.accept());
    server.send(pattern(5000));
    world.until(() => world.link.sent.length > 0);
    for (const { payload, sent } of world.segments()) {
      assert(sent.gsoType ? sent.gsoSize <= mss : payload.length <= mss);
    }
  });
}

Deno.test("without window scaling our window fits the field and is not shifted", () => {
  using world = new World();
  using pair = connected(world, { scale: null });
  pair.guest.data(pattern(100));
  world.settle();
  assertEquals(world.one().window, 65535);
});

/** A connection from a client on the host, as far as our SYN to the guest. */
function inbound(world: World, v6 = false) {
  const port = freePort();
  world.tcp.listen(spec(port, 80));
  const client = HostSocket.connect(port, v6);
  world.until(() => world.link.sent.length > 0);
  const offer = world.one();
  const guest = new Guest(world, offer.sport, { v6 });
  // the guest is the server here
  Object.assign(guest, { sport: offer.dport, ack: (offer.seq + 1) >>> 0 });
  return { client, guest, offer, port, [Symbol.dispose]: () => client.close() };
}

for (const v6 of [false, true]) {
  Deno.test(`a connection to a listener becomes a SYN to the guest, ${v6 ? "IPv6" : "IPv4"}`, () => {
    using world = new World();
    using pair = inbound(world, v6);
    const { guest, offer, client } = pair;
    assertEquals([offer.flags, offer.ack, offer.dport], [SYN, 0, 80]);
    assertEquals([offer.mss, offer.scale], [v6 ? 1440 : 1460, 8]);
    client.send(pattern(1000));
    world.settle();
    assertEquals(world.segments(), []); // nothing flows before the guest agrees
    guest.send(SYN | ACK, { options: synOptions(1000, 7) });
    guest.seq++;
    world.settle();
    const [ack, data] = world.segments();
    assertEquals([ack.flags, ack.seq, ack.ack], [ACK, guest.ack, guest.seq]);
    assertEquals([data.seq, data.payload], [guest.ack, pattern(1000)]);
    guest.data(pattern(50));
    world.settle();
    assertBytes(client.receive(), pattern(50));
  });
}

Deno.test("a guest that refuses a connection has its client reset", () => {
  using world = new World();
  using pair = inbound(world);
  const { guest, client } = pair;
  guest.send(RST | ACK, { seq: 0, ack: guest.ack + 5 }); // not for our SYN
  world.settle();
  assert(guest.flow >= 0);
  guest.send(RST | ACK, { seq: 0 });
  world.settle();
  assertEquals(client.receive(), -104); // ECONNRESET
  assertEquals(guest.flow, -1);
  assertEquals(world.segments(), []);
});

Deno.test("SYN is sent again with backoff, then the client is reset", () => {
  using world = new World();
  using pair = inbound(world);
  const start = world.ctx.nowMs, times: number[] = [];
  for (let k = 0; k < 4000 && pair.guest.flow >= 0; k++) {
    world.ctx.nowMs += 50;
    world.turn();
    for (const { flags, seq, scale } of world.segments()) {
      if (flags & RST) continue;
      assertEquals([flags, seq + 1, scale], [SYN, pair.guest.ack, 8]);
      times.push(Math.round((world.ctx.nowMs - start) / 1000));
    }
  }
  assertEquals(times, [1, 3, 7, 15, 31, 63]);
  assertEquals(pair.client.receive(), -104);
  world.settle();
  world.scan();
  assertEquals(world.table.activeCount, 0);
});

Deno.test("a SYN-ACK that comes again is acknowledged again, a wrong one reset", () => {
  using world = new World();
  using pair = inbound(world);
  const { guest } = pair;
  guest.send(SYN | ACK, { ack: guest.ack + 1 });
  world.settle();
  assertEquals([world.one().flags, guest.word(W.EVENTS)], [RST, Ev.SOCK_ACCEPTED]);
  for (let k = 0; k < 2; k++) {
    guest.send(SYN | ACK, { options: synOptions(1460) });
    world.settle();
    const answer = world.one();
    assertEquals([answer.flags, answer.seq, answer.ack], [ACK, guest.ack, guest.seq + 1]);
  }
});

Deno.test("a server that sends and closes before the handshake is over loses nothing", () => {
  using world = new World();
  using listener = HostSocket.listen();
  const guest = new Guest(world, listener.port);
  guest.send(SYN, { options: synOptions(1460, 7) });
  guest.seq++;
  const frames = world.link.receive(16); // only connect(2): no event is looked at yet
  assertEquals(frames, 1);
  world.link.inject(world.link.arena.u8.slice(world.link.rxOffset[0], world.link.rxOffset[0] + 62));
  const real = world.ctx.epoll.wait;
  world.ctx.epoll.wait = () => 0;
  world.turn();
  let server: HostSocket | null = null;
  for (let k = 0; k < 1e6 && !server; k++) server = listener.accept();
  server!.send(pattern(3000));
  server!.close();
  Deno.readTextFileSync("/proc/self/stat"); // time for the segments to get through
  world.ctx.epoll.wait = real;
  world.settle();
  guest.ack = world.one().seq + 1;
  guest.send(ACK);
  world.settle();
  const segments = world.segments();
  assertEquals(segments.reduce((sum, { payload }) => sum + payload.length, 0), 3000);
  assertEquals(segments.at(-1)!.flags, FIN | ACK);
});
