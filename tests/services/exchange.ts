// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Hands frames to the services as the loop does, and collects what they answer. The questions come
 * from scapy, and so does the opinion about the answers.
 *
 * @module
 */
import { handleArp } from "../../lib/services/arp.ts";
import { handleDhcp } from "../../lib/services/dhcp.ts";
import { handleDhcpv6 } from "../../lib/services/dhcpv6.ts";
import { handleNdp } from "../../lib/services/ndp.ts";
import { ETH_P_ARP, etherType } from "../../lib/wire/ethernet.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { checkUdp } from "../../lib/wire/udp.ts";
import { assertEquals } from "@std/assert";
import { requirements } from "../helpers/require.ts";
import type { FakeContext } from "../helpers/fake_context.ts";
import { decode, type Decoded } from "../wire/scapy.ts";

/** To be spread into tests: they need scapy, not root. */
export const NEEDS_SCAPY = requirements({ root: false, packages: ["python3-scapy"] });

const packet = new Packet();

/** Offers the `length` bytes at `off` to every service. @returns whether one took it as its own */
export function dispatch(ctx: FakeContext, off: number, length: number): boolean {
  const view = ctx.link.arena.dv;
  if (length >= 14 && etherType(view, off) === ETH_P_ARP) {
    handleArp(ctx, off, length);
    return true;
  }
  if (!parseIp(view, off, length, packet)) return false;
  if (handleNdp(ctx, packet, off)) return true;
  if (packet.proto !== 17) return false;
  const payload = checkUdp(view, packet);
  return payload >= 0 &&
    (handleDhcp(ctx, packet, payload, off) || handleDhcpv6(ctx, packet, payload, off));
}

/** Sends one frame to the services. @returns the frames they answered */
export function exchange(ctx: FakeContext, frame: Uint8Array): Uint8Array<ArrayBuffer>[] {
  dispatch(ctx, ctx.link.load(frame), frame.length);
  return ctx.link.take();
}

/** As {@linkcode exchange}, when there must be exactly one answer. */
export function ask(ctx: FakeContext, frame: Uint8Array): Uint8Array<ArrayBuffer> {
  const answers = exchange(ctx, frame);
  assertEquals(answers.length, 1, "one answer");
  return answers[0];
}

/** Decodes answers; their checksums must be right. */
export async function decodeAll<K extends string>(
  frames: Record<K, Uint8Array>,
): Promise<Record<K, Decoded>> {
  const decoded = await decode(frames);
  for (const name of Object.keys(frames) as K[]) {
    assertEquals(decoded[name].bad, [], `checksums of ${name}`);
  }
  return decoded;
}

/** Runs `make` once, at the first call. */
export function once<T>(make: () => T): () => T {
  let made: { value: T } | null = null;
  return () => (made ??= { value: make() }).value;
}
