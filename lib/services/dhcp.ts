// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * DHCP server for IPv4 (RFC 2131), with exactly one address to give.
 *
 * Theory of operation: there is no state. Whoever asks is the guest, the address is the assigned one,
 * the lease is infinite, the server is our own address:
 *
 * | request | answer |
 * | --- | --- |
 * | DISCOVER | OFFER; with option 80, ACK at once (RFC 4039) |
 * | REQUEST for our address, or for none | ACK |
 * | REQUEST for another address | NAK, broadcast: the client begins anew (RFC 2131 §4.3.2) |
 * | REQUEST naming another server | none: the client chose that one |
 * | INFORM | ACK without address and lease (RFC 2131 §4.3.5) |
 * | DECLINE, RELEASE | none; nothing to forget |
 * | BOOTP, no message type | reply without DHCP's options, of 300 bytes (RFC 951, RFC 1534) |
 *
 * Options: message type, server and lease first, then what the client lists in option 55 in its
 * order, then what is left of ours. An option for which there is no room is left out, a search list
 * is cut between names; the room is what option 57 grants, else 548 bytes (RFC 2131 §2). A gateway
 * outside the subnet comes with classless routes (RFC 3442): one to the gateway itself, and one via
 * it. Requests that came through a relay are ignored: the guest's link is the only one.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Context, Family } from "../context.ts";
import {
  type Address,
  ANY4,
  formatAddress,
  fromV4,
  isBroadcast,
  isLoopback,
  isMulticast,
  isUnspecified,
  sameAddress,
} from "../wire/address.ts";
import {
  checkDhcp,
  DHCP_ACK,
  DHCP_CHADDR,
  DHCP_CIADDR,
  DHCP_CLIENT_PORT,
  DHCP_DISCOVER,
  DHCP_FLAG_BROADCAST,
  DHCP_FLAGS,
  DHCP_GIADDR,
  DHCP_INFINITY,
  DHCP_INFORM,
  DHCP_MAX_SIZE,
  DHCP_MIN_SIZE,
  DHCP_NAK,
  DHCP_OFFER,
  DHCP_OPT_LEASE,
  DHCP_OPT_MAX_SIZE,
  DHCP_OPT_RAPID_COMMIT,
  DHCP_OPT_REQUESTED,
  DHCP_OPT_SERVER_ID,
  DHCP_OPT_TYPE,
  DHCP_OPTIONS,
  DHCP_REQUEST,
  DHCP_SERVER_PORT,
  dhcpMessageType,
  dhcpOption,
  dhcpOptionOf,
  DhcpWriter,
  writeDhcpReply,
} from "../wire/dhcp.ts";
import { loadMac } from "../wire/ethernet.ts";
import { IPPROTO_UDP, IPV4_HEADER_SIZE } from "../wire/ipv4.ts";
import { DEST, type Packet } from "../wire/packet.ts";
import { UDP_HEADER_SIZE, udpDestPort, udpLength } from "../wire/udp.ts";
import { putClientId, putConfiguration } from "./dhcp_options.ts";
import {
  answerOffset,
  BROADCAST_MAC,
  isForeignMac,
  learnGuestMac,
  sendUdp4,
  UDP4_PAYLOAD,
} from "./reply.ts";

const log = getLogger();
const writer = new DhcpWriter();
const clientMac = new Uint8Array(6);
const clientAddress: Address = fromV4(0);
const BROADCAST: Address = fromV4(0xffffffff | 0); // RFC 919

/** Answer to a request without message type: BOOTP (RFC 951). */
const BOOTP_REPLY = 0;
/** No answer. */
const NONE = -1;

/** IP and UDP headers, which option 57 counts in (RFC 2131 §2: 576 bytes hold a message of 548). */
const HEADERS = IPV4_HEADER_SIZE + UDP_HEADER_SIZE;
/** Largest message that is worth it: what an Ethernet frame holds (RFC 894). */
const MAX_PACKET = 1500;
const PORTS = DHCP_SERVER_PORT << 16 | DHCP_CLIENT_PORT;

/** Answer to a DHCPREQUEST (RFC 2131 §4.3.2): ACK, NAK or none. */
function answerToRequest(family: Family, view: DataView, msg: number): number {
  const server = dhcpOptionOf(view, msg, DHCP_OPT_SERVER_ID, 4);
  if (server >= 0 && view.getInt32(server) !== family.ourAddr[3]) return NONE;
  const requested = dhcpOptionOf(view, msg, DHCP_OPT_REQUESTED, 4);
  const wanted = view.getInt32(requested >= 0 ? requested : msg + DHCP_CIADDR);
  return wanted === 0 || wanted === family.addr[3] ? DHCP_ACK : DHCP_NAK;
}

/** Message type of the answer, {@linkcode BOOTP_REPLY} or {@linkcode NONE}. */
function answerType(family: Family, view: DataView, msg: number): number {
  switch (dhcpMessageType(view, msg)) {
    case DHCP_DISCOVER:
      return dhcpOption(view, msg, DHCP_OPT_RAPID_COMMIT) >= 0 ? DHCP_ACK : DHCP_OFFER;
    case DHCP_REQUEST:
      return answerToRequest(family, view, msg);
    case DHCP_INFORM:
      return DHCP_ACK;
    case 0: // no type at all is BOOTP, a type of the wrong size is nothing
      return dhcpOption(view, msg, DHCP_OPT_TYPE) < 0 ? BOOTP_REPLY : NONE;
    default:
      return NONE;
  }
}

/** Bytes that the answer's message may have. */
function roomFor(ctx: Context, view: DataView, msg: number, answer: number): number {
  if (answer === BOOTP_REPLY) return DHCP_MIN_SIZE;
  const option = dhcpOptionOf(view, msg, DHCP_OPT_MAX_SIZE, 2);
  if (option < 0) return DHCP_MAX_SIZE;
  const granted = Math.min(view.getUint16(option), ctx.mtu, MAX_PACKET) - HEADERS;
  return Math.max(granted, DHCP_MAX_SIZE);
}

/** Reads `ciaddr` into {@linkcode clientAddress}; whether a host can have it. */
function loadClientAddress(view: DataView, msg: number): boolean {
  clientAddress[3] = view.getInt32(msg + DHCP_CIADDR);
  return !isUnspecified(clientAddress) && !isMulticast(clientAddress) &&
    !isBroadcast(clientAddress) && !isLoopback(clientAddress);
}

/**
 * Writes the answer into the control slot.
 *
 * @param informed whether the client keeps an address of its own (INFORM)
 * @returns bytes of the message
 */
function writeAnswer(
  ctx: Context,
  family: Family,
  msg: number,
  answer: number,
  informed: boolean,
): number {
  const view = ctx.link.arena.dv, start = answerOffset(ctx) + UDP4_PAYLOAD;
  const given = answer === DHCP_NAK || informed ? ANY4 : family.addr;
  writeDhcpReply(view, start, view, msg, given, ANY4);
  writer.reset(view, start + DHCP_OPTIONS, start + roomFor(ctx, view, msg, answer));
  if (answer !== BOOTP_REPLY) {
    writer.u8(DHCP_OPT_TYPE, answer);
    writer.u32(DHCP_OPT_SERVER_ID, family.ourAddr[3]);
    putClientId(writer, view, msg);
  }
  if (answer === DHCP_NAK || answer === DHCP_OFFER) view.setUint32(start + DHCP_CIADDR, 0);
  if (answer === DHCP_NAK) return writer.finish(start);
  if (answer !== BOOTP_REPLY && !informed) writer.u32(DHCP_OPT_LEASE, DHCP_INFINITY);
  if (answer === DHCP_ACK && dhcpMessageType(view, msg) === DHCP_DISCOVER) {
    writer.empty(DHCP_OPT_RAPID_COMMIT);
    view.setUint32(start + DHCP_CIADDR, 0);
  }
  putConfiguration(ctx, family, writer, view, msg);
  return writer.finish(start);
}

/**
 * Sends the answer to where RFC 2131 §4.1 says: to `ciaddr` when the client has it, else to all when
 * it asked for that, else to the address it is given, at its hardware address.
 */
function sendTo(
  ctx: Context,
  family: Family,
  msg: number,
  bytes: number,
  answer: number,
  informed: boolean,
): void {
  const view = ctx.link.arena.dv, chaddr = msg + DHCP_CHADDR;
  if (isForeignMac(ctx, view, chaddr)) loadMac(view, chaddr, clientMac);
  else clientMac.set(ctx.guestMac);
  const known = answer !== DHCP_NAK && loadClientAddress(view, msg) &&
    (informed || sameAddress(clientAddress, 0, family.addr, 0));
  if (known) {
    sendUdp4(ctx, bytes, clientMac, family.ourAddr, clientAddress, PORTS);
  } else if (
    answer === DHCP_NAK || (view.getUint16(msg + DHCP_FLAGS) & DHCP_FLAG_BROADCAST) !== 0
  ) {
    sendUdp4(ctx, bytes, BROADCAST_MAC, family.ourAddr, BROADCAST, PORTS);
  } else {
    sendUdp4(ctx, bytes, clientMac, family.ourAddr, family.addr, PORTS);
  }
}

/** Names of {@linkcode answerType}'s values for the log. */
function answerName(answer: number): string {
  switch (answer) {
    case BOOTP_REPLY:
      return "BOOTP reply";
    case DHCP_OFFER:
      return "OFFER";
    case DHCP_NAK:
      return "NAK";
    default:
      return "ACK";
  }
}

/** Answers a checked message. */
function answerMessage(ctx: Context, family: Family, msg: number): void {
  const view = ctx.link.arena.dv;
  const answer = answerType(family, view, msg);
  if (answer === NONE) return;
  const informed = dhcpMessageType(view, msg) === DHCP_INFORM;
  if (informed && !loadClientAddress(view, msg)) return;
  const bytes = writeAnswer(ctx, family, msg, answer, informed);
  if (log.level <= LogLevels.DEBUG) {
    log.debug(`DHCP: ${answerName(answer)}, address ${formatAddress(family.addr)}`);
  }
  sendTo(ctx, family, msg, bytes, answer, informed);
}

/**
 * Takes a datagram to port 67 and answers it.
 *
 * @param packet as parsed
 * @param payload offset of the UDP payload, as `checkUdp` returned it
 * @param off offset of the Ethernet header in the link's arena
 * @returns whether it was taken: with the service on or off, answered or not, such a datagram goes
 *   no further
 */
export function handleDhcp(ctx: Context, packet: Packet, payload: number, off: number): boolean {
  const view = ctx.link.arena.dv, family = ctx.ip4;
  if (packet.version !== 4 || packet.proto !== IPPROTO_UDP) return false;
  if (payload < 0 || udpDestPort(view, packet.l4) !== DHCP_SERVER_PORT) return false;
  if (family === null || !ctx.features.dhcp) return true;
  if (!checkDhcp(view, payload, packet.l4 + udpLength(view, packet.l4))) return true;
  if (view.getUint32(payload + DHCP_GIADDR) !== 0 || !isForUs(family, packet)) return true;
  if (learnGuestMac(ctx, off)) answerMessage(ctx, family, payload);
  return true;
}

/** Whether the destination is one that a server on the link listens on, and not the guest itself. */
function isForUs(family: Family, packet: Packet): boolean {
  return !isMulticast(packet.addresses, DEST) &&
    !sameAddress(packet.addresses, DEST, family.addr, 0);
}
