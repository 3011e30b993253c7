// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Putting values into {@linkcode Options} where one option reaches several fields: by address family, or
 * by `none`.
 *
 * @module
 */
import { parsePortSpec, PortSpecError } from "../forward/ports.ts";
import { type Address, isV4 } from "../wire/address.ts";
import type { FamilyOptions, Options } from "./model.ts";
import { parsePrefix, parseResolver, parseUnicast, ValueError } from "./values.ts";

/** Fields that hold one address per family. */
type AddressField =
  | "gateway"
  | "outboundAddress"
  | "dnsForward"
  | "dnsHost"
  | "mapHostLoopback"
  | "mapGuestAddr";

function familyOf(options: Options, address: Address): FamilyOptions {
  return isV4(address) ? options.v4 : options.v6;
}

/** Sets a field of the address's family. */
export function setAddress(options: Options, field: AddressField, address: Address): void {
  familyOf(options, address)[field] = address;
}

/** -a */
export function setGuestAddress(options: Options, text: string): void {
  const { address, prefixLength } = parsePrefix(text);
  const family = familyOf(options, address);
  family.address = address;
  family.prefixLength = prefixLength;
}

/** -D: `none` drops what came before, an address adds. */
export function addDns(options: Options, text: string): void {
  options.dnsGiven = true;
  if (text === "none") {
    options.v4.dns = [];
    options.v6.dns = [];
    return;
  }
  const address = parseResolver(text);
  familyOf(options, address).dns.push(address);
}

/** --map-host-loopback, --map-guest-addr: `none` applies to both families. */
export function setMapping(
  options: Options,
  field: "mapHostLoopback" | "mapGuestAddr",
  text: string,
): void {
  if (text !== "none") {
    setAddress(options, field, parseUnicast(text));
    return;
  }
  options.v4[field] = null;
  options.v6[field] = null;
  if (field === "mapHostLoopback") options.mapGateway = false;
}

/** -t, -u: all count, and none may name a port of an earlier one. @throws PortSpecError */
export function addPorts(list: string[], text: string): void {
  const earlier = new Set(list.flatMap(parsePortSpec).map(({ first }) => first));
  const twice = parsePortSpec(text).find(({ first }) => earlier.has(first));
  if (twice) throw new PortSpecError(`port ${twice.first} is given twice`);
  list.push(text);
}

/** -T, -U: the namespace's ports are not forwarded yet, so only what needs nothing is accepted. */
export function addNamespacePorts(list: string[], text: string): void {
  if (text !== "none" && text !== "auto") {
    throw new ValueError("not supported yet (accepted: none or auto)");
  }
  list.push(text);
}
