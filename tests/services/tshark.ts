// SPDX-License-Identifier: GPL-2.0-or-later
/**
 * A second opinion about answers: tshark decodes them from a capture file.
 *
 * @module
 */
import { assert } from "@std/assert";
import {
  PCAP_HEADER_SIZE,
  PCAP_RECORD_SIZE,
  writePcapHeader,
  writePcapRecord,
} from "../../lib/wire/pcap.ts";

const SNAP = 65549;

function capture(frames: readonly Uint8Array[]): Uint8Array {
  const bytes = frames.reduce((n, frame) => n + PCAP_RECORD_SIZE + frame.length, PCAP_HEADER_SIZE);
  const file = new Uint8Array(bytes), view = new DataView(file.buffer);
  writePcapHeader(view, 0, SNAP);
  let at = PCAP_HEADER_SIZE;
  for (const frame of frames) {
    writePcapRecord(view, at, 1, 0, frame.length, frame.length);
    file.set(frame, at + PCAP_RECORD_SIZE);
    at += PCAP_RECORD_SIZE + frame.length;
  }
  return file;
}

async function tshark(frames: readonly Uint8Array[], args: string[]): Promise<string> {
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(path, capture(frames));
    const checks = ["ip", "tcp", "udp"].flatMap((p) => ["-o", `${p}.check_checksum:TRUE`]);
    const { success, stdout, stderr } = await new Deno.Command("tshark", {
      args: ["-n", "-r", path, ...checks, ...args],
      stdin: "null",
    }).output();
    const text = new TextDecoder();
    assert(success, text.decode(stderr));
    return text.decode(stdout);
  } finally {
    await Deno.remove(path);
  }
}

/** What tshark reads in each frame for each field; several values are joined by a comma. */
export async function fieldsOf(
  frames: readonly Uint8Array[],
  fields: readonly string[],
): Promise<string[][]> {
  const args = ["-T", "fields", ...fields.flatMap((field) => ["-e", field])];
  return (await tshark(frames, args)).replace(/\n$/, "").split("\n").map((line) =>
    line.split("\t")
  );
}

/** Display filter for wrong checksums. */
export const CHECKSUM_IS_WRONG = ["ip", "udp", "icmpv6"]
  .map((protocol) => `${protocol}.checksum.status == 0`).join(" || ");

/** Summary lines of frames that are malformed or carry a wrong checksum, or as `filter` says. */
export function wrongFrames(
  frames: readonly Uint8Array[],
  filter = `_ws.malformed || _ws.short || ${CHECKSUM_IS_WRONG}`,
): Promise<string> {
  return tshark(frames, ["-Y", filter]);
}
