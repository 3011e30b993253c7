// SPDX-License-Identifier: GPL-2.0-or-later
/** The line that --trace shows for a frame. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { BaseHandler, getLogger, LogLevels } from "@std/log";
import { describeFrame, FrameTrace } from "../../lib/link/trace.ts";
import { Packet } from "../../lib/wire/packet.ts";
import { FakeLink } from "../helpers/fake_link.ts";
import { requirements } from "../helpers/require.ts";
import { BASE, buildSamples, exactView, SAMPLE_NAMES, type SampleName } from "../wire/samples.ts";
import { seeded } from "../wire/random.ts";

const NEEDS = requirements({ root: false, packages: ["python3-scapy"] });
const MUTATIONS = 20_000;
const LONGEST = 200;
const packet = new Packet();

const TCP4 = "10.0.0.2 > 192.0.2.1 TCP 4000 > 80 S seq 0 ack 0 payload 7";
const UDP = "UDP 1 > 2 payload 7";
const FROM6 = "2001:db8::2 > 2001:db8::1";
const ND = "fe80::2 > fe80::1 ICMP type";

/** What is said about each sample. */
const LINES: Record<SampleName, string> = {
  arp: "ARP",
  tcp4: TCP4,
  tcp4Options: TCP4.replace("payload 7", "payload 0"),
  tcp6: TCP4.replace("10.0.0.2 > 192.0.2.1", FROM6),
  tcp6Chain: TCP4.replace("10.0.0.2 > 192.0.2.1", FROM6),
  udp4: `10.0.0.2 > 192.0.2.1 ${UDP}`,
  udp6: `${FROM6} ${UDP}`,
  udp6Chain: `${FROM6} ${UDP}`,
  echo4: "10.0.0.2 > 192.0.2.1 ICMP type 8",
  echo6: `${FROM6} ICMP type 128`,
  routerSolicit: `${ND} 133`,
  routerAdvert: `${ND} 134`,
  neighborSolicit: `${ND} 135`,
  neighborAdvert: `${ND} 136`,
  redirect: `${ND} 137`,
  dhcp: "0.0.0.0 > 255.255.255.255 UDP 68 > 67 payload",
  dhcpv6: "fe80::2 > ff02::1:2 UDP 546 > 547 payload",
};

const MORE = {
  flags: `${BASE.IP4}/TCP(sport=1, dport=2, seq=4294967295, ack=2147483648, flags="FSRPAU")`,
  other: `${BASE.IP4}/GRE()`,
  vlan: `${BASE.ETHER}/Dot1Q()`,
};

Deno.test({
  name: "describeFrame() names addresses, ports, flags and lengths of every kind of frame",
  ...NEEDS,
  async fn() {
    const samples = await buildSamples(MORE);
    const line = (bytes: Uint8Array) => describeFrame(exactView(bytes), 0, bytes.length, packet);
    for (const name of SAMPLE_NAMES) {
      assertEquals(line(samples[name]).replace(/(?<=6?7 payload) \d+$/, ""), LINES[name], name);
    }
    const ends = "10.0.0.2 > 192.0.2.1";
    assertEquals(
      line(samples.flags),
      `${ends} TCP 1 > 2 FSRPAU seq 4294967295 ack 2147483648 payload 0`,
    );
    assertEquals(line(samples.other), `${ends} protocol 47`);
    assertEquals(line(samples.vlan), "Ethernet type 0x8100");
  },
});

Deno.test({
  name: "describeFrame() has a short line for every truncation and mutation of a frame",
  ...NEEDS,
  async fn() {
    const samples = await buildSamples(), random = seeded(77);
    const check = (bytes: Uint8Array) => {
      const line = describeFrame(exactView(bytes), 0, bytes.length, packet);
      assert(line.length > 0 && line.length < LONGEST, line);
      assertMatch(line, /^[ -~]+$/);
    };
    for (const name of SAMPLE_NAMES) {
      for (let n = 0; n <= samples[name].length; n++) check(samples[name].slice(0, n));
    }
    for (let n = 0; n < MUTATIONS; n++) {
      const bytes = samples[SAMPLE_NAMES[random(SAMPLE_NAMES.length)]!].slice();
      for (let k = random(6); k >= 0; k--) bytes[random(bytes.length)] = random(256);
      check(random(4) > 0 ? bytes : bytes.slice(0, random(bytes.length)));
    }
  },
});

Deno.test("FrameTrace logs one line for a frame, with its direction and length", () => {
  const lines: string[] = [];
  class Lines extends BaseHandler {
    override log(line: string): void {
      lines.push(line);
    }
  }
  const logger = getLogger(), { level, handlers } = logger;
  logger.level = LogLevels.TRACE;
  logger.handlers = [new Lines("NOTSET")];
  const link = new FakeLink(), trace = new FrameTrace();
  const frame = new Uint8Array(60);
  frame.set([0x08, 0x06], 12);
  const off = link.load(frame);
  trace.frame(true, link.arena, off, 60);
  trace.frame(false, link.arena, off, 60);
  trace.close();
  logger.level = level;
  logger.handlers = handlers;
  assertEquals(lines, ["from guest, 60 bytes: ARP", "to guest, 60 bytes: ARP"]);
});
