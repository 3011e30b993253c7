// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A virtio network device as a vhost-user back-end: what was agreed on with the front-end, and how far
 * its two rings are set up.
 *
 * Theory of operation: the front-end reads what we offer and sets what it takes of it, passes the guest's
 * memory, and then, for each ring, its size, place, index to begin with, and descriptors: *kick*, from
 * the guest, which says that there are buffers; *call*, to the guest, which says that buffers were used;
 * *err*, which says that we have given up. With the kick descriptor, which comes last, a ring is
 * started; GET_VRING_BASE stops it. Whether it is enabled is another matter: a ring that is started and
 * disabled lets nothing through.
 *
 * A request that cannot be met is refused: with REPLY_ACK, a front-end that wants to know is told, and
 * goes on; else the connection ends. Not offered, so refused too: more queues than one pair, polling
 * instead of kicks, packed rings, dirty logs and device state for migration (QEMU does not even try
 * to migrate a device that does not offer them), an IOMMU, memory slots beyond the table's.
 *
 * @module
 */
import { errnoName, SysError } from "../../sys/errno.ts";
import { setNonBlocking } from "../../sys/descriptors.ts";
import { libc } from "../../sys/libc.ts";
import type { GuestMemory } from "./memory.ts";
import {
  type MessageReader,
  replyState,
  replyU64,
  Request,
  requestName,
  type RingAddresses,
} from "./messages.ts";
import { availBytes, descBytes, MAX_QUEUE_SIZE, type Ring, usedBytes } from "./queue.ts";

/** Ring indices of a network device without multiqueue (virtio 1.1 §5.1.2). */
export const TO_GUEST = 0;
export const FROM_GUEST = 1;
/** Number of rings. */
export const RINGS = 2;

/** Feature bits that we know (linux/virtio_net.h, linux/virtio_ring.h, linux/virtio_config.h). */
export const Feature = {
  NET_CSUM: 1n << 0n,
  NET_GUEST_CSUM: 1n << 1n,
  NET_GUEST_TSO4: 1n << 7n,
  NET_GUEST_TSO6: 1n << 8n,
  NET_HOST_TSO4: 1n << 11n,
  NET_HOST_TSO6: 1n << 12n,
  NET_MRG_RXBUF: 1n << 15n,
  RING_INDIRECT_DESC: 1n << 28n,
  RING_EVENT_IDX: 1n << 29n,
  /** vhost-user, "Communication". */
  PROTOCOL_FEATURES: 1n << 30n,
  VERSION_1: 1n << 32n,
  NET_GUEST_USO4: 1n << 54n,
  NET_GUEST_USO6: 1n << 55n,
  NET_HOST_USO: 1n << 56n,
} as const;

/** All that is offered. */
export const OFFERED: bigint = Object.values(Feature).reduce((all, bit) => all | bit);
/** Either makes the header in front of frames 12 bytes long (virtio 1.1 §5.1.6.1). */
const LONG_HEADER = Feature.VERSION_1 | Feature.NET_MRG_RXBUF;
/** VHOST_USER_PROTOCOL_F_REPLY_ACK (vhost-user, "Protocol features"). */
export const REPLY_ACK: bigint = 1n << 3n;
/** Queue pairs (GET_QUEUE_NUM). */
const QUEUE_PAIRS = 1n;
/** Replies to SET_DEVICE_STATE_FD: an error, and no descriptor; others: an error. */
const STATE_REFUSED = 0x101n;
const REFUSED = 1n;
const INDEX_MASK = 0xffff;

/** A request that cannot be met, and why. */
export class Refusal extends Error {
  override readonly name = "Refusal";
}

/** Who moves the frames. */
export interface RingUser {
  /** Other features are agreed on from now on; no ring is started. */
  negotiated(features: bigint): void;
  /** Begins to use a ring. @returns "", or why it is refused */
  start(index: number, ring: Ring): string;
  /** Ends its use: none of its memory may be touched afterwards. @returns the next available index */
  stop(index: number): number;
  /** Frames may cross the ring, or not any more. */
  enable(index: number, enabled: boolean): void;
  /** Has a kick descriptor watched. @returns 0 or a negative errno */
  watch(index: number, fd: number): number;
  /** Ends that; the descriptor is closed afterwards. */
  unwatch(index: number, fd: number): void;
  /** Tells the user of something that was refused. */
  warn(what: string): void;
}

/** One ring, as the front-end has set it up. */
interface RingState {
  size: number;
  addresses: RingAddresses | null;
  base: number;
  kick: number;
  call: number;
  err: number;
  enabled: boolean;
  started: boolean;
}

/**
 * What `--print-capabilities` writes: type of the device, as JSON (vhost-user, "Backend program
 * conventions"; the schema is QEMU's docs/interop/vhost-user.json).
 *
 * @example
 * ```ts
 * import { capabilities } from "./control.ts";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(JSON.parse(capabilities()), { type: "net" });
 * ```
 */
export function capabilities(): string {
  return JSON.stringify({ type: "net" }, null, 2);
}

/** The device; one for all connections, reset between them. */
export class Device {
  /** What the guest has taken of {@linkcode OFFERED}. */
  features = 0n;
  #protocol = 0n;
  #negotiated = false;
  readonly #memory: GuestMemory;
  readonly #user: RingUser;
  readonly #rings: RingState[] = [];

  constructor(memory: GuestMemory, user: RingUser) {
    this.#memory = memory;
    this.#user = user;
    for (let k = 0; k < RINGS; k++) {
      const ring = { size: 0, addresses: null, base: 0, kick: -1, call: -1, err: -1 };
      this.#rings.push({ ...ring, enabled: false, started: false });
    }
  }

  /** Descriptor to write to when buffers of a ring were used; -1: the guest does not want to know. */
  call(index: number): number {
    return this.#rings[index].call;
  }

  /** Descriptor to write to when a ring was given up, or -1. */
  err(index: number): number {
    return this.#rings[index].err;
  }

  /**
   * Does what a message asks for.
   *
   * @returns the reply to send, if any
   * @throws Refusal when it cannot be met, and the connection is to end
   */
  handle(message: MessageReader): Uint8Array<ArrayBuffer> | null {
    const { request } = message;
    try {
      const reply = this.#dispatch(message);
      return reply ?? (this.#wantsReply(message) ? replyU64(request, 0n) : null);
    } catch (error) {
      if (!(error instanceof Refusal) && !(error instanceof SysError)) throw error;
      const what = `${requestName(request)} refused: ${error.message}`;
      if (!this.#wantsReply(message)) throw new Refusal(what);
      this.#user.warn(what);
      return replyU64(request, REFUSED);
    }
  }

  #wantsReply(message: MessageReader): boolean {
    return message.needReply && (this.#protocol & REPLY_ACK) !== 0n;
  }

  #dispatch(message: MessageReader): Uint8Array<ArrayBuffer> | null {
    const { request } = message;
    switch (request) {
      case Request.GET_FEATURES:
        return replyU64(request, OFFERED);
      case Request.GET_PROTOCOL_FEATURES:
        return replyU64(request, REPLY_ACK);
      case Request.GET_QUEUE_NUM:
        return replyU64(request, QUEUE_PAIRS);
      case Request.SET_OWNER: // whoever connects owns the device
      case Request.RESET_OWNER: // no longer used: to be ignored
        return null;
      case Request.SET_FEATURES:
        return this.#setFeatures(message.u64);
      case Request.SET_PROTOCOL_FEATURES:
        return this.#setProtocolFeatures(message.u64);
      case Request.SET_MEM_TABLE:
        return this.#setMemory(message);
      case Request.GET_VRING_BASE:
        return this.#getBase(message.index);
      case Request.SET_VRING_NUM:
      case Request.SET_VRING_ADDR:
      case Request.SET_VRING_BASE:
      case Request.SET_VRING_ENABLE:
        return this.#setRing(message);
      case Request.SET_VRING_KICK:
      case Request.SET_VRING_CALL:
      case Request.SET_VRING_ERR:
        return this.#setDescriptor(message);
      case Request.SET_DEVICE_STATE_FD:
      case Request.CHECK_DEVICE_STATE:
        return this.#refuseState(request);
      case Request.SET_LOG_BASE:
      case Request.SET_LOG_FD:
        throw new Refusal("migration is not supported");
      default:
        throw new Refusal("it was not offered");
    }
  }

  /** These have replies of their own. */
  #refuseState(request: number): Uint8Array<ArrayBuffer> {
    this.#user.warn(`${requestName(request)} refused: migration is not supported`);
    return replyU64(request, request === Request.SET_DEVICE_STATE_FD ? STATE_REFUSED : REFUSED);
  }

  #setFeatures(features: bigint): null {
    if (this.#negotiated && features === this.features) return null;
    const unknown = features & ~OFFERED;
    if (unknown !== 0n) throw new Refusal(`features 0x${unknown.toString(16)} were not offered`);
    if (this.#rings.some(({ started }) => started)) throw new Refusal("a ring is in use");
    this.features = features;
    this.#negotiated = true;
    this.#user.negotiated(features);
    if ((features & Feature.PROTOCOL_FEATURES) === 0n) {
      for (let index = 0; index < RINGS; index++) this.#enable(index, true);
    }
    return null;
  }

  #setProtocolFeatures(features: bigint): null {
    const unknown = features & ~REPLY_ACK;
    if (unknown !== 0n) throw new Refusal(`features 0x${unknown.toString(16)} were not offered`);
    this.#protocol = features;
    return null;
  }

  /** New memory. Rings in use move over to it, where they still lie in it. */
  #setMemory(message: MessageReader): null {
    const fds = message.takeFds();
    const started = this.#rings.map((ring) => ring.started);
    try {
      for (let index = 0; index < RINGS; index++) this.#stop(index);
      this.#memory.set(message.regions(), fds);
    } finally {
      for (const fd of fds) libc.close(fd);
      for (let index = 0; index < RINGS; index++) if (started[index]) this.#start(index);
    }
    return null;
  }

  /** @throws Refusal when there is no such ring */
  #ring(index: number): RingState {
    if (index >= RINGS) throw new Refusal(`there is no ring ${index}`);
    return this.#rings[index];
  }

  #getBase(index: number): Uint8Array<ArrayBuffer> {
    const ring = this.#ring(index);
    this.#stop(index);
    this.#dropKick(index);
    return replyState(Request.GET_VRING_BASE, index, ring.base);
  }

  #setRing(message: MessageReader): null {
    const { request, index, number } = message, ring = this.#ring(index);
    if (request === Request.SET_VRING_ENABLE) {
      if (number > 1) throw new Refusal(`neither on nor off: ${number}`);
      this.#enable(index, number === 1);
      return null;
    }
    if (ring.started) throw new Refusal(`ring ${index} is in use`);
    if (request === Request.SET_VRING_NUM) ring.size = checkedSize(number);
    else if (request === Request.SET_VRING_BASE) ring.base = checkedBase(number);
    else {
      const addresses = message.addresses();
      if (addresses.flags !== 0) throw new Refusal("migration is not supported");
      ring.addresses = addresses;
    }
    return null;
  }

  #enable(index: number, enabled: boolean): void {
    this.#rings[index].enabled = enabled;
    this.#user.enable(index, enabled);
  }

  #setDescriptor(message: MessageReader): null {
    const { request, fdIndex: index } = message, ring = this.#ring(index);
    const fd = message.takeFds()[0] ?? -1;
    try {
      if (fd >= 0) setNonBlocking(fd);
      if (request === Request.SET_VRING_KICK) this.#setKick(index, fd);
    } catch (error) {
      if (fd >= 0 && ring.kick !== fd) libc.close(fd);
      throw error;
    }
    if (request === Request.SET_VRING_CALL) replaceFd(ring, "call", fd);
    else if (request === Request.SET_VRING_ERR) replaceFd(ring, "err", fd);
    return null;
  }

  /** A ring's last piece: it is started. @throws Refusal the descriptor is ours only when it is `kick` */
  #setKick(index: number, fd: number): void {
    const ring = this.#rings[index];
    if (fd < 0) throw new Refusal("polling instead of kicks is not supported");
    this.#dropKick(index);
    const result = this.#user.watch(index, fd);
    if (result < 0) throw new Refusal(`its descriptor cannot be watched: ${errnoName(-result)}`);
    ring.kick = fd;
    if (!ring.started) this.#start(index);
  }

  #dropKick(index: number): void {
    const ring = this.#rings[index];
    if (ring.kick < 0) return;
    this.#user.unwatch(index, ring.kick);
    libc.close(ring.kick);
    ring.kick = -1;
  }

  /** Starts a ring that is all set up. @throws Refusal when it is not */
  #start(index: number): void {
    const ring = this.#rings[index], { size, addresses, base } = ring;
    if (this.#negotiated && (this.features & LONG_HEADER) === 0n) {
      this.#user.warn(
        "the guest's driver knows neither virtio 1.0 nor mergeable buffers: no network",
      );
      return; // its choice, which must not cost the hypervisor the connection
    }
    if (!this.#negotiated) throw new Refusal("features were not agreed on");
    if (size === 0 || addresses === null) throw new Refusal(`ring ${index} is not set up`);
    const desc = this.#memory.user(addresses.descriptors, descBytes(size));
    const avail = this.#memory.user(addresses.available, availBytes(size));
    const used = this.#memory.user(addresses.used, usedBytes(size));
    if (!desc || !avail || !used) throw new Refusal(`ring ${index} is not in the guest's memory`);
    const eventIdx = (this.features & Feature.RING_EVENT_IDX) !== 0n;
    const indirect = (this.features & Feature.RING_INDIRECT_DESC) !== 0n;
    const problem = this.#user.start(index, { size, desc, avail, used, base, eventIdx, indirect });
    if (problem !== "") throw new Refusal(`ring ${index}: ${problem}`);
    ring.started = true;
  }

  #stop(index: number): void {
    const ring = this.#rings[index];
    if (!ring.started) return;
    ring.base = this.#user.stop(index);
    ring.started = false;
  }

  /** Gives all rings up, as the guest has broken the rules: they have to be set up anew. */
  halt(): void {
    for (let index = 0; index < RINGS; index++) this.#stop(index);
  }

  /** The front-end has gone: everything is as it was before it came. */
  reset(): void {
    for (const [index, ring] of this.#rings.entries()) {
      this.#stop(index);
      this.#dropKick(index);
      replaceFd(ring, "call", -1);
      replaceFd(ring, "err", -1);
      this.#enable(index, false);
      Object.assign(ring, { size: 0, addresses: null, base: 0 });
    }
    this.#memory.clear();
    this.features = this.#protocol = 0n;
    this.#negotiated = false;
    this.#user.negotiated(0n);
  }
}

/** Replaces a descriptor of a ring; the old one is closed. */
function replaceFd(ring: RingState, which: "call" | "err", fd: number): void {
  if (ring[which] >= 0) libc.close(ring[which]);
  ring[which] = fd;
}

/** @throws Refusal when no ring can have that many descriptors (virtio 1.1 §2.6) */
function checkedSize(size: number): number {
  const isPower = size > 0 && size <= MAX_QUEUE_SIZE && (size & (size - 1)) === 0;
  if (!isPower) throw new Refusal(`${size} descriptors`);
  return size;
}

/** @throws Refusal when the reserved bits are not 0 */
function checkedBase(base: number): number {
  if (base > INDEX_MASK) throw new Refusal(`index ${base}`);
  return base;
}
