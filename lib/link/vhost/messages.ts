// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The messages of the vhost-user protocol (QEMU, docs/interop/vhost-user.rst), taken off a stream.
 *
 * Theory of operation: a message is a header of three words, request, flags and size, and that many
 * bytes of payload; all in host order. The stream may be torn anywhere. Descriptors come beside the
 * bytes, with a byte of the message they belong to; as no more is asked of the kernel than what one
 * message still lacks, they cannot get into the next. A message is only looked at when it is whole; its
 * descriptors that nobody took are closed with {@linkcode MessageReader.next}.
 *
 * A message that is out of form ends the connection: where the next one begins is not known then.
 *
 * @module
 */
import { E } from "../../sys/errno.ts";
import { DescriptorInbox } from "../../sys/fd_passing.ts";
import { MAX_REGIONS, type RegionDescription } from "./memory.ts";

/** Requests of the front-end (vhost-user, "Front-end message types"). */
export const Request = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  RESET_OWNER: 4,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_LOG_FD: 7,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  SET_VRING_ERR: 14,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
  SET_BACKEND_REQ_FD: 21,
  IOTLB_MSG: 22,
  SET_VRING_ENDIAN: 23,
  GET_CONFIG: 24,
  SET_CONFIG: 25,
  CREATE_CRYPTO_SESSION: 26,
  CLOSE_CRYPTO_SESSION: 27,
  POSTCOPY_ADVISE: 28,
  POSTCOPY_LISTEN: 29,
  POSTCOPY_END: 30,
  GET_INFLIGHT_FD: 31,
  SET_INFLIGHT_FD: 32,
  GPU_SET_SOCKET: 33,
  RESET_DEVICE: 34,
  VRING_KICK: 35,
  GET_MAX_MEM_SLOTS: 36,
  ADD_MEM_REG: 37,
  REM_MEM_REG: 38,
  SET_STATUS: 39,
  GET_STATUS: 40,
  GET_SHARED_OBJECT: 41,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
} as const;

const NAMES = new Map<number, string>(Object.entries(Request).map(([name, n]) => [n, name]));

/** Name of a request, or its number. */
export function requestName(request: number): string {
  return NAMES.get(request) ?? `request ${request}`;
}

/** Bytes of the header, and where its words are. */
export const HEADER_SIZE = 12;
const REQUEST = 0, FLAGS = 4, SIZE = 8;
const VERSION = 1; // bits 0 and 1
const VERSION_MASK = 3;
const FLAG_REPLY = 1 << 2;
const FLAG_NEED_REPLY = 1 << 3;

/** A region in a table: guest address, size, user address, offset in the file. */
const REGION_SIZE = 32;
/** Before the first: number of regions, padding. */
const TABLE_SIZE = 8;
/** The largest payload we take: none that is known for a network device is larger. */
export const MAX_PAYLOAD = 512;
/** The largest number of descriptors beside one message. */
export const MAX_FDS: number = MAX_REGIONS;

const U64_SIZE = 8;
const STATE_SIZE = 8; // index, number
const ADDRESS_SIZE = 40; // index, flags, four addresses
/** Payload and descriptors of what is understood. */
const FORMS = new Map<number, readonly [bytes: number, fds: number]>([
  [Request.GET_FEATURES, [0, 0]],
  [Request.SET_FEATURES, [U64_SIZE, 0]],
  [Request.SET_OWNER, [0, 0]],
  [Request.RESET_OWNER, [0, 0]],
  [Request.SET_VRING_NUM, [STATE_SIZE, 0]],
  [Request.SET_VRING_ADDR, [ADDRESS_SIZE, 0]],
  [Request.SET_VRING_BASE, [STATE_SIZE, 0]],
  [Request.GET_VRING_BASE, [STATE_SIZE, 0]],
  [Request.GET_PROTOCOL_FEATURES, [0, 0]],
  [Request.SET_PROTOCOL_FEATURES, [U64_SIZE, 0]],
  [Request.GET_QUEUE_NUM, [0, 0]],
  [Request.SET_VRING_ENABLE, [STATE_SIZE, 0]],
]);

/** Bit of SET_VRING_KICK, CALL and ERR that says that there is no descriptor. */
const NO_FD = 1n << 8n;
const INDEX_MASK = 0xffn;

/** Where a ring lies: user addresses (struct vhost_vring_addr of linux/vhost_types.h). */
export interface RingAddresses {
  readonly flags: number;
  readonly descriptors: bigint;
  readonly used: bigint;
  readonly available: bigint;
}

/** What {@linkcode MessageReader.read} has come to. */
export const Read = {
  /** The message is whole, and has the form of its request. */
  WHOLE: 0,
  /** There is nothing more to read now. */
  WAIT: 1,
  /** The front-end has closed the connection. */
  END: 2,
  /** The message is out of form: see {@linkcode MessageReader.problem}. */
  BROKEN: 3,
} as const;

/** Takes one message after the other off a socket. */
export class MessageReader {
  /** What is wrong with the message. */
  problem = "";
  readonly #inbox = new DescriptorInbox(HEADER_SIZE + MAX_PAYLOAD, MAX_FDS);
  readonly #view = this.#inbox.view;
  #have = 0;

  /** The request; see {@linkcode Request}. */
  get request(): number {
    return this.#view.getUint32(REQUEST, true);
  }

  /** Bytes of payload. */
  get size(): number {
    return this.#view.getUint32(SIZE, true);
  }

  /** Whether the front-end wants to know how it went. */
  get needReply(): boolean {
    return (this.#view.getUint32(FLAGS, true) & FLAG_NEED_REPLY) !== 0;
  }

  /** Reads what the message still lacks, without blocking. @returns one of {@linkcode Read} */
  read(socket: number): number {
    for (;;) {
      const need = this.#have < HEADER_SIZE ? HEADER_SIZE : HEADER_SIZE + this.size;
      if (this.#have === need) return this.#broken(this.#contentProblem());
      const got = this.#inbox.receive(socket, this.#have, need - this.#have);
      if (got === -E.EAGAIN || got === -E.EINTR) return Read.WAIT;
      if (got <= 0) return Read.END;
      this.#have += got;
      if (this.#have === HEADER_SIZE) {
        const problem = this.#headerProblem();
        if (problem !== "") return this.#broken(problem);
      }
    }
  }

  #broken(problem: string): number {
    this.problem = problem;
    return problem === "" ? Read.WHOLE : Read.BROKEN;
  }

  #headerProblem(): string {
    const flags = this.#view.getUint32(FLAGS, true), { request, size } = this;
    if (!NAMES.has(request)) return `unknown request ${request}`;
    if ((flags & VERSION_MASK) !== VERSION) return `version ${flags & VERSION_MASK}`;
    if (flags & ~(VERSION_MASK | FLAG_NEED_REPLY)) return `flags 0x${flags.toString(16)}`;
    return size > MAX_PAYLOAD ? `${requestName(request)} of ${size} bytes` : "";
  }

  /** What is wrong with size or descriptors of a whole message. */
  #contentProblem(): string {
    const { request, size } = this, name = requestName(request), fds = this.#inbox.count;
    if (this.#inbox.lost) return `${name} with descriptors that are not taken`;
    const form = this.#form();
    if (form === null) return "";
    if (size !== form[0]) return `${name} of ${size} bytes`;
    return fds === form[1] ? "" : `${name} with ${fds} descriptors`;
  }

  /** Bytes and descriptors that this very message must have; null: whatever it likes. */
  #form(): readonly [number, number] | null {
    switch (this.request) {
      case Request.SET_MEM_TABLE: {
        const regions = this.size < TABLE_SIZE ? 0 : this.#view.getUint32(HEADER_SIZE, true);
        return [TABLE_SIZE + regions * REGION_SIZE, regions];
      }
      case Request.SET_VRING_KICK:
      case Request.SET_VRING_CALL:
      case Request.SET_VRING_ERR:
        return [U64_SIZE, this.size < U64_SIZE || this.u64 & NO_FD ? 0 : 1];
      default:
        return FORMS.get(this.request) ?? null;
    }
  }

  /** The payload as one number. */
  get u64(): bigint {
    return this.#view.getBigUint64(HEADER_SIZE, true);
  }

  /** Index of the ring that SET_VRING_KICK, CALL or ERR is about. */
  get fdIndex(): number {
    return Number(this.u64 & INDEX_MASK);
  }

  /** Index of the ring that other messages are about. */
  get index(): number {
    return this.#view.getUint32(HEADER_SIZE, true);
  }

  /** The number beside the index. */
  get number(): number {
    return this.#view.getUint32(HEADER_SIZE + 4, true);
  }

  /** The addresses in SET_VRING_ADDR. */
  addresses(): RingAddresses {
    const view = this.#view, at = HEADER_SIZE;
    return {
      flags: view.getUint32(at + 4, true),
      descriptors: view.getBigUint64(at + 8, true),
      used: view.getBigUint64(at + 16, true),
      available: view.getBigUint64(at + 24, true),
    };
  }

  /** The regions in SET_MEM_TABLE. */
  regions(): RegionDescription[] {
    const view = this.#view, table: RegionDescription[] = [];
    for (let at = HEADER_SIZE + TABLE_SIZE; at < HEADER_SIZE + this.size; at += REGION_SIZE) {
      table.push({
        guestAddress: view.getBigUint64(at, true),
        size: view.getBigUint64(at + 8, true),
        userAddress: view.getBigUint64(at + 16, true),
        mmapOffset: view.getBigUint64(at + 24, true),
      });
    }
    return table;
  }

  /** Takes the message's descriptors: they are the caller's, to keep or to close. */
  takeFds(): number[] {
    return this.#inbox.take();
  }

  /** Done with the message, whole or not: what is read next begins another one. */
  next(): void {
    this.#inbox.clear();
    this.#have = 0;
  }
}

/** Writes the header of a reply. */
function replyHeader(view: DataView, request: number, size: number): void {
  view.setUint32(REQUEST, request, true);
  view.setUint32(FLAGS, VERSION | FLAG_REPLY, true);
  view.setUint32(SIZE, size, true);
}

/**
 * A reply of one number.
 *
 * @example
 * ```ts
 * import { replyU64, Request } from "./messages.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const reply = replyU64(Request.SET_OWNER, 1n);
 * assertEquals([...reply], [3, 0, 0, 0, 5, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
 * ```
 */
export function replyU64(request: number, value: bigint): Uint8Array<ArrayBuffer> {
  const reply = new Uint8Array(HEADER_SIZE + U64_SIZE), view = new DataView(reply.buffer);
  replyHeader(view, request, U64_SIZE);
  view.setBigUint64(HEADER_SIZE, value, true);
  return reply;
}

/** A reply of a ring's index and a number. */
export function replyState(request: number, index: number, value: number): Uint8Array<ArrayBuffer> {
  const reply = new Uint8Array(HEADER_SIZE + STATE_SIZE), view = new DataView(reply.buffer);
  replyHeader(view, request, STATE_SIZE);
  view.setUint32(HEADER_SIZE, index, true);
  view.setUint32(HEADER_SIZE + 4, value, true);
  return reply;
}
