// SPDX-License-Identifier: GPL-2.0-or-later
import { assertEquals } from "@std/assert";
import { MAX_NAMESERVERS, parseResolvConf, readResolvConf } from "../../lib/host/resolv_conf.ts";
import { formatAddress } from "../../lib/wire/address.ts";

/** The parsed file in text form. */
function parsed(text: string): { v4: string[]; v6: string[]; search: string[] } {
  const { v4, v6, search } = parseResolvConf(text);
  return { v4: v4.map((a) => formatAddress(a)), v6: v6.map((a) => formatAddress(a)), search };
}

const CASES: readonly [string, string, ReturnType<typeof parsed>][] = [
  ["an empty file", "", { v4: [], v6: [], search: [] }],
  ["no final newline", "nameserver 192.0.2.1", { v4: ["192.0.2.1"], v6: [], search: [] }],
  ["tabs and trailing blanks", "  nameserver\t192.0.2.1  \r\n", {
    v4: ["192.0.2.1"],
    v6: [],
    search: [],
  }],
  ["both families in their order", "nameserver ::1\nnameserver 127.0.0.53\nnameserver fd00::1\n", {
    v4: ["127.0.0.53"],
    v6: ["::1", "fd00::1"],
    search: [],
  }],
  ["a scope", "nameserver fe80::1%eth0\n", { v4: [], v6: ["fe80::1"], search: [] }],
  ["comments", "# nameserver 192.0.2.1\n; x\nnameserver 192.0.2.2 # y\nsearch a.b ; c\n", {
    v4: ["192.0.2.2"],
    v6: [],
    search: ["a.b"],
  }],
  [
    "what is no address",
    "nameserver\nnameserver localhost\nnameserver 1.2.3\nnameserver 0.0.0.0\n",
    {
      v4: [],
      v6: [],
      search: [],
    },
  ],
  ["keywords that only begin alike", "nameservers 192.0.2.1\nsearchlist a\noptions ndots:5\n", {
    v4: [],
    v6: [],
    search: [],
  }],
  ["the last of search and domain", "domain a.example\nsearch b.example. c.example\n", {
    v4: [],
    v6: [],
    search: ["b.example", "c.example"],
  }],
  ["domain after search, its first word", "search a b\ndomain c.example d\n", {
    v4: [],
    v6: [],
    search: ["c.example"],
  }],
  ["the root domain", "search .\n", { v4: [], v6: [], search: [] }],
];

for (const [what, text, expected] of CASES) {
  Deno.test(`parseResolvConf() understands ${what}`, () => assertEquals(parsed(text), expected));
}

Deno.test("parseResolvConf() takes a bounded number of everything", () => {
  const servers = Array.from({ length: 1000 }, (_, i) => `nameserver 192.0.2.${i % 250 + 1}`);
  const { v4 } = parseResolvConf(servers.join("\n"));
  assertEquals(v4.length, MAX_NAMESERVERS);
  const { search } = parseResolvConf(`search ${"a.example ".repeat(1000)}${"x".repeat(300)}`);
  assertEquals(search.length, 64);
  assertEquals(parsed("\0".repeat(200_000)), { v4: [], v6: [], search: [] });
});

Deno.test("readResolvConf() is empty when there is no file or it is a directory", () => {
  for (const path of ["/nonexistent/resolv.conf", "/proc"]) {
    assertEquals(readResolvConf(path), { v4: [], v6: [], search: [] });
  }
});
