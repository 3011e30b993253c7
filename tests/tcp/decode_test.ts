// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Every kind of frame that TCP sends, as scapy reads it.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { E } from "../../lib/sys/errno.ts";
import { libc } from "../../lib/sys/libc.ts";
import { requirements } from "../helpers/require.ts";
import { build, decode, layerOf } from "../wire/scapy.ts";
import { W } from "../../lib/tcp/words.ts";
import { ACK, SYN, synOptions } from "./segment.ts";
import { assertBytes, Guest, HostSocket, pattern, World } from "./world.ts";

const scapy = requirements({ packages: ["python3", "python3-scapy"], root: false });
const FLAGS = { FIN: 1, SYN: 2, RST: 4, PSH: 8, ACK: 16 };

/** Makes the next look at a socket's pending error give `error`. */
function failConnect(world: World, error: number, work: () => void): void {
  const real = libc.getsockopt;
  const replace = (value: typeof real) =>
    Object.defineProperty(libc, "getsockopt", { configurable: true, writable: true, value });
  replace((fd, level, name, value, length) => {
    const result = real(fd, level, name, value, length);
    if (level === 1 && name === 4) (value as unknown as Int32Array)[0] = error; // SO_ERROR
    return result;
  });
  try {
    work();
    world.settle();
  } finally {
    replace(real);
  }
}

/** Sum over an ICMPv6 message and its pseudo-header (RFC 8200 §8.1); 0xffff when it is right. */
function icmpv6Sum(frame: Uint8Array): number {
  let sum = 58 + frame.length - 54; // next header and length
  for (let at = 22; at < frame.length; at += 2) sum += frame[at] << 8 | (frame[at + 1] ?? 0);
  return sum % 0xffff || 0xffff;
}

for (const v6 of [false, true]) {
  const ip = v6 ? "IPv6" : "IP";
  Deno.test({
    name: `scapy reads our frames as they are meant, ${ip}`,
    ...scapy,
    fn: async () => {
      using world = new World();
      using listener = HostSocket.listen(v6);
      const guest = new Guest(world, listener.port, { v6, seq: 0xfffffff0 });
      guest.send(SYN, { options: synOptions(9000, 3) });
      guest.seq++;
      world.until(() => world.link.sent.length > 0);
      const [synAck] = world.link.take();
      guest.ack = (new DataView(synAck.buffer).getUint32(v6 ? 58 : 38) + 1) >>> 0;
      guest.send(ACK);
      world.settle();
      using server = world.until(() => listener.accept());
      guest.data(pattern(100));
      world.settle();
      const [ack] = world.link.take();
      server.send(pattern(40_001));
      world.until(() => world.link.sent.length > 0);
      const superFrame = world.link.sent[0];
      const [data] = world.link.take();
      guest.ack = (guest.ack + 40_001) >>> 0;
      guest.send(ACK);
      world.settle();
      world.link.take();
      server.shutdown();
      world.until(() => world.link.sent.length > 0);
      const [fin] = world.link.take();
      server.reset();
      world.until(() => world.link.sent.length > 0);
      const [rst] = world.link.take();
      guest.send(ACK);
      world.settle();
      const [noFlow] = world.link.take();
      const frames = { synAck, ack, data, fin, rst, noFlow };
      const decoded = await decode(frames);
      const tcp = (name: keyof typeof frames) => layerOf(decoded[name], "TCP");
      for (const { bad, layers } of Object.values(decoded)) {
        assertEquals(bad, []);
        assertEquals(layers[1].src, v6 ? "2001:db8::1" : "192.0.2.1");
        assertEquals(layers[1].dst, v6 ? "2001:db8::2" : "192.0.2.2");
      }
      assertEquals(tcp("synAck").flags, FLAGS.SYN | FLAGS.ACK);
      assertEquals(tcp("synAck").ack, 0xfffffff1);
      assertEquals(
        JSON.stringify(tcp("synAck").options),
        '[["MSS",' + (v6 ? 1440 : 1460) + '],["NOP",null],["WScale",8]]',
      );
      assertEquals([tcp("ack").flags, tcp("ack").ack], [FLAGS.ACK, (0xfffffff1 + 100) % 2 ** 32]);
      assertEquals(tcp("ack").window << 8, 1 << 20);
      assertEquals(tcp("data").flags, FLAGS.ACK | FLAGS.PSH);
      assertBytes(data.subarray(-40_001), pattern(40_001));
      const mss = v6 ? 1440 : 1460;
      assertEquals([superFrame.gsoType, superFrame.gsoSize], [v6 ? 4 : 1, mss]);
      assertEquals(superFrame.headerLength, v6 ? 74 : 54);
      assertEquals(tcp("fin").flags, FLAGS.FIN | FLAGS.ACK);
      assertEquals(tcp("fin").seq, guest.ack);
      assertEquals(tcp("rst").flags & FLAGS.RST, FLAGS.RST);
      assertEquals([tcp("noFlow").flags, tcp("noFlow").seq], [FLAGS.RST, guest.ack]);
    },
  });

  Deno.test({
    name: `an unreachable destination becomes an ICMP error that quotes the SYN, ${ip}`,
    ...scapy,
    fn: async () => {
      using world = new World();
      using listener = HostSocket.listen(v6);
      const guest = new Guest(world, listener.port, { v6 });
      for (const error of [E.EHOSTUNREACH, E.ENETUNREACH]) {
        guest.send(SYN, { options: synOptions(1460) });
        failConnect(world, error, () => world.until(() => world.link.sent.length > 0));
        const [icmp, ...more] = world.link.take();
        assertEquals([more.length, guest.flow], [0, -1]);
        const { decoded } = await decode({ decoded: icmp });
        // scapy would also complete the checksum of the quoted header
        if (v6) assertEquals(icmpv6Sum(icmp), 0xffff);
        else assertEquals(decoded.bad, []);
        const message = layerOf(decoded, v6 ? "ICMPv6DestUnreach" : "ICMP");
        const net = error === E.ENETUNREACH;
        assertEquals([message.type, message.code], v6 ? [1, net ? 0 : 3] : [3, net ? 0 : 1]);
        const quoted = layerOf(decoded, "TCPerror");
        assertEquals(
          [quoted.sport, quoted.dport, quoted.seq, quoted.flags],
          [guest.sport, guest.dport, guest.seq, FLAGS.SYN],
        );
        const inner = layerOf(decoded, v6 ? "IPerror6" : "IPerror");
        assertEquals(inner.src, v6 ? "2001:db8::2" : "192.0.2.2");
      }
      failConnect(world, E.ETIMEDOUT, () => {
        guest.send(SYN);
        world.until(() => world.link.sent.length > 0);
      });
      assertEquals(world.one().flags, FLAGS.RST | FLAGS.ACK);
    },
  });
}

Deno.test({
  name: "segments that scapy builds, with options of every kind, are understood",
  ...scapy,
  fn: async () => {
    using world = new World();
    using listener = HostSocket.listen();
    const head =
      "Ether(src='02:00:5e:10:00:01',dst='9a:55:9a:55:9a:55')/IP(src='192.0.2.2',dst='192.0.2.1')";
    const ports = `sport=5555,dport=${listener.port}`;
    const options =
      "options=[('NOP',None),('SAckOK',b''),('Timestamp',(1,0)),('MSS',1234),('WScale',5)]";
    const frames = await build({
      syn: `${head}/TCP(${ports},seq=100,flags='SEC',window=4321,${options})`,
      again: `${head}/TCP(${ports},seq=100,flags='S')`,
    });
    world.link.inject(frames.syn);
    world.until(() => world.link.sent.length > 0);
    assertEquals([world.one().ack, world.table.activeCount], [101, 1]);
    const words = world.table.data;
    assertEquals([words[W.MSS], words[W.WND_SHIFT], words[W.WND_FROM_TAP]], [1234, 5, 4321]);
    const padded = new Uint8Array(80).fill(1);
    padded.set(frames.again);
    world.link.inject(padded); // Ethernet padding is no payload
    world.settle();
    assertEquals(world.one().ack, 101);
  },
});
