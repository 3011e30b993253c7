// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Moves a million frames of all kinds through the event loop, with answers from servers on the host's
 * loopback, and prints by how many bytes the heap has grown. A program of its own, so that nothing but
 * this is on the heap. Needs `--v8-flags=--expose-gc` and young generations so large that nothing is
 * collected meanwhile.
 *
 * @module
 */
import { FlowTable } from "../lib/flow/table.ts";
import { RX_SLOTS } from "./helpers/fake_link.ts";
import { Loop } from "../lib/loop.ts";
import { libc } from "../lib/sys/libc.ts";
import { connectSocket } from "../lib/sys/socket.ts";
import { W } from "../lib/tcp/words.ts";
import { LOOPBACK4 } from "../lib/wire/address.ts";
import { fakeContext } from "./helpers/fake_context.ts";
import { FakeLink } from "./helpers/fake_link.ts";
import { ScriptedEpoll } from "./helpers/drive_loop.ts";
import { arpRequest, echo, ENDS, neighborSolicit } from "./loop_frames.ts";
import { ACK, buildSegment, readSegment, SYN } from "./tcp/segment.ts";
import { HostSocket as Stream } from "./tcp/world.ts";
import { HostSocket as Datagrams, udpFrame } from "./udp/guest.ts";

const FRAMES = 1_000_000, WARM_UP = 100_000;
const BYTES = 64;
const GUEST4 = "192.0.2.2",
  GATEWAY4 = "192.0.2.1",
  GUEST6 = "2001:db8::2",
  GATEWAY6 = "2001:db8::1";
const SPORT = 4000, NOBODY = 9;
const TCP_HEADER = 34, SEQ = 4, ACK_SEQ = 8;
const ECHO_SLOTS = [9, 10];
const gc = (globalThis as unknown as { gc: () => void }).gc;

/** Slots that stay as they were loaded. */
class PresetLink extends FakeLink {
  override receive(): number {
    return RX_SLOTS;
  }
}

const link = new PresetLink(), epoll = new ScriptedEpoll();
const table = new FlowTable({ capacity: 64 });
// a plain object, as the program has it: with the getter, V8 would box the clock at every turn
const ctx = { ...fakeContext({ link, epoll, table }) };
const loop = new Loop(ctx, {
  signal: () => 0,
  childFd: -1,
  child: () => null,
  linkLost: () => 1,
});
const datagrams = new Datagrams(), listener = Stream.listen();
const payload = new Uint8Array(BYTES), scratch = new Uint8Array(65536);

function turn(frames: boolean): void {
  epoll.frames = frames;
  loop.run();
}

/** Fills all slots with one frame, and lets the loop answer it. */
function load(frame: Uint8Array): void {
  for (let slot = 0; slot < RX_SLOTS; slot++) link.load(frame, slot);
  turn(true);
  turn(false);
}

const udp = udpFrame(ENDS, GUEST4, SPORT, GATEWAY4, datagrams.port, payload);
load(udp);
connectSocket(datagrams.fd, LOOPBACK4, 0, datagrams.receive()!.port);

const ports = { sport: SPORT, dport: listener.port };
link.sent = [];
load(buildSegment({ ...ports, seq: 100, flags: SYN }));
const { seq } = readSegment(link.sent.find(({ frame }) => frame[23] === 6)!);
const established = { ...ports, seq: 101, ack: seq + 1 >>> 0, flags: ACK };
load(buildSegment(established));
const stream = listener.accept()!;
const flow = [0, 1].find((i) => table.typeOf(i) === 1)! * 48;
link.record = false;

const segment = buildSegment({ ...established, payload });
const frames: Uint8Array[] = [
  ...Array(6).fill(segment),
  udp,
  udp,
  udpFrame(ENDS, GUEST6, SPORT, GATEWAY6, NOBODY, payload), // refused: an ICMP error comes back
  echo(GUEST4, GATEWAY4),
  echo(GUEST6, GATEWAY6),
  arpRequest(),
  neighborSolicit(),
  buildSegment({ ...ports, sport: 1, seq: 1, flags: ACK }), // of no connection: reset
  udpFrame(ENDS, GUEST4, SPORT, "224.0.0.1", 5, payload), // dropped
  new Uint8Array(60), // nothing at all
];
frames.forEach((frame, slot) => link.load(frame, slot));

/** Passes `count` frames through the loop; what they ask for is answered. */
function pass(count: number): void {
  const view = link.arena.dv, words = table.data;
  for (let done = 0; done < count; done += RX_SLOTS) {
    let next = words[flow + W.SEQ_FROM_TAP];
    for (let slot = 0; slot < 6; slot++) {
      view.setInt32(link.rxOffset[slot] + TCP_HEADER + SEQ, next);
      view.setInt32(link.rxOffset[slot] + TCP_HEADER + ACK_SEQ, words[flow + W.SEQ_TO_TAP]);
      next = next + BYTES | 0;
    }
    for (const slot of ECHO_SLOTS) link.load(frames[slot], slot); // changed on its way
    turn(true);
    while (libc.recv(stream.fd, scratch, scratch.length, 0) > 0);
    while (libc.recv(datagrams.fd, scratch, scratch.length, 0) > 0);
    libc.send(stream.fd, payload, BYTES, 0);
    libc.send(datagrams.fd, payload, BYTES, 0);
  }
}

pass(WARM_UP);
gc();
gc();
pass(WARM_UP); // a collection also discards some compiled code
const sentBefore = link.sentCount, before = Deno.memoryUsage().heapUsed;
pass(FRAMES);
const grown = Deno.memoryUsage().heapUsed - before; // garbage included
gc();
gc();
const kept = Deno.memoryUsage().heapUsed - before;
console.log(JSON.stringify({ grown, kept, sent: link.sentCount - sentBefore }));
Deno.exit(0);
