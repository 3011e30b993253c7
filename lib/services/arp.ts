// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * ARP (RFC 826): every IPv4 address but the guest's own is ours.
 *
 * Theory of operation: the guest's packets reach us whatever their destination, so each address it
 * asks for has our MAC address. Not answered are requests for the address the guest was assigned or
 * uses, announcements, and probes (RFC 5227 §2.1.1: sender 0.0.0.0): whoever probes wants to use the
 * address, and a second address of the guest's choice is its own affair. The exception are probes
 * for the gateway and for our own address, which are taken. We never ask: the guest's MAC address
 * is that of the frames it sends, and requests from a sender that cannot be it are ignored.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Context, Family } from "../context.ts";
import {
  type Address,
  formatAddress,
  isBroadcast,
  isLoopback,
  isMulticast,
  isUnspecified,
  sameAddress,
} from "../wire/address.ts";
import {
  ARP_REPLY,
  ARP_REQUEST,
  ARP_SENDER_MAC,
  ARP_SIZE,
  arpOperation,
  arpSender,
  arpTarget,
  checkArp,
  writeArp,
} from "../wire/arp.ts";
import { ETH_HEADER_SIZE, ETH_P_ARP, sameMac, writeEthernet } from "../wire/ethernet.ts";
import { answerOffset, learnGuestMac, sendAnswer } from "./reply.ts";

const log = getLogger();
const sender: Address = new Int32Array(4);
const target: Address = new Int32Array(4);

/** The gateway's address or our own. */
function isTaken(family: Family): boolean {
  if (sameAddress(target, 0, family.ourAddr, 0)) return true;
  return family.gateway !== null && sameAddress(target, 0, family.gateway, 0);
}

/** Whether `target`, asked for by `sender`, is to be answered with our MAC address. */
function isOurs(family: Family): boolean {
  if (isUnspecified(target) || isMulticast(target)) return false;
  if (isBroadcast(target) || isLoopback(target)) return false;
  if (sameAddress(target, 0, family.addr, 0) || sameAddress(target, 0, sender, 0)) return false;
  if (isTaken(family)) return true;
  return !isUnspecified(sender) && !sameAddress(target, 0, family.addrSeen, 0) &&
    !sameAddress(target, 0, family.linkLocalSeen, 0);
}

/**
 * Answers the frame if it is an ARP request for an address that is not the guest's.
 *
 * @param off offset of the Ethernet header in the link's arena
 * @param length bytes of the frame
 */
export function handleArp(ctx: Context, off: number, length: number): void {
  const view = ctx.link.arena.dv, family = ctx.ip4;
  const arp = checkArp(view, off, length);
  if (arp < 0 || family === null || arpOperation(view, arp) !== ARP_REQUEST) return;
  if (!learnGuestMac(ctx, off) || !sameMac(view, arp + ARP_SENDER_MAC, ctx.guestMac)) return;
  arpSender(view, arp, sender, 0);
  arpTarget(view, arp, target, 0);
  if (!isOurs(family)) return;
  if (log.level <= LogLevels.TRACE) log.trace(`ARP: ${formatAddress(target)} is ours`);
  const to = answerOffset(ctx);
  writeEthernet(view, to, ctx.guestMac, ctx.ourMac, ETH_P_ARP);
  writeArp(
    view,
    to + ETH_HEADER_SIZE,
    ARP_REPLY,
    ctx.ourMac,
    target,
    0,
    ctx.guestMac,
    sender,
    0,
  );
  sendAnswer(ctx, ETH_HEADER_SIZE + ARP_SIZE);
}
