// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Local mode: addresses for a family of which the host has no usable interface, so that guest and host
 * can still reach each other (passt(1)).
 *
 * The guest gets link-local addresses (RFC 3927, RFC 4291 §2.5.6): IPv4 169.254.2.1/16 with
 * 169.254.2.2 as gateway, IPv6 only what its own kernel makes, with fe80::1 as gateway.
 *
 * @module
 */
import { type Address, ANY6, fromV4 } from "../wire/address.ts";

/** 169.254.2.1/16, the guest. */
export const LOCAL_GUEST4: Address = fromV4(0xa9fe0201 | 0);
export const LOCAL_PREFIX4 = 16;
/** 169.254.2.2, our side and gateway of the guest. */
export const LOCAL_GATEWAY4: Address = fromV4(0xa9fe0202 | 0);
/** No global address for the guest. */
export const LOCAL_GUEST6: Address = ANY6;
export const LOCAL_PREFIX6 = 64;
/** fe80::1, our link-local address where the gateway's is not. */
export const LOCAL_GATEWAY6: Address = Int32Array.of(0xfe800000, 0, 0, 1);
/** Name of the guest's interface where no interface of the host gives one. */
export const LOCAL_INTERFACE = "tap0";
