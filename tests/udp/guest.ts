// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A guest on a fake link whose UDP and ping are served by the real code over the host's loopback:
 * 192.0.2.1 and 2001:db8::1 stand for 127.0.0.1 and ::1.
 *
 * @module
 */
import { type Context, EventType } from "../../lib/context.ts";
import { Pif } from "../../lib/flow/side.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import type { ListenSpec } from "../../lib/forward/listener.ts";
import { pingEvent, pingFromTap, pingInit } from "../../lib/icmp/mod.ts";
import { ETH_HEADER_SIZE } from "../../lib/link/link.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import {
  bindSocket,
  familyOf,
  newSocket,
  readSockaddr,
  SOCK_DGRAM,
  socketAddress,
  writeSockaddr,
} from "../../lib/sys/socket.ts";
import { pingState } from "../../lib/icmp/state.ts";
import {
  udpEvent,
  udpFlush,
  udpFromTap,
  udpInit,
  udpListenEvent,
  udpUnlisten,
} from "../../lib/udp/mod.ts";
import { udpState } from "../../lib/udp/state.ts";
import { isV4, LOOPBACK4, LOOPBACK6 } from "../../lib/wire/address.ts";
import { pseudoSum, transportChecksum } from "../../lib/wire/checksum.ts";
import { ETH_P_IP, ETH_P_IPV6, writeEthernet } from "../../lib/wire/ethernet.ts";
import { IPV4_HEADER_SIZE, writeIpv4 } from "../../lib/wire/ipv4.ts";
import { IPV6_HEADER_SIZE, writeIpv6 } from "../../lib/wire/ipv6.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { UDP_HEADER_SIZE, writeUdpHeader } from "../../lib/wire/udp.ts";
import {
  address,
  type FakeContext,
  fakeContext,
  type FakeContextOptions,
} from "../helpers/fake_context.ts";
import { FakeLink } from "../helpers/fake_link.ts";

const UDP = 17;

/** What a frame from the guest may differ in. */
export interface FrameOptions {
  ttl?: number;
  dontFragment?: boolean;
}

/** An Ethernet frame with an IP packet that carries `l4`; checksums are the caller's business. */
export function ipFrame(
  ctx: Context,
  src: string,
  dst: string,
  proto: number,
  l4: Uint8Array,
  options: FrameOptions = {},
): Uint8Array<ArrayBuffer> {
  const [from, to] = [address(src), address(dst)];
  const v4 = isV4(from), ttl = options.ttl ?? 64;
  const header = v4 ? IPV4_HEADER_SIZE : IPV6_HEADER_SIZE;
  const frame = new Uint8Array(ETH_HEADER_SIZE + header + l4.length);
  const view = new DataView(frame.buffer), l3 = ETH_HEADER_SIZE;
  writeEthernet(view, 0, ctx.ourMac, ctx.guestMac, v4 ? ETH_P_IP : ETH_P_IPV6);
  if (v4) {
    const df = options.dontFragment ?? true;
    writeIpv4(view, l3, header + l4.length, proto, ttl, 0, df, from, 0, to, 0);
  } else writeIpv6(view, l3, l4.length, proto, ttl, 0, from, 0, to, 0);
  frame.set(l4, l3 + header);
  return frame;
}

/** A UDP datagram from the guest. */
export function udpFrame(
  ctx: Context,
  src: string,
  sport: number,
  dst: string,
  dport: number,
  payload: Uint8Array,
  options: FrameOptions = {},
): Uint8Array<ArrayBuffer> {
  const l4 = new Uint8Array(UDP_HEADER_SIZE + payload.length), view = new DataView(l4.buffer);
  writeUdpHeader(view, 0, sport, dport, l4.length, 0);
  l4.set(payload, UDP_HEADER_SIZE);
  const initial = pseudoSum(address(src), 0, address(dst), 0, UDP, l4.length);
  view.setUint16(6, transportChecksum(view, 0, l4.length, UDP, initial));
  return ipFrame(ctx, src, dst, UDP, l4, options);
}

/** A datagram as a socket of the host received it. */
export interface Received {
  payload: Uint8Array;
  port: number;
  from: Int32Array;
}

/** A socket on the host's loopback. */
export class HostSocket {
  readonly fd: number;
  readonly port: number;
  readonly #buffer = new Uint8Array(70000);
  readonly #name = new Uint8Array(28);
  readonly #nameView = new DataView(this.#name.buffer);

  constructor(on: Int32Array = LOOPBACK4, type: number = SOCK_DGRAM, protocol = 0) {
    this.fd = newSocket(familyOf(on, 0), type, protocol);
    if (this.fd < 0 || bindSocket(this.fd, on, 0, 0) < 0) throw new Error(`bind: ${errno()}`);
    this.port = socketAddress(this.fd, new Int32Array(4), 0);
  }

  /** The next datagram, or null when there is none. */
  receive(): Received | null {
    const length = Uint32Array.of(28);
    const n = libc.recvfrom(this.fd, this.#buffer, this.#buffer.length, 0, this.#name, length);
    if (n < 0) return null;
    const from = new Int32Array(4);
    const port = readSockaddr(this.#nameView, 0, from, 0);
    return { payload: this.#buffer.slice(0, n), port, from };
  }

  /** All datagrams there are. */
  receiveAll(): Received[] {
    const all: Received[] = [];
    for (let one = this.receive(); one; one = this.receive()) all.push(one);
    return all;
  }

  send(payload: Uint8Array<ArrayBuffer>, port: number, to: Int32Array = LOOPBACK4): number {
    const bytes = writeSockaddr(this.#nameView, 0, to, 0, port);
    return libc.sendto(this.fd, payload, payload.length, 0, this.#name, bytes);
  }

  close(): void {
    libc.close(this.fd);
  }
}

/** The guest and what serves it. */
export class Guest {
  readonly ctx: FakeContext;
  readonly link: FakeLink;
  readonly packet: Packet = new Packet();

  constructor(options: FakeContextOptions & { uso?: boolean; capacity?: number } = {}) {
    this.link = new FakeLink({ uso: options.uso ?? true });
    const table = new FlowTable({ capacity: options.capacity ?? 64 });
    this.ctx = fakeContext({ mtu: 65520, ...options, link: this.link, table });
    udpInit(this.ctx);
    pingInit(this.ctx);
  }

  /** Frames arrive from the guest, up to 16 in one batch. */
  send(frames: Uint8Array[], gsoSize = 0): void {
    const { ctx, link, packet } = this, view = link.arena.dv;
    frames.forEach((frame, slot) => {
      const off = link.load(frame, slot);
      if (!parseIp(view, off, frame.length, packet)) return;
      if (packet.proto === UDP) udpFromTap(ctx, packet, gsoSize);
      else pingFromTap(ctx, packet);
    });
    udpFlush(ctx);
  }

  /** Handles events until `enough`, or for `ms` milliseconds. */
  poll(enough: () => boolean = () => false, ms = 1000): boolean {
    const end = performance.now() + ms;
    while (!enough()) {
      const left = end - performance.now();
      if (left <= 0) return false;
      this.turn(Math.ceil(Math.min(left, 50)));
    }
    return true;
  }

  /** One turn of the event loop. */
  turn(timeoutMs = 0): number {
    const { ctx } = this, { epoll } = ctx;
    const n = epoll.wait(timeoutMs);
    for (let k = 0; k < n; k++) {
      const [type, data, events] = [epoll.type(k), epoll.data(k), epoll.events(k)];
      if (type === EventType.UDP) udpEvent(ctx, data, events);
      else if (type === EventType.UDP_LISTEN) udpListenEvent(ctx, data, events);
      else pingEvent(ctx, type, data, events);
    }
    return n;
  }

  /** Waits for `n` frames and takes them. */
  frames(n: number, ms = 5000): Uint8Array<ArrayBuffer>[] {
    this.poll(() => this.link.sent.length >= n, ms);
    return this.link.take();
  }

  /** Lets the clock run `seconds` ahead and the table scan. */
  pass(seconds: number): void {
    this.ctx.nowMs += seconds * 1000;
    this.ctx.table.deferHandler(this.ctx.nowMs);
  }

  close(): void {
    udpState(this.ctx).listeners.forEach((_, index) => udpUnlisten(this.ctx, index));
    this.pass(1000);
    for (const { raw } of [pingState(this.ctx).v4, pingState(this.ctx).v6]) {
      if (raw >= 0) libc.close(raw);
    }
    for (const raw of udpState(this.ctx).splice.raw) if (raw >= 0) libc.close(raw);
    this.ctx.guest?.close();
    this.ctx.epoll.close();
  }
}

/** A port of the host on all addresses, of both families; or what `options` say instead. */
export function listenOn(port: number, to: number, options: Partial<ListenSpec> = {}): ListenSpec {
  return {
    pif: Pif.HOST,
    address: null,
    device: null,
    port,
    to,
    target: null,
    freebind: false,
    ...options,
  };
}

/** A free port of the host: taken and given back. */
export function freePort(): number {
  const socket = new HostSocket(address("::"));
  socket.close();
  return socket.port;
}

/** Some bytes that differ with `seed`. */
export function bytes(n: number, seed = 1): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: n }, (_, i) => (i * 7 + seed) & 0xff);
}

/** Our two loopback addresses with the guest's names for them. */
export const PATHS = [
  { guest: "192.0.2.2", name: "192.0.2.1", host: LOOPBACK4, ip: "IP" },
  { guest: "2001:db8::2", name: "2001:db8::1", host: LOOPBACK6, ip: "IPv6" },
] as const;
