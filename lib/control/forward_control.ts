// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Port forwarding as a controller changes it.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import type { Options } from "../config/options.ts";
import { parsePortSpec, type PortRule, PortSpecError } from "../forward/ports.ts";
import type { Forwarder, ForwardOption } from "../host/forwarder.ts";
import type { ForwardEntry, ForwardRule } from "./protocol.ts";

type Side = Pick<ForwardEntry, "from" | "protocol">;

/** What each option is about. */
const OPTIONS: Readonly<Record<ForwardOption, Side>> = {
  t: { from: "host", protocol: "tcp" },
  u: { from: "host", protocol: "udp" },
  T: { from: "guest", protocol: "tcp" },
  U: { from: "guest", protocol: "udp" },
};

/** The option that a rule belongs to. */
function optionOf({ from = "host", protocol }: ForwardRule): ForwardOption {
  if (from === "host") return protocol === "tcp" ? "t" : "u";
  return protocol === "tcp" ? "T" : "U";
}

/** What is changed. */
export type Changeable = Pick<Forwarder, "add" | "remove" | "rules">;

/** What an instance is, as far as it concerns its ports. */
export type ForwardOptions = Pick<Options, "mode" | "tcp" | "udp" | "ephemeralPorts">;

/** Changes the forwarded ports of an instance. */
export class ForwardControl {
  readonly #forwarder: Changeable;
  readonly #options: ForwardOptions;

  constructor(forwarder: Changeable, options: ForwardOptions) {
    this.#forwarder = forwarder;
    this.#options = options;
  }

  /** @throws PortSpecError for a text that is no rule, ConfigError when it cannot be had */
  add(rule: ForwardRule): void {
    const option = optionOf(rule);
    this.#check(rule, option);
    this.#forwarder.add(option, this.#parse(rule));
  }

  /** Connections stay. @throws as {@linkcode add}, ConfigError when there is no such rule */
  remove(rule: ForwardRule): void {
    this.#forwarder.remove(optionOf(rule), this.#parse(rule));
  }

  /** All that is in force. */
  list(): ForwardEntry[] {
    const { ephemeralPorts } = this.#options;
    return (Object.keys(OPTIONS) as ForwardOption[]).flatMap((option) =>
      this.#forwarder.rules(option, ephemeralPorts).map((ports) => ({ ...OPTIONS[option], ports }))
    );
  }

  /** @throws ConfigError when the instance has no such ports */
  #check({ from, protocol }: ForwardRule, option: ForwardOption): void {
    const { mode } = this.#options;
    if (from === "guest" && mode === "passt") {
      throw new ConfigError(`-${option}: only for pasta, not for passt`);
    }
    if (!this.#options[protocol]) throw new ConfigError(`-${option}: --no-${protocol} was given`);
  }

  #parse({ from, ports }: ForwardRule): PortRule[] {
    const rules = parsePortSpec(ports, { bind: from !== "guest" });
    if (rules.length > 0 && rules.every(({ weak, auto }) => !weak && !auto)) return rules;
    throw new PortSpecError("Ports have to be named: neither none, all nor auto can be used here");
  }
}
