// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  PCAP_HEADER_SIZE,
  PCAP_RECORD_SIZE,
  writePcapHeader,
  writePcapRecord,
} from "../../lib/wire/pcap.ts";
import { FRAMES, SEARCH } from "./frames.ts";

const SECONDS = 1_700_000_000, STEP = 250_000;

/** A capture file of `frames`, a quarter of a second apart. */
function capture(frames: Uint8Array[]): Uint8Array {
  const file = new Uint8Array(1 << 16);
  const view = new DataView(file.buffer);
  writePcapHeader(view, 0, 65549);
  let at = PCAP_HEADER_SIZE;
  frames.forEach((frame, i) => {
    const time = i * STEP;
    const seconds = SECONDS + Math.floor(time / 1e6);
    writePcapRecord(view, at, seconds, time % 1e6, frame.length, frame.length);
    file.set(frame, at + PCAP_RECORD_SIZE);
    at += PCAP_RECORD_SIZE + frame.length;
  });
  return file.subarray(0, at);
}

async function tshark(file: Uint8Array, ...args: string[]): Promise<string> {
  const path = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(path, file);
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

const WRONG = ["_ws.malformed", "_ws.short"]
  .concat(["ip", "tcp", "udp", "icmp", "icmpv6"].map((p) => `${p}.checksum.status == 0`))
  .join(" || ");

Deno.test("writePcapRecord() makes a file whose times and lengths tshark reads", async () => {
  const frames = Object.values(FRAMES);
  const fields = [
    "-T",
    "fields",
    "-e",
    "frame.time_epoch",
    "-e",
    "frame.len",
    "-e",
    "frame.cap_len",
  ];
  const lines = (await tshark(capture(frames), ...fields)).trimEnd().split("\n");
  assertEquals(
    lines,
    frames.map(({ length }, i) => {
      const time = (SECONDS + i * STEP / 1e6).toFixed(9);
      return `${time}\t${length}\t${length}`;
    }),
  );
});

Deno.test("emitters make no frame that tshark finds malformed or badly summed", async () => {
  assertEquals(await tshark(capture(Object.values(FRAMES)), "-Y", WRONG), "");
});

Deno.test("tshark does notice a wrong checksum in such a file", async () => {
  const broken = Object.values(FRAMES).map((frame) => {
    const copy = frame.slice();
    copy[copy.length - 1] ^= 1;
    return copy;
  });
  const lines = (await tshark(capture(broken), "-Y", WRONG)).trimEnd().split("\n");
  assertEquals(lines.length, broken.length - 1); // ARP has none
});

Deno.test("tshark reads the compressed search list of DHCP", async () => {
  const text = await tshark(capture([FRAMES.dhcp]), "-V");
  for (const name of SEARCH) {
    assertStringIncludes(text, `FQDN: ${name.replace(/\.$/, "").toLowerCase()}\n`);
  }
});
