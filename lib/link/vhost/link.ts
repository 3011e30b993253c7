// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * vhost-user as link: frames cross in the guest's own memory, and only signals go through the kernel.
 *
 * Theory of operation: the front-end speaks to `control.ts` over the hypervisor's socket; what it sets up
 * is two rings, which `from_guest.ts` and `to_guest.ts` work on. Two eventfds wake us, watched for
 * edges, so that they need not be read: each kick is one. Two others wake the guest, at most once per turn
 * of the loop. Messages are only read when an event tells of them, between two batches of frames: nothing
 * is borrowed from the guest's memory then, and it can be replaced.
 *
 * As long as the guest has not set up its rings, frames to it are dropped, as if the cable was out. A
 * guest that breaks the rules of a ring has both stopped, until its driver sets the device up again; the
 * front-end is told by the err descriptor, the user by one line. When the front-end goes, all of its memory
 * and descriptors go, and the next one begins from nothing.
 *
 * @module
 */
import { getLogger } from "@std/log";
import type { Arena } from "../../sys/arena.ts";
import { monotonicMs } from "../../sys/clock.ts";
import { EPOLL } from "../../sys/epoll.ts";
import { errnoName, SysError } from "../../sys/errno.ts";
import { errno, libc } from "../../sys/libc.ts";
import type { Message } from "../../sys/message.ts";
import { RateLimit } from "../../sys/rate_limit.ts";
import { MSG_DONTWAIT, MSG_NOSIGNAL } from "../../sys/socket.ts";
import { VNET_HEADER_SIZE } from "../../sys/tun.ts";
import type { Hypervisor } from "../hypervisor.ts";
import { type Link, type LinkWatcher, RX_FRAMES } from "../link.ts";
import { Slots } from "../slots.ts";
import { Device, Feature, FROM_GUEST, Refusal, RINGS, type RingUser, TO_GUEST } from "./control.ts";
import { FromGuest } from "./from_guest.ts";
import { GuestMemory } from "./memory.ts";
import { MessageReader, Read } from "./messages.ts";
import { Queue, type Ring } from "./queue.ts";
import { ToGuest } from "./to_guest.ts";

/** What is watched; the kick of ring `k` is KICK + k. */
const LISTEN = 0, CONTROL = 1, KICK = 2;
/** Messages per event: whoever sends more waits for the others. */
const MESSAGES_PER_EVENT = 32;
const WARNINGS_PER_SECOND = 1;
/** What must be taken for super-frames of TCP and of UDP to be sent (virtio 1.1 §5.1.3.1). */
const TSO = Feature.NET_GUEST_CSUM | Feature.NET_GUEST_TSO4 | Feature.NET_GUEST_TSO6;
const USO = Feature.NET_GUEST_CSUM | Feature.NET_GUEST_USO4 | Feature.NET_GUEST_USO6;
/** Written to an eventfd (eventfd(2)). */
const ONE: Uint8Array<ArrayBuffer> = new Uint8Array(BigUint64Array.of(1n).buffer);

/** Writes to an eventfd, if there is one. One that is full wakes the reader as it is. */
function signal(fd: number): void {
  if (fd >= 0) libc.write(fd, ONE, ONE.length);
}

/** A link to a virtual machine whose hypervisor is a vhost-user front-end. */
export class VhostLink implements Link {
  readonly arena: Arena;
  readonly rxOffset: Int32Array;
  readonly rxLength: Int32Array;
  readonly rxGsoSize: Int32Array;
  readonly rxCsumStart: Int32Array;
  readonly rxCsumOffset: Int32Array;
  readonly txOffset: Int32Array;
  readonly #hypervisor: Hypervisor;
  readonly #memory = new GuestMemory();
  readonly #queues: readonly Queue[];
  readonly #fromGuest: FromGuest;
  readonly #toGuest: ToGuest;
  readonly #device: Device;
  readonly #reader = new MessageReader();
  readonly #warnings = new RateLimit(WARNINGS_PER_SECOND);
  #watcher: LinkWatcher | null = null;
  #tso = false;
  #uso = false;
  /** Per ring: whether frames may cross it. */
  readonly #enabled: boolean[] = new Array(RINGS).fill(false);
  /** Per ring: whether it was said that the guest has broken it. */
  readonly #reported: boolean[] = new Array(RINGS).fill(false);
  /** The ring to the guest while it is started. */
  #ring: Ring | null = null;
  /** Whether it was said that the link is gone. */
  #told = false;

  /** @param hypervisor owned by the link from now on */
  constructor(hypervisor: Hypervisor) {
    const slots = new Slots(VNET_HEADER_SIZE, RX_FRAMES);
    this.#hypervisor = hypervisor;
    this.#queues = Array.from({ length: RINGS }, () => new Queue(this.#memory));
    this.#fromGuest = new FromGuest(this.#queues[FROM_GUEST], this.#memory, slots);
    this.#toGuest = new ToGuest(this.#queues[TO_GUEST], this.#memory, slots);
    this.#device = new Device(this.#memory, this.#ringUser());
    this.arena = slots.arena;
    this.rxOffset = slots.rxOffset;
    this.txOffset = slots.txOffset;
    this.rxLength = this.#fromGuest.rxLength;
    this.rxGsoSize = this.#fromGuest.rxGsoSize;
    this.rxCsumStart = this.#fromGuest.rxCsumStart;
    this.rxCsumOffset = this.#fromGuest.rxCsumOffset;
  }

  get tso(): boolean {
    return this.#tso && this.#toGuest.roomy;
  }

  get uso(): boolean {
    return this.#uso && this.#toGuest.roomy;
  }

  get guests(): number {
    return this.#hypervisor.departures;
  }

  get pending(): boolean {
    return this.#fromGuest.pending || this.#hypervisor.over && !this.#told;
  }

  get writable(): boolean {
    return this.#toGuest.writable;
  }

  // ---- what the device asks of us

  #ringUser(): RingUser {
    return {
      negotiated: (features) => this.#negotiated(features),
      start: (index, ring) => this.#start(index, ring),
      stop: (index) => this.#stop(index),
      enable: (index, enabled) => this.#enable(index, enabled),
      watch: (index, fd) => this.#watcher?.add(fd, EPOLL.IN | EPOLL.ET, KICK + index) ?? 0,
      unwatch: (_index, fd) => this.#watcher?.remove(fd),
      warn: (what) => this.#warn(what),
    };
  }

  #warn(what: string): void {
    if (this.#warnings.allow(monotonicMs())) getLogger().warn(`vhost-user: ${what}`);
  }

  #negotiated(features: bigint): void {
    this.#toGuest.mergeable = (features & Feature.NET_MRG_RXBUF) !== 0n;
    this.#toGuest.checksums = (features & Feature.NET_GUEST_CSUM) !== 0n;
    this.#tso = (features & TSO) === TSO;
    this.#uso = (features & USO) === USO;
  }

  #start(index: number, ring: Ring): string {
    const queue = this.#queues[index], problem = queue.start(ring);
    if (problem !== "") return problem;
    this.#reported[index] = false;
    if (index === TO_GUEST) {
      this.#ring = ring;
      if (!this.#enabled[index]) queue.stop();
    }
    this.#kicked(index); // whoever kicked before was not heard
    return "";
  }

  #stop(index: number): number {
    this.#flush(index);
    let base = this.#queues[index].stop();
    this.#kicked(index); // nothing is reserved, nothing is waited for
    if (index === TO_GUEST) {
      if (!this.#enabled[index] && this.#ring !== null) base = this.#ring.base;
      this.#ring = null;
    }
    return base;
  }

  /**
   * Frames to the guest are dropped while its ring is disabled: it is not worked on. The other one is,
   * and what comes from it is dropped (vhost-user, "Ring states").
   */
  #enable(index: number, enabled: boolean): void {
    if (this.#enabled[index] === enabled) return;
    this.#enabled[index] = enabled;
    const ring = this.#ring, queue = this.#queues[index];
    if (index === FROM_GUEST || ring === null) return;
    if (enabled) queue.start(ring);
    else {
      this.#flush(index);
      ring.base = queue.stop();
    }
    this.#kicked(index);
  }

  #kicked(index: number): void {
    if (index === FROM_GUEST) this.#fromGuest.kicked();
    else this.#toGuest.kicked();
  }

  #flush(index: number): void {
    const call = index === FROM_GUEST ? this.#fromGuest.flush() : this.#toGuest.flush();
    if (call) signal(this.#device.call(index));
  }

  // ---- the connection

  watch(watcher: LinkWatcher): void {
    const { listenFd, fd } = this.#hypervisor;
    this.#watcher = watcher;
    let result = listenFd < 0 ? 0 : watcher.add(listenFd, EPOLL.IN, LISTEN);
    if (result === 0 && fd >= 0) result = watcher.add(fd, EPOLL.IN, CONTROL);
    if (result < 0) throw new SysError("epoll_ctl", "hypervisor", -result);
  }

  event(kind: number): boolean {
    switch (kind) {
      case LISTEN:
        if (this.#hypervisor.gone) this.#disconnect("");
        if (this.#hypervisor.accept()) this.#connected();
        return false;
      case CONTROL:
        this.#readMessages();
        return false; // `pending` tells
      default:
        this.#kicked(kind - KICK);
        return kind - KICK === FROM_GUEST;
    }
  }

  #connected(): void {
    const result = this.#watcher?.add(this.#hypervisor.fd, EPOLL.IN, CONTROL) ?? 0;
    if (result < 0) return this.#disconnect(`: epoll_ctl: ${errnoName(-result)}`);
    getLogger().info("Hypervisor connected");
  }

  /** Lets go of the front-end, and of all it has given us. */
  #disconnect(why: string): void {
    const { fd } = this.#hypervisor;
    if (fd < 0) return;
    this.#device.reset();
    this.#reader.next();
    this.#watcher?.remove(fd);
    this.#hypervisor.disconnect();
    getLogger().info(`Hypervisor disconnected${why}`);
  }

  #readMessages(): void {
    const reader = this.#reader, { fd } = this.#hypervisor;
    if (fd < 0) return;
    for (let k = 0; k < MESSAGES_PER_EVENT; k++) {
      const state = reader.read(fd);
      if (state === Read.WAIT) return;
      if (state === Read.END) return this.#disconnect("");
      if (state === Read.BROKEN) return this.#end(reader.problem);
      if (!this.#answer(fd)) return;
      reader.next();
    }
  }

  /** The front-end does what cannot be gone on from. */
  #end(why: string): void {
    this.#warn(`${why}: the connection is ended`);
    this.#disconnect("");
  }

  /** Deals with a whole message. @returns whether the connection is still there */
  #answer(fd: number): boolean {
    try {
      const reply = this.#device.handle(this.#reader);
      if (reply === null) return true;
      const sent = libc.send(fd, reply, reply.length, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent === reply.length) return true;
      this.#disconnect(sent < 0 ? `: send: ${errnoName(errno())}` : ": it does not read replies");
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#end(error.message);
    }
    return false;
  }

  /** Gives up the rings if the guest has broken one. */
  #checkRings(): void {
    for (let index = 0; index < RINGS; index++) {
      const { broken } = this.#queues[index];
      if (broken === "" || this.#reported[index]) continue;
      this.#reported.fill(true); // both are stopped
      this.#warn(`the guest has broken ring ${index} (${broken}): the device is stopped`);
      signal(this.#device.err(index));
      this.#device.halt();
      return;
    }
  }

  // ---- frames

  receive(max: number): number {
    const n = this.#fromGuest.receive(max);
    if (n > 0 && !this.#enabled[FROM_GUEST]) {
      this.#fromGuest.release();
      return 0;
    }
    if (n > 0 || !this.#hypervisor.over) return n;
    this.#told = true;
    return -1;
  }

  release(): void {
    this.#fromGuest.release();
  }

  gather(message: Message, piece: number, off: number, length: number): number {
    return this.#fromGuest.gather(message, piece, off, length);
  }

  fetch(off: number, length: number): void {
    this.#fromGuest.fetch(off, length);
  }

  place(message: Message, piece: number, slot: number, headers: number, length: number): number {
    return this.#toGuest.place(message, piece, slot, headers, length);
  }

  send(
    slot: number,
    length: number,
    headerLength: number,
    csumStart: number,
    csumOffset: number,
    gsoType: number,
    gsoSize: number,
  ): number {
    return this.#toGuest.send(
      slot,
      length,
      headerLength,
      csumStart,
      csumOffset,
      gsoType,
      gsoSize,
    );
  }

  flush(): void {
    for (let index = 0; index < RINGS; index++) this.#flush(index);
    this.#checkRings();
  }

  close(): void {
    this.#disconnect("");
    this.#hypervisor.close();
  }
}
