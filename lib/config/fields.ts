// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Putting values into {@linkcode Options} where one option reaches several fields: by address family, or
 * by `none`.
 *
 * @module
 */
import { parsePolicyRule, Verdict } from "../forward/policy_rules.ts";
import { addPortSpec } from "../forward/ports.ts";
import { type Address, isV4 } from "../wire/address.ts";
import type { FamilyOptions, Options } from "./model.ts";
import {
  parseFd,
  parsePath,
  parsePrefix,
  parseResolver,
  parseSearch,
  parseUnicast,
} from "./values.ts";

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

/** -D: `none` drops what came before, --dns-forward and --dns-host too, an address adds. */
export function addDns(options: Options, text: string): void {
  options.dnsGiven = true;
  if (text === "none") {
    for (const family of [options.v4, options.v6]) {
      family.dns = [];
      family.dnsForward = null;
      family.dnsHost = null;
    }
    return;
  }
  const address = parseResolver(text);
  familyOf(options, address).dns.push(address);
}

/** -S: `none` drops what came before, domains add. */
export function addSearch(options: Options, text: string): void {
  const domains = parseSearch(text, options.search?.length ?? 0);
  options.search = domains.length > 0 ? [...options.search ?? [], ...domains] : [];
}

/** -4, -6: the last one counts. */
export function setOnly(options: Options, family: "v4" | "v6"): void {
  options.v4.enabled = family === "v4";
  options.v6.enabled = family === "v6";
}

/** --userns, which takes --netns-only back. */
export function setUserns(options: Options, text: string): void {
  options.userns = parsePath(text);
  options.netnsOnly = false;
}

/** --netns-only, which takes --userns back. */
export function setNetnsOnly(options: Options): void {
  options.userns = null;
  options.netnsOnly = true;
}

/** -s, which takes -F back. */
export function setSocketPath(options: Options, text: string): void {
  options.socketPath = parsePath(text);
  options.fd = null;
}

/** -F, which takes -s back. */
export function setFd(options: Options, text: string): void {
  options.fd = parseFd(text);
  options.socketPath = null;
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

/** The rules of one option, null before its first occurrence. */
export type PortField = "tcpRules" | "udpRules" | "tcpNsRules" | "udpNsRules";

/** -t, -u, -T, -U: all count, and none may contradict an earlier one. @throws PortSpecError */
export function addPorts(options: Options, field: PortField, text: string): void {
  options[field] = addPortSpec(options[field], text, {
    ephemeral: options.ephemeralPorts,
    auto: options.mode === "pasta",
    bind: field === "tcpRules" || field === "udpRules",
  });
}

/** --allow-out, --deny-out: all count, in their order. @throws PolicyRuleError */
export function addPolicyRule(options: Options, verdict: "ALLOW" | "REJECT", text: string): void {
  options.policyRules.push(parsePolicyRule(text, Verdict[verdict]));
}
