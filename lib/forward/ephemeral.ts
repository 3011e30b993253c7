// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * The ports that the kernel gives to outbound connections: forwarding all ports leaves them alone.
 *
 * @module
 */
import { MAX_PORT } from "./port_spec.ts";

/** First and last ephemeral port, as the kernel has them when nobody changes them (ip(7)). */
export const DEFAULT_EPHEMERAL: readonly [number, number] = [32768, 60999];
/** Dynamic ports (RFC 6335 §6), for a system that does not tell. */
const DYNAMIC: readonly [number, number] = [49152, 65535];

const SETTING = "/proc/sys/net/ipv4/ip_local_port_range";

/**
 * Reads the ephemeral ports of this process's network namespace.
 *
 * @param path the setting's file
 * @returns first and last port; those of RFC 6335 when they cannot be read
 */
export function readEphemeralPorts(path: string = SETTING): readonly [number, number] {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch {
    return DYNAMIC;
  }
  const match = /^(\d+)\s+(\d+)\s*$/.exec(text);
  if (!match) return DYNAMIC;
  const [first, last] = [Number(match[1]), Number(match[2])];
  return first >= 1 && last >= first && last <= MAX_PORT ? [first, last] : DYNAMIC;
}
