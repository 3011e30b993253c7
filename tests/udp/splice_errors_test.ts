// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Senders of spliced datagrams are told that nobody listens, as if the other side were their own.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { E } from "../../lib/sys/errno.ts";
import { IP_RECVERR, IPV6_RECVERR } from "../../lib/sys/ip_options.ts";
import { sockExtendedErr } from "../../lib/sys/layout.ts";
import { Arena } from "../../lib/sys/arena.ts";
import { libc } from "../../lib/sys/libc.ts";
import { MessageVector } from "../../lib/sys/message_vector.ts";
import {
  AF_INET,
  AF_INET6,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_IP,
  IPPROTO_IPV6,
  MSG_DONTWAIT,
  MSG_ERRQUEUE,
  newSocket,
  readSockaddr,
  setOption,
  SOCK_RAW,
  SOCKADDR_IN6_SIZE,
} from "../../lib/sys/socket.ts";
import { Raw } from "../../lib/udp/splice_state.ts";
import { formatAddress, isV4, LOOPBACK4 } from "../../lib/wire/address.ts";
import { bytes, HostSocket } from "./guest.ts";
import {
  connect,
  FAMILIES,
  inWorld,
  sendConnected,
  spliceTest,
  type SpliceWorld,
} from "./splice_world.ts";
import { requirements } from "../helpers/require.ts";
import { decode, hex, layerOf } from "../wire/scapy.ts";

/** A port of the host and one of the namespace where nobody listens. */
function nobody(world: SpliceWorld, on: Int32Array, inside: boolean): number {
  const open = () => new HostSocket(on);
  const socket = inside ? world.namespace.enter(open) : open();
  socket.close();
  return socket.port;
}

/** What a socket's error queue has first: destination of the datagram, its payload, type and code. */
function queued(socket: HostSocket, v4: boolean): unknown[] | null {
  const arena = new Arena(4096),
    message = new MessageVector(arena, 1, {
      name: SOCKADDR_IN6_SIZE,
      control: 512,
    });
  const data = arena.alloc(1500);
  message.setData(0, arena.address(data), 1500);
  const n = libc.recvmsg(socket.fd, message.views[0], MSG_ERRQUEUE | MSG_DONTWAIT);
  if (n < 0) return null;
  const [level, type] = v4 ? [IPPROTO_IP, IP_RECVERR] : [IPPROTO_IPV6, IPV6_RECVERR];
  const at = message.findControl(0, level, type, sockExtendedErr.size);
  const to = new Int32Array(4), port = readSockaddr(arena.dv, message.name(0), to, 0);
  const { ee_type, ee_code } = sockExtendedErr.at;
  return [
    formatAddress(to),
    port,
    arena.u8.slice(data, data + n),
    arena.u8[at + ee_type],
    arena.u8[at + ee_code],
  ];
}

for (const { ip, loopback, own } of FAMILIES) {
  const v4 = isV4(loopback);

  spliceTest(
    `a sender in the namespace learns that nobody listens on the host (${ip})`,
    (world) => {
      const client = world.inside(loopback),
        { port } = world.outbound(nobody(world, loopback, false));
      connect(client, loopback, port);
      assertEquals(sendConnected(client, bytes(5)), 0);
      world.settle();
      assertEquals(sendConnected(client, bytes(5)), E.ECONNREFUSED);
      // and every time again, by the same flow
      assertEquals(sendConnected(client, bytes(5)), 0);
      world.settle();
      assertEquals(sendConnected(client, bytes(5)), E.ECONNREFUSED);
      assertEquals(world.guest.ctx.table.activeCount, 1);
    },
  );

  spliceTest(
    `a sender on the host learns that nobody listens in the namespace (${ip})`,
    (world) => {
      const client = world.host(loopback), { port } = world.inbound(nobody(world, own, true));
      connect(client, loopback, port);
      assertEquals(sendConnected(client, bytes(5)), 0);
      world.settle();
      assertEquals(sendConnected(client, bytes(5)), E.ECONNREFUSED);
    },
  );

  spliceTest(
    `the error queue of an unconnected sender tells which datagram it was (${ip})`,
    (world) => {
      const client = world.inside(loopback),
        { port } = world.outbound(nobody(world, loopback, false));
      setOption(client.fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_RECVERR : IPV6_RECVERR, 1);
      client.send(bytes(100), port, loopback);
      world.settle();
      const text = formatAddress(loopback);
      assertEquals(queued(client, v4), [text, port, bytes(100), v4 ? 3 : 1, v4 ? 3 : 4]);
      assertEquals(queued(client, v4), null);
    },
  );

  spliceTest(`a server learns that its client is gone (${ip})`, (world) => {
    const server = world.inside(own), { port } = world.inbound(server.port);
    const client = new HostSocket(loopback);
    client.send(bytes(5), port, loopback);
    world.settle();
    connect(server, own, server.receive()!.port);
    client.close();
    assertEquals(sendConnected(server, bytes(5)), 0);
    world.settle();
    assertEquals(sendConnected(server, bytes(5)), E.ECONNREFUSED);
  });

  Deno.test({
    name: `the message to the sender is right in every field (${ip})`,
    ...requirements({ packages: ["iproute2", "python3-scapy"] }),
    fn: async () => {
      let ports: number[] = [];
      const packet = await inWorld((world) => {
        const tap = world.namespace.enter(() =>
          v4
            ? newSocket(AF_INET, SOCK_RAW, IPPROTO_ICMP)
            : newSocket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)
        );
        const client = world.inside(loopback);
        const { port } = world.outbound(nobody(world, loopback, false));
        ports = [client.port, port];
        client.send(bytes(2000), port, loopback);
        world.settle();
        const buffer = new Uint8Array(2000);
        const n = libc.recv(tap, buffer, buffer.length, MSG_DONTWAIT);
        assert(n > 0, "no ICMP message");
        libc.close(tap);
        const { splice } = world.state;
        return v4 ? buffer.slice(0, n) : splice.errorView.slice(0, 40 + n);
      });
      const mac = new Uint8Array(12), type = v4 ? [8, 0] : [0x86, 0xdd];
      const { error } = await decode({ error: Uint8Array.from([...mac, ...type, ...packet]) });
      assertEquals(error.bad, []);
      const outer = layerOf(error, v4 ? "IP" : "IPv6");
      const icmp = layerOf(error, v4 ? "ICMP" : "ICMPv6DestUnreach");
      const inner = layerOf(error, v4 ? "IPerror" : "IPerror6"), udp = layerOf(error, "UDPerror");
      const text = formatAddress(loopback);
      assertEquals([outer.src, outer.dst, inner.src, inner.dst], Array(4).fill(text));
      assertEquals([icmp.type, icmp.code], v4 ? [3, 3] : [1, 4]); // RFC 792, RFC 4443 §3.1
      assertEquals([udp.sport, udp.dport], ports);
      // the kernel of the other side has quoted some of it, and we pass that on
      const quoted = packet.length - (v4 ? 56 : 96);
      assert(quoted >= 400, `${quoted} bytes`);
      assertEquals(hex(packet.slice(v4 ? 56 : 96)), hex(bytes(quoted)));
    },
  });
}

spliceTest("a sender learns that the network of the namespace is down", (world) => {
  const client = world.host(), { port } = world.inbound(9);
  setOption(client.fd, IPPROTO_IP, IP_RECVERR, 1);
  client.send(bytes(5), port);
  world.settle();
  assertEquals(queued(client, true), ["127.0.0.1", port, bytes(0), 3, 0]);
  assertEquals(world.guest.ctx.table.activeCount, 0);
}, { commands: "link set lo down" });

spliceTest("errors to senders are limited in number", (world) => {
  const { splice } = world.state, client = world.inside();
  const { port } = world.outbound(nobody(world, LOOPBACK4, false));
  for (let n = 0; n < 1100; n++) {
    client.send(bytes(5), port);
    world.guest.turn();
    world.guest.turn();
  }
  assert(splice.errors.suppressed > 0, "all were sent");
});

spliceTest("without the right to a raw socket, errors are left out", (world) => {
  world.state.splice.raw.fill(Raw.NONE);
  const client = world.host(), { port } = world.inbound(nobody(world, FAMILIES[0].own, true));
  connect(client, LOOPBACK4, port);
  for (let n = 0; n < 3; n++) {
    assertEquals(sendConnected(client, bytes(5)), 0);
    world.settle();
  }
});
