// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Moves a million packets through the translation and prints by how many bytes the heap has grown.
 * A program of its own, so that nothing but this is on the heap. Needs
 * `--v8-flags=--expose-gc` and young generations so large that nothing is collected meanwhile.
 *
 * @module
 */
import { libc } from "../../lib/sys/libc.ts";
import { W } from "../../lib/tcp/words.ts";
import { parseIp } from "../../lib/wire/packet.ts";
import { ACK, buildSegment } from "./segment.ts";
import { connected, pattern, World } from "./world.ts";

const PACKETS = 500_000; // each way
const BATCH = 16;
const BYTES = 64;
const ETH_IP = 34, TCP_SEQ = 4, TCP_ACK_SEQ = 8;
const gc = (globalThis as unknown as { gc: () => void }).gc;

const world = new World({ capacity: 16 });
const pair = connected(world);
const { guest, server } = pair;
const { link, tcp, packet } = world;
link.record = false;
const view = link.arena.dv;
const frame = buildSegment({
  sport: guest.sport,
  dport: guest.dport,
  seq: guest.seq,
  ack: guest.ack,
  flags: ACK,
  payload: pattern(BYTES),
});
const bare = buildSegment({
  sport: guest.sport,
  dport: guest.dport,
  seq: guest.seq,
  ack: guest.ack,
  flags: ACK,
});
const flow = guest.flow * 48;
const words = world.table.data;
const scratch = new Uint8Array(65536);
const reply = pattern(BYTES);

function events(): void {
  const n = world.ctx.epoll.wait(0);
  for (let k = 0; k < n; k++) tcp.event(world.ctx.epoll.data(k), world.ctx.epoll.events(k));
}

function take(slot: number, length: number): void {
  parseIp(view, link.rxOffset[slot], length, packet);
  tcp.fromTap(packet);
}

/** Packets from the guest, in batches, read by the server. */
function up(packets: number): void {
  for (let k = 0; k < BATCH; k++) link.load(frame, k);
  for (let sent = 0; sent < packets; sent += BATCH) {
    let seq = words[flow + W.SEQ_FROM_TAP];
    for (let k = 0; k < BATCH; k++) {
      view.setInt32(link.rxOffset[k] + ETH_IP + TCP_SEQ, seq);
      view.setInt32(link.rxOffset[k] + ETH_IP + TCP_ACK_SEQ, words[flow + W.SEQ_TO_TAP]);
      seq += BYTES;
      take(k, frame.length);
    }
    tcp.flush();
    tcp.turn();
    while (libc.recv(server.fd, scratch, scratch.length, 0) > 0);
  }
}

/** Packets to the guest, each acknowledged. */
function down(packets: number): void {
  link.load(bare);
  for (let sent = 0; sent < packets; sent += 1) {
    libc.send(server.fd, reply, reply.length, 0);
    const before = words[flow + W.SEQ_TO_TAP];
    do {
      events();
      tcp.turn();
    } while (words[flow + W.SEQ_TO_TAP] === before);
    view.setInt32(link.rxOffset[0] + ETH_IP + TCP_SEQ, words[flow + W.SEQ_FROM_TAP]);
    view.setInt32(link.rxOffset[0] + ETH_IP + TCP_ACK_SEQ, words[flow + W.SEQ_TO_TAP]);
    take(0, bare.length);
    tcp.flush();
    tcp.turn();
    world.ctx.nowMs++; // a fraction would put a number on the heap
  }
}

up(20_000);
down(20_000);
gc();
gc();
const before = Deno.memoryUsage().heapUsed;
up(PACKETS);
down(PACKETS);
const grown = Deno.memoryUsage().heapUsed - before; // garbage included
gc();
gc();
const kept = Deno.memoryUsage().heapUsed - before;
console.log(JSON.stringify({ grown, kept, frames: link.sentCount }));
Deno.exit(0);
