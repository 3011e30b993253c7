// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A TCP instance over a fake link with real loopback sockets on the other side, driven step by step by
 * the test: the clock stands still unless the test moves it.
 *
 * @module
 */
import { EventType } from "../../lib/context.ts";
import { FlowSide, Pif } from "../../lib/flow/side.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import {
  acceptSocket,
  bindSocket,
  closeWithReset,
  connectSocket,
  familyOf,
  newSocket,
  setOption,
  SO_PEEK_OFF,
  SO_RCVBUF,
  SO_SNDBUF,
  SOCK_STREAM,
  socketAddress,
  SOL_SOCKET,
} from "../../lib/sys/socket.ts";
import { Tcp } from "../../lib/tcp/mod.ts";
import { Do, W } from "../../lib/tcp/words.ts";
import { DATA_WORDS } from "../../lib/flow/table.ts";
import { LOOPBACK4, LOOPBACK6 } from "../../lib/wire/address.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { address, type FakeContext, fakeContext } from "../helpers/fake_context.ts";
import type { FakeContextOptions } from "../helpers/fake_context.ts";
import { FakeLink } from "../helpers/fake_link.ts";
import {
  ACK,
  buildSegment,
  FIN,
  PSH,
  readSegment,
  type Segment,
  type SegmentSpec,
  SYN,
  synOptions,
} from "./segment.ts";

/** What a loop that never comes to rest is cut off at. */
const MAX_STEPS = 100_000;
const MSG_NOSIGNAL = 0x4000; // recv(2)
const EAGAIN = 11; // errno(3)

/** One end of a connection, or a listener, on the host's side; nothing blocks. */
export class HostSocket {
  readonly fd: number;
  #open = true;

  constructor(fd: number) {
    if (fd < 0) throw new Error(`No socket: errno ${-fd}`);
    this.fd = fd;
  }

  /** A listener on the loopback address. */
  static listen(v6 = false, options: { rcvbuf?: number; backlog?: number } = {}): HostSocket {
    const loopback = v6 ? LOOPBACK6 : LOOPBACK4;
    const socket = new HostSocket(newSocket(familyOf(loopback, 0), SOCK_STREAM, 0));
    if (options.rcvbuf) setOption(socket.fd, SOL_SOCKET, SO_RCVBUF, options.rcvbuf);
    if (bindSocket(socket.fd, loopback, 0, 0) < 0) throw new Error("bind");
    if (libc.listen(socket.fd, options.backlog ?? 64) < 0) throw new Error("listen");
    return socket;
  }

  /** Starts connecting to a port of the loopback address. */
  static connect(port: number, v6 = false): HostSocket {
    const loopback = v6 ? LOOPBACK6 : LOOPBACK4;
    const socket = new HostSocket(newSocket(familyOf(loopback, 0), SOCK_STREAM, 0));
    connectSocket(socket.fd, loopback, 0, port);
    return socket;
  }

  get port(): number {
    return socketAddress(this.fd, new Int32Array(4), 0);
  }

  /** Takes a connection; null when none waits. */
  accept(): HostSocket | null {
    const fd = acceptSocket(this.fd, new Int32Array(4), 0, new Int32Array(1));
    return fd === -EAGAIN ? null : new HostSocket(fd);
  }

  /** Sends; returns the number of bytes taken or a negative errno. */
  send(bytes: Uint8Array<ArrayBuffer>, flags = 0): number {
    const sent = libc.send(this.fd, bytes, bytes.length, flags | MSG_NOSIGNAL);
    return sent < 0 ? -errno() : sent;
  }

  /** Receives up to `max` bytes; a number (0 or a negative errno) when there are none. */
  receive(max = 1 << 20): Uint8Array<ArrayBuffer> | number {
    const bytes = new Uint8Array(max);
    const got = libc.recv(this.fd, bytes, max, 0);
    return got > 0 ? bytes.subarray(0, got) : got < 0 ? -errno() : 0;
  }

  sendBuffer(bytes: number): void {
    setOption(this.fd, SOL_SOCKET, SO_SNDBUF, bytes);
  }

  shutdown(): void {
    libc.shutdown(this.fd, 1);
  }

  reset(): void {
    if (this.#open) closeWithReset(this.fd);
    this.#open = false;
  }

  close(): void {
    if (this.#open) libc.close(this.fd);
    this.#open = false;
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** The instance under test. */
export class World {
  readonly link: FakeLink;
  readonly ctx: FakeContext;
  readonly tcp: Tcp;
  readonly packet = new Packet();
  readonly #epoll;

  constructor(options: FakeContextOptions & { capacity?: number; tso?: boolean } = {}) {
    const { capacity = 1024, tso = true, ...rest } = options;
    this.link = rest.link ?? new FakeLink({ tso });
    this.ctx = fakeContext({ table: new FlowTable({ capacity }), ...rest, link: this.link });
    this.tcp = new Tcp(this.ctx);
    this.#epoll = this.ctx.epoll;
  }

  get table(): FlowTable {
    return this.ctx.table;
  }

  /** One turn of the loop. @returns the number of events and frames handled */
  turn(waitMs = 0): number {
    const { link, tcp, packet } = this;
    const events = this.#epoll.wait(waitMs);
    for (let k = 0; k < events; k++) {
      const data = this.#epoll.data(k);
      if (this.#epoll.type(k) === EventType.TCP) tcp.event(data, this.#epoll.events(k));
      else tcp.listenEvent(data);
    }
    const frames = link.receive(16);
    for (let k = 0; k < frames; k++) {
      if (parseIp(link.arena.dv, link.rxOffset[k], link.rxLength[k], packet)) tcp.fromTap(packet);
    }
    tcp.flush();
    tcp.turn();
    return events + frames;
  }

  /** Turns until there is nothing more to do; throws when that never happens. */
  settle(): void {
    for (let quiet = 0, steps = 0; quiet < 2; steps++) {
      if (steps > MAX_STEPS) throw new Error("The loop does not come to rest");
      const busy = this.turn(quiet) > 0 || this.tcp.timeoutMs() === 0;
      quiet = busy ? 0 : quiet + 1;
    }
  }

  /** Turns until `done` gives something, for what another thread of the kernel has to do first. */
  until<T>(done: () => T | null | false | undefined | 0, what = "condition"): T {
    for (let k = 0; k < 2000; k++) {
      const result = done();
      if (result) return result;
      this.turn(1);
    }
    throw new Error(`Never came true: ${what}`);
  }

  /** Lets time pass in one jump and does what is due. */
  pass(ms: number): void {
    this.ctx.nowMs += ms;
    this.settle();
  }

  /** The table's scan. */
  scan(): void {
    this.table.deferHandler(this.ctx.nowMs);
  }

  /** The segments sent to the guest since the last call, all of them checked. */
  segments(): Segment[] {
    const frames = this.link.sent;
    this.link.sent = [];
    return frames.map((sent) => readSegment(sent, this.ctx.mtu));
  }

  /** The only segment sent since the last call. */
  one(): Segment {
    const all = this.segments();
    if (all.length !== 1) throw new Error(`${all.length} segments instead of one`);
    return all[0];
  }

  /** Ends everything that is left; the flow table must be whole. */
  close(): void {
    this.table.verify();
    this.tcp.close();
    const { data, capacity } = this.table;
    for (let i = 0; i < capacity; i++) {
      const fd = data[i * DATA_WORDS];
      if (this.table.stateOf(i) === 5 && fd > 0) libc.close(fd);
    }
    this.#epoll.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

let nextPort = 20_000;

/** The guest's end of one connection: the test decides every segment. */
export class Guest {
  readonly world: World;
  readonly v6: boolean;
  readonly sport: number;
  readonly dport: number;
  /** Our next sequence number, unsigned. */
  seq: number;
  /** What we expect next. */
  ack = 0;
  window = 65535;
  /** The other's window shift, after the handshake. */
  theirShift = 0;

  constructor(world: World, dport: number, options: { v6?: boolean; seq?: number } = {}) {
    this.world = world;
    this.v6 = options.v6 ?? false;
    this.dport = dport;
    this.sport = nextPort++;
    this.seq = options.seq ?? 1_000_000;
  }

  /** Queues a segment; sequence numbers default to the current ones and do not advance. */
  send(flags: number, spec: Partial<SegmentSpec> = {}): void {
    this.world.link.inject(buildSegment({
      sport: this.sport,
      dport: this.dport,
      seq: this.seq,
      ack: flags & ACK ? this.ack : 0,
      window: this.window,
      flags,
      v6: this.v6,
      ...spec,
    }));
  }

  /** Queues payload in order and advances. */
  data(payload: Uint8Array): void {
    this.send(ACK | PSH, { payload });
    this.seq = (this.seq + payload.length) >>> 0;
  }

  /** Queues FIN and advances. */
  fin(): void {
    this.send(FIN | ACK);
    this.seq = (this.seq + 1) >>> 0;
  }

  /** Number of the flow in the table; -1 when there is none. */
  get flow(): number {
    const key = new FlowSide();
    key.pif = Pif.TAP;
    const [guest, gateway] = this.v6
      ? [address("2001:db8::2"), address("2001:db8::1")]
      : [address("192.0.2.2"), address("192.0.2.1")];
    key.setEndpoint(guest, 0, this.sport);
    key.setOur(gateway, 0, this.dport);
    const sidx = this.world.table.lookup(6, key);
    return sidx < 0 ? -1 : sidx >> 1;
  }

  /** Reads a word of the flow. */
  word(index: number): number {
    return this.world.table.data[this.flow * DATA_WORDS + index];
  }

  /** Writes a word of the flow. */
  poke(index: number, value: number): void {
    this.world.table.data[this.flow * DATA_WORDS + index] = value;
  }
}

/** Takes the kernel's peek offset away, as on a kernel before 6.9. */
export function withoutPeekOffset(guest: Guest): void {
  guest.poke(W.DO, guest.word(W.DO) & ~Do.PEEK_OFF);
  setOption(guest.word(W.FD), SOL_SOCKET, SO_PEEK_OFF, -1);
}

/** How {@linkcode connected} makes a connection. */
export interface ConnectOptions {
  v6?: boolean;
  seq?: number;
  mss?: number;
  /** The guest's window shift; null: no scaling. */
  scale?: number | null;
  window?: number;
  rcvbuf?: number;
}

/** A connection that the guest made to a server on the host, both ends at hand. */
export function connected(
  world: World,
  options: ConnectOptions = {},
): { guest: Guest; server: HostSocket; listener: HostSocket } & Disposable {
  const { v6 = false, scale = 7, mss = 1460 } = options;
  const listener = HostSocket.listen(v6, options.rcvbuf ? { rcvbuf: options.rcvbuf } : {});
  const guest = new Guest(world, listener.port, options);
  guest.send(SYN, { options: synOptions(mss, scale ?? undefined) });
  guest.seq = (guest.seq + 1) >>> 0;
  world.until(() => world.link.sent.length > 0, "SYN-ACK");
  const answer = world.one();
  if (answer.flags !== (SYN | ACK)) throw new Error(`Flags ${answer.flags} for SYN`);
  guest.ack = (answer.seq + 1) >>> 0;
  guest.theirShift = answer.scale ?? 0;
  guest.window = options.window ?? 65535;
  guest.send(ACK);
  world.settle();
  world.link.sent = [];
  const server = world.until(() => listener.accept(), "accept");
  const dispose = () => {
    server.close();
    listener.close();
  };
  return { guest, server, listener, [Symbol.dispose]: dispose };
}

/** `length` bytes that repeat nowhere soon. */
export function pattern(length: number, from = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) {
    const at = from + i;
    bytes[i] = at ^ at >>> 8 ^ at >>> 16 ^ (at >>> 12) * 7;
  }
  return bytes;
}

/** Throws when two byte strings differ, with the place (a whole difference would take minutes to print). */
export function assertBytes(actual: Uint8Array | number, expected: Uint8Array): void {
  if (typeof actual === "number") throw new Error(`${actual} instead of bytes`);
  const length = Math.min(actual.length, expected.length);
  for (let i = 0; i < length; i++) {
    if (actual[i] !== expected[i]) throw new Error(`Bytes differ from ${i} of ${length} on`);
  }
  if (actual.length !== expected.length) {
    throw new Error(`${actual.length} bytes instead of ${expected.length}`);
  }
}

/** Everything in one array. */
export function concat(pieces: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/** Reads what has arrived at a socket; the loop turns meanwhile. */
export function drain(world: World, socket: HostSocket, atLeast = 0): Uint8Array<ArrayBuffer> {
  const pieces: Uint8Array[] = [];
  let total = 0;
  for (let idle = 0; idle < (total < atLeast ? 2000 : 2);) {
    const got = socket.receive();
    if (typeof got === "number") {
      if (got === 0) break;
      idle++;
      world.turn(1);
    } else {
      pieces.push(got);
      total += got.length;
      idle = 0;
    }
  }
  return concat(pieces);
}
