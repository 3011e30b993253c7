// SPDX-License-Identifier: GPL-2.0-or-later
/** Every parser against every truncation and many mutations of samples it does not know. */
import { assert, assertEquals } from "@std/assert";
import { mutate, repair } from "./mutate.ts";
import { seeded } from "./random.ts";
import { buildSamples, exactView, SAMPLE_NAMES, type SampleName, SAMPLES } from "./samples.ts";

const MUTATIONS = 100_000;
const bytes = await buildSamples();
const ETH = 14;

function read(name: SampleName, view: ReturnType<typeof exactView>, off: number): boolean {
  return SAMPLES[name][1](view, off, view.byteLength - off);
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
