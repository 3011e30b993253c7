// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Changes to frames that a hostile guest would make.
 *
 * @module
 */
import { invert, pseudoSum, sum } from "../../lib/wire/checksum.ts";
import { ETH_HEADER_SIZE } from "../../lib/wire/ethernet.ts";
import { IPPROTO_ICMP, IPPROTO_UDP } from "../../lib/wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "../../lib/wire/ipv6.ts";
import { DEST, Packet, parseIp, SOURCE } from "../../lib/wire/packet.ts";

const ETH = ETH_HEADER_SIZE;
const packet = new Packet();

/**
 * Makes a changed frame look whole again, so that what lies deeper is reached: lengths of IP and UDP
 * and the checksum of ICMP are set to what the frame has.
 */
export function repair(frame: Uint8Array): void {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < ETH + 40) return;
  const v4 = view.getUint16(12) === 0x0800;
  if (v4) view.setUint16(ETH + 2, frame.length - ETH);
  else if (view.getUint16(12) === 0x86dd) view.setUint16(ETH + 4, frame.length - ETH - 40);
  if (!parseIp(view, 0, frame.length, packet)) return;
  const { l4, end, proto, addresses } = packet;
  if (proto === IPPROTO_UDP && end - l4 >= 8) view.setUint16(l4 + 4, end - l4);
  if ((proto === IPPROTO_ICMP || proto === IPPROTO_ICMPV6) && end - l4 >= 4) {
    const initial = v4 ? 0 : pseudoSum(addresses, SOURCE, addresses, DEST, proto, end - l4);
    view.setUint16(l4 + 2, 0);
    view.setUint16(l4 + 2, invert(sum(view, l4, end - l4, initial)));
  }
}

/** Values that tend to break parsers. */
const NASTY = [0x00, 0x01, 0x02, 0x03, 0x07, 0x08, 0x0f, 0x7f, 0x80, 0xfe, 0xff];

/** Changes 1–8 bytes, more often than not in the headers' second half. */
export function mutate(frame: Uint8Array, random: (n: number) => number): void {
  for (let n = 1 + random(8); n > 0; n--) {
    const at = random(4) === 0 ? random(frame.length) : ETH + random(frame.length - ETH);
    if (random(2) === 0) frame[at] = NASTY[random(NASTY.length)];
    else frame[at] ^= 1 << random(8);
  }
}
