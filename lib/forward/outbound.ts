// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Sockets towards the host's network, bound as `-o` and `--outbound-if4/6` say.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { errno, libc } from "../sys/libc.ts";
import { bindSocket, familyOf, newSocket, SO_BINDTODEVICE, SOL_SOCKET } from "../sys/socket.ts";
import { isLinkLocal, isLoopback, isV4 } from "../wire/address.ts";
import { familyFor } from "./nat.ts";

/** Interface index needed to reach `words[at…]`: that of the uplink for link-local ones, else 0. */
export function scopeOf(ctx: Context, words: Int32Array, at: number): number {
  return !isV4(words, at) && isLinkLocal(words, at) ? ctx.ip6?.ifindex ?? 0 : 0;
}

/**
 * Makes a non-blocking socket for traffic to `words[at…]`. Loopback destinations are left unbound:
 * they are mapped addresses and cannot be reached from another source.
 *
 * @param type `SOCK_STREAM` or `SOCK_DGRAM`
 * @returns a descriptor or a negative errno (EMFILE, EPERM, EADDRNOTAVAIL …)
 */
export function outboundSocket(
  ctx: Context,
  words: Int32Array,
  at: number,
  type: number,
  protocol: number,
): number {
  const fd = newSocket(familyOf(words, at), type, protocol);
  if (fd < 0 || isLoopback(words, at)) return fd;
  const family = familyFor(ctx, words, at);
  if (!family) return fd;
  let result = 0;
  const name = family.outboundInterface;
  if (name && libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length) < 0) {
    result = -errno();
  }
  const source = family.outboundAddr;
  if (result >= 0 && source) result = bindSocket(fd, source, 0, 0, scopeOf(ctx, source, 0));
  if (result >= 0) return fd;
  libc.close(fd);
  return result;
}
