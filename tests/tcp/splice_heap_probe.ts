// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Moves data through a spliced connection, small and large, and prints by how many bytes the heap has
 * grown. A program of its own, as `heap_probe.ts` is.
 *
 * @module
 */
import { libc } from "../../lib/sys/libc.ts";
import { SpliceWorld } from "./splice_world.ts";

const EXCHANGES = 100_000;
const BYTES = 64;
const BULK = 4000;
const BULK_BYTES = 200_000;
const gc = (globalThis as unknown as { gc: () => void }).gc;

const world = new SpliceWorld();
const { client, server } = world.connect();
const buffer = new Uint8Array(1 << 20);

/** One message from one end to the other. */
function carry(from: number, to: number, bytes: number): void {
  let left = bytes;
  libc.send(from, buffer, bytes, 0);
  while (left > 0) {
    world.turn();
    const got = libc.recv(to, buffer, left, 0);
    if (got > 0) left -= got;
  }
}

function exchange(count: number, bytes: number): void {
  for (let k = 0; k < count; k++) {
    carry(client.fd, server.fd, bytes);
    carry(server.fd, client.fd, bytes);
  }
}

exchange(5000, BYTES);
exchange(500, BULK_BYTES);
gc();
gc();
const before = Deno.memoryUsage().heapUsed;
exchange(EXCHANGES, BYTES);
exchange(BULK, BULK_BYTES);
const grown = Deno.memoryUsage().heapUsed - before; // garbage included
gc();
gc();
const kept = Deno.memoryUsage().heapUsed - before;
console.log(JSON.stringify({ grown, kept, events: world.events }));
Deno.exit(0);
