// SPDX-License-Identifier: GPL-2.0-or-later
import { spawn } from "node:child_process";
import { once } from "node:events";
import { assert, assertEquals } from "@std/assert";
import { FlowReader } from "../../lib/flow/reader.ts";
import { DEFAULT_CAPACITY, FlowTable } from "../../lib/flow/table.ts";
import { libc } from "../../lib/sys/libc.ts";
import { createMemory, SharedMapping } from "../../lib/sys/shared_memory.ts";
import { CAPACITY, expected, isTorn } from "./churn.ts";
import { addActive } from "./helpers.ts";

const LEAST_SNAPSHOTS = 100_000;
const LEAST_USES = 10_000; // of some place, seen
const MOST_MS = 60_000; // on a busy machine
const MOST_RESIDENT = 1 << 18;

/** A process that works in the memory of `fd` from the time on when it is returned, and its end. */
async function startChurn(fd: number): Promise<() => Promise<number>> {
  const program = new URL("churn.ts", import.meta.url).pathname;
  const child = spawn(Deno.execPath(), ["run", "--quiet", "-A", program], {
    stdio: ["pipe", "pipe", "inherit", fd],
  });
  let output = "";
  child.stdout!.on("data", (text) => output += text);
  await once(child.stdout!, "data");
  return async () => {
    const exit = once(child, "close");
    child.stdin!.end();
    const [code] = await exit;
    assertEquals(code, 0);
    return Number(output.split("\n")[1]);
  };
}

/** Bytes of a file that take up memory. */
function residentBytes(fd: number): number {
  return Deno.statSync(`/proc/self/fd/${fd}`).blocks! * 512;
}

Deno.test("FlowReader sees whole flows only, of a process that changes them all the time", async () => {
  const fd = createMemory("flows", FlowTable.byteLength(CAPACITY));
  const mapping = new SharedMapping(fd, { readOnly: true });
  const endChurn = await startChurn(fd);
  let snapshots = 0, uses = 0;
  try {
    const reader = new FlowReader(mapping.buffer()), last = new Array(CAPACITY).fill(0);
    assertEquals(reader.capacity, CAPACITY);
    const start = performance.now();
    while (snapshots < LEAST_SNAPSHOTS || uses < LEAST_USES) {
      assert(performance.now() - start < MOST_MS, `${snapshots} snapshots of ${uses} uses`);
      for (const flow of reader.flows(0)) {
        if (JSON.stringify(flow) !== JSON.stringify(expected(flow))) {
          assertEquals(flow, expected(flow));
        }
        assert(!isTorn(flow.bytesFromInitiator) && !isTorn(flow.bytesFromTarget), "torn counter");
        assert(flow.generation >= last[flow.index], "an older flow came back");
        uses = Math.max(uses, last[flow.index] = flow.generation);
        snapshots++;
      }
    }
  } finally {
    const lives = await endChurn();
    assert(lives > uses, `${lives} flows`);
    mapping.unmap();
    libc.close(fd);
  }
});

Deno.test("FlowTable and FlowReader leave the memory of entries never used alone", () => {
  const bytes = FlowTable.byteLength(DEFAULT_CAPACITY), fd = createMemory("flows", bytes);
  const ours = new SharedMapping(fd), theirs = new SharedMapping(fd, { readOnly: true });
  const table = new FlowTable({ buffer: ours.buffer() });
  for (let k = 0; k < 100; k++) addActive(table);
  table.labelId("label");
  table.deferHandler(0);
  const reader = new FlowReader(theirs.buffer());
  assertEquals([...reader.flows(0)].length, 100);
  assertEquals(reader.snapshot(DEFAULT_CAPACITY - 1, 0), null);
  const resident = residentBytes(fd);
  assert(resident < MOST_RESIDENT, `${resident} of ${bytes} bytes are resident`);
  ours.unmap();
  theirs.unmap();
  libc.close(fd);
});
