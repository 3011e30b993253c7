// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Spliced TCP between real loopback sockets, driven turn by turn. Sockets of the test's own namespace
 * stand in for those of a guest.
 *
 * @module
 */
import { EventType } from "../../lib/context.ts";
import { Pif } from "../../lib/flow/side.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import type { ListenSpec } from "../../lib/forward/listener.ts";
import type { Policy } from "../../lib/forward/policy.ts";
import { GuestSockets } from "../../lib/sys/guest_sockets.ts";
import { AF_INET6, bindSocket, newSocket, SOCK_STREAM } from "../../lib/sys/socket.ts";
import { PipePool } from "../../lib/sys/splice.ts";
import { Tcp } from "../../lib/tcp/mod.ts";
import { ANY6 } from "../../lib/wire/address.ts";
import { type FakeContext, fakeContext } from "../helpers/fake_context.ts";
import { HostSocket } from "./world.ts";

/** What a loop that never comes to rest is cut off at. */
const MAX_TURNS = 100_000;
const UNTIL_TURNS = 5000;

/** One port of the host, served by `to` in the guest. */
export function spec(port: number, to: number, options: Partial<ListenSpec> = {}): ListenSpec {
  const usual = { pif: Pif.HOST, address: null, device: null, target: null, freebind: false };
  return { ...usual, port, to, ...options };
}

/** A port that was free a moment ago, in both families, as a listener without an address needs it. */
export function freePort(): number {
  using socket = new HostSocket(newSocket(AF_INET6, SOCK_STREAM, 0));
  if (bindSocket(socket.fd, ANY6, 0, 0) < 0) throw new Error("No port is free");
  return socket.port;
}

/** The instance under test. */
export class SpliceWorld {
  readonly ctx: FakeContext;
  readonly tcp: Tcp;
  readonly guest: GuestSockets = new GuestSockets((family, type, protocol, count) =>
    Array.from({ length: count }, () => newSocket(family, type, protocol))
  );
  /** Events handled so far. */
  events = 0;

  constructor(options: { capacity?: number; pipes?: number; policy?: Policy } = {}) {
    this.ctx = fakeContext({
      table: new FlowTable({ capacity: options.capacity ?? 64 }),
      guest: this.guest,
      policy: options.policy ?? null,
      features: { spliceInbound: true, hostLoToNsLo: true },
    });
    this.tcp = new Tcp(this.ctx, new PipePool(options.pipes));
  }

  get table(): FlowTable {
    return this.ctx.table;
  }

  /** One turn of the loop. @returns the number of events */
  turn(waitMs = 0): number {
    const { tcp, ctx: { epoll } } = this;
    const n = epoll.wait(tcp.timeoutMs() === 0 ? 0 : waitMs);
    for (let k = 0; k < n; k++) {
      if (epoll.type(k) === EventType.TCP_SPLICE) tcp.spliceEvent(epoll.data(k), epoll.events(k));
      else tcp.listenEvent(epoll.data(k));
    }
    this.events += n;
    tcp.turn();
    return n;
  }

  /** Turns until there is nothing to do any more. @returns the number of turns */
  settle(): number {
    for (let k = 0; k < MAX_TURNS; k++) {
      const events = this.turn();
      if (events === 0 && this.tcp.timeoutMs() !== 0) return k;
    }
    throw new Error("The loop does not come to rest");
  }

  /** Turns until `done` says so. */
  until<T>(done: () => T | null | false | undefined | 0, what: string): T {
    for (let k = 0; k < UNTIL_TURNS; k++) {
      const result = done();
      if (result) return result;
      this.turn(1);
    }
    throw new Error(`Never came true: ${what}`);
  }

  /** The table's scan and what is done once a second. */
  second(): void {
    this.ctx.nowMs += 1000;
    this.table.deferHandler(this.ctx.nowMs);
    this.ctx.closing = 0;
    this.tcp.second();
    this.settle();
  }

  /** A client and the connection that its server got, through the instance. */
  connect(v6 = false): { client: HostSocket; server: HostSocket } {
    using listener = HostSocket.listen(v6);
    const port = freePort();
    const index = this.tcp.listen(spec(port, listener.port));
    if (index < 0) throw new Error(`No listener on port ${port}: errno ${-index}`);
    const client = HostSocket.connect(port, v6);
    const server = this.until(() => listener.accept(), "accept");
    this.tcp.unlisten(index);
    this.settle();
    return { client, server };
  }

  /** Checks that nothing is left of the flows, and closes everything. */
  [Symbol.dispose](): void {
    this.second();
    this.table.verify();
    this.tcp.close();
    this.guest.close();
    this.ctx.epoll.close();
  }
}
