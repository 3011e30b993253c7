// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * `--trace`: a line of log for every frame that crosses a link.
 *
 * @module
 */
import { getLogger } from "@std/log";
import type { Arena } from "../sys/arena.ts";
import { formatAddress } from "../wire/address.ts";
import { ETH_HEADER_SIZE, ETH_P_ARP, etherType } from "../wire/ethernet.ts";
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from "../wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "../wire/ipv6.ts";
import { DEST, Packet, parseIp, SOURCE } from "../wire/packet.ts";
import { checkTcp, tcpAck, tcpDestPort, tcpFlags, tcpSeq, tcpSourcePort } from "../wire/tcp.ts";
import { checkUdp, udpDestPort, udpSourcePort } from "../wire/udp.ts";
import type { Observer } from "./observed.ts";

const FLAG_LETTERS = "FSRPAU"; // FIN, SYN, RST, PSH, ACK, URG: lowest bit first

function transport(view: DataView, packet: Packet): string {
  const { proto, l4, end } = packet;
  if (proto === IPPROTO_TCP) {
    const payload = checkTcp(view, packet);
    if (payload < 0) return "TCP, malformed";
    const flags = tcpFlags(view, l4);
    const letters = [...FLAG_LETTERS].filter((_, bit) => flags >> bit & 1).join("");
    const ports = `${tcpSourcePort(view, l4)} > ${tcpDestPort(view, l4)}`;
    const numbers = `seq ${tcpSeq(view, l4) >>> 0} ack ${tcpAck(view, l4) >>> 0}`;
    return `TCP ${ports} ${letters} ${numbers} payload ${end - payload}`;
  }
  if (proto === IPPROTO_UDP) {
    const payload = checkUdp(view, packet);
    if (payload < 0) return "UDP, malformed";
    return `UDP ${udpSourcePort(view, l4)} > ${udpDestPort(view, l4)} payload ${end - payload}`;
  }
  const icmp = proto === IPPROTO_ICMP || proto === IPPROTO_ICMPV6;
  return icmp && end > l4 ? `ICMP type ${view.getUint8(l4)}` : `protocol ${proto}`;
}

/** One line about a frame: addresses, ports, flags, lengths. */
export function describeFrame(view: DataView, off: number, length: number, packet: Packet): string {
  if (parseIp(view, off, length, packet)) {
    const { addresses } = packet;
    const ends = `${formatAddress(addresses, SOURCE)} > ${formatAddress(addresses, DEST)}`;
    return `${ends} ${transport(view, packet)}`;
  }
  if (length < ETH_HEADER_SIZE) return "no Ethernet header";
  const type = etherType(view, off);
  return type === ETH_P_ARP ? "ARP" : `Ethernet type 0x${type.toString(16).padStart(4, "0")}`;
}

/** Logs frames at level TRACE. */
export class FrameTrace implements Observer {
  readonly #packet = new Packet();

  frame(fromGuest: boolean, arena: Arena, off: number, length: number): void {
    const what = describeFrame(arena.dv, off, length, this.#packet);
    getLogger().trace(`${fromGuest ? "from" : "to"} guest, ${length} bytes: ${what}`);
  }

  close(): void {}
}
