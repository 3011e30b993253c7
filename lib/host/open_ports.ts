// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Opening at start what the options name on the host: ports to listen on (`-t`, `-u`), and the source of
 * outbound sockets (`-o`, `--outbound-if4/6`), which is tried once so that a mistake is not left to
 * every later connection. Errors name the option.
 *
 * @module
 */
import { ConfigError, shown } from "../config/error.ts";
import type { FamilyOptions, Options } from "../config/options.ts";
import type { Context } from "../context.ts";
import { E, errnoName, SysError } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import { SOCK_DGRAM } from "../sys/socket.ts";
import { type Address, formatAddress } from "../wire/address.ts";
import { outboundSocket } from "../forward/outbound.ts";
import { parsePortSpec, type PortRule } from "../forward/ports.ts";

/** Ports below it are privileged (ip(7)). */
const LOW_PORT_LIMIT = 1024;

/** Listens on the only port of a rule. @returns a negative errno when that fails */
export type Listen = (rule: PortRule) => number;

function listenHint(reason: number, port: number): string {
  switch (reason) {
    case E.EADDRINUSE:
      return " (the port is in use)";
    case E.EACCES:
      return port >= LOW_PORT_LIMIT
        ? ""
        : " (ports below 1024 need CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start)";
    case E.EMFILE:
      return " (more ports than descriptors: see ulimit -n)";
    case E.EADDRNOTAVAIL:
      return " (not an address of this host)";
  }
  return "";
}

/**
 * Listens on every port of port specifications.
 *
 * @param option `-t` or `-u`
 * @throws ConfigError naming the first port that cannot be had
 */
export function openPorts(option: "-t" | "-u", specs: readonly string[], listen: Listen): void {
  const protocol = option === "-t" ? "TCP" : "UDP";
  for (const spec of specs) {
    for (const rule of parsePortSpec(spec)) {
      for (let port = rule.first; port <= rule.last; port++) {
        const to = rule.to + port - rule.first;
        const result = listen({ ...rule, first: port, last: port, to });
        if (result >= 0) continue;
        const where = rule.address ? `${formatAddress(rule.address)} ` : "";
        throw new ConfigError(
          `${option} ${shown(spec)}: cannot listen on ${where}${protocol} port ${port}: ` +
            errnoName(-result) + listenHint(-result, port),
        );
      }
    }
  }
}

/** A function that throws SysError as one that returns a negative errno. */
export function asErrno(open: (rule: PortRule) => void): Listen {
  return (rule) => {
    try {
      open(rule);
      return 0;
    } catch (error) {
      if (error instanceof SysError) return -error.errno;
      throw error;
    }
  };
}

/** How the source of a family was given; null: it was not. */
function outboundOption(family: FamilyOptions, v4: boolean): string | null {
  const { outboundAddress, outboundInterface } = family;
  if (outboundAddress) return `-o ${formatAddress(outboundAddress)}`;
  return outboundInterface ? `--outbound-if${v4 ? 4 : 6} ${shown(outboundInterface)}` : null;
}

/**
 * Makes one outbound socket per family whose source is given, and closes it.
 *
 * @throws ConfigError naming the option
 */
export function checkOutbound(ctx: Context, options: Options): void {
  const families: [FamilyOptions, Address | undefined, boolean][] = [
    [options.v4, ctx.ip4?.addr, true],
    [options.v6, ctx.ip6?.addr, false],
  ];
  for (const [family, target, v4] of families) {
    const option = outboundOption(family, v4);
    if (!option || !target) continue; // a disabled family has no sockets
    const fd = outboundSocket(ctx, target, 0, SOCK_DGRAM, 0);
    if (fd >= 0) {
      libc.close(fd);
      continue;
    }
    const hint = fd === -E.EADDRNOTAVAIL ? " (not an address of this host)" : "";
    throw new ConfigError(
      `${option}: cannot be the source of connections: ${errnoName(-fd)}${hint}`,
    );
  }
}
