// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { setOption, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET } from "../../lib/sys/socket.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { freePort, spec, SpliceWorld } from "./splice_world.ts";
import { HostSocket } from "./world.ts";

const EAGAIN = 11; // errno(3)
const CONNECTIONS = 320;
const MAX_BYTES = 400_000;
const MAX_PIECE = 70_000;
/** Rounds of a millisecond's wait at the end, when little is left to do. */
const ROUNDS = 20_000;

/** A repeatable source of numbers below `n` (Numerical Recipes' LCG). */
function randomFrom(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = Math.imul(state, 1664525) + 1013904223 >>> 0;
    return Math.floor(state / 2 ** 32 * n);
  };
}

/** Bytes that every stream is cut from, each at its own place. */
const noise = new Uint8Array(MAX_BYTES + 65_536);
{
  const random = randomFrom(1);
  for (let k = 0; k < noise.length; k++) noise[k] = random(256);
}
const piece = new Uint8Array(MAX_PIECE);

/** One end of a connection: what it sends, how it ends, and whether what it receives is right. */
class End {
  readonly socket: HostSocket;
  /** Place in {@linkcode noise} of what it sends. */
  readonly at: number;
  readonly total: number;
  /** Bytes after which it resets the connection; Infinity: never. */
  readonly resetAt: number;
  /** One of so many rounds is used to read. */
  readonly laziness: number;
  sent = 0;
  received = 0;
  shut = false;
  /** The end was received: 0, or a negative errno; null: not yet. */
  end: number | null = null;
  gone = false;

  constructor(socket: HostSocket, random: (n: number) => number) {
    this.socket = socket;
    this.at = random(65_536);
    this.total = random(4) === 0 ? random(100) : random(MAX_BYTES);
    this.resetAt = random(6) === 0 ? random(this.total + 1) : Infinity;
    this.laziness = random(5) === 0 ? 20 : 1;
    if (random(3) === 0) setOption(socket.fd, SOL_SOCKET, SO_RCVBUF, 4096 + random(60_000));
    if (random(3) === 0) setOption(socket.fd, SOL_SOCKET, SO_SNDBUF, 4096 + random(60_000));
  }

  /** Does a little of what it is to do. `other` is the end it talks to. */
  step(other: End, random: (n: number) => number): void {
    if (this.gone) return;
    if (this.sent < this.total && this.sent < this.resetAt) this.#send(random);
    if (this.sent >= this.resetAt) {
      this.socket.reset();
      this.gone = true;
      return;
    }
    if (this.sent === this.total && !this.shut) {
      this.socket.shutdown();
      this.shut = true;
    }
    if (random(this.laziness) === 0) this.#receive(other, random);
    if (this.end !== null && (this.shut || this.end < 0)) {
      this.socket.close();
      this.gone = true;
    }
  }

  #send(random: (n: number) => number): void {
    const from = this.at + this.sent;
    const most = Math.min(this.total, this.resetAt) - this.sent;
    const bytes = Math.min(most, 1 + random(MAX_PIECE));
    const sent = this.socket.send(noise.subarray(from, from + bytes));
    if (sent >= 0) this.sent += sent;
    else if (sent !== -EAGAIN) this.end = sent; // the reset of the other side
  }

  #receive(other: End, random: (n: number) => number): void {
    const got = libc.recv(this.socket.fd, piece, 1 + random(MAX_PIECE), 0);
    if (got > 0) {
      const from = other.at + this.received;
      for (let k = 0; k < got; k++) {
        if (piece[k] !== noise[from + k]) throw new Error(`Byte ${this.received + k} is wrong`);
      }
      this.received += got;
      assert(this.received <= other.sent, "more was received than sent");
    } else if (got === 0) this.end ??= 0;
    else if (errno() !== EAGAIN) this.end ??= -errno();
  }
}

function storm(pipes: number, seed: number): void {
  using world = new SpliceWorld({ capacity: CONNECTIONS, pipes });
  const random = randomFrom(seed);
  const listener = HostSocket.listen(), port = freePort();
  const before = descriptors() + 1; // the first use makes the epoll instance
  const index = world.tcp.listen(spec(port, listener.port));
  const ends: [End, End][] = [];
  const connect = () => {
    const client = HostSocket.connect(port);
    const server = world.until(() => listener.accept(), "accept");
    ends.push([new End(client, random), new End(server, random)]);
  };
  for (let round = 0, open = true; open; round++) {
    assert(round < ROUNDS, "some connections never end");
    if (ends.length < CONNECTIONS) connect();
    open = ends.length < CONNECTIONS;
    for (const [client, server] of ends) {
      client.step(server, random);
      server.step(client, random);
      open ||= !client.gone || !server.gone;
    }
    world.turn(ends.length < CONNECTIONS ? 0 : 1);
  }
  listener.close();
  world.tcp.unlisten(index);
  let whole = 0;
  for (const [a, b] of ends) {
    if (a.resetAt < Infinity || b.resetAt < Infinity) continue;
    assertEquals([a.received, b.received, a.end, b.end], [b.total, a.total, 0, 0]);
    whole++;
  }
  assert(whole > CONNECTIONS / 2);
  world.settle();
  for (let k = 0; k < 3; k++) world.second();
  assertEquals([world.table.activeCount, world.table.firstFree], [0, 0]);
  assertEquals(descriptors() - world.guest.ready, before - 1);
}

for (const [pipes, what] of [[256, "enough"], [3, "three"], [0, "no"]] as const) {
  Deno.test(`a storm of connections, half-closes and resets with ${what} pipes: every byte is right`, () => {
    storm(pipes, 20_000 + pipes);
  });
}
