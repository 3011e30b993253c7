// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * DHCPv6 server (RFC 8415), with exactly one address to give.
 *
 * Theory of operation: there is no state. Whoever asks is the guest; the first IA_NA it names gets
 * the assigned address with infinite lifetimes, further ones and temporary addresses get
 * NoAddrsAvail, prefixes NoPrefixAvail:
 *
 * | message | answer |
 * | --- | --- |
 * | SOLICIT | ADVERTISE with preference 255, so that the client does not wait for others; with rapid commit, REPLY |
 * | REQUEST | REPLY; NotOnLink in an IA that names an address which is not ours (§18.3.2) |
 * | RENEW, REBIND | REPLY; such an address comes back with lifetimes 0, ours beside it (§18.3.4) |
 * | CONFIRM | REPLY with status Success, or NotOnLink (§18.3.3); none without an address |
 * | RELEASE, DECLINE | REPLY with status Success; nothing to forget |
 * | INFORMATION-REQUEST | REPLY with resolvers and search list |
 *
 * Messages that lack an identifier they must have, or that name another server, are discarded (§16).
 * Only what is sent to All_DHCP_Relay_Agents_and_Servers is answered, since we never offer unicast.
 * Our identifier is a DUID-LL, the same after every start.
 *
 * @module
 */
import { getLogger, LogLevels } from "@std/log";
import type { Context, Family } from "../context.ts";
import { type Address, isMulticast, isUnspecified, sameAddress } from "../wire/address.ts";
import {
  checkDhcpv6,
  DHCPV6_ADVERTISE,
  DHCPV6_CLIENT_PORT,
  DHCPV6_CONFIRM,
  DHCPV6_DECLINE,
  DHCPV6_INFORMATION_REQUEST,
  DHCPV6_OPT_CLIENT_ID,
  DHCPV6_OPT_IA_NA,
  DHCPV6_OPT_IA_TA,
  DHCPV6_OPT_RAPID_COMMIT,
  DHCPV6_OPT_SERVER_ID,
  DHCPV6_OPTIONS,
  DHCPV6_REBIND,
  DHCPV6_RELEASE,
  DHCPV6_RENEW,
  DHCPV6_REPLY,
  DHCPV6_REQUEST,
  DHCPV6_SERVER_PORT,
  DHCPV6_SOLICIT,
  DHCPV6_STATUS_NOT_ON_LINK,
  DHCPV6_STATUS_SUCCESS,
  dhcpv6Option,
  dhcpv6OptionSize,
  dhcpv6Transaction,
  dhcpv6Type,
  Dhcpv6Writer,
} from "../wire/dhcpv6.ts";
import { IPPROTO_UDP } from "../wire/ipv4.ts";
import { IPV6_HEADER_SIZE } from "../wire/ipv6.ts";
import { DEST, type Packet, SOURCE } from "../wire/packet.ts";
import { UDP_HEADER_SIZE, udpDestPort, udpLength } from "../wire/udp.ts";
import { confirmation, NO_ADDRESSES, putAssociations, putConfiguration } from "./dhcpv6_options.ts";
import { answerOffset, IPV6_MIN_MTU, learnGuestMac, sendUdp6, UDP6_PAYLOAD } from "./reply.ts";

const log = getLogger();
const writer = new Dhcpv6Writer();
const encoder = new TextEncoder();

/** ff02::1:2, All_DHCP_Relay_Agents_and_Servers (RFC 8415 §7.1). */
const ALL_SERVERS: Address = Int32Array.of(0xff020000 | 0, 0, 0, 0x00010002);
const PORTS = DHCPV6_SERVER_PORT << 16 | DHCPV6_CLIENT_PORT;
/** Bytes of the longest answer. */
const MAX_MESSAGE = IPV6_MIN_MTU - IPV6_HEADER_SIZE - UDP_HEADER_SIZE;

/** Preference option and the value that ends the client's waiting (RFC 8415 §21.8, §18.2.1). */
const DHCPV6_OPT_PREFERENCE = 7;
const PREFERENCE_MAX = Uint8Array.of(255);

/** DUID-LL (RFC 8415 §11.4): type 3, hardware type 1, MAC address. */
const duid = Uint8Array.of(0, 3, 0, 1, 0, 0, 0, 0, 0, 0);
const DUID_MAC = 4;

const ON_LINK = encoder.encode("Addresses are on the link");
const NOT_ON_LINK = encoder.encode("Addresses are not on the link");
const DONE = encoder.encode("Nothing is kept");

/** Whether the server identifier at `data` is ours. */
function isOurDuid(view: DataView, data: number): boolean {
  if (dhcpv6OptionSize(view, data) !== duid.length) return false;
  for (let i = 0; i < duid.length; i++) if (view.getUint8(data + i) !== duid[i]) return false;
  return true;
}

/** Whether the message has the identifiers, and only those, that its type asks for (RFC 8415 §16). */
function identifiersHold(view: DataView, at: number, end: number, type: number): boolean {
  const client = dhcpv6Option(view, at, end, DHCPV6_OPT_CLIENT_ID);
  const server = dhcpv6Option(view, at, end, DHCPV6_OPT_SERVER_ID);
  switch (type) {
    case DHCPV6_SOLICIT:
    case DHCPV6_CONFIRM:
    case DHCPV6_REBIND:
      return client >= 0 && server < 0;
    case DHCPV6_INFORMATION_REQUEST:
      return (server < 0 || isOurDuid(view, server)) &&
        dhcpv6Option(view, at, end, DHCPV6_OPT_IA_NA) < 0 &&
        dhcpv6Option(view, at, end, DHCPV6_OPT_IA_TA) < 0;
    default: // REQUEST, RENEW, RELEASE, DECLINE
      return client >= 0 && server >= 0 && isOurDuid(view, server);
  }
}

/** Begins the answer: identifiers of both sides. */
function beginAnswer(ctx: Context, msg: number, end: number, type: number): void {
  const view = ctx.link.arena.dv, start = answerOffset(ctx) + UDP6_PAYLOAD;
  const client = dhcpv6Option(view, msg + DHCPV6_OPTIONS, end, DHCPV6_OPT_CLIENT_ID);
  writer.reset(view, start, start + MAX_MESSAGE, type, dhcpv6Transaction(view, msg));
  if (client >= 0) {
    writer.copy(DHCPV6_OPT_CLIENT_ID, view, client, dhcpv6OptionSize(view, client));
  }
  writer.bytes(DHCPV6_OPT_SERVER_ID, duid);
}

/** Answers a SOLICIT: the reply at once if the client asks for that, else an advertisement. */
function answerSolicit(ctx: Context, family: Family, msg: number, end: number): void {
  const view = ctx.link.arena.dv;
  if (dhcpv6Option(view, msg + DHCPV6_OPTIONS, end, DHCPV6_OPT_RAPID_COMMIT) >= 0) {
    beginAnswer(ctx, msg, end, DHCPV6_REPLY);
    writer.empty(DHCPV6_OPT_RAPID_COMMIT);
  } else {
    beginAnswer(ctx, msg, end, DHCPV6_ADVERTISE);
    writer.bytes(DHCPV6_OPT_PREFERENCE, PREFERENCE_MAX);
  }
  putAssociations(family, writer, view, msg, end);
  putConfiguration(ctx, family, writer, view, msg, end);
}

/** Writes the answer to a checked message. @returns whether there is one */
function writeAnswer(ctx: Context, family: Family, msg: number, end: number): boolean {
  const view = ctx.link.arena.dv;
  switch (dhcpv6Type(view, msg)) {
    case DHCPV6_SOLICIT:
      answerSolicit(ctx, family, msg, end);
      return true;
    case DHCPV6_REQUEST:
    case DHCPV6_RENEW:
    case DHCPV6_REBIND:
      beginAnswer(ctx, msg, end, DHCPV6_REPLY);
      putAssociations(family, writer, view, msg, end);
      putConfiguration(ctx, family, writer, view, msg, end);
      return true;
    case DHCPV6_CONFIRM: {
      const status = confirmation(family, view, msg, end);
      if (status === NO_ADDRESSES) return false;
      beginAnswer(ctx, msg, end, DHCPV6_REPLY);
      writer.status(status, status === DHCPV6_STATUS_NOT_ON_LINK ? NOT_ON_LINK : ON_LINK);
      return true;
    }
    case DHCPV6_RELEASE:
    case DHCPV6_DECLINE:
      beginAnswer(ctx, msg, end, DHCPV6_REPLY);
      writer.status(DHCPV6_STATUS_SUCCESS, DONE);
      return true;
    default: // INFORMATION-REQUEST
      beginAnswer(ctx, msg, end, DHCPV6_REPLY);
      putConfiguration(ctx, family, writer, view, msg, end);
      return true;
  }
}

/** Answers a message sent to all servers. */
function answerMessage(ctx: Context, family: Family, packet: Packet, msg: number): void {
  const view = ctx.link.arena.dv, end = packet.l4 + udpLength(view, packet.l4);
  duid.set(ctx.ourMac, DUID_MAC);
  if (!checkDhcpv6(view, msg, end)) return;
  if (!identifiersHold(view, msg + DHCPV6_OPTIONS, end, dhcpv6Type(view, msg))) return;
  if (!writeAnswer(ctx, family, msg, end)) return;
  if (log.level <= LogLevels.DEBUG) {
    log.debug(`DHCPv6: answer to message of type ${dhcpv6Type(view, msg)}`);
  }
  sendUdp6(ctx, writer.finish(), packet.addresses, SOURCE, PORTS);
}

/**
 * Takes a datagram to port 547 of the link's servers, and answers it.
 *
 * @param packet as parsed
 * @param payload offset of the UDP payload, as `checkUdp` returned it
 * @param off offset of the Ethernet header in the link's arena
 * @returns whether it was taken; a datagram to another address is a matter between the guest and
 *   whoever that is
 */
export function handleDhcpv6(ctx: Context, packet: Packet, payload: number, off: number): boolean {
  const view = ctx.link.arena.dv, family = ctx.ip6, words = packet.addresses;
  if (packet.version !== 6 || packet.proto !== IPPROTO_UDP) return false;
  if (payload < 0 || udpDestPort(view, packet.l4) !== DHCPV6_SERVER_PORT) return false;
  if (!sameAddress(words, DEST, ALL_SERVERS, 0)) return isMulticast(words, DEST);
  if (family === null || !ctx.features.dhcpv6) return true;
  if (isUnspecified(words, SOURCE) || isMulticast(words, SOURCE)) return true;
  if (learnGuestMac(ctx, off)) answerMessage(ctx, family, packet, payload);
  return true;
}
