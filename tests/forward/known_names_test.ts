// SPDX-License-Identifier: GPL-2.0-or-later
/** Which names a program is told of an address. */
import { assert, assertEquals } from "@std/assert";
import { DnsNames } from "../../lib/forward/dns_names.ts";
import {
  KnownNames,
  MAX_NAMED,
  NAMES_PER_ADDRESS,
  nameText,
} from "../../lib/forward/known_names.ts";
import { DNS_A, DNS_CNAME, DnsName } from "../../lib/wire/dns.ts";
import { address } from "../helpers/fake_context.ts";
import { dnsMessage, type Record } from "../wire/dns_message.ts";

const NOW = 1000_000;

/** A conversation with the resolver, of which all names are learnt. */
class Conversation {
  readonly known = new KnownNames(64);
  readonly names = new DnsNames([], undefined, this.known);
  nowMs = NOW;

  tells(name: string, answers: Record[]): void {
    const query = dnsMessage({ name, query: true }), reply = dnsMessage({ name, answers });
    this.names.asked(1, new DataView(query.buffer), 0, query.length, this.nowMs);
    this.names.answered(1, new DataView(reply.buffer), 0, reply.length, this.nowMs);
  }

  of(text: string): string[] {
    return this.known.of(address(text), 0, this.nowMs);
  }
}

Deno.test("KnownNames has the names that were asked for, latest first, while they are good", () => {
  const dns = new Conversation();
  dns.tells("a.test", [["a.test", DNS_A, 100, "192.0.2.1"], ["a.test", DNS_A, 100, "192.0.2.2"]]);
  dns.tells("B.Test", [["b.test", DNS_CNAME, 300, "c.net"], ["c.net", DNS_A, 300, "192.0.2.1"]]);
  assertEquals(dns.of("192.0.2.1"), ["b.test", "a.test"]);
  assertEquals(dns.of("192.0.2.2"), ["a.test"]);
  assertEquals(dns.of("192.0.2.3"), []);
  dns.tells("a.test", [["a.test", DNS_A, 1, "192.0.2.1"]]);
  assertEquals(dns.of("192.0.2.1"), ["a.test", "b.test"]);
  dns.nowMs += 200_000;
  assertEquals([dns.of("192.0.2.1"), dns.of("192.0.2.2")], [["b.test"], []]);
});

Deno.test("KnownNames learns nothing of addresses that no name stands for", () => {
  const dns = new Conversation();
  const bad = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"];
  dns.tells("a.test", bad.map((ip): Record => ["a.test", DNS_A, 9, ip]));
  for (const ip of bad) assertEquals(dns.of(ip), [], ip);
});

Deno.test("KnownNames keeps so many names of an address, and so many addresses", () => {
  const known = new KnownNames(4), words = address("192.0.2.1");
  for (let k = 0; k < 20; k++) known.learn(`n${k}.test`, words, 0, 2000);
  const names = known.of(words, 0, NOW);
  assertEquals([names.length, names[0]], [NAMES_PER_ADDRESS, "n19.test"]);
  for (let k = 2; k <= 5; k++) known.learn("other.test", address(`192.0.2.${k}`), 0, 3000);
  assertEquals(known.of(words, 0, NOW), []);
  known.learn("late.test", words, 0, 4000);
  assertEquals(known.of(words, 0, NOW), ["late.test"], "names of who was there before");
});

/** A name of labels, which may hold anything. */
function nameOf(...labels: string[]): DnsName {
  const name = new DnsName();
  const bytes = labels.flatMap((label) => [label.length, ...new TextEncoder().encode(label)]);
  name.bytes.set([...bytes, 0]);
  name.length = bytes.length + 1;
  return name;
}

Deno.test("KnownNames takes little more than its names are long", () => {
  const known = new KnownNames(), words = address("192.0.2.1"), name = new DnsName();
  const long = 62, labels = 4;
  let length = 0;
  const before = Deno.memoryUsage().heapUsed;
  for (let k = 0; k < MAX_NAMED * NAMES_PER_ADDRESS; k++) {
    for (let label = 0; label < labels; label++) {
      const at = label * (long + 1),
        bytes = label < labels - 1 ? long : long - k % NAMES_PER_ADDRESS;
      name.bytes[at] = bytes;
      for (let j = 1; j <= bytes; j++) name.bytes[at + j] = 0x61 + (k * j + label) % 26;
      name.length = at + bytes + 2;
    }
    words[3] = Math.floor(k / NAMES_PER_ADDRESS);
    const text = nameText(name)!;
    length += text.length;
    known.learn(text, words, 0, 2000);
  }
  const grown = Deno.memoryUsage().heapUsed - before;
  assert(grown < 6 * length, `${grown} bytes for ${length}`);
  assertEquals(known.of(words, 0, NOW).length, NAMES_PER_ADDRESS);
});

Deno.test("nameText() gives no text that could be another name's", () => {
  assertEquals(nameText(nameOf("xn--a-0ga", "_tcp", "test")), "xn--a-0ga._tcp.test");
  for (const label of ["a.b", "a b", "a\n", "\x1b[2J", "ü", "A", "a*", "a\\"]) {
    assertEquals(nameText(nameOf(label, "test")), null, label);
  }
  assertEquals([nameText(nameOf()), nameText(new DnsName())], [null, null]);
});
