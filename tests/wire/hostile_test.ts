// SPDX-License-Identifier: GPL-2.0-or-later
/** Every parser against every truncation and many mutations of samples it does not know. */
import { assert, assertEquals } from "@std/assert";
import { invert, pseudoSum, sum } from "../../lib/wire/checksum.ts";
import { IPPROTO_ICMP, IPPROTO_UDP } from "../../lib/wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "../../lib/wire/ipv6.ts";
import { DEST, Packet, parseIp, SOURCE } from "../../lib/wire/packet.ts";
import { seeded } from "./random.ts";
import { buildSamples, exactView, SAMPLE_NAMES, type SampleName, SAMPLES } from "./samples.ts";

const MUTATIONS = 100_000;
const bytes = await buildSamples();
const packet = new Packet();
const ETH = 14;

function read(name: SampleName, view: ReturnType<typeof exactView>, off: number): boolean {
  return SAMPLES[name][1](view, off, view.byteLength - off);
}

/**
 * Makes a changed frame look whole again, so that what lies deeper is reached: lengths of IP and UDP
 * and the checksum of ICMP are set to what the frame has.
 */
function repair(frame: Uint8Array): void {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < ETH + 40) return;
  const v4 = view.getUint16(12) === 0x0800;
  if (v4) view.setUint16(ETH + 2, frame.length - ETH);
  else if (view.getUint16(12) === 0x86dd) view.setUint16(ETH + 4, frame.length - ETH - 40);
  if (!parseIp(view, 0, frame.length, packet)) return;
  const { l4, end, proto, addresses } = packet;
  if (proto === IPPROTO_UDP && end - l4 >= 8) view.setUint16(l4 + 4, end - l4);
  if ((proto === IPPROTO_ICMP || proto === IPPROTO_ICMPV6) && end - l4 >= 4) {
    const initial = v4 ? 0 : pseudoSum(addresses, SOURCE, addresses, DEST, proto, end - l4);
    view.setUint16(l4 + 2, 0);
    view.setUint16(l4 + 2, invert(sum(view, l4, end - l4, initial)));
  }
}

Deno.test("every sample is accepted whole, at any offset, and with Ethernet padding", () => {
  for (const name of SAMPLE_NAMES) {
    for (const off of [0, 1, 2, 3, 64]) {
      assert(read(name, exactView(bytes[name], off), off), `${name} at ${off}`);
    }
    const padded = exactView(Uint8Array.of(...bytes[name], ...new Uint8Array(30)));
    assert(read(name, padded, 0), `${name} padded`);
  }
});

Deno.test("every truncation of every sample is refused without an over-read", () => {
  for (const name of SAMPLE_NAMES) {
    for (let length = 0; length < bytes[name].length; length++) {
      for (const off of [0, 7]) {
        const view = exactView(bytes[name].subarray(0, length), off);
        assert(!read(name, view, off), `${name} cut to ${length} bytes at ${off}`);
      }
    }
  }
});

/** Where a sample may end and still be whole, once its outer lengths agree. */
const WHOLE: Partial<Record<SampleName, number[]>> = {
  routerSolicit: [8, 16],
  routerAdvert: [16, 48, 56, 80, 88],
  neighborSolicit: [24, 32],
  neighborAdvert: [24, 32],
  redirect: [40],
};

Deno.test("every truncation whose outer lengths are made to agree is read within bounds", () => {
  for (const name of SAMPLE_NAMES) {
    for (let length = 0; length < bytes[name].length; length++) {
      const cut = bytes[name].slice(0, length);
      repair(cut);
      const accepted = read(name, exactView(cut), 0);
      const whole = WHOLE[name];
      if (whole) assertEquals(accepted, whole.includes(length - ETH - 40), `${name} to ${length}`);
      if (name === "arp" || name === "dhcp") assert(!accepted, `${name} to ${length}`);
    }
  }
});

Deno.test("truncations of DHCPv6 are accepted between two options only", () => {
  const msg = ETH + 40 + 8;
  const view = new DataView(bytes.dhcpv6.buffer);
  const ends = [msg + 4];
  for (let at = msg + 4; at < view.byteLength; ends.push(at)) at += 4 + view.getUint16(at + 2);
  const accepted: number[] = [];
  for (let length = msg; length <= view.byteLength; length++) {
    const cut = bytes.dhcpv6.slice(0, length);
    repair(cut);
    if (read("dhcpv6", exactView(cut), 0)) accepted.push(length);
  }
  assertEquals(accepted, ends);
});

/** Values that tend to break parsers. */
const NASTY = [0x00, 0x01, 0x02, 0x03, 0x07, 0x08, 0x0f, 0x7f, 0x80, 0xfe, 0xff];

/** Changes 1–8 bytes, more often than not in the headers' second half. */
function mutate(frame: Uint8Array, random: (n: number) => number): void {
  for (let n = 1 + random(8); n > 0; n--) {
    const at = random(4) === 0 ? random(frame.length) : ETH + random(frame.length - ETH);
    if (random(2) === 0) frame[at] = NASTY[random(NASTY.length)];
    else frame[at] ^= 1 << random(8);
  }
}

for (const name of SAMPLE_NAMES) {
  Deno.test(`${MUTATIONS} mutations of ${name} are read within bounds`, () => {
    const random = seeded(name.length * 1000 + 1);
    const sample = bytes[name];
    const view = exactView(sample);
    const memory = new Uint8Array(view.buffer);
    let accepted = 0;
    for (let i = 0; i < MUTATIONS; i++) {
      const length = random(3) === 0 ? 1 + random(sample.length - 1) : sample.length;
      const off = sample.length - length; // frames end where the view does
      const frame = memory.subarray(off);
      frame.set(sample.subarray(0, length));
      if (length > ETH) mutate(frame, random);
      if (random(4) > 0) repair(frame);
      view.high = 0;
      if (read(name, view, off)) accepted++;
    }
    assert(accepted > MUTATIONS / 100, `only ${accepted} went deep`);
  });
}
