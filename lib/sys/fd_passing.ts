// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Receiving descriptors over a UNIX socket (SCM_RIGHTS, unix(7)).
 *
 * Theory of operation: what has been received is ours, wanted or not, and open until somebody closes
 * it. So {@linkcode DescriptorInbox} keeps every descriptor until it is taken out, and closes the rest. The
 * kernel itself closes those for which there was no room, and says so.
 *
 * Sockets are not taken: whoever passed the other end of the connection over it, and went away, would
 * leave us with a connection that never ends.
 *
 * @module
 */
import { Arena } from "./arena.ts";
import { cmsghdr, iovec, msghdr } from "./layout.ts";
import { errno, libc } from "./libc.ts";
import { cmsgSpace } from "./message_vector.ts";
import { getOption, MSG_DONTWAIT, SO_TYPE, SOL_SOCKET } from "./socket.ts";

export const SCM_RIGHTS = 1; // linux/socket.h
const MSG_CTRUNC = 0x08; // linux/socket.h
const MSG_CMSG_CLOEXEC = 0x40000000; // linux/socket.h
const FD_SIZE = 4;
const { cmsg_len: CMSG_LEN, cmsg_level: CMSG_LEVEL, cmsg_type: CMSG_TYPE } = cmsghdr.at;

/**
 * Bytes with descriptors. Both are collected over as many calls as it takes.
 *
 * @example
 * ```ts
 * import { DescriptorInbox } from "./fd_passing.ts";
 * import { libc } from "./libc.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const pair = new Int32Array(2);
 * libc.socketpair(1, 1, 0, pair);
 * libc.write(pair[0], new Uint8Array([5, 6]), 2);
 * const inbox = new DescriptorInbox(16, 4);
 * assertEquals(inbox.receive(pair[1], 0, 16), 2);
 * assertEquals([inbox.view.getUint8(1), inbox.count], [6, 0]);
 * for (const fd of pair) libc.close(fd);
 * ```
 */
export class DescriptorInbox {
  /** The bytes received. */
  readonly view: DataView<ArrayBuffer>;
  readonly #arena: Arena;
  readonly #most: number;
  readonly #header: Uint8Array<ArrayBuffer>;
  readonly #headerAt: number;
  readonly #iov: number;
  readonly #control: number;
  readonly #controlSize: number;
  readonly #fds: number[] = [];
  #lost = false;

  /**
   * @param bytes room for bytes
   * @param most the largest number of descriptors
   */
  constructor(bytes: number, most: number) {
    this.#most = most;
    this.#controlSize = cmsgSpace(most * FD_SIZE);
    const arena = new Arena(bytes + this.#controlSize + msghdr.size + iovec.size + 256);
    const data = arena.alloc(bytes);
    this.#control = arena.alloc(this.#controlSize);
    this.#iov = arena.alloc(iovec.size);
    this.#headerAt = arena.alloc(msghdr.size);
    arena.set64(this.#headerAt + msghdr.at.msg_iov, arena.address(this.#iov));
    arena.set64(this.#headerAt + msghdr.at.msg_iovlen, 1);
    arena.set64(this.#headerAt + msghdr.at.msg_control, arena.address(this.#control));
    this.#header = arena.view(this.#headerAt, msghdr.size);
    this.#arena = arena;
    this.view = new DataView(arena.dv.buffer, arena.dv.byteOffset + data, bytes);
  }

  /** Descriptors received and not taken. */
  get count(): number {
    return this.#fds.length;
  }

  /** Whether descriptors were sent that were not received: too many, sockets, or we may have no more. */
  get lost(): boolean {
    return this.#lost;
  }

  /**
   * Receives without blocking.
   *
   * @param at where in {@linkcode view} to put the bytes
   * @returns bytes, 0 at the end of the stream, or a negative errno
   */
  receive(socket: number, at: number, bytes: number): number {
    const { arena, header } = { arena: this.#arena, header: this.#headerAt };
    arena.setIovec(this.#iov, this.view.byteOffset + at, bytes);
    arena.set64(header + msghdr.at.msg_controllen, this.#controlSize);
    arena.dv.setInt32(header + msghdr.at.msg_flags, 0, true);
    const got = libc.recvmsg(socket, this.#header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got < 0) return -errno();
    this.#collect(arena.get64(header + msghdr.at.msg_controllen));
    if (arena.dv.getInt32(header + msghdr.at.msg_flags, true) & MSG_CTRUNC) this.#lost = true;
    return got;
  }

  /** Puts the descriptors of all control messages into the list. */
  #collect(length: number): void {
    const view = this.#arena.dv, end = this.#control + length;
    for (let at = this.#control; at + cmsghdr.size <= end;) {
      const size = this.#arena.get64(at + CMSG_LEN);
      if (size < cmsghdr.size || at + size > end) return;
      const level = view.getInt32(at + CMSG_LEVEL, true),
        type = view.getInt32(at + CMSG_TYPE, true);
      const isRights = level === SOL_SOCKET && type === SCM_RIGHTS;
      for (let fd = at + cmsghdr.size; isRights && fd + FD_SIZE <= at + size; fd += FD_SIZE) {
        this.#keep(view.getInt32(fd, true));
      }
      at += cmsgSpace(size - cmsghdr.size);
    }
  }

  #keep(fd: number): void {
    const isSocket = getOption(fd, SOL_SOCKET, SO_TYPE) >= 0;
    if (this.#fds.length < this.#most && !isSocket) this.#fds.push(fd);
    else {
      libc.close(fd);
      this.#lost = true;
    }
  }

  /** Takes all descriptors out: they are the caller's. */
  take(): number[] {
    return this.#fds.splice(0);
  }

  /** Closes what was not taken, and forgets what was lost. */
  clear(): void {
    for (const fd of this.#fds.splice(0)) libc.close(fd);
    this.#lost = false;
  }
}
