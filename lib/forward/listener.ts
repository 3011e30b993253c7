// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Sockets bound to forwarded ports, of TCP and UDP, on the host and in the guest's namespace.
 *
 * @module
 */
import type { Context } from "../context.ts";
import { Pif } from "../flow/side.ts";
import { E } from "../sys/errno.ts";
import { IP_FREEBIND, IPV6_FREEBIND } from "../sys/ip_options.ts";
import { errno, libc } from "../sys/libc.ts";
import {
  AF_INET,
  AF_INET6,
  bindSocket,
  familyOf,
  IPPROTO_IP,
  IPPROTO_IPV6,
  IPV6_V6ONLY,
  newSocket,
  setOption,
  SO_BINDTODEVICE,
  SO_REUSEADDR,
  SOCK_STREAM,
  SOL_SOCKET,
} from "../sys/socket.ts";
import { type Address, ANY4, ANY6, isLinkLocal, isV4 } from "../wire/address.ts";

/** One port to listen on, and where its traffic goes. */
export interface ListenSpec {
  /** Whose port it is: `Pif.HOST`, or `Pif.SPLICE` for one of the guest's namespace. */
  readonly pif: number;
  /** Address to listen on; null: all, of both families as far as they are enabled. */
  readonly address: Address | null;
  /** Interface to listen on; null: all. */
  readonly device: string | null;
  /** Port to listen on. */
  readonly port: number;
  /** Port on the other side. */
  readonly to: number;
  /** Address on the other side; null: the usual one. */
  readonly target: Address | null;
  /** Whether {@linkcode address} need not be one of the system's (yet). */
  readonly freebind: boolean;
}

/** Sets options of a new socket, before it is bound. */
export type PrepareSocket = (fd: number, family: number, dual: boolean) => void;

/**
 * Makes the socket of a port and binds it: of both families (IPv6 with V6ONLY off) when no address is
 * given and both are enabled and known to the kernel.
 *
 * @param type `SOCK_STREAM` or `SOCK_DGRAM`; TCP sockets can be bound while old connections linger
 * @param prepare called for the socket with its family and whether it serves both
 * @returns a descriptor that does not listen yet, or a negative errno (`EADDRINUSE`, `EACCES`, `EMFILE`,
 *   `EADDRNOTAVAIL`, `ENODEV` …)
 */
export function bindListener(
  ctx: Context,
  spec: ListenSpec,
  type: number,
  prepare?: PrepareSocket,
): number {
  const dual = spec.address === null && ctx.ip4 !== null && ctx.ip6 !== null;
  const address = spec.address ?? (ctx.ip6 ? ANY6 : ANY4);
  const fd = bindTo(ctx, spec, type, address, dual, prepare);
  if (dual && fd === -E.EAFNOSUPPORT) return bindTo(ctx, spec, type, ANY4, false, prepare);
  return fd;
}

function bindTo(
  ctx: Context,
  spec: ListenSpec,
  type: number,
  address: Address,
  dual: boolean,
  prepare?: PrepareSocket,
): number {
  const family = familyOf(address, 0);
  const fd = spec.pif === Pif.SPLICE
    ? ctx.guest?.take(family, type, 0, ctx.nowMs) ?? -E.EINVAL
    : newSocket(family, type, 0);
  if (fd < 0) return fd;
  if (type === SOCK_STREAM) setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (family === AF_INET6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, dual ? 0 : 1);
  if (spec.freebind) {
    const v4 = family === AF_INET;
    setOption(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_FREEBIND : IPV6_FREEBIND, 1);
  }
  prepare?.(fd, family, dual);
  let result = spec.device === null ? 0 : bindToDevice(fd, spec.device);
  if (result >= 0) result = bindSocket(fd, address, 0, spec.port, scopeOf(ctx, spec, address));
  if (result >= 0) return fd;
  libc.close(fd);
  return result;
}

/** Interface index a link-local address is bound on: that of the uplink, unless a device is given. */
function scopeOf(ctx: Context, spec: ListenSpec, address: Address): number {
  if (spec.pif !== Pif.HOST || isV4(address) || !isLinkLocal(address)) return 0;
  return spec.device === null ? ctx.ip6?.ifindex ?? 0 : deviceIndex(spec.device);
}

function deviceIndex(device: string): number {
  return libc.if_nametoindex(new TextEncoder().encode(`${device}\0`));
}

function bindToDevice(fd: number, device: string): number {
  const name = new TextEncoder().encode(`${device}\0`);
  const result = libc.setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.length);
  return result < 0 ? -errno() : 0;
}
