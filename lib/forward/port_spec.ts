// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The text of port specifications: syntax only, one part after the other, nothing computed.
 *
 * ```text
 * SPEC    = "none" | [LISTEN "/"] ITEM {"," ITEM}
 * LISTEN  = ADDRESS ["%" INTERFACE] | "*" ["%" INTERFACE] | "%" INTERFACE
 * ITEM    = "auto" | "all" [":" TADDR] | PORTS [":" TARGET] | "~" PORTS
 * PORTS   = PORT ["-" PORT]
 * TARGET  = PORTS | TADDR ["/" PORTS]
 * TADDR   = IPv4 address | "[" IPv6 address "]"
 * ADDRESS = IPv4 address | IPv6 address, with or without brackets
 * ```
 *
 * The slash behind a listening address and the one behind a target address are told apart by what stands
 * before the first of them: `PORTS:` or `all:` and an address in dotted form or in brackets is a target.
 * This is why an IPv6 target must have brackets: `2001:db8::1/80` is port 80 of a listening address.
 *
 * @module
 */
import { excerpt } from "../sys/text.ts";
import {
  type Address,
  isBroadcast,
  isLinkLocal,
  isMulticast,
  isUnspecified,
  isV4,
  parseAddress,
} from "../wire/address.ts";

/** Largest port number (RFC 9293 §3.1). */
export const MAX_PORT = 65535;
/** Longest specification in characters: the longest argument of a program (linux/binfmts.h). */
export const MAX_SPEC_LENGTH = 131072;
/** Longest name of an interface in bytes: IFNAMSIZ - 1 (linux/if.h). */
export const MAX_INTERFACE_NAME = 15;
/** Longest part of a text repeated in a message. */
const MAX_SHOWN = 40;

/** Text that is no port specification: one line that names the wrong part and what is accepted. */
export class PortSpecError extends Error {
  /** Name of the class. */
  override readonly name = "PortSpecError";
}

/** Refuses a part of the text. */
export function refuse(message: string): never {
  throw new PortSpecError(message);
}

/** A part of the text between quotes, cut, without control characters. */
export function quoted(text: string): string {
  return `"${excerpt(text, MAX_SHOWN)}"`;
}

/** One part of the list. */
export interface PortItem {
  /** As written. */
  readonly text: string;
  readonly kind: "ports" | "all" | "auto" | "excluded";
  /** Range; 1 and the largest port for `all`, unused for `auto`. */
  readonly first: number;
  readonly last: number;
  /** Port of the other side for {@linkcode first}. */
  readonly to: number;
  /** Address of the other side; null: the usual one. */
  readonly target: Address | null;
}

/** A specification, cut into its parts. */
export interface PortSpec {
  /** Listening address; null: all of both families. */
  readonly address: Address | null;
  /** Listening interface; null: all. */
  readonly device: string | null;
  /** At least one. */
  readonly items: readonly PortItem[];
}

/** Prefix of a message about a piece of an item. */
function within(item: string, piece: string): string {
  return item === piece ? quoted(piece) : `${quoted(item)}: ${quoted(piece)}`;
}

function parsePort(piece: string, item: string): number {
  const port = /^\d+$/.test(piece) ? Number(piece) : 0;
  if (port >= 1 && port <= MAX_PORT) return port;
  refuse(`${within(item, piece)} is not a port (1 to ${MAX_PORT})`);
}

/** `PORT` or `FIRST-LAST`. */
function parseRange(piece: string, item: string): [number, number] {
  const parts = piece.split("-", 3);
  if (parts.length > 2) refuse(`${within(item, piece)} is not a range (FIRST-LAST)`);
  const first = parsePort(parts[0], item);
  const last = parts.length === 2 ? parsePort(parts[1], item) : first;
  if (last < first) refuse(`${within(item, piece)} is a reversed range (FIRST-LAST)`);
  return [first, last];
}

/** An address; IPv4 written as v4-mapped IPv6 is refused as ambiguous. */
function parseIp(text: string, where: string): Address {
  const address = parseAddress(text);
  if (!address) refuse(`${where} is not an IPv4 or IPv6 address`);
  if (text.includes(":") && isV4(address)) refuse(`${where} is an IPv4 address in IPv6 form`);
  if (isMulticast(address) || isBroadcast(address)) {
    refuse(`${where} is not the address of one host`);
  }
  return address;
}

function parseTargetAddress(text: string, item: string): Address {
  const brackets = text.startsWith("[");
  const inner = brackets ? text.slice(1, -1) : text;
  const where = within(item, text);
  if (brackets && !inner.includes(":")) refuse(`${where} is not an IPv6 address in brackets`);
  const address = parseIp(inner, where);
  if (!brackets && !isV4(address)) refuse(`${where}: an IPv6 target must stand in brackets`);
  if (isUnspecified(address)) refuse(`${where} is not the address of one host`);
  return address;
}

/** Splits a target into its address and its ports; null: not given. */
function splitTarget(text: string, item: string): [string | null, string | null] {
  if (text.startsWith("[")) {
    const close = text.indexOf("]");
    if (close < 0) refuse(`${within(item, text)} lacks the closing bracket`);
    const rest = text.slice(close + 1);
    if (rest === "") return [text, null];
    if (rest.startsWith("/")) return [text.slice(0, close + 1), rest.slice(1)];
    refuse(`${within(item, rest)}: only /PORTS can follow a target address`);
  }
  const slash = text.indexOf("/");
  if (slash >= 0) return [text.slice(0, slash), text.slice(slash + 1)];
  if (text.includes(":") && parseAddress(text) === null) {
    refuse(`${quoted(item)} has more than one target`);
  }
  return /[.:]/.test(text) ? [text, null] : [null, text];
}

/** `PORTS[:TARGET]` */
function parsePorts(item: string): PortItem {
  const colon = item.indexOf(":");
  const listen = colon < 0 ? item : item.slice(0, colon);
  if (listen.includes("/") || !/^\d/.test(listen) && /^[[*%]/.test(listen)) {
    refuse(`${quoted(item)}: a listening address stands once, before the whole list`);
  }
  const [first, last] = parseRange(listen, item);
  if (colon < 0) return { text: item, kind: "ports", first, last, to: first, target: null };
  const [address, ports] = splitTarget(item.slice(colon + 1), item);
  const target = address === null ? null : parseTargetAddress(address, item);
  const [to, end] = ports === null ? [first, last] : parseRange(ports, item);
  if (end - to !== last - first) {
    refuse(`${quoted(item)}: ${count(last - first + 1)} cannot go to ${end - to + 1}`);
  }
  return { text: item, kind: "ports", first, last, to, target };
}

function count(ports: number): string {
  return ports === 1 ? "1 port" : `${ports} ports`;
}

/** `all:ADDRESS` */
function parseAllTarget(item: string): Address {
  const [address, ports] = splitTarget(item.slice("all:".length), item);
  if (ports !== null || address === null) {
    refuse(`${quoted(item)}: all takes no target ports, only an address`);
  }
  return parseTargetAddress(address, item);
}

function parseItem(item: string): PortItem {
  const all = { text: item, first: 1, last: MAX_PORT, to: 1, target: null };
  if (item === "") refuse("a part of the list is empty");
  if (item === "none") refuse(`"none" stands alone, not in a list or behind an address`);
  if (item === "auto") return { ...all, kind: "auto" };
  if (item === "all") return { ...all, kind: "all" };
  if (item.startsWith("all:")) return { ...all, kind: "all", target: parseAllTarget(item) };
  if (item.startsWith("~")) {
    if (item.includes(":")) refuse(`${quoted(item)}: an exclusion has no target`);
    const [first, last] = parseRange(item.slice(1), item);
    return { text: item, kind: "excluded", first, last, to: first, target: null };
  }
  if (/^[a-z]/i.test(item)) {
    refuse(`${quoted(item)} is not a port (1 to ${MAX_PORT}), a range, all, auto or none`);
  }
  return parsePorts(item);
}

/** A name that an interface can have: dev_valid_name() in the kernel, and % makes it a pattern. */
function parseDevice(name: string, head: string): string {
  if (name === "") refuse(`${quoted(head)}: the interface's name is empty`);
  // deno-lint-ignore no-control-regex
  if (name === "." || name === ".." || !/^[^\s/:%\x00-\x1f]+$/.test(name)) {
    refuse(`${quoted(head)}: ${quoted(name)} is not an interface name (no spaces, /, : or %)`);
  }
  if (new TextEncoder().encode(name).length > MAX_INTERFACE_NAME) {
    refuse(
      `${quoted(head)}: ${
        quoted(name)
      } is not an interface name (at most ${MAX_INTERFACE_NAME} bytes)`,
    );
  }
  return name;
}

/** What looks like the ports of a target instead of a group of an IPv6 address. */
const LIKE_TARGET = /^\d+(-\d+)?:.*:/;

function parseListenAddress(text: string, device: string | null): Address | null {
  if (text === "*" || text === "" && device !== null) return null;
  if (text === "") refuse(`no address before "/"`);
  const bare = text.startsWith("[") && text.endsWith("]") ? text.slice(1, -1) : text;
  if (bare !== text && !bare.includes(":")) {
    refuse(`${quoted(text)} is not an IPv6 address in brackets`);
  }
  if (LIKE_TARGET.test(text) && parseAddress(text) === null) {
    refuse(`${quoted(text)} is not an address (an IPv6 target must stand in brackets)`);
  }
  const address = parseIp(bare, quoted(text));
  if (isLinkLocal(address) && !isV4(address) && device === null) {
    refuse(`${quoted(text)} is link-local: give its interface too (ADDRESS%INTERFACE/)`);
  }
  return address;
}

/** First part of a list whose slash belongs to the target. */
const TARGET_HEAD = /^(all|\d+(-\d+)?):(\[[^\]]*\]|[\d.]*)$/;

/** How long `LISTEN "/"` is; 0: there is none. */
function listenLength(text: string): number {
  const slash = text.indexOf("/");
  if (slash < 0) return 0;
  const head = text.slice(0, slash);
  if (head[head.search(/[,%]/)] === ",") return 0; // a later part's
  return TARGET_HEAD.test(head) ? 0 : slash + 1;
}

/**
 * Cuts a port specification other than `none` into its parts.
 *
 * @param bind whether a listening address or interface is accepted
 * @throws PortSpecError naming the part that is wrong
 */
export function readPortSpec(text: string, bind: boolean): PortSpec {
  if (text === "") refuse("no ports given (none, all, auto, or ports such as 22,8080-8090:80-90)");
  if (text.length > MAX_SPEC_LENGTH) refuse(`longer than ${MAX_SPEC_LENGTH} characters`);
  const cut = listenLength(text);
  const list = text.slice(cut);
  let address: Address | null = null, device: string | null = null;
  if (cut > 0) {
    const head = text.slice(0, cut - 1), percent = head.indexOf("%");
    if (!bind) refuse(`${quoted(`${head}/`)}: ports of the namespace have no listening address`);
    device = percent < 0 ? null : parseDevice(head.slice(percent + 1), head);
    address = parseListenAddress(percent < 0 ? head : head.slice(0, percent), device);
    if (list === "") refuse(`no ports behind ${quoted(text)}`);
  }
  return { address, device, items: list.split(",").map(parseItem) };
}
