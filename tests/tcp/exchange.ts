// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A server's data and a guest's acknowledgements, one step at a time.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { ACK, FIN, type Segment } from "./segment.ts";
import { concat, type Guest, type HostSocket, type World } from "./world.ts";

/** The server sends; waits until the data has reached the guest's link or cannot. */
export function serve(world: World, server: HostSocket, bytes: Uint8Array<ArrayBuffer>): Segment[] {
  assertEquals(server.send(bytes), bytes.length);
  world.until(() => world.link.sent.length > 0, "data");
  world.settle();
  return world.segments();
}

/** Acknowledges everything up to `ack`. */
export function acknowledge(world: World, guest: Guest, ack: number): Segment[] {
  guest.ack = ack >>> 0;
  guest.send(ACK);
  world.settle();
  return world.segments();
}

/** All payload of some segments, in the order they were sent. */
export const payload = (segments: Segment[]): Uint8Array<ArrayBuffer> =>
  concat(segments.map((segment) => segment.payload));

/** Sequence number that follows a segment. */
export const end = ({ seq, payload, flags }: Segment): number =>
  (seq + payload.length + (flags & FIN)) >>> 0;
