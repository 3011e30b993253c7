// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { raiseDescriptorLimit } from "../../lib/sys/rlimit.ts";
import { descriptors } from "../helpers/drive_loop.ts";
import { must } from "../helpers/run.ts";
import { freePort, spec, SpliceWorld } from "./splice_world.ts";
import { HostSocket, pattern } from "./world.ts";

const MIB = 1 << 20;
const MANY = 3000;
const EAGAIN = 11; // errno(3)

/** Nothing is collected unless asked for, so that garbage can be measured, too. */
const NO_COLLECTION = "--expose-gc,--min-semi-space-size=128,--max-semi-space-size=128";

function probe(name: string): string[] {
  const file = new URL(name, import.meta.url).pathname;
  const flags = ["--quiet", "--no-prompt", "--no-check", `--v8-flags=${NO_COLLECTION}`];
  return [Deno.execPath(), "run", "-A", ...flags, file];
}

Deno.test("spliced data leaves the heap as it was", async () => {
  const { grown, kept } = JSON.parse(await must(probe("splice_heap_probe.ts")));
  assert(kept < MIB, `${kept} bytes kept`);
  assert(grown < MIB, `${grown} bytes of garbage`);
});

Deno.test("3,000 connections at once take two descriptors each", () => {
  raiseDescriptorLimit();
  using world = new SpliceWorld({ capacity: MANY });
  using listener = HostSocket.listen(false, { backlog: 128 });
  const port = freePort();
  world.tcp.listen(spec(port, listener.port));
  const pairs: [HostSocket, HostSocket][] = [];
  const before = descriptors();
  while (pairs.length < MANY) {
    const client = HostSocket.connect(port);
    pairs.push([client, world.until(() => listener.accept(), "accept")]);
  }
  const message = pattern(1000);
  for (const [client, server] of pairs) {
    client.send(message);
    server.send(message);
  }
  world.settle();
  let served = 0;
  for (const pair of pairs) {
    for (const socket of pair) {
      const got = world.until(() => {
        const bytes = socket.receive(2000);
        return bytes === -EAGAIN ? null : bytes;
      }, "message");
      if (typeof got !== "number" && got.length === message.length) served++;
    }
  }
  assertEquals(served, 2 * MANY);
  const own = descriptors() - before - 2 * MANY - world.guest.ready;
  assert(own <= 2 * MANY + 8, `${own} descriptors for ${MANY} connections`);
  for (const [client, server] of pairs) {
    client.close();
    server.close();
  }
  world.settle();
  for (let k = 0; k < 3; k++) world.second();
  assertEquals(descriptors() - world.guest.ready, before);
  assertEquals(world.table.activeCount, 0);
});
