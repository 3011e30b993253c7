// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * Output of a process as a web stream that keeps nobody running who does not read it.
 *
 * Theory of operation: node:child_process throws away at the end of a process what nobody has asked for
 * yet, and an open pipe keeps the script running. With a listener, what was written stays in the pipe and in
 * a bounded buffer; and the pipe counts for the script's life only while somebody waits for data.
 *
 * @module
 */
import type { Readable } from "node:stream";

/** A readable that can be left out of what keeps a script running, as sockets and pipes can. */
type Held = Readable & { ref?(): void; unref?(): void };

/** The bytes of a readable, read as they are asked for. */
export function webStream(readable: Held): ReadableStream<Uint8Array<ArrayBuffer>> {
  readable.on("readable", () => {});
  readable.unref?.();
  const chunks = readable[Symbol.asyncIterator]();
  return new ReadableStream({
    async pull(controller) {
      readable.ref?.();
      const { value, done } = await chunks.next().finally(() => readable.unref?.());
      if (done) controller.close();
      else controller.enqueue(new Uint8Array(value)); // no Buffer, whose methods differ
    },
    cancel() {
      readable.destroy();
    },
  }, { highWaterMark: 0 });
}
