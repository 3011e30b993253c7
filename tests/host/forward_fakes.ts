// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A forwarder whose listeners only count, and whose bound ports a test decides on.
 *
 * @module
 */
import { assert } from "@std/assert";
import type { BoundPorts } from "../../lib/forward/bound_ports.ts";
import type { ListenSpec } from "../../lib/forward/listener.ts";
import { parsePortSpec, type PortRule } from "../../lib/forward/ports.ts";
import { Forwarder, type ForwarderOptions } from "../../lib/host/forwarder.ts";
import { include, type PortSet } from "../../lib/host/port_set.ts";
import { E } from "../../lib/sys/errno.ts";
import { formatAddress } from "../../lib/wire/address.ts";

/** Listeners of one protocol, as "HOST 80=>8080" texts. */
export class FakePorts {
  readonly open: Map<number, string> = new Map();
  /** Ports that cannot be bound, with the reason. */
  readonly refuse: Map<number, number> = new Map();
  /** Descriptors left. */
  room = Infinity;
  #next = 0;

  listen(spec: ListenSpec): number {
    const reason = this.refuse.get(spec.port);
    if (reason) return -reason;
    if (this.open.size >= this.room) return -E.EMFILE;
    const where = spec.address ? `${formatAddress(spec.address)}/` : "";
    const target = spec.target ? `${formatAddress(spec.target)}/` : "";
    const device = spec.device ? `%${spec.device}/` : "";
    const bind = spec.freebind ? " freebind" : "";
    this.open.set(
      this.#next,
      `${spec.pif} ${where}${device}${spec.port}=>${target}${spec.to}${bind}`,
    );
    return this.#next++;
  }

  unlisten(index: number): void {
    assert(this.open.delete(index), "an open listener is closed");
  }

  get all(): string[] {
    return [...this.open.values()];
  }
}

/** Ports bound on a side. */
export class FakeBound {
  tcp: number[] = [];
  udp: number[] = [];
  scanTcp(into: PortSet): void {
    for (const port of this.tcp) include(into, port);
  }
  scanUdp(into: PortSet): void {
    for (const port of this.udp) include(into, port);
  }
}

/** A forwarder over fakes. */
export function makeForwarder(
  rules: Partial<Record<"t" | "u" | "T" | "U" | "followers", string>>,
  options: Partial<ForwarderOptions> = {},
) {
  const parse = (text?: string): PortRule[] => text ? parsePortSpec(text) : [];
  const tcp = new FakePorts(), udp = new FakePorts();
  const guest = new FakeBound(), host = new FakeBound();
  const forwarder = new Forwarder({
    tcp,
    udp,
    rules: {
      tcp: parse(rules.t),
      udp: parse(rules.u),
      tcpNs: parse(rules.T),
      udpNs: parse(rules.U),
    },
    followers: {
      udp: parse(rules.followers).map((rule) => ({ ...rule, weak: true })),
      udpNs: [],
    },
    freebind: false,
    ipv4: true,
    ipv6: true,
    clock: () => 0,
    descriptors: 20_000,
    bound: {
      guest: guest as unknown as BoundPorts,
      host: host as unknown as BoundPorts,
    },
    ...options,
  });
  return { forwarder, tcp, udp, guest, host };
}
