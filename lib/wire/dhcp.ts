// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * DHCP for IPv4 (RFC 2131, RFC 2132): check of a request, options, emitter of a reply.
 *
 * Theory of operation: {@linkcode checkDhcp} is called once per request; after that the fixed part
 * and every option up to the end option are known to lie within the message, so that
 * {@linkcode dhcpOption} cannot fail. Options that overflow into `sname` and `file` (option 52) are
 * not looked at: no request needs them.
 *
 * A reply is begun by {@linkcode writeDhcpReply}, which takes over what RFC 2131 §4.3.1 says a server
 * copies, and continued by a {@linkcode DhcpWriter}: each of its methods appends one option or, where
 * it does not fit the message, returns false and writes nothing.
 *
 * @module
 */
import { storeV4 } from "./address.ts";
import { ARPHRD_ETHER } from "./arp.ts";
import { MAC_SIZE } from "./ethernet.ts";

/** Port of servers (RFC 2131 §4.1). */
export const DHCP_SERVER_PORT = 67;
/** Port of clients (RFC 2131 §4.1). */
export const DHCP_CLIENT_PORT = 68;

// Offsets from the start of the message (RFC 2131 §2).
/** Offset of `op`, 1 byte: request or reply. */
export const DHCP_OP = 0;
/** Offset of the hardware type, 1 byte. */
export const DHCP_HTYPE = 1;
/** Offset of the length of hardware addresses, 1 byte. */
export const DHCP_HLEN = 2;
/** Offset of the client's transaction number, 4 bytes. */
export const DHCP_XID = 4;
/** Offset of the flags, 2 bytes. */
export const DHCP_FLAGS = 10;
/** Offset of the IPv4 address that the client has. */
export const DHCP_CIADDR = 12;
/** Offset of the IPv4 address that the client gets. */
export const DHCP_YIADDR = 16;
/** Offset of the next server's IPv4 address. */
export const DHCP_SIADDR = 20;
/** Offset of the relay's IPv4 address. */
export const DHCP_GIADDR = 24;
/** Offset of the client's hardware address, 16 bytes. */
export const DHCP_CHADDR = 28;
/** Offset of the magic cookie, 4 bytes. */
export const DHCP_MAGIC = 236;
/** Offset of the options. */
export const DHCP_OPTIONS = 240;

/** `op` of what a client sends (RFC 2131 §2). */
export const DHCP_BOOTREQUEST = 1;
/** `op` of what a server sends (RFC 2131 §2). */
export const DHCP_BOOTREPLY = 2;
/** First four bytes of the options area (RFC 2131 §3). */
export const DHCP_MAGIC_COOKIE = 0x63825363;
/** Broadcast bit of `flags` (RFC 2131 §2). */
export const DHCP_FLAG_BROADCAST = 0x8000;
/** A message that every client and relay takes is at least this long (RFC 951 §3, RFC 1542 §2.1). */
export const DHCP_MIN_SIZE = 300;
/** A message that every client takes is at most this long without option 57 (RFC 2131 §2). */
export const DHCP_MAX_SIZE = 548;

// Option codes (RFC 2132; RFC 4039; RFC 4702; RFC 3397; RFC 3442).
/** Padding, one byte without length. */
export const DHCP_OPT_PAD = 0;
/** Subnet mask. */
export const DHCP_OPT_MASK = 1;
/** Routers, best first. */
export const DHCP_OPT_ROUTER = 3;
/** Resolvers, best first. */
export const DHCP_OPT_DNS = 6;
/** The client's name. */
export const DHCP_OPT_HOSTNAME = 12;
/** The client's domain. */
export const DHCP_OPT_DOMAIN = 15;
/** MTU of the interface, bytes. */
export const DHCP_OPT_MTU = 26;
/** Address that the client asks for. */
export const DHCP_OPT_REQUESTED = 50;
/** Lease time, seconds. */
export const DHCP_OPT_LEASE = 51;
/** Message type. */
export const DHCP_OPT_TYPE = 53;
/** The server's address, as its name. */
export const DHCP_OPT_SERVER_ID = 54;
/** Codes of the options that the client wants. */
export const DHCP_OPT_PARAMETERS = 55;
/** Longest message that the client takes, bytes. */
export const DHCP_OPT_MAX_SIZE = 57;
/** An acknowledgment at once (RFC 4039). */
export const DHCP_OPT_RAPID_COMMIT = 80;
/** The client's full name (RFC 4702). */
export const DHCP_OPT_FQDN = 81;
/** Search list of domains (RFC 3397). */
export const DHCP_OPT_SEARCH = 119;
/** Routes with their prefixes (RFC 3442). */
export const DHCP_OPT_ROUTES = 121;
/** End of the options, one byte without length. */
export const DHCP_OPT_END = 255;

// Message types, option 53 (RFC 2132 §9.6).
/** A client looks for servers. */
export const DHCP_DISCOVER = 1;
/** A server offers an address. */
export const DHCP_OFFER = 2;
/** A client asks for an address. */
export const DHCP_REQUEST = 3;
/** A server gives it. */
export const DHCP_ACK = 5;
/** A server refuses it. */
export const DHCP_NAK = 6;
/** A client that has an address asks for the rest. */
export const DHCP_INFORM = 8;

/** Lease time "infinity" (RFC 2131 §3.3). */
export const DHCP_INFINITY = 0xffffffff;

const MAX_OPTION_DATA = 255;
const CHADDR_SIZE = 16;

/** Whether options from `at` on are whole and the end option comes before `end`. */
function optionsEnd(view: DataView, at: number, end: number): boolean {
  while (at < end) {
    const code = view.getUint8(at);
    if (code === DHCP_OPT_END) return true;
    if (code === DHCP_OPT_PAD) {
      at++;
      continue;
    }
    if (at + 2 > end) return false;
    at += 2 + view.getUint8(at + 1);
  }
  return false;
}

/**
 * Checks a request: operation, Ethernet hardware address, magic cookie, options that are whole and
 * closed by an end option.
 *
 * @param msg offset of the message (the UDP payload)
 * @param end one past its last byte
 * @example
 * ```ts
 * import { checkDhcp } from "./dhcp.ts";
 * import { assert } from "@std/assert";
 *
 * assert(!checkDhcp(new DataView(new ArrayBuffer(300)), 0, 300));
 * ```
 */
export function checkDhcp(view: DataView, msg: number, end: number): boolean {
  return end - msg > DHCP_OPTIONS &&
    view.getUint8(msg + DHCP_OP) === DHCP_BOOTREQUEST &&
    view.getUint8(msg + DHCP_HTYPE) === ARPHRD_ETHER &&
    view.getUint8(msg + DHCP_HLEN) === MAC_SIZE &&
    view.getUint32(msg + DHCP_MAGIC) === DHCP_MAGIC_COOKIE &&
    optionsEnd(view, msg + DHCP_OPTIONS, end);
}

/**
 * Finds an option of a message checked by {@linkcode checkDhcp}.
 *
 * @returns offset of the first such option's data, or -1; see {@linkcode dhcpOptionSize}
 */
export function dhcpOption(view: DataView, msg: number, option: number): number {
  let at = msg + DHCP_OPTIONS;
  for (;;) {
    const code = view.getUint8(at);
    if (code === DHCP_OPT_END) return -1;
    if (code === DHCP_OPT_PAD) {
      at++;
      continue;
    }
    if (code === option) return at + 2;
    at += 2 + view.getUint8(at + 1);
  }
}

/** Bytes of data of an option found by {@linkcode dhcpOption}. */
export function dhcpOptionSize(view: DataView, data: number): number {
  return view.getUint8(data - 1);
}

/** Offset of an option's data when it has exactly `size` bytes, else -1. */
export function dhcpOptionOf(view: DataView, msg: number, option: number, size: number): number {
  const data = dhcpOption(view, msg, option);
  return data >= 0 && dhcpOptionSize(view, data) === size ? data : -1;
}

/** Message type of a checked message; 0 when it has none (BOOTP, RFC 951). */
export function dhcpMessageType(view: DataView, msg: number): number {
  const data = dhcpOptionOf(view, msg, DHCP_OPT_TYPE, 1);
  return data < 0 ? 0 : view.getUint8(data);
}

/**
 * Writes the fixed part of a reply, {@linkcode DHCP_OPTIONS} bytes, and the magic cookie. Transaction,
 * flags, `giaddr`, hardware address and `ciaddr` are the request's (RFC 2131 §4.3.1).
 *
 * @param msg offset of the checked request in `from`
 * @param yiaddr address given to the client, v4-mapped (`ANY4` for none)
 * @param siaddr address of the next server, v4-mapped
 */
export function writeDhcpReply(
  view: DataView,
  off: number,
  from: DataView,
  msg: number,
  yiaddr: Int32Array,
  siaddr: Int32Array,
): void {
  for (let at = 0; at < DHCP_OPTIONS; at += 4) view.setUint32(off + at, 0);
  view.setUint8(off + DHCP_OP, DHCP_BOOTREPLY);
  view.setUint8(off + DHCP_HTYPE, ARPHRD_ETHER);
  view.setUint8(off + DHCP_HLEN, MAC_SIZE);
  view.setUint32(off + DHCP_XID, from.getUint32(msg + DHCP_XID));
  view.setUint16(off + DHCP_FLAGS, from.getUint16(msg + DHCP_FLAGS));
  view.setUint32(off + DHCP_CIADDR, from.getUint32(msg + DHCP_CIADDR));
  storeV4(view, off + DHCP_YIADDR, yiaddr, 0);
  storeV4(view, off + DHCP_SIADDR, siaddr, 0);
  view.setUint32(off + DHCP_GIADDR, from.getUint32(msg + DHCP_GIADDR));
  for (let i = 0; i < CHADDR_SIZE; i += 4) {
    view.setUint32(off + DHCP_CHADDR + i, from.getUint32(msg + DHCP_CHADDR + i));
  }
  view.setUint32(off + DHCP_MAGIC, DHCP_MAGIC_COOKIE);
}

/**
 * Appends options to a reply. Made once; {@linkcode DhcpWriter.reset} for each message. One byte is
 * always kept for the end option.
 *
 * @example
 * ```ts
 * import { DHCP_OPT_MTU, DHCP_OPT_TYPE, DHCP_OFFER, DhcpWriter } from "./dhcp.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(4));
 * const writer = new DhcpWriter();
 * writer.reset(view, 0, 4);
 * assert(writer.u8(DHCP_OPT_TYPE, DHCP_OFFER));
 * assert(!writer.u16(DHCP_OPT_MTU, 1500)); // does not fit: nothing written
 * assertEquals(writer.finish(0), 4);
 * ```
 */
export class DhcpWriter {
  #view: DataView = new DataView(new ArrayBuffer(0));
  #at = 0;
  #limit = 0;

  /** Begins at `at`, behind the magic cookie; nothing is written from `limit` (> `at`) on. */
  reset(view: DataView, at: number, limit: number): void {
    this.#view = view;
    this.#at = at;
    this.#limit = limit;
  }

  /** Whether an option with `size` bytes of data fits; then writes its code and length. */
  #begin(code: number, size: number): boolean {
    if (size > MAX_OPTION_DATA || this.#at + 2 + size >= this.#limit) return false;
    this.#view.setUint8(this.#at, code);
    this.#view.setUint8(this.#at + 1, size);
    this.#at += 2 + size;
    return true;
  }

  /** An option without data. */
  empty(code: number): boolean {
    return this.#begin(code, 0);
  }

  /** One byte. */
  u8(code: number, value: number): boolean {
    if (!this.#begin(code, 1)) return false;
    this.#view.setUint8(this.#at - 1, value);
    return true;
  }

  /** Two bytes, big-endian. */
  u16(code: number, value: number): boolean {
    if (!this.#begin(code, 2)) return false;
    this.#view.setUint16(this.#at - 2, value);
    return true;
  }

  /** Four bytes, big-endian: a time, or an IPv4 address or mask as a number. */
  u32(code: number, value: number): boolean {
    if (!this.#begin(code, 4)) return false;
    this.#view.setUint32(this.#at - 4, value);
    return true;
  }

  /** One or more v4-mapped addresses; false also for none, since an empty list is not legal. */
  addresses(code: number, list: readonly Int32Array[]): boolean {
    const size = list.length * 4;
    if (size === 0 || !this.#begin(code, size)) return false;
    for (let i = 0; i < list.length; i++) {
      storeV4(this.#view, this.#at - size + i * 4, list[i], 0);
    }
    return true;
  }

  /** Any bytes, in several options of the same code when they exceed 255 (RFC 3396 §6). */
  bytes(code: number, data: Uint8Array): boolean {
    const parts = Math.ceil(data.length / MAX_OPTION_DATA);
    if (parts === 0 || this.#at + parts * 2 + data.length >= this.#limit) return false;
    for (let from = 0; from < data.length; from += MAX_OPTION_DATA) {
      const size = Math.min(MAX_OPTION_DATA, data.length - from);
      this.#begin(code, size);
      for (let i = 0; i < size; i++) this.#view.setUint8(this.#at - size + i, data[from + i]);
    }
    return true;
  }

  /** Data of up to 255 bytes copied from a received option. */
  copy(code: number, from: DataView, data: number, size: number): boolean {
    if (!this.#begin(code, size)) return false;
    const to = this.#at - size;
    for (let i = 0; i < size; i++) this.#view.setUint8(to + i, from.getUint8(data + i));
    return true;
  }

  /**
   * Writes the end option and pads the message with zeros to {@linkcode DHCP_MIN_SIZE} where there is
   * room.
   *
   * @param msg offset of the message
   * @returns bytes of the whole message
   */
  finish(msg: number): number {
    this.#view.setUint8(this.#at++, DHCP_OPT_END);
    const padded = Math.min(msg + DHCP_MIN_SIZE, this.#limit);
    while (this.#at < padded) this.#view.setUint8(this.#at++, DHCP_OPT_PAD);
    return this.#at - msg;
  }
}
