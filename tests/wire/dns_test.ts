// SPDX-License-Identifier: GPL-2.0-or-later
/** DNS messages: scapy's, hand-made ones, and broken ones. */
import { assert, assertEquals } from "@std/assert";
import { formatAddress } from "../../lib/wire/address.ts";
import {
  DNS_A,
  DNS_AAAA,
  DNS_CNAME,
  DNS_MAX_ADDRESSES,
  DNS_MAX_CHAIN,
  DnsMessage,
  DnsName,
} from "../../lib/wire/dns.ts";
import { encodeDomainName } from "../../lib/wire/dns_name.ts";
import { dnsMessage, type MessageSpec, type Record } from "./dns_message.ts";
import { seeded } from "./random.ts";
import { build } from "./scapy.ts";

const CASES = 100_000;

/** A view in which nothing lies behind the bytes: what reads beyond them throws. */
const exact = (bytes: Uint8Array) => new DataView(Uint8Array.from(bytes).buffer);

/** Addresses and lifetimes that a message gives its question's name; null: no question is read. */
function answersIn(bytes: Uint8Array): [string, number][] | null {
  const message = new DnsMessage(), view = exact(bytes);
  if (!message.readQuestion(view, 0, bytes.length)) return null;
  const found = message.readAnswers(view, 0, bytes.length);
  return Array.from(
    { length: found },
    (_, k) => [formatAddress(message.addresses, 4 * k), message.ttls[k]],
  );
}

const answers = (spec: MessageSpec) => answersIn(dnsMessage(spec));

/** A name read from the beginning of bytes: its wire form as text, and where the next thing begins. */
function nameIn(bytes: readonly number[], at = 0): [string, number] {
  const name = new DnsName();
  const next = name.read(exact(Uint8Array.from(bytes)), 0, at, bytes.length);
  return [String.fromCharCode(...name.bytes.subarray(0, name.length)), next];
}

Deno.test("DnsMessage reads what scapy builds, compressed or not", async () => {
  const chain = [
    `d.DNSRR(rrname="www.example.com",type="CNAME",ttl=300,rdata="cdn.Example.net")`,
    `d.DNSRR(rrname="cdn.example.net",type="A",ttl=60,rdata="192.0.2.7")`,
    `d.DNSRR(rrname="cdn.example.net",type="A",ttl=900,rdata="192.0.2.8")`,
  ].join("/");
  const head = `id=4660,qr=1,ra=1,qd=d.DNSQR(qname="WWW.example.com",qtype="A")`;
  const v6 = `id=1,qr=1,qd=d.DNSQR(qname="v6.test",qtype="AAAA"),ancount=1,` +
    `an=d.DNSRR(rrname="v6.test",type="AAAA",ttl=5,rdata="2001:db8::7")`;
  const within = (expression: string) =>
    `(lambda d: ${expression})(__import__("scapy.layers.dns", fromlist=["DNS"]))`;
  const built = await build({
    plain: within(`d.DNS(${head},ancount=3,an=${chain})`),
    packed: within(`d.dns_compress(d.DNS(${head},ancount=3,an=${chain}))`),
    v6: within(`d.DNS(${v6})`),
    query: within(`d.DNS(id=9,rd=1,qd=d.DNSQR(qname="a.test",qtype="AAAA"))`),
  });
  assert(built.packed.length < built.plain.length);
  const expected: [string, number][] = [["192.0.2.7", 60], ["192.0.2.8", 300]];
  assertEquals(answersIn(built.plain), expected);
  assertEquals(answersIn(built.packed), expected);
  assertEquals(answersIn(built.v6), [["2001:db8::7", 5]]);
  const message = new DnsMessage();
  assert(message.readQuestion(exact(built.packed), 0, built.packed.length));
  assertEquals([message.id, message.response, message.type], [4660, true, DNS_A]);
  assert(message.name.matches(encodeDomainName("www.example.com")!, false));
  assert(message.readQuestion(exact(built.query), 0, built.query.length));
  assertEquals([message.id, message.response, message.type], [9, false, DNS_AAAA]);
});

Deno.test("readAnswers() follows CNAMEs in any order, and takes nothing that is not at their end", () => {
  const name = "a.test";
  const list: Record[] = [
    ["c.test", DNS_A, 50, "192.0.2.3"],
    ["b.test", DNS_CNAME, 20, "c.test"],
    ["x.test", DNS_A, 50, "192.0.2.9"],
    ["a.test", DNS_CNAME, 100, "b.test"],
    ["c.test", DNS_AAAA, 50, "2001:db8::3"],
  ];
  assertEquals(answers({ name, answers: list }), [["192.0.2.3", 20]]);
  assertEquals(answers({ name, type: DNS_AAAA, answers: list }), [["2001:db8::3", 20]]);
  assertEquals(answers({ name: "x.test", answers: list }), [["192.0.2.9", 50]]);
  assertEquals(answers({ name: "y.test", answers: list }), []);
  assertEquals(answers({ name, additional: [["a.test", DNS_A, 9, "192.0.2.3"]] }), []);
  // beside a CNAME there is no other record of that name (RFC 1034 §3.6.2)
  assertEquals(answers({ name, answers: [...list, ["a.test", DNS_A, 9, "192.0.2.66"]] }), [
    ["192.0.2.3", 20],
  ]);
});

Deno.test("readAnswers() ends on circles and endless chains", () => {
  const circle: Record[] = [["a.test", DNS_CNAME, 9, "b.test"], ["b.test", DNS_CNAME, 9, "a.test"]];
  assertEquals(answers({ name: "a.test", answers: circle }), []);
  assertEquals(answers({ name: "a.test", answers: [["a.test", DNS_CNAME, 9, "a.test"]] }), []);
  const chain = (links: number): Record[] => [
    ...Array.from(
      { length: links },
      (_, k): Record => [`n${k}.test`, DNS_CNAME, 9, `n${k + 1}.test`],
    ),
    [`n${links}.test`, DNS_A, 9, "192.0.2.1"],
  ];
  const most = DNS_MAX_CHAIN - 1;
  assertEquals(answers({ name: "n0.test", answers: chain(most) }), [["192.0.2.1", 9]]);
  assertEquals(answers({ name: "n0.test", answers: chain(most + 1) }), []);
});

Deno.test("readAnswers() takes lifetimes beyond 31 bits for none, and no more addresses than it has room for", () => {
  const name = "a.test";
  assertEquals(answers({ name, answers: [[name, DNS_A, 0x80000000, "192.0.2.1"]] }), [
    ["192.0.2.1", 0],
  ]);
  const many = Array.from({ length: 80 }, (_, k): Record => [name, DNS_A, 1, `192.0.2.${k}`]);
  assertEquals(answers({ name, answers: many })?.length, DNS_MAX_ADDRESSES);
  // an AAAA record with a v4-mapped address would be taken for IPv4
  assertEquals(
    answers({ name, type: DNS_AAAA, answers: [[name, DNS_AAAA, 1, "::ffff:192.0.2.1"]] }),
    [],
  );
  assertEquals(answers({ name, answers: [[name, DNS_A, 1, "2001:db8::1"]] }), []); // 16 bytes
});

Deno.test("readQuestion() refuses what is no ordinary message of one question", () => {
  const message = new DnsMessage();
  const reads = (bytes: Uint8Array) => message.readQuestion(exact(bytes), 0, bytes.length);
  const good = dnsMessage({ name: "a.test" });
  assert(reads(good));
  for (const [at, value] of [[2, 0x28], [5, 2], [5, 0], [12, 0x40], [good.length - 1, 3]]) {
    const bad = good.slice();
    bad[at] = value;
    assertEquals(reads(bad), false, `byte ${at}`);
  }
  for (let length = 0; length < good.length; length++) {
    assertEquals(reads(good.subarray(0, length)), false);
  }
  assertEquals(
    reads(dnsMessage({ name: "a.test", answers: Array(400).fill(["a.test", 1, 1, "1.2.3.4"]) })),
    false,
  );
});

Deno.test("DnsName.read() reads the names of RFC 1035 §4.1.4", () => {
  const bytes = [1, 0x46, 3, 0x49, 0x53, 0x49, 4, 0x41, 0x52, 0x50, 0x41, 0, 3, 0x46, 0x4f, 0x4f];
  bytes.push(0xc0, 0, 0xc0, 6, 0);
  assertEquals(nameIn(bytes), ["\x01f\x03isi\x04arpa\x00", 12]);
  assertEquals(nameIn(bytes, 12), ["\x03foo\x01f\x03isi\x04arpa\x00", 18]);
  assertEquals(nameIn(bytes, 18), ["\x04arpa\x00", 20]);
  assertEquals(nameIn(bytes, 20), ["\x00", 21]);
});

Deno.test("DnsName.read() refuses circles, what leads forward, and what is too long or cut", () => {
  for (
    const [bytes, at] of [
      [[0xc0, 0], 0], // itself
      [[0xc0, 2, 0xc0, 0], 2], // two that point at each other
      [[1, 0x61, 0xc0, 0], 0], // its own beginning
      [[1, 0x61, 0xc0, 0], 2], // a piece that ends in the pointer
      [[0xc0, 2, 0], 0], // forward
      [[0xc0], 0],
      [[3, 0x61, 0x62], 0],
      [[1, 0x61], 0],
      [[0x40, 0x61, 0], 0],
      [[0x80, 0x61, 0], 0],
      [[], 0],
    ] as [number[], number][]
  ) assertEquals(nameIn(bytes, at), ["", -1], `${bytes} from ${at}`);
  const labels = (n: number) => Array.from({ length: n }, () => [1, 0x61]).flat();
  assertEquals(nameIn([...labels(127), 0])[1], 255);
  assertEquals(nameIn([...labels(128), 0])[1], -1);
  const pointer = (to: number) => [0xc0 | to >> 8, to & 0xff];
  const pointers = [0, ...pointer(0)];
  while (pointers.length < 500) pointers.push(...pointer(pointers.length - 2));
  assertEquals(nameIn(pointers, 1 + 2 * 100), ["\x00", 3 + 2 * 100]);
  assertEquals(nameIn(pointers, 1 + 2 * 190), ["", -1]);
});

Deno.test("DnsName.matches() compares labels, not text", () => {
  const name = new DnsName();
  const is = (labels: string[], pattern: string, below: boolean) => {
    const bytes = [...labels.flatMap((l) => [l.length, ...new TextEncoder().encode(l)]), 0];
    assert(name.read(exact(Uint8Array.from(bytes)), 0, 0, bytes.length) > 0);
    return name.matches(encodeDomainName(pattern)!, below);
  };
  assert(is(["Example", "COM"], "example.com", false));
  assert(!is(["example", "com"], "example.com", true));
  assert(is(["www", "example", "com"], "example.com", true));
  assert(is(["a", "b", "example", "com"], "example.com", true));
  assert(!is(["www", "example", "com"], "example.com", false));
  assert(!is(["badexample", "com"], "example.com", true));
  assert(!is(["example.com"], "example.com", false));
  assert(!is(["evil", "www.example.com"], "www.example.com", true));
  assert(!is(["www\x07example", "com"], "example.com", true)); // the label holds what looks like one
  assert(!is(["com"], "example.com", true));
});

Deno.test(`DnsMessage reads nothing beyond ${CASES} mutated messages`, () => {
  const random = seeded(20);
  const samples = [
    dnsMessage({
      name: "www.example.com",
      answers: [["www.example.com", DNS_CNAME, 9, "b.test"], ["b.test", DNS_A, 9, "192.0.2.1"]],
    }),
    // the same with pointers
    Uint8Array.from([
      ...[
        0,
        7,
        0x81,
        0x80,
        0,
        1,
        0,
        2,
        0,
        0,
        0,
        0,
        1,
        0x61,
        4,
        0x74,
        0x65,
        0x73,
        0x74,
        0,
        0,
        1,
        0,
        1,
      ],
      ...[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 4, 1, 0x62, 0xc0, 14],
      ...[0xc0, 36, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1],
    ]),
  ];
  for (const sample of samples) assertEquals(answersIn(sample), [["192.0.2.1", 9]]);
  const message = new DnsMessage();
  for (let n = 0; n < CASES; n++) {
    const bytes = samples[n & 1].slice(0, random(8) === 0 ? random(60) : undefined);
    for (let k = random(4); k >= 0 && bytes.length > 0; k--) {
      bytes[random(bytes.length)] = random(3) === 0 ? 0xc0 | random(2) : random(256);
    }
    const view = new DataView(bytes.buffer);
    if (!message.readQuestion(view, 0, bytes.length)) continue;
    const found = message.readAnswers(view, 0, bytes.length);
    assert(found >= 0 && found <= DNS_MAX_ADDRESSES && message.name.length <= 255);
  }
});
