// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * DHCPv6 (RFC 8415): check of a client's message, options, emitter of a reply.
 *
 * Theory of operation: {@linkcode checkDhcpv6} walks all options once, those inside identity
 * associations too, down to the fixed depth the protocol knows: message, association, address.
 * After that {@linkcode dhcpv6Option} cannot fail at any of these levels. A {@linkcode Dhcpv6Writer}
 * appends options to a reply; a method returns false and writes nothing where the option does not fit.
 *
 * @module
 */
import { storeV6 } from "./address.ts";

// Ports (RFC 8415 §7.2).
/** Port of clients. */
export const DHCPV6_CLIENT_PORT = 546;
/** Port of servers and relays. */
export const DHCPV6_SERVER_PORT = 547;

// Offsets of a client/server message (RFC 8415 §8): type, 24-bit transaction, options.
/** Offset of the message type, 1 byte; the transaction number is in the 3 bytes behind. */
export const DHCPV6_TYPE = 0;
/** Offset of the options. */
export const DHCPV6_OPTIONS = 4;

// Message types (RFC 8415 §7.3).
/** A client looks for servers. */
export const DHCPV6_SOLICIT = 1;
/** A server offers addresses. */
export const DHCPV6_ADVERTISE = 2;
/** A client asks for what was offered. */
export const DHCPV6_REQUEST = 3;
/** A client asks whether its addresses fit the link. */
export const DHCPV6_CONFIRM = 4;
/** A client asks its server for longer. */
export const DHCPV6_RENEW = 5;
/** A client asks any server for longer. */
export const DHCPV6_REBIND = 6;
/** A server's answer. */
export const DHCPV6_REPLY = 7;
/** A client gives addresses back. */
export const DHCPV6_RELEASE = 8;
/** A client has found addresses in use. */
export const DHCPV6_DECLINE = 9;
/** A client asks for everything but addresses. */
export const DHCPV6_INFORMATION_REQUEST = 11;

// Option codes (RFC 8415 §21; RFC 3646; RFC 4704).
/** The client's identifier (DUID). */
export const DHCPV6_OPT_CLIENT_ID = 1;
/** The server's identifier (DUID). */
export const DHCPV6_OPT_SERVER_ID = 2;
/** A set of addresses. */
export const DHCPV6_OPT_IA_NA = 3;
/** A set of temporary addresses. */
export const DHCPV6_OPT_IA_TA = 4;
/** An address of a set. */
export const DHCPV6_OPT_IA_ADDR = 5;
/** Codes of the options that the client wants. */
export const DHCPV6_OPT_ORO = 6;
/** How it went: a code and a text. */
export const DHCPV6_OPT_STATUS = 13;
/** A reply at once. */
export const DHCPV6_OPT_RAPID_COMMIT = 14;
/** Resolvers, best first (RFC 3646). */
export const DHCPV6_OPT_DNS = 23;
/** Search list of domains (RFC 3646). */
export const DHCPV6_OPT_SEARCH = 24;
/** The client's full name (RFC 4704). */
export const DHCPV6_OPT_FQDN = 39;

// Status codes (RFC 8415 §21.13).
/** Status: all went well. */
export const DHCPV6_STATUS_SUCCESS = 0;
/** Status: the client's addresses do not fit the link. */
export const DHCPV6_STATUS_NOT_ON_LINK = 4;

/** Flag of the client FQDN option: the server did the update for AAAA (RFC 4704 §4.1). */
export const DHCPV6_FQDN_S = 0x01;
/** "Forever" as a lifetime (RFC 8415 §7.7). */
export const DHCPV6_INFINITY = 0xffffffff;

/** Options have code and length, 2 bytes each (RFC 8415 §21.1). */
const OPT_HEADER = 4;
// Data before nested options: IA_NA (§21.4), IA_TA (§21.5), IA_ADDR (§21.6).
/** Of {@linkcode DHCPV6_OPT_IA_NA}: identifier and two times. */
export const DHCPV6_IA_NA_SIZE = 12;
/** Of {@linkcode DHCPV6_OPT_IA_TA}: identifier. */
export const DHCPV6_IA_TA_SIZE = 4;
/** Of {@linkcode DHCPV6_OPT_IA_ADDR}: address and two lifetimes. */
export const DHCPV6_IA_ADDR_SIZE = 24;
/** DUID: two bytes of type and at most 128 (RFC 8415 §11.1). */
const DUID_MIN = 3;
const DUID_MAX = 130;

/** Whether options fill `at…end` exactly and `valid` holds for the data of each. */
function walk(
  view: DataView,
  at: number,
  end: number,
  valid: (view: DataView, code: number, data: number, end: number) => boolean,
): boolean {
  while (at < end) {
    if (at + OPT_HEADER > end) return false;
    const data = at + OPT_HEADER;
    at = data + view.getUint16(data - 2);
    if (at > end || !valid(view, view.getUint16(data - OPT_HEADER), data, at)) return false;
  }
  return true;
}

/** An option inside an IA_ADDR: nothing nested further. */
function leafValid(): boolean {
  return true;
}

/** An option inside an identity association. */
function iaOptionValid(view: DataView, code: number, data: number, end: number): boolean {
  if (code !== DHCPV6_OPT_IA_ADDR) return true;
  return end - data >= DHCPV6_IA_ADDR_SIZE &&
    walk(view, data + DHCPV6_IA_ADDR_SIZE, end, leafValid);
}

/** An option of the message itself. */
function optionValid(view: DataView, code: number, data: number, end: number): boolean {
  const size = end - data;
  switch (code) {
    case DHCPV6_OPT_CLIENT_ID:
    case DHCPV6_OPT_SERVER_ID:
      return size >= DUID_MIN && size <= DUID_MAX;
    case DHCPV6_OPT_IA_NA:
      return size >= DHCPV6_IA_NA_SIZE && walk(view, data + DHCPV6_IA_NA_SIZE, end, iaOptionValid);
    case DHCPV6_OPT_IA_TA:
      return size >= DHCPV6_IA_TA_SIZE && walk(view, data + DHCPV6_IA_TA_SIZE, end, iaOptionValid);
    case DHCPV6_OPT_ORO:
      return size % 2 === 0;
    case DHCPV6_OPT_RAPID_COMMIT:
      return size === 0;
    default:
      return true;
  }
}

/** Whether a client may send a message of `type` to a server (RFC 8415 §7.3; no relay messages). */
function isClientMessage(type: number): boolean {
  return type === DHCPV6_SOLICIT || type === DHCPV6_INFORMATION_REQUEST ||
    type >= DHCPV6_REQUEST && type <= DHCPV6_DECLINE && type !== DHCPV6_REPLY;
}

/**
 * Checks a client's message: type, and options that fill it exactly at every level. Which options a
 * type must have (RFC 8415 §16) is left to the server.
 *
 * @param msg offset of the message (the UDP payload)
 * @param end one past its last byte
 * @example
 * ```ts
 * import { checkDhcpv6, DHCPV6_OPTIONS, DHCPV6_OPT_RAPID_COMMIT, dhcpv6Option } from "./dhcpv6.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const view = new DataView(Uint8Array.of(1, 0, 0, 7, 0, 14, 0, 0).buffer);
 * assert(checkDhcpv6(view, 0, 8));
 * assertEquals(dhcpv6Option(view, DHCPV6_OPTIONS, 8, DHCPV6_OPT_RAPID_COMMIT), 8);
 * assert(!checkDhcpv6(view, 0, 7));
 * ```
 */
export function checkDhcpv6(view: DataView, msg: number, end: number): boolean {
  return end - msg >= DHCPV6_OPTIONS && isClientMessage(view.getUint8(msg + DHCPV6_TYPE)) &&
    walk(view, msg + DHCPV6_OPTIONS, end, optionValid);
}

/** Message type. */
export function dhcpv6Type(view: DataView, msg: number): number {
  return view.getUint8(msg + DHCPV6_TYPE);
}

/**
 * Finds an option among those in `at…end` of a checked message. To look inside IA_NA, begin at its
 * data + {@linkcode DHCPV6_IA_NA_SIZE} and end with it; to find the next option of the same code,
 * begin where the last one ended.
 *
 * @returns offset of the option's data, which has {@linkcode dhcpv6OptionSize} bytes; or -1
 */
export function dhcpv6Option(view: DataView, at: number, end: number, code: number): number {
  while (at < end) {
    const data = at + OPT_HEADER;
    if (view.getUint16(at) === code) return data;
    at = data + view.getUint16(data - 2);
  }
  return -1;
}

/** Bytes of data of an option found by {@linkcode dhcpv6Option}. */
export function dhcpv6OptionSize(view: DataView, data: number): number {
  return view.getUint16(data - 2);
}

/**
 * Writes a reply. Made once; {@linkcode Dhcpv6Writer.reset} for each message.
 *
 * @example
 * ```ts
 * import { DHCPV6_OPT_RAPID_COMMIT, DHCPV6_REPLY, Dhcpv6Writer } from "./dhcpv6.ts";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const view = new DataView(new ArrayBuffer(100));
 * const writer = new Dhcpv6Writer();
 * writer.reset(view, 0, 100, DHCPV6_REPLY, 0x010203);
 * const ia = writer.openIaNa(1, 0, 0);
 * writer.close(ia);
 * assert(writer.empty(DHCPV6_OPT_RAPID_COMMIT));
 * assertEquals(writer.finish(), 4 + 16 + 4);
 * ```
 */
export class Dhcpv6Writer {
  #view: DataView = new DataView(new ArrayBuffer(0));
  #msg = 0;
  #at = 0;
  #limit = 0;

  /**
   * Begins a message at `msg`; nothing is written from `limit` on.
   *
   * @param limit at least `msg` + {@linkcode DHCPV6_OPTIONS}
   * @param transaction 24 bits, the request's (see {@linkcode dhcpv6Transaction})
   */
  reset(view: DataView, msg: number, limit: number, type: number, transaction: number): void {
    this.#view = view;
    this.#msg = msg;
    this.#at = msg + DHCPV6_OPTIONS;
    this.#limit = limit;
    view.setUint32(msg, type << 24 | transaction);
  }

  /** Writes code and length where the option fits, and moves behind it. */
  #begin(code: number, size: number): boolean {
    if (size > 0xffff || this.#at + OPT_HEADER + size > this.#limit) return false;
    this.#view.setUint16(this.#at, code);
    this.#view.setUint16(this.#at + 2, size);
    this.#at += OPT_HEADER + size;
    return true;
  }

  /** An option without data. */
  empty(code: number): boolean {
    return this.#begin(code, 0);
  }

  /** Any bytes. */
  bytes(code: number, data: Uint8Array): boolean {
    if (!this.#begin(code, data.length)) return false;
    const to = this.#at - data.length;
    for (let i = 0; i < data.length; i++) this.#view.setUint8(to + i, data[i]);
    return true;
  }

  /** Data copied from a received option. */
  copy(code: number, from: DataView, data: number, size: number): boolean {
    if (!this.#begin(code, size)) return false;
    const to = this.#at - size;
    for (let i = 0; i < size; i++) this.#view.setUint8(to + i, from.getUint8(data + i));
    return true;
  }

  /** One or more addresses; false also for none. */
  addresses(code: number, list: readonly Int32Array[]): boolean {
    const size = list.length * 16;
    if (size === 0 || !this.#begin(code, size)) return false;
    for (let i = 0; i < list.length; i++) {
      storeV6(this.#view, this.#at - size + i * 16, list[i], 0);
    }
    return true;
  }

  /** A status code option with its message in UTF-8 (RFC 8415 §21.13). */
  status(code: number, message: Uint8Array): boolean {
    if (!this.#begin(DHCPV6_OPT_STATUS, 2 + message.length)) return false;
    const to = this.#at - message.length;
    this.#view.setUint16(to - 2, code);
    for (let i = 0; i < message.length; i++) this.#view.setUint8(to + i, message[i]);
    return true;
  }

  /** A client FQDN option with a name as `encodeDomainName` makes it (RFC 4704 §4). */
  fqdn(flags: number, name: Uint8Array): boolean {
    if (!this.#begin(DHCPV6_OPT_FQDN, 1 + name.length)) return false;
    const to = this.#at - name.length;
    this.#view.setUint8(to - 1, flags);
    for (let i = 0; i < name.length; i++) this.#view.setUint8(to + i, name[i]);
    return true;
  }

  /**
   * Opens an IA_NA (RFC 8415 §21.4): options written until {@linkcode Dhcpv6Writer.close} are in it.
   *
   * @param t1, t2 seconds; 0 leaves them to the client
   * @returns what `close` takes, or -1 when it does not fit
   */
  openIaNa(iaid: number, t1: number, t2: number): number {
    const mark = this.#at;
    if (!this.#begin(DHCPV6_OPT_IA_NA, DHCPV6_IA_NA_SIZE)) return -1;
    this.#view.setUint32(mark + OPT_HEADER, iaid);
    this.#view.setUint32(mark + OPT_HEADER + 4, t1);
    this.#view.setUint32(mark + OPT_HEADER + 8, t2);
    return mark;
  }

  /** Closes an option opened by {@linkcode Dhcpv6Writer.openIaNa}; nothing for -1. */
  close(mark: number): void {
    if (mark >= 0) this.#view.setUint16(mark + 2, this.#at - mark - OPT_HEADER);
  }

  /** An IA_ADDR (RFC 8415 §21.6), lifetimes in seconds or {@linkcode DHCPV6_INFINITY}. */
  iaAddr(address: Int32Array, addressAt: number, preferred: number, valid: number): boolean {
    if (!this.#begin(DHCPV6_OPT_IA_ADDR, DHCPV6_IA_ADDR_SIZE)) return false;
    const data = this.#at - DHCPV6_IA_ADDR_SIZE;
    storeV6(this.#view, data, address, addressAt);
    this.#view.setUint32(data + 16, preferred);
    this.#view.setUint32(data + 20, valid);
    return true;
  }

  /** Bytes of the whole message. */
  finish(): number {
    return this.#at - this.#msg;
  }
}

/** The 24-bit transaction identifier of a message. */
export function dhcpv6Transaction(view: DataView, msg: number): number {
  return view.getUint32(msg) & 0xffffff;
}
