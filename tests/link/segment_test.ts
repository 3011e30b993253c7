// SPDX-License-Identifier: GPL-2.0-or-later
/** Super-frames cut into segments, and checksums completed: scapy and tshark read what comes out. */
import { assert, assertEquals } from "@std/assert";
import { GSO } from "../../lib/link/link.ts";
import { Segmenter } from "../../lib/link/segment.ts";
import { plainSumming, type Summing, wasmSumming } from "../../lib/link/simd/checksum.ts";
import { pseudoSum } from "../../lib/wire/checksum.ts";
import { Packet, parseIp } from "../../lib/wire/packet.ts";
import { requirements } from "../helpers/require.ts";
import { wrongFrames } from "../services/tshark.ts";
import { build, decode, type Layer, layerOf } from "../wire/scapy.ts";
import { seeded } from "../wire/random.ts";

const NEEDS = requirements({ root: false, packages: ["python3-scapy", "tshark"] });
const SIZE = 1 << 18, TO = 1 << 17;
const TCP_CHECKSUM = 16, UDP_CHECKSUM = 6;

const ETH = 'Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")';
const IP4 = `${ETH}/IP(src="192.0.2.1", dst="198.51.100.2", id=65534, flags="DF")`;
const IP6 = `${ETH}/IPv6(src="2001:db8::1", dst="2001:db8:1::2")`;
const TCP = 'TCP(sport=80, dport=5000, seq=4294967000, ack=7, flags="CPAF", window=500';
const OPTIONS = ', options=[("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]';

/** Headers as scapy builds them, the segment size, and sizes of payload. */
const CASES = {
  tcp4: { headers: `${IP4}/${TCP})`, mss: 1460, sizes: [1461, 2920, 65_483, 60_001] },
  tcp6: { headers: `${IP6}/${TCP})`, mss: 1440, sizes: [1441, 2880, 65_463] },
  options4: { headers: `${IP4}/${TCP}${OPTIONS})`, mss: 1448, sizes: [1449, 14_480, 40_000] },
  options6: { headers: `${IP6}/${TCP}${OPTIONS})`, mss: 1427, sizes: [9999] },
  small: { headers: `${IP4}/${TCP})`, mss: 64, sizes: [65, 250, 4000] },
  odd: { headers: `${IP6}/${TCP})`, mss: 333, sizes: [1000] },
  udp4: { headers: `${IP4}/UDP(sport=40000, dport=40001)`, mss: 1000, sizes: [1001, 5500, 65_507] },
  udp6: { headers: `${IP6}/UDP(sport=40000, dport=40001)`, mss: 1, sizes: [2, 40] },
  udpOdd: { headers: `${IP6}/UDP(sport=40000, dport=40001)`, mss: 1451, sizes: [3000] },
} as const;

const packet = new Packet();

/** Puts a frame at `off` as a link gets it: its checksum field holds the sum of the pseudo-header. */
function load(summing: Summing, frame: Uint8Array, off: number): [number, number] {
  const { u8, dv } = summing.arena;
  u8.set(frame, off);
  assert(parseIp(dv, off, frame.length, packet));
  const { l4, proto, addresses } = packet;
  const csumOffset = proto === 6 ? TCP_CHECKSUM : UDP_CHECKSUM;
  const bytes = off + frame.length - l4;
  dv.setUint16(l4 + csumOffset, pseudoSum(addresses, 0, addresses, 4, proto, bytes));
  return [l4 - off, csumOffset];
}

function cut(
  summing: Summing,
  frame: Uint8Array,
  gsoType: number,
  gsoSize: number,
): Uint8Array<ArrayBuffer>[] {
  const segmenter = new Segmenter(summing), off = 3, { u8 } = summing.arena;
  const [csumStart, csumOffset] = load(summing, frame, off);
  const before = u8.slice(0, off + frame.length + 8);
  const count = segmenter.begin(off, frame.length, csumStart, csumOffset, gsoType, gsoSize);
  assert(count > 0);
  let to = TO + 1, total = 0;
  const segments: Uint8Array<ArrayBuffer>[] = [];
  for (let k = 0; k < count; k++) {
    const bytes = segmenter.write(k, to);
    assertEquals(bytes, segmenter.size(k));
    segments.push(u8.slice(to, to + bytes));
    total += bytes;
    to = TO + k % 5;
  }
  assertEquals(total, segmenter.bytes);
  assertEquals(u8.subarray(0, before.length), before, "the frame was changed");
  return segments;
}

function payloadOf(size: number): Uint8Array<ArrayBuffer> {
  const random = seeded(size);
  return Uint8Array.from({ length: size }, () => random(256));
}

/** Frames of a case: headers with right lengths, and payload. */
async function framesOf(name: keyof typeof CASES): Promise<Map<number, Uint8Array<ArrayBuffer>>> {
  const { headers, sizes } = CASES[name];
  const built = await build(
    Object.fromEntries(sizes.map((size) => [size, `${headers}/Raw(b"x"*${size})`])),
  );
  return new Map(sizes.map((size) => {
    const frame = built[size]!;
    frame.set(payloadOf(size), frame.length - size);
    return [size, frame];
  }));
}

function assertIp(ip: Layer, k: number, total: number): void {
  if (ip.layer === "IPv6") return assertEquals(ip.plen, total - 54);
  assertEquals([ip.len, ip.id, ip.flags], [total - 14, 65534 + k & 0xffff, 2]);
}

for (const name of Object.keys(CASES) as (keyof typeof CASES)[]) {
  Deno.test({
    name: `segments of ${name} are what scapy and tshark take for whole and right packets`,
    ...NEEDS,
    async fn() {
      const { mss } = CASES[name], udp = name.startsWith("udp"), v4 = name.includes("4");
      const gsoType = udp ? GSO.UDP_L4 : v4 || name === "small" ? GSO.TCPV4 : GSO.TCPV6;
      for (const [size, frame] of await framesOf(name)) {
        const segments = cut(wasmSumming(SIZE), frame, gsoType, mss);
        assertEquals(segments, cut(plainSumming(SIZE), frame, gsoType, mss));
        assertEquals(segments.length, Math.ceil(size / mss));
        assertEquals(await wrongFrames(segments, WRONG), "");
        const decoded = await decode(Object.fromEntries(segments.map((s, k) => [k, s])));
        const headers = frame.length - size, payload = payloadOf(size);
        for (const [k, segment] of segments.entries()) {
          const part = payload.subarray(k * mss, Math.min(size, (k + 1) * mss));
          assertEquals(segment.subarray(headers), part);
          assertEquals(decoded[k]!.bad, [], `segment ${k}`);
          assertIp(decoded[k]!.layers[1]!, k, segment.length);
          if (udp) assertEquals(layerOf(decoded[k]!, "UDP").len, 8 + part.length);
          else assertTcp(layerOf(decoded[k]!, "TCP"), k, mss, segments.length);
        }
      }
    },
  });
}

const WRONG = ["ip", "tcp", "udp"].map((protocol) => `${protocol}.checksum.status == 0`)
  .concat("_ws.short").join(" || ");

function assertTcp(tcp: Layer, k: number, mss: number, count: number): void {
  assertEquals(tcp.seq, (4294967000 + k * mss) % 2 ** 32);
  const [FIN, PSH, ACK, CWR] = [1, 8, 16, 128];
  const flags = ACK | (k === 0 ? CWR : 0) | (k === count - 1 ? FIN | PSH : 0);
  assertEquals([tcp.flags, tcp.ack, tcp.window], [flags, 7, 500]);
}

Deno.test({
  name: "the checksum of single frames is completed, that of others left alone",
  ...NEEDS,
  async fn() {
    const frames = Object.values(
      await build({
        tcp4: `${IP4}/${TCP}${OPTIONS})/Raw(b"odd")`,
        tcp6: `${IP6}/${TCP})`,
        udp4: `${IP4}/UDP(sport=1, dport=2)/Raw(b"y"*1471)`,
        udp6: `${IP6}/UDP(sport=1, dport=2)`,
      }),
    );
    for (const make of [wasmSumming, plainSumming]) {
      const whole = frames.flatMap((frame) => cut(make(SIZE), frame, GSO.NONE, 0));
      assertEquals(whole, frames);
      const summing = make(SIZE), segmenter = new Segmenter(summing), { u8 } = summing.arena;
      for (const frame of frames) {
        u8.set(frame);
        assertEquals(segmenter.begin(0, frame.length, 0, 0, GSO.NONE, 0), 1);
        assertEquals(segmenter.write(0, TO), frame.length);
        assertEquals(u8.slice(TO, TO + frame.length), frame);
      }
    }
    assertEquals(await wrongFrames(frames, WRONG), "");
  },
});

Deno.test("a UDP checksum that comes to 0 is sent as 0xffff (RFC 768)", () => {
  const summing = wasmSumming(SIZE), { u8, dv } = summing.arena, segmenter = new Segmenter(summing);
  const frame = new Uint8Array(44).fill(0, 0, 44);
  frame[14] = 0x45;
  u8.set(frame);
  dv.setUint16(34 + 6, 0xffff); // the pseudo-header's part; all else is zero
  assertEquals(segmenter.begin(0, 44, 34, 6, GSO.NONE, 0), 1);
  segmenter.write(0, TO);
  assertEquals(dv.getUint16(TO + 40), 0xffff);
});

Deno.test("begin() refuses descriptions that do not fit the frame", () => {
  const summing = wasmSumming(SIZE), segmenter = new Segmenter(summing), { u8 } = summing.arena;
  u8.fill(0, 0, 2000);
  u8[14] = 0x45;
  u8[34 + 12] = 0x50;
  const ok = [0, 1000, 34, 16, GSO.TCPV4, 400] as const;
  assertEquals(segmenter.begin(...ok), 3);
  for (
    const [at, value] of [[1, 13], [1, 1 << 18], [2, 990], [2, 20], [5, 0], [5, -1], [
      1,
      54,
    ]] as const
  ) {
    const bad = [...ok] as [number, number, number, number, number, number];
    bad[at] = value;
    assertEquals(segmenter.begin(...bad), 0, `${bad}`);
  }
  u8[34 + 12] = 0x40; // a TCP header of 16 bytes
  assertEquals(segmenter.begin(...ok), 0);
});
