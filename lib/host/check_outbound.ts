// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Trying the source of outbound sockets (`-o`, `--outbound-if4/6`) once at start, so that a mistake is
 * not left to every later connection.
 *
 * @module
 */
import { ConfigError } from "../config/error.ts";
import { shown } from "../sys/text.ts";
import type { FamilyOptions, Options } from "../config/options.ts";
import type { Context } from "../context.ts";
import { E, errnoName } from "../sys/errno.ts";
import { libc } from "../sys/libc.ts";
import { SOCK_DGRAM } from "../sys/socket.ts";
import { type Address, formatAddress } from "../wire/address.ts";
import { outboundSocket } from "../forward/outbound.ts";

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
