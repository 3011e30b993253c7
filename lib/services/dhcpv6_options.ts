// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The options of a DHCPv6 answer: identity associations (RFC 8415 §21.4–§21.6, §21.21), resolvers
 * and search list (RFC 3646), the client's name (RFC 4704).
 *
 * @module
 */
import type { Context, Family } from "../context.ts";
import { type Address, loadV6, sameAddress } from "../wire/address.ts";
import {
  DHCPV6_FQDN_S,
  DHCPV6_IA_NA_SIZE,
  DHCPV6_IA_TA_SIZE,
  DHCPV6_INFINITY,
  DHCPV6_OPT_DNS,
  DHCPV6_OPT_FQDN,
  DHCPV6_OPT_IA_ADDR,
  DHCPV6_OPT_IA_NA,
  DHCPV6_OPT_IA_TA,
  DHCPV6_OPT_SEARCH,
  DHCPV6_OPT_STATUS,
  DHCPV6_OPTIONS,
  DHCPV6_REBIND,
  DHCPV6_RENEW,
  DHCPV6_REQUEST,
  DHCPV6_STATUS_NOT_ON_LINK,
  DHCPV6_STATUS_SUCCESS,
  dhcpv6Option,
  dhcpv6OptionSize,
  dhcpv6Type,
  type Dhcpv6Writer,
} from "../wire/dhcpv6.ts";
import { encodeDomainName } from "../wire/dns_name.ts";
import { plainSearchList } from "./search_list.ts";

/** Identity association for prefix delegation, and the bytes before its options (RFC 8415 §21.21). */
const DHCPV6_OPT_IA_PD = 25;
const IA_PD_SIZE = 12;
/** Status codes (RFC 8415 §21.13). */
const DHCPV6_STATUS_NO_ADDRS_AVAIL = 2;
const DHCPV6_STATUS_NO_PREFIX_AVAIL = 6;
/** Flags of the client's FQDN option: we override S; we update nothing (RFC 4704 §4.1). */
const FQDN_FLAG_OVERRIDE = 0x02;
const FQDN_FLAG_NO_UPDATE = 0x04;
/** Most resolvers in one answer: half of what 1280 bytes hold. */
const MAX_RESOLVERS = 32;

/** {@linkcode confirmation}: there is nothing to confirm. */
export const NO_ADDRESSES = -1;

const encoder = new TextEncoder();
const NOT_ON_LINK = encoder.encode("Address is not on the link");
const NO_MORE = encoder.encode("One address is all there is");
const address: Address = new Int32Array(4);
const fqdnOf = new WeakMap<Context, Uint8Array<ArrayBuffer>>();

/** A whole association refused: `bytes` before its options, the IAID at 0, then the status. */
function refusal(bytes: number, status: number): Uint8Array<ArrayBuffer> {
  const data = new Uint8Array(bytes + 6);
  const view = new DataView(data.buffer);
  view.setUint16(bytes, DHCPV6_OPT_STATUS);
  view.setUint16(bytes + 2, 2); // the code alone, no message
  view.setUint16(bytes + 4, status);
  return data;
}

const refusedTemporary = refusal(DHCPV6_IA_TA_SIZE, DHCPV6_STATUS_NO_ADDRS_AVAIL);
const refusedPrefix = refusal(IA_PD_SIZE, DHCPV6_STATUS_NO_PREFIX_AVAIL);

/**
 * Reads the next address of the association that ends at `end` into {@linkcode address}.
 *
 * @param at where to look: behind the fixed part, or what the last call returned
 * @returns offset behind its option, or -1 when there is none
 */
function nextAddress(view: DataView, at: number, end: number): number {
  const data = dhcpv6Option(view, at, end, DHCPV6_OPT_IA_ADDR);
  if (data < 0) return -1;
  loadV6(view, data, address, 0);
  return data + dhcpv6OptionSize(view, data);
}

/** Whether the association with `data` names an address that is not the assigned one. */
function namesOther(family: Family, view: DataView, data: number, fixed: number): boolean {
  const end = data + dhcpv6OptionSize(view, data);
  let at = nextAddress(view, data + fixed, end);
  for (; at >= 0; at = nextAddress(view, at, end)) {
    if (!sameAddress(address, 0, family.addr, 0)) return true;
  }
  return false;
}

/** The assigned address with infinite lifetimes; others that were named, with lifetimes 0. */
function putAddresses(family: Family, writer: Dhcpv6Writer, view: DataView, data: number): void {
  const end = data + dhcpv6OptionSize(view, data), forever = DHCPV6_INFINITY;
  const ia = writer.openIaNa(view.getUint32(data), forever, forever);
  if (ia < 0) return;
  writer.iaAddr(family.addr, 0, forever, forever);
  let at = nextAddress(view, data + DHCPV6_IA_NA_SIZE, end);
  for (; at >= 0; at = nextAddress(view, at, end)) {
    if (!sameAddress(address, 0, family.addr, 0)) writer.iaAddr(address, 0, 0, 0);
  }
  writer.close(ia);
}

/** The assigned address alone, whatever was named. */
function putAddress(family: Family, writer: Dhcpv6Writer, view: DataView, data: number): void {
  const ia = writer.openIaNa(view.getUint32(data), DHCPV6_INFINITY, DHCPV6_INFINITY);
  if (ia >= 0) writer.iaAddr(family.addr, 0, DHCPV6_INFINITY, DHCPV6_INFINITY);
  writer.close(ia);
}

/** An association with a status instead of an address. */
function putRefusal(
  writer: Dhcpv6Writer,
  view: DataView,
  data: number,
  status: number,
  message: Uint8Array,
): void {
  const ia = writer.openIaNa(view.getUint32(data), 0, 0);
  if (ia >= 0) writer.status(status, message);
  writer.close(ia);
}

/** Refuses each association of `code` with `answer`, whose first four bytes take the IAID. */
function refuseAll(
  writer: Dhcpv6Writer,
  view: DataView,
  msg: number,
  end: number,
  code: number,
  answer: Uint8Array,
): void {
  let data = dhcpv6Option(view, msg + DHCPV6_OPTIONS, end, code);
  while (data >= 0) {
    const size = dhcpv6OptionSize(view, data);
    if (size >= DHCPV6_IA_TA_SIZE) {
      for (let i = 0; i < 4; i++) answer[i] = view.getUint8(data + i);
      if (!writer.bytes(code, answer)) return;
    }
    data = dhcpv6Option(view, data + size, end, code);
  }
}

/**
 * Answers every identity association of a SOLICIT, REQUEST, RENEW or REBIND.
 *
 * @param writer of the answer
 * @param msg offset of the checked message in `view`
 * @param end one past its last byte
 */
export function putAssociations(
  family: Family,
  writer: Dhcpv6Writer,
  view: DataView,
  msg: number,
  end: number,
): void {
  const type = dhcpv6Type(view, msg);
  const extending = type === DHCPV6_RENEW || type === DHCPV6_REBIND;
  let first = true;
  let data = dhcpv6Option(view, msg + DHCPV6_OPTIONS, end, DHCPV6_OPT_IA_NA);
  while (data >= 0) {
    if (type === DHCPV6_REQUEST && namesOther(family, view, data, DHCPV6_IA_NA_SIZE)) {
      putRefusal(writer, view, data, DHCPV6_STATUS_NOT_ON_LINK, NOT_ON_LINK);
    } else if (!first) {
      putRefusal(writer, view, data, DHCPV6_STATUS_NO_ADDRS_AVAIL, NO_MORE);
    } else {
      if (extending) putAddresses(family, writer, view, data);
      else putAddress(family, writer, view, data);
      first = false;
    }
    const next = data + dhcpv6OptionSize(view, data);
    data = dhcpv6Option(view, next, end, DHCPV6_OPT_IA_NA);
  }
  refuseAll(writer, view, msg, end, DHCPV6_OPT_IA_TA, refusedTemporary);
  refuseAll(writer, view, msg, end, DHCPV6_OPT_IA_PD, refusedPrefix);
}

/**
 * What to tell a client that asks with CONFIRM whether its addresses are right for the link.
 *
 * @returns Success, NotOnLink, or {@linkcode NO_ADDRESSES} when the message names none
 */
export function confirmation(family: Family, view: DataView, msg: number, end: number): number {
  let status = NO_ADDRESSES;
  for (let pass = 0; pass < 2; pass++) {
    const code = pass === 0 ? DHCPV6_OPT_IA_NA : DHCPV6_OPT_IA_TA;
    const fixed = pass === 0 ? DHCPV6_IA_NA_SIZE : DHCPV6_IA_TA_SIZE;
    let data = dhcpv6Option(view, msg + DHCPV6_OPTIONS, end, code);
    while (data >= 0) {
      const next = data + dhcpv6OptionSize(view, data);
      if (namesOther(family, view, data, fixed)) return DHCPV6_STATUS_NOT_ON_LINK;
      if (nextAddress(view, data + fixed, next) >= 0) status = DHCPV6_STATUS_SUCCESS;
      data = dhcpv6Option(view, next, end, code);
    }
  }
  return status;
}

function putFqdn(ctx: Context, writer: Dhcpv6Writer, view: DataView, asked: number): void {
  let name = fqdnOf.get(ctx);
  if (!name) fqdnOf.set(ctx, name = encodeDomainName(ctx.fqdn) ?? new Uint8Array(0));
  if (name.length === 0 || dhcpv6OptionSize(view, asked) < 1) return;
  const override = (view.getUint8(asked) & DHCPV6_FQDN_S) !== 0 ? FQDN_FLAG_OVERRIDE : 0;
  writer.fqdn(FQDN_FLAG_NO_UPDATE | override, name);
}

/**
 * Appends resolvers, search list and, to a client that sent one, the configured name. They are sent
 * whether the client lists them in its option request or not, as all clients know them.
 */
export function putConfiguration(
  ctx: Context,
  family: Family,
  writer: Dhcpv6Writer,
  view: DataView,
  msg: number,
  end: number,
): void {
  const all = family.dns;
  writer.addresses(DHCPV6_OPT_DNS, all.length <= MAX_RESOLVERS ? all : all.slice(0, MAX_RESOLVERS));
  const list = plainSearchList(ctx.search);
  for (let i = list.length - 1; i >= 0; i--) {
    if (writer.bytes(DHCPV6_OPT_SEARCH, list[i])) break;
  }
  const asked = dhcpv6Option(view, msg + DHCPV6_OPTIONS, end, DHCPV6_OPT_FQDN);
  if (ctx.fqdn !== "" && asked >= 0) putFqdn(ctx, writer, view, asked);
}
