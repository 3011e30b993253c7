// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * What the data path leaves on the heap: nothing.
 *
 * @module
 */
import { assert } from "@std/assert";
import { EventType } from "../../lib/context.ts";
import { libc } from "../../lib/sys/libc.ts";
import { connectSocket } from "../../lib/sys/socket.ts";
import { udpEvent, udpFlush, udpFromTap } from "../../lib/udp/mod.ts";
import { parseIp } from "../../lib/wire/packet.ts";
import { Guest, HostSocket, PATHS, udpFrame } from "./guest.ts";

const BATCH = 8;
const LIMIT = 1 << 20;

/** Sends `rounds` batches from the guest and answers each datagram; allocates nothing itself. */
function run(guest: Guest, server: HostSocket, buffer: Uint8Array<ArrayBuffer>, rounds: number) {
  const { ctx, link, packet } = guest, { epoll } = ctx, view = link.arena.dv;
  for (let round = 0; round < rounds; round++) {
    for (let slot = 0; slot < BATCH; slot++) {
      if (parseIp(view, link.rxOffset[slot], link.rxLength[slot], packet)) {
        udpFromTap(ctx, packet, 0);
      }
    }
    udpFlush(ctx);
    for (let n = 0; n < BATCH; n++) {
      libc.recv(server.fd, buffer, 64, 0);
      libc.send(server.fd, buffer, 64, 0);
    }
    for (let n = epoll.wait(0); n > 0; n = epoll.wait(0)) {
      for (let k = 0; k < n; k++) {
        if (epoll.type(k) === EventType.UDP) udpEvent(ctx, epoll.data(k), epoll.events(k));
      }
    }
  }
}

for (const { guest: from, name, host, ip } of PATHS) {
  Deno.test(`100,000 datagrams each way over ${ip} leave nothing on the heap`, () => {
    // a raw socket would get replies to whatever else pings on this machine
    const guest = new Guest({ features: { icmp: false } }), server = new HostSocket(host);
    const { link, ctx } = guest;
    link.record = false;
    const frame = udpFrame(ctx, from, 4000, name, server.port, new Uint8Array(64));
    guest.send([frame]);
    connectSocket(server.fd, host, 0, server.receive()!.port);
    for (let slot = 0; slot < BATCH; slot++) link.load(frame, slot);
    const buffer = new Uint8Array(64);
    run(guest, server, buffer, 2_000); // until it is compiled
    const before = Deno.memoryUsage().heapUsed, sent = link.sentCount;
    run(guest, server, buffer, 100_000 / BATCH);
    const grown = Deno.memoryUsage().heapUsed - before;
    assert(link.sentCount - sent === 100_000, `${link.sentCount - sent} arrived`);
    assert(grown < LIMIT, `${grown} bytes`);
    server.close();
    guest.close();
  });
}
