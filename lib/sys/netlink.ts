// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * netlink(7): requests to the kernel's routing subsystem and walks over its answers.
 *
 * Theory of operation: a {@linkcode NetlinkRequest} is one message, a fixed body and attributes behind
 * it. {@linkcode Netlink.request} sends it with NLM_F_ACK and waits for the acknowledgement;
 * {@linkcode Netlink.dump} asks for a table and reads datagrams until NLMSG_DONE, each read with its
 * true length asked for first (MSG_PEEK | MSG_TRUNC), so that no answer is ever cut. A table that
 * changed while it was read (NLM_F_DUMP_INTR) is read again. The socket may belong to any namespace:
 * it acts on the one it was made in. All of this runs at start only and may allocate.
 *
 * Integers are in the machine's order, little endian on all machines we run on; addresses are in
 * network order.
 *
 * @module
 */
import { errno, libc } from "./libc.ts";
import { check, E, lastError, SysError } from "./errno.ts";
import { nlmsgerr, nlmsghdr, pollfd, rtattr } from "./layout.ts";
import { MSG_PEEK, MSG_TRUNC, SOCK_CLOEXEC, SOCK_RAW } from "./socket.ts";

const AF_NETLINK = 16; // bits/socket.h
const NETLINK_ROUTE = 0; // linux/netlink.h
const SOL_NETLINK = 270; // bits/socket.h
const NETLINK_EXT_ACK = 11; // linux/netlink.h
const NETLINK_GET_STRICT_CHK = 12; // linux/netlink.h

const NLM_F_REQUEST = 0x01; // linux/netlink.h
const NLM_F_ACK = 0x04;
const NLM_F_DUMP_INTR = 0x10;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLM_F_DUMP = 0x300;
/** Flags of requests that create (linux/netlink.h): fail if it is there; create. */
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;

const NLMSG_ERROR = 2; // linux/netlink.h
const NLMSG_DONE = 3;
const NLMSG_ALIGNTO = 4;
const NLMSGERR_ATTR_MSG = 1; // linux/netlink.h

const NLA_F_NESTED = 0x8000; // linux/netlink.h
const NLA_TYPE_MASK = 0x3fff;

/** Bytes of the receive buffer at first; the kernel fills at most 32 KiB per datagram. */
const RECEIVE_SIZE = 32768;
/** A datagram larger than this is refused: nothing in a link, address or route is. */
const MAX_DATAGRAM = 16 << 20;
/** How often a table that keeps changing is read again. */
const MAX_RESTARTS = 10;
/** How long an answer may take, milliseconds. */
const ANSWER_TIMEOUT_MS = 10_000;
const POLLIN = 1; // poll.h

const align = (n: number): number => (n + NLMSG_ALIGNTO - 1) & ~(NLMSG_ALIGNTO - 1);

/** One attribute's value: where it lies in the message's view. */
export interface Attribute {
  readonly off: number;
  readonly length: number;
}

/**
 * Attributes in `view[off…end)` by type, bounds checked: a length that does not fit ends the walk. Of
 * several with one type the last counts, as in the kernel.
 *
 * @example
 * ```ts
 * import { attributes } from "./netlink.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes = Uint8Array.of(5, 0, 1, 0, 42, 0, 0, 0, 200, 0, 2, 0);
 * const found = attributes(new DataView(bytes.buffer), 0, bytes.length);
 * assertEquals([...found], [[1, { off: 4, length: 1 }]]);
 * ```
 */
export function attributes(view: DataView, off: number, end: number): Map<number, Attribute> {
  const found = new Map<number, Attribute>();
  const limit = Math.min(end, view.byteLength);
  while (off + rtattr.size <= limit) {
    const length = view.getUint16(off + rtattr.at.rta_len, true);
    if (length < rtattr.size || off + length > limit) break;
    found.set(view.getUint16(off + rtattr.at.rta_type, true) & NLA_TYPE_MASK, {
      off: off + rtattr.size,
      length: length - rtattr.size,
    });
    off += align(length);
  }
  return found;
}

/** An attribute holding a 32-bit integer; null when it is absent or too short. */
export function attributeU32(view: DataView, attribute: Attribute | undefined): number | null {
  return attribute && attribute.length >= 4 ? view.getUint32(attribute.off, true) : null;
}

/** An attribute holding NUL-terminated text. */
export function attributeText(view: DataView, attribute: Attribute | undefined): string | null {
  if (!attribute) return null;
  const bytes = attributeBytes(view, attribute);
  const nul = bytes.indexOf(0);
  return new TextDecoder().decode(nul < 0 ? bytes : bytes.subarray(0, nul));
}

/** A copy of an attribute's bytes. */
export function attributeBytes(view: DataView, attribute: Attribute): Uint8Array<ArrayBuffer> {
  return new Uint8Array(view.buffer, view.byteOffset + attribute.off, attribute.length).slice();
}

/** One request: header, fixed body, attributes. */
export class NetlinkRequest {
  #bytes = new Uint8Array(256);
  #view = new DataView(this.#bytes.buffer);
  #used: number;

  /**
   * @param type RTM_… (linux/rtnetlink.h)
   * @param body the fixed structure, zero padded
   */
  constructor(readonly type: number, body: Uint8Array) {
    this.#used = nlmsghdr.size;
    this.#append(body);
  }

  #append(bytes: Uint8Array): void {
    const end = this.#used + align(bytes.length);
    if (end > this.#bytes.length) {
      const grown = new Uint8Array(2 * end);
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    this.#bytes.set(bytes, this.#used);
    this.#used = end;
  }

  /** Adds an attribute of bytes. */
  bytes(type: number, value: Uint8Array): this {
    const header = new Uint8Array(rtattr.size);
    const view = new DataView(header.buffer);
    view.setUint16(rtattr.at.rta_len, rtattr.size + value.length, true);
    view.setUint16(rtattr.at.rta_type, type, true);
    this.#append(header);
    this.#append(value);
    return this;
  }

  /** Adds an attribute of a 32-bit integer. */
  u32(type: number, value: number): this {
    return this.bytes(type, new Uint8Array(Uint32Array.of(value).buffer));
  }

  /** Adds an attribute of an 8-bit integer. */
  u8(type: number, value: number): this {
    return this.bytes(type, Uint8Array.of(value));
  }

  /** Adds an attribute that holds the attributes which `fill` adds. */
  nested(type: number, fill: (request: NetlinkRequest) => void): this {
    const start = this.#used;
    this.bytes(type | NLA_F_NESTED, new Uint8Array(0));
    fill(this);
    this.#view.setUint16(start + rtattr.at.rta_len, this.#used - start, true);
    return this;
  }

  /** The message, ready to be sent. */
  finish(flags: number, sequence: number): Uint8Array<ArrayBuffer> {
    this.#view.setUint32(nlmsghdr.at.nlmsg_len, this.#used, true);
    this.#view.setUint16(nlmsghdr.at.nlmsg_type, this.type, true);
    this.#view.setUint16(nlmsghdr.at.nlmsg_flags, NLM_F_REQUEST | flags, true);
    this.#view.setUint32(nlmsghdr.at.nlmsg_seq, sequence, true);
    return this.#bytes.slice(0, this.#used);
  }
}

/** Reads one message of a dump: its fixed body begins at `off`. @returns null to leave it out */
export type MessageReader<T> = (view: DataView, off: number, end: number) => T | null;

/** Result of one datagram: going on, done, or done but to be repeated. */
type Progress = "more" | "done" | "again";

/**
 * A socket of the routing subsystem.
 *
 * @example
 * ```ts
 * import { Netlink, NetlinkRequest } from "./netlink.ts";
 * import { assert } from "@std/assert";
 *
 * const RTM_GETLINK = 18, RTM_NEWLINK = 16, IFINFOMSG_SIZE = 16;
 * using netlink = Netlink.open();
 * const request = new NetlinkRequest(RTM_GETLINK, new Uint8Array(IFINFOMSG_SIZE));
 * const indices = netlink.dump(request, RTM_NEWLINK, (view, off) => view.getInt32(off + 4, true));
 * assert(indices.includes(1)); // lo
 * ```
 */
export class Netlink {
  #buffer = new Uint8Array(RECEIVE_SIZE);
  #view = new DataView(this.#buffer.buffer);
  #sequence = 1;

  /** @param fd an AF_NETLINK socket of any namespace; closed by {@linkcode close} only */
  constructor(readonly fd: number) {
    const on = Int32Array.of(1);
    // without these two (Linux before 4.12 and 4.20) we only lose words and filtering
    libc.setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, on, 4);
    libc.setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, on, 4);
  }

  /** Opens a socket in the calling thread's namespace. @throws SysError */
  static open(): Netlink {
    const fd = libc.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    return new Netlink(check(fd, "socket", "AF_NETLINK"));
  }

  close(): void {
    libc.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Sends a request and waits until the kernel has done it.
   *
   * @param flags NLM_F_… beside REQUEST and ACK
   * @param what the operation in words, for the error
   * @throws SysError with the kernel's reason, and its explanation where it gives one
   */
  request(request: NetlinkRequest, flags: number, what: string): void {
    this.#send(request, flags | NLM_F_ACK, what);
    while (this.#receive(what, request.type, () => {}) === "more");
  }

  /**
   * Reads a table.
   *
   * @param request a GET request
   * @param type message type to read, such as RTM_NEWROUTE; others are passed over
   * @param reader called for each message; what it returns, except null, is collected
   * @throws SysError
   */
  dump<T>(request: NetlinkRequest, type: number, reader: MessageReader<T>): T[] {
    const what = "dump";
    for (let tries = 0; tries < MAX_RESTARTS; tries++) {
      const found: T[] = [];
      let interrupted = false, progress: Progress = "more";
      this.#send(request, NLM_F_DUMP, what);
      while (progress !== "done") {
        progress = this.#receive(what, type, (off, end, flags) => {
          if (flags & NLM_F_DUMP_INTR) interrupted = true;
          const value = reader(this.#view, off, end);
          if (value !== null) found.push(value);
        });
        if (progress === "again") [interrupted, progress] = [true, "done"];
      }
      if (!interrupted) return found;
    }
    throw new SysError("netlink", what, E.EAGAIN, "the table keeps changing");
  }

  #send(request: NetlinkRequest, flags: number, what: string): void {
    this.#sequence = (this.#sequence + 1) >>> 0;
    const bytes = request.finish(flags, this.#sequence);
    if (libc.send(this.fd, bytes, bytes.length, 0) < 0) throw lastError("netlink", what);
  }

  /** Waits for a datagram and reads it whole. @returns its length */
  #read(what: string): number {
    const poll = new Int32Array(pollfd.size / 4);
    for (;;) {
      poll[0] = this.fd;
      poll[pollfd.at.events / 4] = POLLIN;
      const ready = libc.poll(poll, 1, ANSWER_TIMEOUT_MS);
      if (ready === 0) throw new SysError("netlink", what, E.ETIMEDOUT);
      const length = ready < 0
        ? -1
        : libc.recv(this.fd, this.#buffer, this.#buffer.length, MSG_PEEK | MSG_TRUNC);
      if (length > MAX_DATAGRAM) throw new SysError("netlink", what, E.EMSGSIZE);
      if (length > this.#buffer.length) {
        this.#buffer = new Uint8Array(length);
        this.#view = new DataView(this.#buffer.buffer);
      }
      const got = length < 0 ? -1 : libc.recv(this.fd, this.#buffer, this.#buffer.length, 0);
      if (got >= 0) return got;
      if (errno() !== E.EINTR && errno() !== E.EAGAIN) throw lastError("netlink", what);
    }
  }

  /** Reads one datagram and goes through its messages. */
  #receive(
    what: string,
    type: number,
    visit: (off: number, end: number, flags: number) => void,
  ): Progress {
    const length = this.#read(what);
    const view = this.#view;
    for (let at = 0; at + nlmsghdr.size <= length;) {
      const end = at + view.getUint32(at + nlmsghdr.at.nlmsg_len, true);
      if (end < at + nlmsghdr.size || end > length) throw new SysError("netlink", what, E.EBADMSG);
      const kind = view.getUint16(at + nlmsghdr.at.nlmsg_type, true);
      const flags = view.getUint16(at + nlmsghdr.at.nlmsg_flags, true);
      const body = at + nlmsghdr.size;
      if (view.getUint32(at + nlmsghdr.at.nlmsg_seq, true) === this.#sequence) {
        if (kind === NLMSG_ERROR) return this.#acknowledge(body, end, flags, what);
        if (kind === NLMSG_DONE) return flags & NLM_F_DUMP_INTR ? "again" : "done";
        if (kind === type) visit(body, end, flags);
      }
      at += align(end - at);
    }
    return "more";
  }

  /** An NLMSG_ERROR message: an acknowledgement when its code is 0. */
  #acknowledge(body: number, end: number, flags: number, what: string): "done" {
    if (body + nlmsgerr.size > end) throw new SysError("netlink", what, E.EBADMSG);
    const code = -this.#view.getInt32(body + nlmsgerr.at.error, true);
    if (code === 0) return "done";
    const header = body + nlmsgerr.at.msg;
    // the request is repeated behind the code, unless it was cut to its header
    const repeated = flags & NLM_F_CAPPED
      ? nlmsghdr.size
      : align(this.#view.getUint32(header + nlmsghdr.at.nlmsg_len, true));
    const texts = flags & NLM_F_ACK_TLVS
      ? attributes(this.#view, header + repeated, end)
      : new Map<number, Attribute>();
    const text = attributeText(this.#view, texts.get(NLMSGERR_ATTR_MSG)) ?? "";
    throw new SysError("netlink", what, code, text || hintFor(code));
  }
}

/** What a common refusal means to the user. */
function hintFor(code: number): string {
  if (code === E.EPERM) return "this needs CAP_NET_ADMIN in the namespace";
  return code === E.ENODEV ? "the interface is gone" : "";
}
