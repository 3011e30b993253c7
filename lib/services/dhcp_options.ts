// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The options of a DHCP reply that configure the guest (RFC 2132 and those named below).
 *
 * @module
 */
import type { Context, Family } from "../context.ts";
import { maskV4 } from "../wire/address.ts";
import {
  DHCP_OPT_DNS,
  DHCP_OPT_DOMAIN,
  DHCP_OPT_FQDN,
  DHCP_OPT_HOSTNAME,
  DHCP_OPT_MASK,
  DHCP_OPT_MTU,
  DHCP_OPT_PARAMETERS,
  DHCP_OPT_ROUTER,
  DHCP_OPT_ROUTES,
  DHCP_OPT_SEARCH,
  dhcpOption,
  dhcpOptionSize,
  type DhcpWriter,
} from "../wire/dhcp.ts";
import { encodeDomainName } from "../wire/dns_name.ts";
import { compressedSearchList } from "./search_list.ts";

/** Client identifier: a server returns it unchanged (RFC 2132 §9.14, RFC 6842 §3). */
const DHCP_OPT_CLIENT_ID = 61;

/** Option 81 (RFC 4702 §2.1): flags, two bytes that once were result codes, then the name. */
const FQDN_NAME = 3;
const FQDN_FLAG_SERVER = 0x01; // S: the server updates the DNS
const FQDN_FLAG_OVERRIDE = 0x02; // O: the client wanted S otherwise
const FQDN_FLAG_ENCODED = 0x04; // E: the name is in wire form, else ASCII
const FQDN_FLAG_NO_UPDATE = 0x08; // N: the server updates nothing
const FQDN_RCODE = 255; // what a server puts into the result codes (RFC 4702 §2.2)

/** Most addresses that one option holds: 255 / 4 (RFC 2132 §3.8). */
const MAX_RESOLVERS = 63;
/** One default route and one to the gateway (RFC 3442): widths 32 and 0. */
const HOST_PREFIX = 32;

/** What is sent even if the client does not list it, the most important first. */
const DEFAULTS = Uint8Array.of(
  DHCP_OPT_MASK,
  DHCP_OPT_ROUTES,
  DHCP_OPT_ROUTER,
  DHCP_OPT_DNS,
  DHCP_OPT_MTU,
  DHCP_OPT_HOSTNAME,
  DHCP_OPT_FQDN,
  DHCP_OPT_SEARCH,
);

/** Codes that need no second look in the message being written. */
const done = new Uint8Array(256);
const routes = new Uint8Array(14);
const routesView = new DataView(routes.buffer);

/** The names of an instance as bytes, encoded once. */
interface Names {
  /** Host name in ASCII. */
  hostname: Uint8Array<ArrayBuffer>;
  /** Option 81's data with the name in ASCII (deprecated, RFC 4702 §2.3.1) and in wire form. */
  fqdnText: Uint8Array<ArrayBuffer>;
  fqdnWire: Uint8Array<ArrayBuffer>;
  /** First domain of the search list. */
  domain: Uint8Array<ArrayBuffer>;
}

const namesOf = new WeakMap<Context, Names>();

function fqdnData(name: Uint8Array | null): Uint8Array<ArrayBuffer> {
  if (name === null || name.length === 0) return new Uint8Array(0);
  return Uint8Array.from([0, FQDN_RCODE, FQDN_RCODE, ...name]);
}

function names(ctx: Context): Names {
  let found = namesOf.get(ctx);
  if (!found) {
    const encoder = new TextEncoder();
    found = {
      hostname: encoder.encode(ctx.hostname),
      fqdnText: fqdnData(encoder.encode(ctx.fqdn)),
      fqdnWire: fqdnData(ctx.fqdn === "" ? null : encodeDomainName(ctx.fqdn)),
      domain: encoder.encode(ctx.search[0] ?? ""),
    };
    namesOf.set(ctx, found);
  }
  return found;
}

function putResolvers(writer: DhcpWriter, family: Family): void {
  const all = family.dns;
  for (let n = Math.min(all.length, MAX_RESOLVERS); n > 0; n--) {
    if (writer.addresses(DHCP_OPT_DNS, n === all.length ? all : all.slice(0, n))) return;
  }
}

/** Routes for a gateway outside the subnet: to it, on the link; and everything via it. */
function putRoutes(writer: DhcpWriter, family: Family): void {
  const gateway = family.gateway;
  if (gateway === null || ((gateway[3] ^ family.addr[3]) & maskV4(family.prefixLength)) === 0) {
    return;
  }
  routesView.setUint8(0, HOST_PREFIX);
  routesView.setInt32(1, gateway[3]);
  routesView.setInt32(5, 0); // on the link
  routesView.setUint8(9, 0); // 0.0.0.0/0
  routesView.setInt32(10, gateway[3]);
  writer.bytes(DHCP_OPT_ROUTES, routes);
}

/** As much of the search list as fits; long ones in several options (RFC 3397, RFC 3396). */
function putSearchList(writer: DhcpWriter, ctx: Context): void {
  const list = compressedSearchList(ctx.search);
  for (let i = list.length - 1; i >= 0; i--) {
    if (writer.bytes(DHCP_OPT_SEARCH, list[i])) return;
  }
}

/** Answers the client's option 81 with the configured name; we never touch the DNS. */
function putFqdn(writer: DhcpWriter, ctx: Context, view: DataView, msg: number): void {
  const asked = dhcpOption(view, msg, DHCP_OPT_FQDN);
  if (ctx.fqdn === "" || asked < 0 || dhcpOptionSize(view, asked) < FQDN_NAME) return;
  const flags = view.getUint8(asked);
  const encoded = (flags & FQDN_FLAG_ENCODED) !== 0;
  const data = encoded ? names(ctx).fqdnWire : names(ctx).fqdnText;
  if (data.length === 0) return;
  data[0] = FQDN_FLAG_NO_UPDATE | flags & FQDN_FLAG_ENCODED |
    ((flags & FQDN_FLAG_SERVER) !== 0 ? FQDN_FLAG_OVERRIDE : 0);
  writer.bytes(DHCP_OPT_FQDN, data);
}

function putOption(
  ctx: Context,
  family: Family,
  writer: DhcpWriter,
  view: DataView,
  msg: number,
  code: number,
): void {
  switch (code) {
    case DHCP_OPT_MASK:
      writer.u32(code, maskV4(family.prefixLength));
      break;
    case DHCP_OPT_ROUTER:
      if (family.gateway !== null) writer.u32(code, family.gateway[3]);
      break;
    case DHCP_OPT_DNS:
      putResolvers(writer, family);
      break;
    case DHCP_OPT_HOSTNAME:
      if (ctx.hostname !== "") writer.bytes(code, names(ctx).hostname);
      break;
    case DHCP_OPT_DOMAIN:
      if (ctx.search.length > 0) writer.bytes(code, names(ctx).domain);
      break;
    case DHCP_OPT_MTU:
      if (ctx.announceMtu) writer.u16(code, ctx.mtu);
      break;
    case DHCP_OPT_FQDN:
      putFqdn(writer, ctx, view, msg);
      break;
    case DHCP_OPT_SEARCH:
      putSearchList(writer, ctx);
      break;
    case DHCP_OPT_ROUTES:
      putRoutes(writer, family);
      break;
  }
}

/** Appends the request's client identifier, if it has one. */
export function putClientId(writer: DhcpWriter, view: DataView, msg: number): void {
  const data = dhcpOption(view, msg, DHCP_OPT_CLIENT_ID);
  if (data >= 0) writer.copy(DHCP_OPT_CLIENT_ID, view, data, dhcpOptionSize(view, data));
}

/**
 * Appends the options that configure the guest: those the client lists in option 55, in its order,
 * then the rest of ours. The domain name (option 15) is sent only when listed, for clients that know
 * no search list; option 81 only to clients that sent one (RFC 4702 §4).
 *
 * @param writer of the reply, behind the options already there
 * @param msg offset of the checked request in `view`
 */
export function putConfiguration(
  ctx: Context,
  family: Family,
  writer: DhcpWriter,
  view: DataView,
  msg: number,
): void {
  done.fill(0);
  const list = dhcpOption(view, msg, DHCP_OPT_PARAMETERS);
  const listed = list < 0 ? 0 : dhcpOptionSize(view, list);
  for (let i = 0; i < listed + DEFAULTS.length; i++) {
    const code = i < listed ? view.getUint8(list + i) : DEFAULTS[i - listed];
    if (done[code] !== 0) continue;
    done[code] = 1;
    putOption(ctx, family, writer, view, msg, code);
  }
}
