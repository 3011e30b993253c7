// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * TCP listeners on the host and in the guest's namespace.
 *
 * Theory of operation: one socket per port, dual-stack where the kernel has IPv6, watched
 * edge-triggered and emptied on each event. A listener on which very many wait gives way to others
 * after a while and goes on in the next turn. What is accepted goes to the guest, through the tap
 * (`setup.ts`) or to a socket in its namespace (`splice.ts`), or from there to a socket of the host, as
 * address mapping and, for what the guest begins, the policy decide. What it has to think about waits (`held.ts`).
 *
 * A connection that fails is its client's affair; the listener goes on. At the descriptor limit a spare
 * descriptor is given up for a moment to accept and reset what waits: clients see a refusal instead of a
 * connection that hangs, and old connections go on. When not even that is possible, or the kernel is out
 * of memory, the listener is looked at again when a connection has ended, and otherwise every second.
 *
 * @module
 */
import { getLogger } from "@std/log";
import { EventType } from "../context.ts";
import { Pif } from "../flow/side.ts";
import { bindListener, type ListenSpec } from "../forward/listener.ts";
import { natFromHost, natFromSplice } from "../forward/nat.ts";
import type { Deciding } from "../forward/deciding.ts";
import { admit, Verdict } from "../forward/policy.ts";
import { EPOLL } from "../sys/epoll.ts";
import { E, errnoName } from "../sys/errno.ts";
import { errno, libc } from "../sys/libc.ts";
import {
  acceptSocket,
  closeWithReset,
  IPPROTO_TCP,
  SOCK_STREAM,
  socketAddress,
} from "../sys/socket.ts";
import type { Address } from "../wire/address.ts";
import { HeldConnections } from "./held.ts";
import { connectToGuest, OUT_OF_DESCRIPTORS } from "./setup.ts";
import { prepareSpliced, spliceAccepted } from "./splice.ts";
import type { SpliceState } from "./splice_state.ts";
import type { TcpState } from "./state.ts";

const BACKLOG = 4096; // somaxconn of socket(7) cuts it
/** Connections accepted from one listener before others have their turn. */
const ACCEPTS_PER_TURN = 64;

const EPOLL_CLOEXEC = 0x80000; // sys/epoll.h

/** Words of a listener. */
const WORDS = 4;
/** its socket; -1: the entry is unused */
const FD = 0;
/** port on the other side; of an unused entry, the next such entry, -1: none */
const TO = 1, NEXT = 1;
/** whose port it is: `Pif.HOST` or `Pif.SPLICE` */
const PIF = 2;
/** 1 while it is in a list of listeners to go on with */
const LISTED = 3;

/** Listeners there is room for at first. */
const FIRST_CAPACITY = 64;

/** A descriptor that is good for nothing but being closed, and holds nothing of anybody's. */
function spareDescriptor(): number {
  return libc.epoll_create1(EPOLL_CLOEXEC);
}

/** Whether accept(2) failed for a reason that has to do with one connection only (accept(2), NOTES). */
function concernsOne(result: number): boolean {
  switch (-result) {
    case E.ECONNABORTED:
    case E.EINTR:
    case E.EPROTO:
    case E.EPERM:
    case E.ENETDOWN:
    case E.ENETUNREACH:
    case E.EHOSTDOWN:
    case E.EHOSTUNREACH:
      return true;
  }
  return false;
}

/** The listeners of one instance. */
export class Listeners {
  readonly #tcp: TcpState;
  readonly #splice: SpliceState;
  #words: Int32Array<ArrayBuffer> = new Int32Array(FIRST_CAPACITY * WORDS);
  /** Per listener: address on the other side that was given. */
  readonly #targets: (Address | null)[] = [];
  /** The unused entry that is taken next; -1: none before the end of `#targets`. */
  #unused = -1;
  /** Listeners to go on with in the next turn; `#next` takes its place meanwhile. */
  #again: number[] = [];
  #next: number[] = [];
  /** Listeners to go on with when something was freed, or in a second. */
  readonly #starved: number[] = [];
  readonly #addresses: Int32Array<ArrayBuffer> = new Int32Array(8);
  readonly #peerPort: Int32Array<ArrayBuffer> = new Int32Array(1);
  /** Connections that are not decided on yet; null: there never was one. */
  #held: HeldConnections | null = null;
  /** A descriptor to give up when none is left. */
  #spare = spareDescriptor();

  constructor(tcp: TcpState, splice: SpliceState) {
    this.#tcp = tcp;
    this.#splice = splice;
  }

  /**
   * Listens on a port.
   *
   * @returns index of the listener, for {@linkcode Listeners.close}; or a negative errno
   */
  open(spec: ListenSpec): number {
    const { ctx } = this.#tcp;
    const fd = bindListener(ctx, spec, SOCK_STREAM, prepareSpliced);
    if (fd < 0) return fd;
    const index = this.#unused >= 0 ? this.#unused : this.#targets.length;
    let result = libc.listen(fd, BACKLOG) < 0 ? -errno() : 0;
    if (result >= 0) {
      result = ctx.epoll.add(fd, EPOLL.IN | EPOLL.ET, EventType.TCP_LISTEN, index);
    }
    if (result < 0) {
      libc.close(fd);
      return result;
    }
    this.#enter(index, fd, spec);
    return index;
  }

  #enter(index: number, fd: number, spec: ListenSpec): void {
    const at = index * WORDS;
    if (index === this.#unused) this.#unused = this.#words[at + NEXT];
    else if (at === this.#words.length) {
      const words = new Int32Array(2 * at);
      words.set(this.#words);
      this.#words = words;
    }
    this.#targets[index] = spec.target;
    this.#words[at + FD] = fd;
    this.#words[at + TO] = spec.to;
    this.#words[at + PIF] = spec.pif;
    this.#words[at + LISTED] = 0;
  }

  /** Stops listening; connections stay. Harmless when that was done, or there is no such listener. */
  close(index: number): void {
    const fd = this.#fdOf(index);
    if (fd < 0) return;
    libc.close(fd);
    this.#words[index * WORDS + FD] = -1;
    this.#words[index * WORDS + NEXT] = this.#unused;
    this.#unused = index;
  }

  /** The listener's socket, or -1. */
  #fdOf(index: number): number {
    return index < this.#targets.length ? this.#words[index * WORDS + FD] : -1;
  }

  /** Accepts what waits on a listener. An event for one that was closed, or replaced, is harmless. */
  event(index: number): void {
    const fd = this.#fdOf(index);
    if (fd < 0) return;
    for (let k = 0; k < ACCEPTS_PER_TURN; k++) {
      let result = acceptSocket(fd, this.#addresses, 0, this.#peerPort);
      if (result >= 0) this.#accepted(index, result);
      else if (result === -E.EMFILE || result === -E.ENFILE) result = this.#refuse(fd);
      if (result === -E.EAGAIN) return;
      if (result < 0 && !concernsOne(result)) return this.#starve(index, result);
    }
    this.#list(index, this.#again);
  }

  #accepted(index: number, fd: number): void {
    const { ctx, ini, tgt } = this.#tcp;
    const port = socketAddress(fd, this.#addresses, 4);
    if (port < 0) return closeWithReset(fd);
    const at = index * WORDS, to = this.#words[at + TO], target = this.#targets[index];
    ini.pif = this.#words[at + PIF];
    ini.setEndpoint(this.#addresses, 0, this.#peerPort[0]);
    ini.setOur(this.#addresses, 4, port);
    const fromGuest = ini.pif === Pif.SPLICE;
    const known = fromGuest
      ? natFromSplice(ctx, ini, tgt, to, target)
      : natFromHost(ctx, ini, tgt, to, target);
    if (!known) closeWithReset(fd);
    else if (fromGuest) this.#fromGuest(fd);
    else if (tgt.pif === Pif.TAP) connectToGuest(this.#tcp, fd);
    else spliceAccepted(this.#splice, fd, ini, tgt);
  }

  /** A connection from the guest, between the sides in `ini` and `tgt`, goes on if the policy lets it. */
  #fromGuest(fd: number): void {
    const { ctx, ini, tgt } = this.#tcp, deciding = ctx.policy?.deciding ?? null;
    if (deciding !== null) deciding.patient = this.#held?.hasRoom(ctx.nowMs) ?? true;
    const verdict = admit(ctx, IPPROTO_TCP, ini, tgt);
    if (deciding !== null) deciding.patient = true;
    if (verdict === Verdict.ALLOW) spliceAccepted(this.#splice, fd, ini, tgt);
    else if (verdict !== Verdict.HOLD || deciding === null) closeWithReset(fd);
    else if (!this.#heldFor(deciding).keep(deciding.place, fd, ini, tgt)) closeWithReset(fd);
  }

  #heldFor(deciding: Deciding): HeldConnections {
    if (this.#held !== null) return this.#held;
    this.#held = new HeldConnections();
    deciding.questions.onDrop(this.#held);
    return this.#held;
  }

  /** The question at a place was answered: the connection that waits for that, if there is one, goes on. */
  answered(place: number): void {
    const fd = this.#held?.take(place, this.#tcp.ini, this.#tcp.tgt) ?? -1;
    if (fd >= 0) this.#fromGuest(fd);
  }

  /** Whether connections wait for an answer. */
  get holding(): boolean {
    return this.#held !== null && this.#held.count > 0;
  }

  /**
   * Out of descriptors: accepts one connection on the spare one, only to reset it.
   *
   * @returns 0 or a negative errno
   */
  #refuse(listener: number): number {
    if (this.#spare < 0) this.#spare = spareDescriptor();
    if (this.#spare < 0) return -E.EMFILE;
    libc.close(this.#spare);
    const fd = acceptSocket(listener, this.#addresses, 0, this.#peerPort);
    if (fd >= 0) {
      closeWithReset(fd);
      this.#warn(OUT_OF_DESCRIPTORS);
    }
    this.#spare = spareDescriptor();
    return Math.min(fd, 0);
  }

  /** Nothing can be accepted for now. No event will tell of those who wait: asks again later. */
  #starve(index: number, result: number): void {
    this.#warn(`Connections wait: accept: ${errnoName(-result)}`);
    this.#list(index, this.#starved);
  }

  #list(index: number, list: number[]): void {
    const at = index * WORDS + LISTED;
    if (this.#words[at] !== 0) return;
    this.#words[at] = 1;
    list.push(index);
  }

  #warn(what: string): void {
    const { ctx, warnings } = this.#tcp;
    if (warnings.allow(ctx.nowMs)) getLogger().warn(what);
  }

  /** Whether some listeners are to be gone on with in the next turn. */
  get pending(): boolean {
    return this.#again.length > 0;
  }

  /** Whether some listeners were short of something: {@linkcode Listeners.retry} is to be called. */
  get starved(): boolean {
    return this.#starved.length > 0;
  }

  /** Has listeners that were short of something gone on with in the next turn. */
  retry(): void {
    while (this.#starved.length > 0) this.#again.push(this.#starved.pop()!);
  }

  /** Goes on with listeners that gave way to others. */
  turn(): void {
    if (this.#starved.length > 0 && this.#tcp.ctx.closing > 0) this.retry();
    if (this.#again.length === 0) return;
    const list = this.#again;
    this.#again = this.#next;
    this.#next = list;
    for (let k = 0; k < list.length; k++) {
      this.#words[list[k] * WORDS + LISTED] = 0;
      this.event(list[k]);
    }
    list.length = 0;
  }

  /** Closes all listeners. */
  closeAll(): void {
    for (let index = 0; index < this.#targets.length; index++) this.close(index);
    this.#held?.dropAll();
    if (this.#spare >= 0) libc.close(this.#spare);
    this.#spare = -1;
  }
}
