// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Address mapping: which host address a guest means, and which address the guest sees for a host.
 *
 * Theory of operation: guest and host share addresses by default, so most are passed on as they are.
 * Names exist for what cannot be shared: `--map-host-loopback` (default: the gateway) stands for the
 * host's loopback, `--map-guest-addr` for the host's own address, `--dns-forward` for its resolver.
 * Mapping is done once per flow, when the other side of the table entry is filled in; packets of the
 * flow then use both sides as recorded, so that replies are translated back without a rule of their
 * own.
 *
 * @module
 */
import type { Context, Family } from "../context.ts";
import { type FlowSide, Pif, SIDE_EADDR, SIDE_OADDR } from "../flow/side.ts";
import {
  type Address,
  ANY4,
  ANY6,
  isLinkLocal,
  isLoopback,
  isUnspecified,
  isV4,
  LOOPBACK4,
  LOOPBACK6,
  sameAddress,
} from "../wire/address.ts";

import { IPPROTO_TCP, IPPROTO_UDP } from "../wire/ipv4.ts";

const DNS_PORT = 53; // RFC 1035 §4.2

/** The family configuration an address belongs to; null when that family is disabled. */
export function familyFor(ctx: Context, words: Int32Array, at: number): Family | null {
  return isV4(words, at) ? ctx.ip4 : ctx.ip6;
}

function is(address: Address | null, words: Int32Array, at: number): boolean {
  return address !== null && sameAddress(address, 0, words, at);
}

/**
 * Fills the target side of a flow that the guest starts.
 *
 * @param proto IP protocol: only TCP and UDP have a port 53
 * @param ini the guest's side: `eaddr` the guest, `oaddr` the destination as the guest names it
 * @param tgt receives interface HOST, the real destination, and no source (the kernel chooses)
 * @returns false when the destination's family is disabled
 */
export function natFromTap(
  ctx: Context,
  proto: number,
  ini: FlowSide,
  tgt: FlowSide,
): boolean {
  const words = ini.words;
  const family = familyFor(ctx, words, SIDE_OADDR);
  if (!family) return false;
  const v4 = isV4(words, SIDE_OADDR);
  tgt.pif = Pif.HOST;
  tgt.setOur(v4 ? ANY4 : ANY6, 0, 0);
  const port = ini.oport;
  const dns = port === DNS_PORT && (proto === IPPROTO_UDP || proto === IPPROTO_TCP);
  if (dns && family.dnsHost && is(family.dnsForward, words, SIDE_OADDR)) {
    tgt.setEndpoint(family.dnsHost, 0, port);
  } else if (is(family.mapHostLoopback, words, SIDE_OADDR)) {
    tgt.setEndpoint(v4 ? LOOPBACK4 : LOOPBACK6, 0, port);
  } else if (is(family.mapGuestAddr, words, SIDE_OADDR)) {
    tgt.setEndpoint(family.addr, 0, port);
  } else {
    tgt.setEndpoint(words, SIDE_OADDR, port);
  }
  return true;
}

/** The guest's name for the host-side peer `words[at…]`, or null when it can keep its own address. */
function guestName(family: Family, words: Int32Array, at: number): Address | null {
  if (isLoopback(words, at)) return family.mapHostLoopback ?? family.ourAddr;
  if (family.mapGuestAddr && sameAddress(family.addr, 0, words, at)) return family.mapGuestAddr;
  // the guest would take its own or an unroutable address for its own traffic and drop it
  if (isUnspecified(words, at)) return family.ourAddr;
  if (sameAddress(family.addr, 0, words, at) || sameAddress(family.addrSeen, 0, words, at)) {
    return family.ourAddr;
  }
  return null;
}

/**
 * Fills the target side of a flow that somebody on the host's side starts towards the guest.
 *
 * Local traffic goes to a socket in the guest's namespace where that is configured (interface SPLICE,
 * no source: the kernel chooses), everything else through the tap.
 *
 * @param ini the host's side: `eaddr` the peer, `oaddr` our listening address
 * @param tgt receives the interface, the guest as endpoint, and the peer as the guest sees it
 * @param guestPort port to connect to in the guest
 * @param target address to connect to instead of the guest's own; null: its own
 * @returns false when the guest has no address of that family
 */
export function natFromHost(
  ctx: Context,
  ini: FlowSide,
  tgt: FlowSide,
  guestPort: number,
  target: Address | null = null,
): boolean {
  const words = ini.words;
  const family = familyFor(ctx, words, SIDE_EADDR);
  if (!family || target && isV4(target) !== isV4(words, SIDE_EADDR)) return false;
  if (ctx.features.spliceInbound && isLoopback(words, SIDE_EADDR)) {
    intoNamespace(ctx, family, tgt, guestPort, target);
    return true;
  }
  const linkLocal = !isV4(words, SIDE_EADDR) && isLinkLocal(words, SIDE_EADDR) &&
    !isUnspecified(family.linkLocalSeen);
  let guest = linkLocal ? family.linkLocalSeen : family.addrSeen;
  if (isUnspecified(guest)) guest = family.linkLocalSeen; // all that a guest has in local mode
  if (target) guest = target;
  if (isUnspecified(guest)) return false;
  tgt.pif = Pif.TAP;
  tgt.setEndpoint(guest, 0, guestPort);
  const name = guestName(family, words, SIDE_EADDR);
  if (linkLocal) tgt.setOur(family.ourLinkLocal, 0, ini.eport);
  else if (name) tgt.setOur(name, 0, ini.eport);
  else tgt.setOur(words, SIDE_EADDR, ini.eport);
  return true;
}

/** Target of local traffic: a socket of the guest's namespace connects to the guest's address. */
function intoNamespace(
  ctx: Context,
  family: Family,
  tgt: FlowSide,
  port: number,
  target: Address | null,
): void {
  const v4 = family === ctx.ip4;
  const loopback = ctx.features.hostLoToNsLo || isUnspecified(family.addrSeen);
  tgt.pif = Pif.SPLICE;
  tgt.setEndpoint(target ?? (loopback ? v4 ? LOOPBACK4 : LOOPBACK6 : family.addrSeen), 0, port);
  tgt.setOur(v4 ? ANY4 : ANY6, 0, 0);
}

/**
 * Fills the target side of a flow that somebody in the guest's namespace starts towards a port of the
 * host by its own loopback (`-T`, `-U`).
 *
 * @param ini the guest's side: `eaddr` the peer, `oaddr` our listening address in the namespace
 * @param tgt receives interface HOST and the host's loopback, or `target`, as endpoint
 * @param port port of the host
 * @param target address of the host's side to connect to; null: its loopback
 * @returns false for what is not local to the namespace, or of a family that is disabled
 */
export function natFromSplice(
  ctx: Context,
  ini: FlowSide,
  tgt: FlowSide,
  port: number,
  target: Address | null = null,
): boolean {
  const words = ini.words;
  const v4 = isV4(words, SIDE_EADDR);
  if (!familyFor(ctx, words, SIDE_EADDR) || target && isV4(target) !== v4) return false;
  if (!isLoopback(words, SIDE_EADDR) || !isLoopback(words, SIDE_OADDR)) return false;
  tgt.pif = Pif.HOST;
  tgt.setEndpoint(target ?? (v4 ? LOOPBACK4 : LOOPBACK6), 0, port);
  tgt.setOur(v4 ? ANY4 : ANY6, 0, 0);
  return true;
}
