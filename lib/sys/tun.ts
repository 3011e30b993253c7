// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Tap devices (linux/if_tun.h, Documentation/networking/tuntap): the request that makes one, and what
 * its kernel side will do for us.
 *
 * Theory of operation: a tap is made by TUNSETIFF in the network namespace of the caller, which needs
 * CAP_NET_ADMIN there (`namespace.ts` does it). Everything here works on the descriptor alone and needs
 * no privilege. With IFF_VNET_HDR each frame carries a `struct virtio_net_hdr` in front. The offloads
 * set with TUNSETOFFLOAD are those *we* accept in frames we read; frames we write may use all of them.
 *
 * @module
 */
import { ifreq, virtioNetHdrV1 } from "./layout.ts";
import { libc } from "./libc.ts";

/** Path of the device that makes taps. */
export const TUN_DEVICE = "/dev/net/tun";

/** ioctl requests of linux/if_tun.h; the same number on x86_64 and aarch64. */
export const TUN = {
  SETIFF: 0x400454ca,
  GETFEATURES: 0x800454cf,
  SETOFFLOAD: 0x400454d0,
  GETIFF: 0x800454d2,
  SETSNDBUF: 0x400454d4,
  SETVNETHDRSZ: 0x400454d8,
  SETQUEUE: 0x400454d9,
} as const;

/** Interface flags of linux/if_tun.h, for `ifr_flags`. */
export const IFF = {
  TAP: 0x0002,
  MULTI_QUEUE: 0x0100,
  ATTACH_QUEUE: 0x0200,
  DETACH_QUEUE: 0x0400,
  NO_PI: 0x1000,
  VNET_HDR: 0x4000,
} as const;

/** Offload flags of linux/if_tun.h, for TUN.SETOFFLOAD. */
export const TUN_F = {
  CSUM: 0x01,
  TSO4: 0x02,
  TSO6: 0x04,
  USO4: 0x20,
  USO6: 0x40,
} as const;

/** Bytes of `struct virtio_net_hdr_v1` (with `num_buffers`), for TUN.SETVNETHDRSZ. */
export const VNET_HEADER_SIZE: number = virtioNetHdrV1.size;

/** IFNAMSIZ of linux/if.h less the NUL. */
const MAX_INTERFACE_NAME = ifreq.sizes.ifr_name - 1;

/** What may be left to the guest's kernel. */
export interface Offloads {
  /** Checksums. */
  readonly csum: boolean;
  /** TCP segmentation, both families. */
  readonly tso: boolean;
  /** UDP segmentation, both families (Linux 6.2). */
  readonly uso: boolean;
}

const TSO = TUN_F.CSUM | TUN_F.TSO4 | TUN_F.TSO6;

/** From the best to nothing. */
const OFFLOAD_STEPS: readonly [flags: number, offloads: Offloads][] = [
  [TSO | TUN_F.USO4 | TUN_F.USO6, { csum: true, tso: true, uso: true }],
  [TSO, { csum: true, tso: true, uso: false }],
  [TUN_F.CSUM, { csum: true, tso: false, uso: false }],
];

const NO_OFFLOADS: Offloads = { csum: false, tso: false, uso: false };

/**
 * Fills a `struct ifreq` for TUN.SETIFF.
 *
 * @param view at least `ifreq.size` zeroed bytes
 * @param name of the interface, up to 15 bytes; may hold `%d`
 * @param flags of {@linkcode IFF}
 * @throws RangeError when the name is too long
 */
export function writeIfreq(view: DataView, name: string, flags: number): void {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > MAX_INTERFACE_NAME) {
    throw new RangeError(`Interface name "${name}" must have 1 to ${MAX_INTERFACE_NAME} bytes`);
  }
  bytes.forEach((byte, i) => view.setUint8(ifreq.at.ifr_name + i, byte));
  view.setUint16(ifreq.at.ifr_flags, flags, true);
}

/** The interface name in a `struct ifreq`. */
export function readIfreqName(view: DataView): string {
  let name = "";
  for (let i = 0; i < MAX_INTERFACE_NAME; i++) {
    const byte = view.getUint8(ifreq.at.ifr_name + i);
    if (byte === 0) break;
    name += String.fromCharCode(byte);
  }
  return name;
}

/**
 * Announces the offloads we can take, as many as the kernel knows.
 *
 * @param tap opened with IFF.VNET_HDR
 */
export function negotiateOffloads(tap: number): Offloads {
  for (const [flags, offloads] of OFFLOAD_STEPS) {
    if (libc.ioctlNumber(tap, TUN.SETOFFLOAD, flags) === 0) return offloads;
  }
  libc.ioctlNumber(tap, TUN.SETOFFLOAD, 0);
  return NO_OFFLOADS;
}
