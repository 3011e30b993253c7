// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The event loop: waits, dispatches, does what was put off, and waits again.
 *
 * Theory of operation: everything is synchronous. One turn fetches events, hands each to its protocol
 * by the type in its reference, reads one batch of frames from the guest, and then lets TCP finish what
 * the batch began (acknowledgements, data to the guest). Flows that ended stay in the table until its
 * scan, which runs once a second, or sooner when many have ended; so an index in an event that was
 * fetched before its flow ended still names that flow, closed. With no flow there is nothing to time
 * and the loop sleeps until something happens.
 *
 * A packet from the guest goes: {@linkcode Loop.run} → `#readLink` → `#frame` → `#ip` → `fromTap` of
 * `tcp/mod.ts`, `udp/mod.ts` or `icmp/mod.ts`, or a service in `services/`.
 *
 * @module
 */
import { type Context, EventType, type Family } from "./context.ts";
import type { Deciding } from "./forward/deciding.ts";
import { pingEvent, pingFromTap, pingInit } from "./icmp/mod.ts";
import { RX_FRAMES } from "./link/link.ts";
import { handleArp } from "./services/arp.ts";
import { handleDhcp } from "./services/dhcp.ts";
import { handleDhcpv6 } from "./services/dhcpv6.ts";
import { handleNdp } from "./services/ndp.ts";
import { monotonicMs } from "./sys/clock.ts";
import { Tcp } from "./tcp/mod.ts";
import { udpEvent, udpFlush, udpFromTap, udpInit, udpListenEvent } from "./udp/mod.ts";
import {
  copyAddress,
  isBroadcast,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  sameAddress,
} from "./wire/address.ts";
import { ETH_P_ARP, ETH_SOURCE, etherType, isGroupMac, loadMac, sameMac } from "./wire/ethernet.ts";
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from "./wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "./wire/ipv6.ts";
import { DEST, Packet, parseIp, SOURCE } from "./wire/packet.ts";
import { checkUdp, udpDestPort } from "./wire/udp.ts";

/** Longest time between two scans of the flow table while it has flows. */
const SCAN_MS = 1000;
/** A scan is due when one flow in this many has ended. */
const CLOSING_SHARE = 8;
/** How long data that the command left behind may take, and how often that is looked at. */
const DRAIN_MS = 2000;
const DRAIN_STEP_MS = 10;
const DHCP_SERVER_PORT = 67; // RFC 2131 §4.1
const DHCPV6_SERVER_PORT = 547; // RFC 8415 §7.2

/** What the loop does for its owner; each may end it by returning an exit code. */
export interface LoopHandlers {
  /** The signal pipe is readable. */
  signal(): number | null;
  /** Descriptor that tells of the command's end. */
  readonly childFd: number;
  /** The command has ended. */
  child(): number | null;
  /** The tap is gone. Null: the loop goes on without it, for the command's sake. */
  linkLost(): number | null;
  /** Who is told of events on a controller's socket; null or absent: there is none. */
  readonly control?: LoopControl | null;
}

/** The conversation with a controller; it may end the loop by an exit code, too. */
export interface LoopControl {
  /** Its socket has something, or room again. */
  event(): number | null;
  /** The turn is over: what was said in it can go out. */
  flush(): number | null;
}

/** Has the link's descriptors watched, for {@linkcode Loop.run}. @throws SysError */
export function watchLink({ epoll, link }: Context): void {
  link.watch({
    add: (fd, events, kind) => epoll.add(fd, events, EventType.LINK, kind),
    modify: (fd, events, kind) => epoll.modify(fd, events, EventType.LINK, kind),
    remove: (fd) => epoll.remove(fd),
  });
}

/** The loop of one instance. */
export class Loop {
  readonly tcp: Tcp;
  readonly #ctx: Context;
  readonly #handlers: LoopHandlers;
  readonly #packet = new Packet();
  readonly #deciding: Deciding | null;
  /** `Link.guests` as it was when something was decided. */
  #guests = 0;
  #scanAt = 0;
  #exit: number | null = null;
  #draining = false;
  #drainUntil = 0;
  #everySecond: (() => void) | null = null;

  constructor(ctx: Context, handlers: LoopHandlers) {
    this.#ctx = ctx;
    this.#handlers = handlers;
    this.#deciding = ctx.policy?.deciding ?? null;
    this.tcp = new Tcp(ctx);
    udpInit(ctx);
    pingInit(ctx);
  }

  /** Has something done once a second from now on. */
  everySecond(task: () => void): void {
    this.#everySecond = task;
  }

  /** Runs until a handler gives an exit code, and returns it. */
  run(): number {
    const { epoll, link } = this.#ctx;
    for (;;) {
      const n = epoll.wait(this.#timeoutMs());
      this.#ctx.nowMs = monotonicMs();
      let frames = false;
      for (let k = 0; k < n; k++) {
        const type = epoll.type(k);
        if (type !== EventType.LINK) this.#dispatch(type, epoll.data(k), epoll.events(k));
        else if (link.event(epoll.data(k), epoll.events(k))) frames = true;
      }
      if (this.#deciding !== null) this.#decided(this.#deciding);
      if (frames || link.pending) this.#readLink();
      this.tcp.turn();
      this.#scan();
      link.flush();
      if (this.#handlers.control) this.#end(this.#handlers.control.flush());
      if (this.#exit !== null && this.#drained()) return this.#exit;
    }
  }

  /**
   * Whether the loop may end. A command that has ended may have left data in its kernel, which goes on
   * sending it as long as we do: it gets a moment for that.
   */
  #drained(): boolean {
    const now = this.#ctx.nowMs;
    if (!this.#draining) return true;
    if (this.#drainUntil === 0) this.#drainUntil = now + DRAIN_MS;
    return now >= this.#drainUntil || !this.tcp.unsettled();
  }

  #timeoutMs(): number {
    if (this.#draining) return DRAIN_STEP_MS;
    const { table, guest, link } = this.#ctx;
    if (link.pending || this.#deciding !== null && this.#deciding.questions.readyCount > 0) {
      return 0;
    }
    const tcp = this.tcp.timeoutMs();
    const timed = table.activeCount > 0 || this.#everySecond !== null || this.tcp.timed ||
      guest !== null && guest.ready > 0 ||
      this.#deciding !== null && this.#deciding.questions.timed;
    if (tcp === 0 || !timed) return tcp;
    const scan = Math.max(0, Math.ceil(this.#scanAt - monotonicMs()));
    return tcp < 0 ? scan : Math.min(tcp, scan);
  }

  #dispatch(type: number, data: number, events: number): void {
    switch (type) {
      case EventType.TCP:
        return this.tcp.event(data, events);
      case EventType.TCP_SPLICE:
        return this.tcp.spliceEvent(data, events);
      case EventType.TCP_LISTEN:
        return this.tcp.listenEvent(data);
      case EventType.UDP:
        return udpEvent(this.#ctx, data, events);
      case EventType.UDP_LISTEN:
        return udpListenEvent(this.#ctx, data, events);
      case EventType.PING:
      case EventType.PING_RAW:
        return pingEvent(this.#ctx, type, data, events);
      case EventType.SIGNAL:
        this.#signalled();
        return;
      case EventType.CHILD:
        this.#commandEnded();
        return;
      case EventType.CONTROL:
        this.#end(this.#handlers.control!.event());
        return;
    }
  }

  /** A signal ends the loop at once, also while it drains. */
  #signalled(): void {
    this.#end(this.#handlers.signal());
  }

  /** Ends the loop at once, if there is an exit code. */
  #end(code: number | null): void {
    if (code === null) return;
    this.#draining = false;
    this.#exit ??= code;
  }

  #commandEnded(): void {
    if (this.#exit !== null) return;
    this.#exit = this.#handlers.child();
    this.#draining = this.#exit !== null;
    if (this.#draining) this.#ctx.epoll.remove(this.#handlers.childFd);
  }

  /** Frees flows that have ended, and once a second does what is timed. */
  #scan(): void {
    const ctx = this.#ctx, { table } = ctx;
    const due = ctx.nowMs >= this.#scanAt;
    const many = ctx.closing * CLOSING_SHARE > table.activeCount ||
      ctx.closing > 0 && table.firstFree >= table.capacity;
    if (!due && !many) return;
    if (table.activeCount > 0) {
      table.deferHandler(ctx.nowMs);
      ctx.closing = 0;
    }
    if (!due) return;
    this.#scanAt = ctx.nowMs + SCAN_MS;
    ctx.guest?.tick(ctx.nowMs);
    this.#deciding?.questions.expire(ctx.nowMs);
    this.tcp.second();
    if (this.#everySecond !== null) this.#everySecond();
  }

  /** Handles one batch of frames; epoll tells of more. */
  #readLink(): void {
    const ctx = this.#ctx, { link } = ctx;
    const n = link.receive(RX_FRAMES);
    if (n < 0) {
      this.#exit ??= this.#handlers.linkLost();
      return;
    }
    const { rxOffset, rxLength, rxGsoSize } = link;
    for (let k = 0; k < n; k++) this.#frame(rxOffset[k], rxLength[k], rxGsoSize[k]);
    this.tcp.flush();
    udpFlush(ctx);
    link.release();
  }

  /** Goes on with flows that the policy had to think about. What another guest has sent is nothing to this one. */
  #decided(deciding: Deciding): void {
    const { guests } = this.#ctx.link;
    if (guests !== this.#guests) {
      this.#guests = guests;
      deciding.questions.endAll();
    }
    if (deciding.questions.readyCount > 0) this.#replay(deciding);
  }

  /** What flows have sent that were answered comes in again. */
  #replay({ questions, frames }: Deciding): void {
    const ctx = this.#ctx, { link } = ctx, slot = link.txOffset[0]; // nobody builds a frame there now
    for (let k = questions.readyCount; k > 0; k--) {
      const place = questions.nextReady(ctx.nowMs);
      if (place < 0) continue;
      for (let frame = frames.detach(place); frame >= 0;) {
        const next = frames.after(frame);
        this.#again(slot, frames.take(frame, link, slot), frames.gsoSize);
        this.tcp.flush();
        udpFlush(ctx);
        frame = next;
      }
      this.tcp.answered(place);
    }
  }

  /** Handles the frame at an offset of the link's arena. */
  #frame(off: number, length: number, gsoSize: number): void {
    const ctx = this.#ctx;
    const view = ctx.link.arena.dv;
    if (isGroupMac(view, off + ETH_SOURCE) || sameMac(view, off + ETH_SOURCE, ctx.ourMac)) return;
    if (!sameMac(view, off + ETH_SOURCE, ctx.guestMac)) {
      loadMac(view, off + ETH_SOURCE, ctx.guestMac);
    }
    if (etherType(view, off) === ETH_P_ARP) return handleArp(ctx, off, length);
    const packet = this.#packet;
    if (!parseIp(view, off, length, packet)) return;
    const family = packet.version === 4 ? ctx.ip4 : ctx.ip6;
    if (!family) return;
    // no such packet crosses a link (RFC 1122 §3.2.1.3, RFC 4291 §2.5.3): it would reach the host's own
    if (isLoopback(packet.addresses, SOURCE) || isLoopback(packet.addresses, DEST)) return;
    learnAddress(family, packet.addresses);
    this.#ip(packet, off, gsoSize);
  }

  /** Handles a frame that was found in order once. What the guest is called by now is not in it. */
  #again(off: number, length: number, gsoSize: number): void {
    const packet = this.#packet;
    if (parseIp(this.#ctx.link.arena.dv, off, length, packet)) this.#ip(packet, off, gsoSize);
  }

  #ip(packet: Packet, off: number, gsoSize: number): void {
    const ctx = this.#ctx, { features } = ctx;
    switch (packet.proto) {
      case IPPROTO_TCP:
        if (features.tcp) this.tcp.fromTap(packet);
        return;
      case IPPROTO_UDP:
        return this.#udp(packet, off, gsoSize);
      case IPPROTO_ICMP:
        if (features.icmp && packet.version === 4) pingFromTap(ctx, packet);
        return;
      case IPPROTO_ICMPV6:
        if (packet.version !== 6 || handleNdp(ctx, packet, off)) return;
        if (features.icmp) pingFromTap(ctx, packet);
        return;
    }
  }

  #udp(packet: Packet, off: number, gsoSize: number): void {
    const ctx = this.#ctx, view = ctx.link.arena.dv;
    const payload = checkUdp(view, packet);
    if (payload < 0) return;
    const port = udpDestPort(view, packet.l4);
    if (port === DHCP_SERVER_PORT && handleDhcp(ctx, packet, payload, off)) return;
    if (port === DHCPV6_SERVER_PORT && handleDhcpv6(ctx, packet, payload, off)) return;
    if (ctx.features.udp) udpFromTap(ctx, packet, gsoSize);
  }
}

/** Remembers which address the guest uses: where connections from the host go. */
function learnAddress(family: Family, words: Int32Array): void {
  const seen = isLinkLocal(words, SOURCE) ? family.linkLocalSeen : family.addrSeen;
  if (sameAddress(words, SOURCE, seen, 0)) return;
  if (isUnspecified(words, SOURCE) || isMulticast(words, SOURCE)) return;
  if (isBroadcast(words, SOURCE)) return;
  copyAddress(seen, 0, words, SOURCE);
}
