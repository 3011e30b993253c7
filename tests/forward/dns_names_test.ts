// SPDX-License-Identifier: GPL-2.0-or-later
/** What is learnt from DNS answers, from whom, for how long, and what is not. */
import { assertEquals } from "@std/assert";
import {
  ANSWER_SECONDS,
  DnsNames,
  LEAST_SECONDS,
  MAX_QUERIES,
  MOST_SECONDS,
} from "../../lib/forward/dns_names.ts";
import { parsePolicyRule, Verdict } from "../../lib/forward/policy_rules.ts";
import { DNS_A, DNS_AAAA, DNS_CNAME } from "../../lib/wire/dns.ts";
import { address } from "../helpers/fake_context.ts";
import { dnsMessage, type MessageSpec, type Record } from "../wire/dns_message.ts";

const FLOW = 3;
const NOW = 1000_000;
const NAME = "www.example.com";

/** Names of rules, and a conversation with the resolver. */
class Conversation {
  readonly names: DnsNames;
  nowMs = NOW;

  constructor(patterns: readonly string[] = [NAME], capacity?: number) {
    const rules = patterns.map((text) => parsePolicyRule(text, Verdict.ALLOW));
    this.names = new DnsNames(rules.map(({ name }) => name!), capacity);
  }

  asks(spec: Partial<MessageSpec> = {}, flow = FLOW): void {
    const bytes = dnsMessage({ name: NAME, query: true, ...spec });
    this.names.asked(flow, new DataView(bytes.buffer), 0, bytes.length, this.nowMs);
  }

  answers(spec: Partial<MessageSpec> = {}, flow = FLOW): number {
    const { name = NAME } = spec;
    const answers: Record[] = [[name, DNS_A, 300, "192.0.2.7"]];
    const bytes = dnsMessage({ name, answers, ...spec });
    return this.names.answered(flow, new DataView(bytes.buffer), 0, bytes.length, this.nowMs);
  }

  has(text: string, pattern = 0): boolean {
    return this.names.has(pattern, address(text), 0, this.nowMs);
  }
}

Deno.test("DnsNames learns the answer to a query, for its lifetime", () => {
  const dns = new Conversation();
  dns.asks();
  assertEquals(dns.has("192.0.2.7"), false);
  assertEquals(dns.answers(), 1);
  assertEquals([dns.has("192.0.2.7"), dns.has("192.0.2.8")], [true, false]);
  dns.nowMs = NOW + 299_000;
  assertEquals(dns.has("192.0.2.7"), true);
  dns.nowMs = NOW + 301_000;
  assertEquals(dns.has("192.0.2.7"), false);
});

Deno.test("DnsNames keeps an address as long as a program may take, and no longer than a day", () => {
  for (const [ttl, seconds] of [[0, LEAST_SECONDS], [0x7fffffff, MOST_SECONDS]]) {
    const dns = new Conversation();
    dns.asks();
    dns.answers({ answers: [[NAME, DNS_A, ttl, "192.0.2.7"]] });
    dns.nowMs = NOW + 1000 * (seconds - 1);
    assertEquals(dns.has("192.0.2.7"), true);
    dns.nowMs = NOW + 1000 * (seconds + 1);
    assertEquals(dns.has("192.0.2.7"), false);
  }
});

Deno.test("DnsNames does not shorten a life that an earlier answer gave", () => {
  const dns = new Conversation();
  for (const ttl of [600, 0]) {
    dns.asks();
    dns.answers({ answers: [[NAME, DNS_A, ttl, "192.0.2.7"]] });
  }
  dns.nowMs = NOW + 500_000;
  assertEquals(dns.has("192.0.2.7"), true);
});

Deno.test("DnsNames learns nothing that was not asked for", () => {
  const dns = new Conversation([NAME, "other.test"]);
  assertEquals(dns.answers(), 0, "nobody asked");
  dns.asks();
  assertEquals(dns.answers({ id: 8 }), 0, "another identifier");
  assertEquals(dns.answers({}, FLOW + 1), 0, "another flow");
  assertEquals(dns.answers({ name: "other.test" }), 0, "another name");
  assertEquals(dns.answers({ type: DNS_AAAA }), 0, "another type");
  assertEquals(dns.answers({ flags: 0x0100 }), 0, "no response");
  assertEquals(dns.has("192.0.2.7"), false);
  assertEquals(dns.answers(), 1);
  assertEquals(dns.answers({ answers: [[NAME, DNS_A, 9, "192.0.2.66"]] }), 0, "a second answer");
  assertEquals(dns.has("192.0.2.66"), false);
  dns.asks();
  assertEquals(dns.answers({ flags: 0x8183 }), 0, "an error");
  dns.nowMs += 1000 * (ANSWER_SECONDS + 1);
  assertEquals(dns.answers(), 0, "too late");
});

Deno.test("DnsNames takes what the guest says for no answer", () => {
  const dns = new Conversation();
  dns.asks({ flags: 0x8180 }); // the guest sends a response
  assertEquals(dns.answers(), 0);
});

Deno.test("DnsNames learns only what rules are about", () => {
  const dns = new Conversation(["*.example.com", "example.com"]);
  for (const name of ["evil.test", "badexample.com", "example.com.evil.test"]) {
    dns.asks({ name });
    assertEquals(dns.answers({ name }), 0, name);
  }
  dns.asks({ name: "A.b.Example.com" });
  assertEquals(dns.answers({ name: "a.B.eXample.com" }), 1);
  assertEquals([dns.has("192.0.2.7", 0), dns.has("192.0.2.7", 1)], [true, false]);
  dns.asks({ name: "example.com" });
  dns.answers({ name: "example.com", answers: [["example.com", DNS_A, 9, "192.0.2.8"]] });
  assertEquals([dns.has("192.0.2.8", 0), dns.has("192.0.2.8", 1)], [false, true]);
});

Deno.test("DnsNames gives an address to the name that was asked for, not to one along the way", () => {
  const dns = new Conversation(["allowed.test", "front.test"]);
  // a stranger's name that claims to be ours: its owner says what ours would be
  const answers: Record[] = [
    ["evil.test", DNS_CNAME, 9, "allowed.test"],
    ["allowed.test", DNS_A, 9, "10.0.0.1"],
  ];
  dns.asks({ name: "evil.test" });
  assertEquals(dns.answers({ name: "evil.test", answers }), 0);
  const front: Record[] = [["front.test", DNS_CNAME, 9, "x.net"], ["x.net", DNS_A, 9, "192.0.2.9"]];
  dns.asks({ name: "front.test" });
  assertEquals(dns.answers({ name: "front.test", answers: front }), 1);
  assertEquals([dns.has("192.0.2.9", 0), dns.has("192.0.2.9", 1)], [false, true]);
});

Deno.test("DnsNames does not let a name stand for addresses that are no business of the network's", () => {
  const dns = new Conversation();
  const bad = [
    "127.0.0.1",
    "127.9.9.9",
    "0.0.0.0",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
  ];
  dns.asks();
  assertEquals(dns.answers({ answers: bad.map((ip): Record => [NAME, DNS_A, 9, ip]) }), 0);
  const bad6 = ["::1", "::", "fe80::1", "ff02::1"];
  dns.asks({ type: DNS_AAAA });
  const answers = bad6.map((ip): Record => [NAME, DNS_AAAA, 9, ip]);
  assertEquals(
    dns.answers({ type: DNS_AAAA, answers: [...answers, [NAME, DNS_AAAA, 9, "2001:db8::7"]] }),
    1,
  );
  for (const ip of [...bad, ...bad6]) assertEquals(dns.has(ip), false, ip);
  assertEquals(dns.has("2001:db8::7"), true);
});

Deno.test("DnsNames remembers the last queries, and of any number", () => {
  const dns = new Conversation();
  dns.asks({ id: 1 });
  for (let id = 2; id <= MAX_QUERIES + 1; id++) dns.asks({ id });
  assertEquals(dns.answers({ id: 1 }), 0);
  assertEquals(dns.answers({ id: 2 }), 1);
  for (let id = 0; id < 10000; id++) dns.asks({ id, name: "of.no.interest" });
  assertEquals(dns.answers({ id: 3 }), 1);
});

Deno.test("DnsNames keeps what expires last when there are more addresses than room", () => {
  const capacity = 64, dns = new Conversation([NAME], capacity);
  const learn = (n: number, ttl: number) => {
    for (let k = 0; k < n; k++) {
      dns.names.learn(0, Int32Array.of(0, 0, 0xffff, ttl << 8 | k), 0, ttl, NOW);
    }
  };
  const kept = (n: number, ttl: number) => {
    const one = (k: number) => dns.names.has(0, Int32Array.of(0, 0, 0xffff, ttl << 8 | k), 0, NOW);
    return Array.from({ length: n }, (_, k) => one(k)).filter((has) => has).length;
  };
  learn(1000, 100);
  assertEquals(kept(1000, 100), capacity);
  learn(1, 9999);
  learn(1000, 200);
  assertEquals(kept(1, 9999), 1);
  assertEquals(kept(1000, 200), capacity - 1);
});
