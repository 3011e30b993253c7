// SPDX-License-Identifier: GPL-2.0-or-later
import { assert, assertEquals } from "@std/assert";
import * as address from "../../lib/wire/address.ts";
import { seeded } from "./random.ts";

const { formatAddress, parseAddress } = address;

/** RFC 5952 §4 and its examples: what is read, and how it is written. */
const TEXTS: [string, string][] = [
  ["0.0.0.0", "0.0.0.0"],
  ["255.255.255.255", "255.255.255.255"],
  ["::", "::"],
  ["::1", "::1"],
  ["1::", "1::"],
  ["2001:0db8::0001", "2001:db8::1"],
  ["2001:db8:0:0:0:0:2:1", "2001:db8::2:1"],
  ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
  ["2001:0:0:1:0:0:0:1", "2001:0:0:1::1"],
  ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
  ["2001:DB8::AbCd", "2001:db8::abcd"],
  ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
  ["::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"],
];

/** Not addresses. */
const WRONG = [
  "",
  ".",
  "1.2.3",
  "1.2.3.4.5",
  "1.2.3.256",
  "01.2.3.4",
  "1.2.3.4 ",
  "1.2.3.-4",
  "0x7f.0.0.1",
  ":",
  ":::",
  "1:2:3:4:5:6:7",
  "1:2:3:4:5:6:7:8:9",
  "1:2:3:4:5:6:7:8::",
  "1::2::3",
  "12345::",
  "g::",
  "::1%lo",
  "::1.2.3",
  "1.2.3.4::",
  "fe80::1/64",
];

Deno.test("parseAddress() and formatAddress() follow RFC 4291 and RFC 5952", () => {
  for (const [read, written] of TEXTS) {
    const words = parseAddress(read);
    assert(words !== null, read);
    assertEquals(formatAddress(words), written);
  }
});

Deno.test("parseAddress() refuses what is no address", () => {
  for (const text of WRONG) assertEquals(parseAddress(text), null, text);
});

Deno.test("parseAddress() reads back what formatAddress() writes", () => {
  const random = seeded(7);
  for (let i = 0; i < 20000; i++) {
    const words = Int32Array.from({ length: 4 }, () => {
      const half = () => random(3) === 0 ? random(65536) : 0;
      return half() << 16 | half();
    });
    assertEquals(parseAddress(formatAddress(words)), words);
  }
});

Deno.test("predicates know the special ranges and their edges", () => {
  const check = (test: (words: Int32Array) => boolean, yes: string[], no: string[]) => {
    for (const text of yes) assert(test(parseAddress(text)!), `${test.name} ${text}`);
    for (const text of no) assert(!test(parseAddress(text)!), `not ${test.name} ${text}`);
  };
  check(address.isLoopback, ["127.0.0.1", "127.255.0.9", "::1"], [
    "126.0.0.1",
    "::",
    "::2",
    "1::1",
  ]);
  check(address.isUnspecified, ["0.0.0.0", "::"], ["0.0.0.1", "::1", "1::"]);
  check(
    address.isMulticast,
    ["224.0.0.1", "239.255.255.255", "ff02::1"],
    ["223.255.255.255", "240.0.0.0", "fe80::1"],
  );
  check(address.isBroadcast, ["255.255.255.255"], ["255.255.255.254", "ffff::ffff"]);
  check(
    address.isLinkLocal,
    ["169.254.0.1", "fe80::1", "febf::1"],
    ["169.255.0.1", "fec0::1", "fe7f::1"],
  );
});

Deno.test("maskV4() gives the mask of each prefix length", () => {
  assertEquals(address.maskV4(0), 0);
  assertEquals(address.maskV4(1) >>> 0, 0x80000000);
  assertEquals(address.maskV4(24) >>> 0, 0xffffff00);
  assertEquals(address.maskV4(32) >>> 0, 0xffffffff);
});

Deno.test("linkLocalFromMac() makes the modified EUI-64 address of RFC 4291 appendix A", () => {
  const mac = Uint8Array.of(0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde);
  assertEquals(formatAddress(address.linkLocalFromMac(mac)), "fe80::3656:78ff:fe9a:bcde");
});

Deno.test("store and load keep addresses as they are", () => {
  const view = new DataView(new ArrayBuffer(21));
  const words = new Int32Array(5);
  for (const text of ["192.0.2.254", "2001:db8:ffff::fe"]) {
    const want = parseAddress(text)!;
    const v4 = address.isV4(want);
    (v4 ? address.storeV4 : address.storeV6)(view, 5, want, 0);
    (v4 ? address.loadV4 : address.loadV6)(view, 5, words, 1);
    assert(address.sameAddress(words, 1, want, 0));
  }
});
