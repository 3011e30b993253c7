// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import { encodeDomainName, encodeSearchList } from "../../lib/wire/dns_name.ts";
import { FRAMES } from "./frames.ts";
import { decode, layerOf } from "./scapy.ts";

const LIST = ["eng.apple.com", "marketing.apple.com", "apple.com.", "a", "x.a", "com"];
const LONG = Array.from({ length: 3000 }, (_, i) => `h${i}.d${i % 500}.${"y".repeat(30)}.example`);

/** An advertisement's Ethernet, IPv6 and fixed ICMPv6 part, from `frames.ts`. */
const HEADERS = FRAMES.routerAdvert.subarray(0, 14 + 40 + 16);

/** Reads a search list by the words of RFC 1035 §4.1.4; pcap_test.ts asks tshark as well. */
function readNames(bytes: Uint8Array): string[] {
  const names: string[] = [];
  for (let at = 0; at < bytes.length;) {
    let name = "", next = -1;
    while (bytes[at] !== 0) {
      if (bytes[at] >= 0xc0) {
        if (next < 0) next = at + 2;
        const to = (bytes[at] & 0x3f) << 8 | bytes[at + 1];
        assert(to < at, "points backwards");
        at = to;
      } else {
        name += new TextDecoder().decode(bytes.subarray(at + 1, at + 1 + bytes[at])) + ".";
        at += 1 + bytes[at];
      }
    }
    at = next < 0 ? at + 1 : next;
    names.push(name);
  }
  return names;
}

/** As names are written in full: each ends in a dot. */
function dotted(list: string[]): string[] {
  return list.map((name) => name.replace(/\.?$/, "."));
}

const plain = encodeSearchList(LIST)!;
const compressed = encodeSearchList(LIST, { compress: true })!;
const units = 1 + Math.ceil(plain.length / 8);
const option = new Uint8Array(units * 8);
option.set([31, units]);
option.set(plain, 8);
const decoded = await decode({ plain: Uint8Array.of(...HEADERS, ...option) });

Deno.test("encodeSearchList() writes names that scapy reads", () => {
  assertEquals(layerOf(decoded.plain, "ICMPv6NDOptDNSSL").searchlist, dotted(LIST));
});

Deno.test("encodeSearchList() with compress writes pointers to earlier names", () => {
  assertEquals(readNames(plain), dotted(LIST));
  assertEquals(readNames(compressed), dotted(LIST));
  assert(compressed.length < plain.length);
});

Deno.test("encodeSearchList() gives the bytes of the example in RFC 3397 §2", () => {
  const bytes = encodeSearchList(["eng.apple.com.", "marketing.apple.com."], { compress: true })!;
  const want = "\x03eng\x05apple\x03com\0\x09marketing";
  assertEquals(new TextDecoder().decode(bytes.subarray(0, -2)), want);
  assertEquals([...bytes.subarray(-2)], [0xc0, 0x04]);
});

Deno.test("encodeSearchList() points backwards only, and never past what a pointer holds", () => {
  const long = encodeSearchList(LONG, { compress: true })!;
  assert(long.length > 0x4000);
  assertEquals(readNames(long), dotted(LONG));
});

Deno.test("encodeSearchList() leaves the root out", () => {
  assertEquals(encodeSearchList([".", "a", "."]), encodeSearchList(["a"]));
  assertEquals(encodeSearchList([]), new Uint8Array(0));
});

Deno.test("encodeDomainName() keeps the limits of RFC 1035 §2.3.4", () => {
  const label = "l".repeat(63);
  assertEquals(encodeDomainName(label)?.length, 65);
  assertEquals(encodeDomainName(label + "l"), null);
  const longest = [label, label, label, "l".repeat(61)].join(".");
  assertEquals(encodeDomainName(longest)?.length, 255);
  assertEquals(encodeDomainName(longest + "."), encodeDomainName(longest));
  assertEquals(encodeDomainName(longest + "l"), null);
  assertEquals(encodeDomainName("."), Uint8Array.of(0));
});

Deno.test("encodeDomainName() refuses empty labels and unprintable characters", () => {
  for (const name of ["", "..", ".a", "a..b", "a b", "a\0b", "bücher.example", "a\n"]) {
    assertEquals(encodeDomainName(name), null, JSON.stringify(name));
    assertEquals(encodeSearchList(["ok", name]), null, JSON.stringify(name));
  }
});
