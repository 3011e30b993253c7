// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Two real namespaces, that of a host and that of a guest, with the splice path between them. The guest
 * has 192.0.2.2 and 2001:db8::2 on its loopback interface; the tap is a fake one.
 *
 * @module
 */
import { assert } from "@std/assert";
import { Pif } from "../../lib/flow/side.ts";
import type { ListenSpec } from "../../lib/forward/listener.ts";
import { GuestSockets, makerIn } from "../../lib/sys/guest_sockets.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import { connectSocket, setOption, SO_RCVBUFFORCE, SOL_SOCKET } from "../../lib/sys/socket.ts";
import { udpListen } from "../../lib/udp/mod.ts";
import { type UdpState, udpState } from "../../lib/udp/state.ts";
import { LOOPBACK4, LOOPBACK6 } from "../../lib/wire/address.ts";
import { address, type FakeContextOptions } from "../helpers/fake_context.ts";
import { TestNamespace } from "../helpers/enter.ts";
import { requirements } from "../helpers/require.ts";
import { freePort, Guest, HostSocket, listenOn } from "./guest.ts";

const O_CLOEXEC = 0x80000; // asm-generic/fcntl.h
/** Receive buffer of test sockets: what is lost is lost by the code under test. */
const LARGE_BUFFER = 64 << 20;

/** The families, with the guest's own address and its loopback, which is that of the host, too. */
export const FAMILIES = [
  { ip: "IPv4", own: address("192.0.2.2"), loopback: LOOPBACK4, most: 65507 },
  { ip: "IPv6", own: address("2001:db8::2"), loopback: LOOPBACK6, most: 65487 },
] as const;

/** What a {@linkcode SpliceWorld} may differ in. */
export type WorldOptions = FakeContextOptions & {
  capacity?: number;
  /** Commands for ip(8) in the guest's namespace, instead of giving its `lo` the guest's addresses. */
  commands?: string;
  /** Commands for ip(8) in the host's namespace, beside setting up its loopback. */
  hostCommands?: string;
};

const COMMANDS = `link set lo up
addr add 192.0.2.2/24 dev lo
addr add 2001:db8::2/64 dev lo nodad`;

/** Host, guest and what lies between. */
export class SpliceWorld {
  readonly guest: Guest;
  readonly namespace: TestNamespace;
  readonly state: UdpState;
  readonly #netns: number;
  readonly #sockets: HostSocket[] = [];

  /** @param namespace the guest's; the host's is the one we are in */
  constructor(namespace: TestNamespace, options: WorldOptions) {
    const path = `/run/netns/${namespace.name}\0`, { features } = options;
    this.namespace = namespace;
    this.#netns = libc.open(new TextEncoder().encode(path), O_CLOEXEC, 0);
    this.guest = new Guest({
      capacity: 4096,
      ...options,
      guest: options.guest ?? new GuestSockets(makerIn({ user: -1, net: this.#netns })),
      features: { spliceInbound: true, ...features },
    });
    this.state = udpState(this.guest.ctx);
  }

  /** A socket of the host, closed with the world. */
  host(on: Int32Array = LOOPBACK4): HostSocket {
    return this.#keep(new HostSocket(on));
  }

  /** A socket in the namespace, closed with the world. */
  inside(on: Int32Array = LOOPBACK4): HostSocket {
    return this.#keep(this.namespace.enter(() => new HostSocket(on)));
  }

  #keep(socket: HostSocket): HostSocket {
    setOption(socket.fd, SOL_SOCKET, SO_RCVBUFFORCE, LARGE_BUFFER);
    this.#sockets.push(socket);
    return socket;
  }

  /** Forwards a free port of the host to `to` of the guest. @returns port and listener */
  inbound(to: number, options: Partial<ListenSpec> = {}): { port: number; listener: number } {
    const port = freePort();
    const listener = udpListen(this.guest.ctx, listenOn(port, to, options));
    assert(listener >= 0, `errno ${listener}`);
    return { port, listener };
  }

  /** Forwards a free port of the namespace to `to` of the host. @returns port and listener */
  outbound(to: number, options: Partial<ListenSpec> = {}): { port: number; listener: number } {
    const port = this.namespace.enter(freePort);
    const at = { pif: Pif.SPLICE, device: "lo", ...options };
    const listener = udpListen(this.guest.ctx, listenOn(port, to, at));
    assert(listener >= 0, `errno ${listener}`);
    return { port, listener };
  }

  /** Runs the loop until nothing happens any more. */
  settle(): void {
    while (this.guest.turn(20) > 0);
  }

  close(): void {
    for (const socket of this.#sockets) socket.close();
    this.guest.close();
    libc.close(this.#netns);
  }
}

/** Calls `body`, which must be synchronous, in a namespace that stands for the host's. */
export async function inWorld<T>(
  body: (world: SpliceWorld) => T,
  options: WorldOptions = {},
): Promise<T> {
  await using host = await TestNamespace.create(`link set lo up\n${options.hostCommands ?? ""}`);
  await using guest = await TestNamespace.create(options.commands ?? COMMANDS);
  return host.enter(() => {
    const world = new SpliceWorld(guest, options);
    try {
      return body(world);
    } finally {
      world.close();
    }
  });
}

/** A test in a {@linkcode SpliceWorld}; its body must be synchronous. */
export function spliceTest(
  name: string,
  body: (world: SpliceWorld) => void,
  options: WorldOptions = {},
): void {
  const needs = requirements({ packages: ["iproute2"] });
  Deno.test({ name, ...needs, fn: () => inWorld(body, options) });
}

/** Connects a socket. */
export function connect(socket: HostSocket, to: Int32Array, port: number): void {
  const result = connectSocket(socket.fd, to, 0, port);
  assert(result === 0, `connect: ${result}`);
}

/** Sends by a connected socket. @returns 0 or the errno of a failure, an earlier datagram's perhaps */
export function sendConnected(socket: HostSocket, payload: Uint8Array<ArrayBuffer>): number {
  return libc.send(socket.fd, payload, payload.length, 0) < 0 ? errno() : 0;
}
