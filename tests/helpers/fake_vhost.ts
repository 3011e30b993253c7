// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A vhost-user front-end that can do what a real one never would, and the guest's memory and rings as
 * the front-end and the guest's driver see them.
 *
 * It writes messages byte by byte from the protocol's description (QEMU, docs/interop/vhost-user.rst)
 * and uses nothing of `lib/link/vhost`.
 *
 * @module
 */
import { Arena } from "../../lib/sys/arena.ts";
import { check, E } from "../../lib/sys/errno.ts";
import { cmsghdr, iovec, msghdr } from "../../lib/sys/layout.ts";
import { errno, libc } from "../../lib/sys/libc.ts";
import { cmsgSpace, writeCmsg } from "../../lib/sys/message_vector.ts";
import {
  AF_UNIX,
  MSG_DONTWAIT,
  MSG_NOSIGNAL,
  SOCK_NONBLOCK,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../../lib/sys/socket.ts";

const SCM_RIGHTS = 1; // linux/socket.h
const MFD_CLOEXEC = 1, MFD_ALLOW_SEALING = 2; // linux/memfd.h
const EFD_CLOEXEC = 0x80000, EFD_NONBLOCK = 0x800; // sys/eventfd.h
/** asm/unistd_64.h, asm-generic/unistd.h */
const CALLS = {
  x86_64: { memfdCreate: 319n, eventfd2: 290n },
  aarch64: { memfdCreate: 279n, eventfd2: 19n },
}[Deno.build.arch];
/** More than the protocol allows. */
const MOST_FDS = 64;
const READ_SIZE = 4096;
const HEADER = 12;

/** Numbers of requests, by name (vhost-user, "Front-end message types"). */
export const REQ = {
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
  GET_CONFIG: 24,
  ADD_MEM_REG: 37,
  SET_DEVICE_STATE_FD: 42,
  CHECK_DEVICE_STATE: 43,
} as const;
/** Flags of a request: version 1; that, and NEED_REPLY. */
export const V1 = 1, V1_ACK = 9;

/** Closes descriptors. */
export function closeAll(fds: readonly number[]): void {
  for (const fd of fds) libc.close(fd);
}

/** A new eventfd. */
export function newEventfd(): number {
  const fd = libc.syscall(CALLS.eventfd2, 0n, BigInt(EFD_CLOEXEC | EFD_NONBLOCK), 0n, 0n, 0n);
  return check(Number(fd), "eventfd");
}

/** Adds one to an eventfd. */
export function kick(fd: number): void {
  libc.write(fd, new Uint8Array(BigUint64Array.of(1n).buffer), 8);
}

/** An eventfd's counter, which is 0 then. */
export function takeEvents(fd: number): number {
  const counter = new BigUint64Array(1);
  return libc.read(fd, new Uint8Array(counter.buffer), 8) === 8 ? Number(counter[0]) : 0;
}

/** A new file in memory, of so many bytes. */
export function newMemfd(bytes: number): number {
  const name = new TextEncoder().encode("guest\0");
  const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(name)));
  const flags = BigInt(MFD_CLOEXEC | MFD_ALLOW_SEALING);
  const fd = Number(libc.syscall(CALLS.memfdCreate, address, flags, 0n, 0n, 0n));
  check(fd, "memfd_create");
  check(libc.ftruncate(fd, BigInt(bytes)), "ftruncate");
  return fd;
}

/** Guest memory in a file, as its owner sees it. */
export class FakeMemory {
  readonly fd: number;
  readonly size: number;
  readonly u8: Uint8Array<ArrayBuffer>;
  readonly dv: DataView<ArrayBuffer>;
  readonly #base: bigint;

  constructor(size: number) {
    this.fd = newMemfd(size);
    this.size = size;
    this.#base = libc.mmap(0n, BigInt(size), 3, 1, this.fd, 0n);
    if (this.#base === 0xffffffffffffffffn) throw new Error("mmap");
    const pointer = Deno.UnsafePointer.create(this.#base)!;
    const buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, size);
    this.u8 = new Uint8Array(buffer);
    this.dv = new DataView(buffer);
  }

  close(): void {
    libc.munmap(this.#base, BigInt(this.size));
    libc.close(this.fd);
  }
}

/** One region of a memory table. */
export interface FakeRegion {
  guest: bigint;
  size: bigint;
  user: bigint;
  offset: bigint;
}

/** Payload of SET_MEM_TABLE. */
export function memoryTable(
  regions: readonly FakeRegion[],
  count: number = regions.length,
): Uint8Array<ArrayBuffer> {
  const words = regions.flatMap(({ guest, size, user, offset }) => [guest, size, user, offset]);
  return bytesOf(BigUint64Array.of(BigInt(count), ...words));
}

/** A typed array's bytes. */
export function bytesOf(array: ArrayBufferView<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Payload of one 64-bit number. */
export function u64(value: bigint | number): Uint8Array<ArrayBuffer> {
  return bytesOf(BigUint64Array.of(BigInt(value)));
}

/** Payload of an index and a number. */
export function state(index: number, number: number): Uint8Array<ArrayBuffer> {
  return bytesOf(Uint32Array.of(index, number));
}

/** Payload of SET_VRING_ADDR. */
export function ringAddress(
  index: number,
  { desc, used, avail, flags = 0 }: { desc: bigint; used: bigint; avail: bigint; flags?: number },
): Uint8Array<ArrayBuffer> {
  const head = BigInt(index) | BigInt(flags) << 32n;
  return bytesOf(BigUint64Array.of(head, desc, used, avail, 0n));
}

/** A whole message. */
export function message(
  request: number,
  payload: Uint8Array = new Uint8Array(0),
  { flags = V1, size = payload.length } = {},
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER + payload.length);
  bytes.set(bytesOf(Uint32Array.of(request, flags, size)));
  bytes.set(payload, HEADER);
  return bytes;
}

/** What came back. */
export interface Reply {
  request: number;
  flags: number;
  payload: Uint8Array<ArrayBuffer>;
}

/** What all front-ends send from: an arena is never given back. */
const arena = new Arena(2 * READ_SIZE);
const data = arena.alloc(READ_SIZE), control = arena.alloc(cmsgSpace(MOST_FDS * 4));
const iov = arena.alloc(iovec.size), header = arena.alloc(msghdr.size);

/** The front-end's end of the connection. */
export class FakeFrontEnd {
  readonly fd: number;
  /** Whether the back-end has closed the connection. */
  ended = false;
  #received: number[] = [];

  /** @param fd connected socket, closed by {@linkcode close} */
  constructor(fd: number) {
    this.fd = fd;
  }

  /** A front-end, and the descriptor that the back-end gets. */
  static pair(): { front: FakeFrontEnd; fd: number } {
    const fds = new Int32Array(2);
    check(libc.socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), "socketpair");
    return { front: new FakeFrontEnd(fds[0]), fd: fds[1] };
  }

  /** Sends bytes, and descriptors beside them, which stay open here. @returns bytes sent, or -1 */
  raw(bytes: Uint8Array, fds: readonly number[] = []): number {
    arena.u8.set(bytes, data);
    arena.setIovec(iov, data, bytes.length);
    arena.u8.fill(0, header, header + msghdr.size);
    arena.set64(header + msghdr.at.msg_iov, arena.address(iov));
    arena.set64(header + msghdr.at.msg_iovlen, 1);
    if (fds.length > 0) {
      const at = writeCmsg(arena, control, SOL_SOCKET, SCM_RIGHTS, fds.length * 4);
      fds.forEach((fd, k) => arena.dv.setInt32(at + 4 * k, fd, true));
      arena.set64(header + msghdr.at.msg_control, arena.address(control));
      arena.set64(header + msghdr.at.msg_controllen, cmsghdr.size + fds.length * 4);
    }
    return libc.sendmsg(this.fd, arena.view(header, msghdr.size), MSG_DONTWAIT | MSG_NOSIGNAL);
  }

  /** Sends a message. */
  send(
    request: number,
    payload?: Uint8Array,
    { fds = [], ...rest }: { fds?: readonly number[]; flags?: number; size?: number } = {},
  ): void {
    this.raw(message(request, payload, rest), fds);
  }

  /** Reads what is there. */
  #read(): void {
    const buffer = new Uint8Array(READ_SIZE);
    for (;;) {
      const got = libc.recv(this.fd, buffer, READ_SIZE, MSG_DONTWAIT);
      if (got === 0 || got < 0 && errno() === E.ECONNRESET) this.ended = true;
      if (got <= 0) return;
      this.#received.push(...buffer.subarray(0, got));
    }
  }

  /** All bytes that came. */
  takeBytes(): Uint8Array<ArrayBuffer> {
    this.#read();
    return Uint8Array.from(this.#received.splice(0));
  }

  /** The next whole reply, or null. */
  reply(): Reply | null {
    this.#read();
    const bytes = Uint8Array.from(this.#received);
    if (bytes.length < HEADER) return null;
    const [request, flags, size] = new Uint32Array(bytes.buffer, 0, 3);
    if (bytes.length < HEADER + size) return null;
    this.#received.splice(0, HEADER + size);
    return { request, flags, payload: bytes.slice(HEADER, HEADER + size) };
  }

  /** The number in the next reply, which must be there. */
  number(): bigint {
    const reply = this.reply();
    if (reply?.payload.length !== 8) throw new Error("no reply of 8 bytes");
    return new DataView(reply.payload.buffer).getBigUint64(0, true);
  }

  close(): void {
    libc.close(this.fd);
  }
}

/** Descriptor flags (linux/virtio_ring.h). */
export const NEXT = 1, WRITE = 2;

/** A split ring of the guest's driver, at one place in its memory. */
export class FakeRing {
  readonly memory: FakeMemory;
  readonly size: number;
  /** Offsets of its parts. */
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** Descriptors. */
  readonly kick: number = newEventfd();
  readonly call: number = newEventfd();
  readonly err: number = newEventfd();
  #next = 0;
  #index = 0;
  #seen = 0;

  constructor(memory: FakeMemory, at: number, size: number) {
    this.memory = memory;
    this.size = size;
    this.desc = at;
    this.avail = at + 16 * size;
    this.used = Math.ceil((this.avail + 6 + 2 * size) / 4) * 4;
  }

  /** Makes a chain of buffers available. @param buffers guest address, length, flags but NEXT */
  add(...buffers: readonly (readonly [address: number, length: number, flags: number])[]): void {
    const { memory: { dv }, size } = this, head = this.#next % size;
    buffers.forEach(([address, length, flags], k) => {
      const at = this.desc + this.#next % size * 16, last = k === buffers.length - 1;
      dv.setBigUint64(at, BigInt(address), true);
      dv.setUint32(at + 8, length, true);
      dv.setUint16(at + 12, flags | (last ? 0 : NEXT), true);
      dv.setUint16(at + 14, (this.#next + 1) % size, true);
      this.#next++;
    });
    this.offer(head);
  }

  /** Puts a head into the available ring. */
  offer(head: number): void {
    const { dv } = this.memory;
    dv.setUint16(this.avail + 4 + this.#index % this.size * 2, head, true);
    dv.setUint16(this.avail + 2, ++this.#index & 0xffff, true);
  }

  /** Bytes written to each chain used since the last call; the next one used is to be told of. */
  takeUsed(): number[] {
    const { dv } = this.memory, lengths: number[] = [];
    while (this.#seen !== dv.getUint16(this.used + 2, true)) {
      lengths.push(dv.getUint32(this.used + 4 + this.#seen % this.size * 8 + 4, true));
      this.#seen = (this.#seen + 1) & 0xffff;
    }
    dv.setUint16(this.avail + 4 + 2 * this.size, this.#seen, true); // used_event
    return lengths;
  }

  close(): void {
    closeAll([this.kick, this.call, this.err]);
  }
}
