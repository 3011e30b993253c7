// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Values of options: text to data, or a {@linkcode ValueError} that says what would be accepted.
 *
 * @module
 */
import { MAX_INTERFACE_NAME } from "../forward/ports.ts";
import {
  type Address,
  isBroadcast,
  isLoopback,
  isMulticast,
  isUnspecified,
  isV4,
  parseAddress,
} from "../wire/address.ts";

/** Smallest MTU of a link that carries IPv4 (RFC 791 §3.2), and of a tap (linux/if_ether.h, ETH_MIN_MTU). */
export const MIN_MTU = 68;
/** Smallest MTU of a link that carries IPv6 (RFC 8200 §5). */
export const MIN_MTU6 = 1280;
/** Largest MTU of the guest's interface: 65535 with its Ethernet header, in whole 32-bit words. */
export const MAX_MTU = 65520;
/** Longest name in the DNS and its longest label (RFC 1035 §2.3.4), without the final dot. */
const MAX_DOMAIN = 253;
const MAX_LABEL = 63;
/** Descriptors 0 to 2 are input, output and errors (stdin(3)). */
const LAST_STANDARD_FD = 2;
/** Bytes of a log file, without `--log-size` and at least, as in passt(1). */
export const DEFAULT_LOG_SIZE = 1 << 20;
export const MIN_LOG_SIZE = 40960;
/** Search domains taken at most: what fits into DHCP and router advertisements, with room. */
export const MAX_SEARCH = 64;

/** A value that cannot be used; the message completes "-x VALUE: …". */
export class ValueError extends Error {
  override readonly name = "ValueError";
}

function refuse(message: string): never {
  throw new ValueError(message);
}

/** An address with optional prefix length. */
export interface Prefix {
  readonly address: Address;
  /** Null: none was given. */
  readonly prefixLength: number | null;
}

/** Any numeric address; IPv4 written as v4-mapped IPv6 is refused as ambiguous. */
export function parseAnyAddress(text: string): Address {
  const address = parseAddress(text);
  if (!address || text.includes(":") && isV4(address)) {
    refuse("not an IPv4 or IPv6 address");
  }
  return address;
}

/** An address that a host can have: not ::, loopback, multicast or broadcast. */
export function parseUnicast(text: string): Address {
  const address = parseAnyAddress(text);
  if (isUnspecified(address)) refuse("the unspecified address cannot be used here");
  if (isLoopback(address)) refuse("a loopback address cannot be used here");
  if (isMulticast(address)) refuse("a multicast address cannot be used here");
  if (isBroadcast(address)) refuse("the broadcast address cannot be used here");
  return address;
}

/** An address of a resolver: anything but :: and multicast. */
export function parseResolver(text: string): Address {
  const address = parseAnyAddress(text);
  if (isUnspecified(address)) refuse("the unspecified address cannot be used here");
  if (isMulticast(address) || isBroadcast(address)) refuse("not the address of one host");
  return address;
}

/** `ADDR` or `ADDR/LENGTH`. */
export function parsePrefix(text: string): Prefix {
  const slash = text.indexOf("/");
  if (slash < 0) return { address: parseUnicast(text), prefixLength: null };
  const address = parseUnicast(text.slice(0, slash));
  const digits = text.slice(slash + 1), max = isV4(address) ? 32 : 128;
  const prefixLength = /^\d{1,3}$/.test(digits) ? Number(digits) : 0;
  if (prefixLength < 1 || prefixLength > max) {
    refuse(`"/${digits}" is not a prefix length (1 to ${max})`);
  }
  return { address, prefixLength };
}

/** An IPv4 netmask, dotted or as number of bits. @returns 1–32 */
export function parseNetmask(text: string): number {
  const form = "not an IPv4 netmask (255.255.255.0 or 24, 1 to 32 bits)";
  if (/^\d{1,2}$/.test(text)) {
    const bits = Number(text);
    return bits >= 1 && bits <= 32 ? bits : refuse(form);
  }
  const address = text.includes(":") ? null : parseAddress(text);
  if (!address) refuse(form);
  const inverted = ~address[3];
  // a mask is ones, then zeros: its inverse plus one is a power of two
  if (address[3] === 0 || (inverted & (inverted + 1)) !== 0) refuse(form);
  return 32 - (inverted === 0 ? 0 : 32 - Math.clz32(inverted));
}

/** A hardware address of one station. @returns 6 bytes */
export function parseMac(text: string): Uint8Array<ArrayBuffer> {
  if (!/^[0-9a-f]{1,2}([:-][0-9a-f]{1,2}){5}$/i.test(text)) {
    refuse("not a MAC address (such as 9a:55:9a:55:9a:55)");
  }
  const mac = Uint8Array.from(text.split(/[:-]/), (byte) => parseInt(byte, 16));
  if (mac[0] & 1) refuse("a multicast MAC address cannot be used here");
  if (mac.every((byte) => byte === 0)) refuse("the zero MAC address cannot be used here");
  return mac;
}

/** @returns 0 (announce none), or 68–65520 */
export function parseMtu(text: string): number {
  const mtu = /^\d{1,6}$/.test(text) ? Number(text) : -1;
  if (mtu === 0 || mtu >= MIN_MTU && mtu <= MAX_MTU) return mtu;
  refuse(`not an MTU (${MIN_MTU} to ${MAX_MTU}, or 0 to set none)`);
}

/** A name that an interface can have: dev_valid_name() in the kernel, and % makes it a pattern. */
export function parseInterface(text: string): string {
  // deno-lint-ignore no-control-regex
  if (text === "." || text === ".." || !/^[^\s/:%\x00-\x1f]+$/.test(text)) {
    refuse("not an interface name (no spaces, /, : or %)");
  }
  if (new TextEncoder().encode(text).length > MAX_INTERFACE_NAME) {
    refuse(`not an interface name (at most ${MAX_INTERFACE_NAME} bytes)`);
  }
  return text;
}

/** A name that the namespace's interface can have: the kernel keeps some for itself. */
export function parseNewInterface(text: string): string {
  if (text === "lo") refuse("the namespace has a loopback interface of that name");
  if (text === "all" || text === "default") refuse("not an interface name (kept for sysctls)");
  return parseInterface(text);
}

/** A file's name. */
export function parsePath(text: string): string {
  if (text === "") refuse("not a file name");
  return text.includes("\0") ? refuse("not a file name") : text;
}

/** Path of a network namespace, given as path or as name (ip-netns(8)). */
export function parseNetns(text: string): string {
  const path = parsePath(text);
  return path.includes("/") ? path : `/run/netns/${path}`;
}

/** A user, and perhaps a group: numbers or names, looked up when they are needed. */
export function parseRunAs(text: string): string {
  if (/^[^:\s\0]+(:[^:\s\0]+)?$/.test(text)) return text;
  refuse("not a user (UID, UID:GID, LOGIN or LOGIN:GROUP)");
}

/** A descriptor that we may have inherited beside the standard ones. @param of what it is open on */
export function parseFd(text: string, of: "socket" | "file" = "socket"): number {
  const fd = /^\d{1,9}$/.test(text) ? Number(text) : -1;
  return fd > LAST_STANDARD_FD ? fd : refuse(`not a descriptor of a ${of} (a number from 3 on)`);
}

/** Largest size of a log file, in bytes. */
export function parseLogSize(text: string): number {
  const size = /^\d{1,16}$/.test(text) ? Number(text) : -1;
  if (size >= MIN_LOG_SIZE && size <= Number.MAX_SAFE_INTEGER) return size;
  refuse(`not a size in bytes (at least ${MIN_LOG_SIZE}, default: ${DEFAULT_LOG_SIZE})`);
}

/** A domain name (RFC 1035 §2.3.1, underscores allowed), without its final dot. */
export function parseDomain(text: string): string {
  const name = text.endsWith(".") ? text.slice(0, -1) : text;
  const labels = name.split(".");
  const fits = name.length <= MAX_DOMAIN &&
    labels.every((label) => /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?$/i.test(label)) &&
    labels.every((label) => label.length <= MAX_LABEL);
  return fits ? name : refuse(`"${text}" is not a domain name`);
}

/** Space-separated domains; `none` for an empty list. @param had number of domains there are already */
export function parseSearch(text: string, had = 0): string[] {
  if (text === "none") return [];
  const names = text.split(/\s+/).filter((name) => name !== "");
  if (names.length === 0) refuse("no domain given (domains separated by spaces, or none)");
  if (had + names.length > MAX_SEARCH) refuse(`more than ${MAX_SEARCH} domains`);
  return names.map(parseDomain);
}
