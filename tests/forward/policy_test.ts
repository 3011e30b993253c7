// SPDX-License-Identifier: GPL-2.0-or-later
/** Decisions of rules: order, default, real and mapped addresses, names, resolvers, redirection. */
import { assert, assertEquals } from "@std/assert";
import { FlowSide, Pif, SIDE_EADDR } from "../../lib/flow/side.ts";
import { natFromTap } from "../../lib/forward/nat.ts";
import {
  AS_RESOLVER,
  BY_DEFAULT,
  parsePolicyRule,
  Policy,
  trustedResolvers,
  Verdict,
} from "../../lib/forward/policy.ts";
import { formatAddress, parseAddress } from "../../lib/wire/address.ts";
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from "../../lib/wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "../../lib/wire/ipv6.ts";
import { address, fakeContext, fakeFamily4 } from "../helpers/fake_context.ts";

const { ALLOW, REJECT } = Verdict;
const NAMES = new Map<number, string>(
  Object.entries(Verdict).map(([name, value]) => [value, name]),
);
const PROTOCOLS = {
  tcp: IPPROTO_TCP,
  udp: IPPROTO_UDP,
  icmp: IPPROTO_ICMP,
  icmpv6: IPPROTO_ICMPV6,
};
const RESOLVER = "198.51.100.53";

/** Rules from texts: `+` allows, `-` denies. */
function policyOf(texts: string[], fallback?: number): Policy {
  const rules = texts.map((text) =>
    parsePolicyRule(text.slice(1), text[0] === "+" ? ALLOW : REJECT)
  );
  return new Policy(rules, [address(RESOLVER)], fallback);
}

/** Decision on such as `tcp 192.0.2.1 80`, and the rule it came from. */
function decide(policy: Policy, flow: string, named?: string): [string, number] {
  const [protocol, host, port] = flow.split(" ");
  const [, otherHost, otherPort] = (named ?? flow).split(" ");
  const kind = PROTOCOLS[protocol as keyof typeof PROTOCOLS];
  const verdict = policy.decide(
    kind,
    address(host),
    0,
    Number(port ?? 0),
    0,
    address(otherHost),
    0,
    Number(otherPort ?? 0),
  );
  return [NAMES.get(verdict)!, policy.rule];
}

Deno.test("Policy: the first rule that is about a flow decides", () => {
  const policy = policyOf(["-10.0.0.0/8:22", "+10.0.0.0/8", "-10.1.0.0/16", "+any/icmp"]);
  assertEquals(decide(policy, "tcp 10.1.2.3 22"), ["REJECT", 0]);
  assertEquals(decide(policy, "tcp 10.1.2.3 23"), ["ALLOW", 1]);
  assertEquals(decide(policy, "icmp 10.1.2.3"), ["ALLOW", 1]);
  assertEquals(decide(policy, "icmp 192.0.2.1"), ["ALLOW", 3]);
  assertEquals(decide(policy, "icmpv6 2001:db8::1"), ["ALLOW", 3]);
  assertEquals(decide(policy, "tcp 192.0.2.1 80"), ["REJECT", BY_DEFAULT]);
});

Deno.test("Policy: what no rule is about is denied when a rule allows something", () => {
  assertEquals(policyOf(["-192.0.2.1"]).fallback, ALLOW);
  assertEquals(policyOf(["-192.0.2.1", "+192.0.2.2"]).fallback, REJECT);
  assertEquals(policyOf([]).fallback, ALLOW);
  assertEquals(policyOf([], Verdict.DROP).fallback, Verdict.DROP);
});

Deno.test("Policy: prefixes, ports and protocols are compared exactly, family by family", () => {
  const cases: [rule: string, about: string[], not: string[]][] = [
    ["192.0.2.128/25", ["tcp 192.0.2.128 1", "icmp 192.0.2.255"], ["tcp 192.0.2.127 1"]],
    ["192.0.2.1", ["udp 192.0.2.1 9"], ["udp 192.0.2.0 9", "udp 2001:db8::1 9"]],
    ["0.0.0.0/0", ["tcp 255.0.0.1 1", "tcp 1.2.3.4 1"], ["tcp ::1 1", "tcp 2001:db8::1 1"]],
    ["::/0", ["tcp ::1 1", "icmpv6 2001:db8::1"], ["tcp 1.2.3.4 1", "icmp 127.0.0.1"]],
    ["128.0.0.0/1", ["tcp 200.0.0.1 1"], ["tcp 127.255.255.255 1", "tcp 8000:: 1"]],
    ["2001:db8:0:8000::/49", ["tcp 2001:db8:0:8001::1 1"], ["tcp 2001:db8:0:7fff::1 1"]],
    ["2001:db8::1", ["tcp 2001:db8::1 1"], ["tcp 2001:db8::2 1", "tcp 2001:db8:1::1 1"]],
    ["any:80-81", ["tcp ::1 80", "udp 1.2.3.4 81"], [
      "tcp ::1 79",
      "tcp ::1 82",
      "icmp 1.2.3.4 80",
    ]],
    ["any/tcp", ["tcp ::1 80"], ["udp ::1 80", "icmp 1.2.3.4"]],
    ["any/udp", ["udp ::1 80"], ["tcp ::1 80", "icmp 1.2.3.4"]],
    ["any/icmp", ["icmp 1.2.3.4", "icmpv6 ::1"], ["tcp ::1 80", "udp ::1 80"]],
  ];
  for (const [rule, about, not] of cases) {
    const policy = policyOf([`+${rule}`]);
    for (const flow of about) assertEquals(decide(policy, flow), ["ALLOW", 0], `${rule}: ${flow}`);
    for (const flow of not) assertEquals(decide(policy, flow)[1], BY_DEFAULT, `${rule}: ${flow}`);
  }
});

Deno.test("Policy: an allowing rule is about the real destination, a denying one about either", () => {
  const [loopback, gateway] = ["tcp 127.0.0.1 80", "tcp 192.0.2.1 80"];
  assertEquals(decide(policyOf(["+192.0.2.1"]), loopback, gateway)[0], "REJECT");
  assertEquals(decide(policyOf(["+127.0.0.1"]), loopback, gateway)[0], "ALLOW");
  assertEquals(decide(policyOf(["-192.0.2.1"]), loopback, gateway)[0], "REJECT");
  assertEquals(decide(policyOf(["-127.0.0.1"]), loopback, gateway)[0], "REJECT");
  assertEquals(
    decide(policyOf(["-any:80"]), "tcp 127.0.0.1 8080", "tcp 127.0.0.1 80")[0],
    "REJECT",
  );
  assertEquals(
    decide(policyOf(["+any:80"]), "tcp 127.0.0.1 8080", "tcp 127.0.0.1 80")[0],
    "REJECT",
  );
});

Deno.test("Policy: names are what was learnt of them, and open resolvers only where they must", () => {
  const policy = policyOf(["+*.example.com:443", "-bad.test"]), words = address("192.0.2.7");
  assertEquals(decide(policy, "tcp 192.0.2.7 443")[0], "REJECT");
  policy.names!.learn(0, words, 0, 60, 0);
  assertEquals(decide(policy, "tcp 192.0.2.7 443"), ["ALLOW", 0]);
  assertEquals(decide(policy, "tcp 192.0.2.7 80")[0], "REJECT");
  assertEquals(policy.decide(IPPROTO_TCP, words, 0, 443, 61_000), REJECT);
  for (const flow of [`udp ${RESOLVER} 53`, `tcp ${RESOLVER} 53`]) {
    assertEquals(decide(policy, flow), ["ALLOW", AS_RESOLVER]);
    assertEquals(decide(policyOf(["+192.0.2.1"]), flow), ["REJECT", BY_DEFAULT]);
    assertEquals(decide(policyOf(["-any:53", "+a.test"]), flow), ["REJECT", 0]);
    assertEquals(decide(policyOf(["-bad.test"]), flow), ["ALLOW", BY_DEFAULT]);
    assertEquals(decide(policyOf(["-bad.test", "+192.0.2.1"]), flow), ["REJECT", BY_DEFAULT]);
  }
  for (const flow of ["udp 198.51.100.54 53", `udp ${RESOLVER} 5353`, `icmp ${RESOLVER} 53`]) {
    assertEquals(decide(policy, flow), ["REJECT", BY_DEFAULT], flow);
  }
  // the address of a name, reached as another one, is not the name's
  assertEquals(decide(policy, "tcp 127.0.0.1 443", "tcp 192.0.2.7 443")[0], "REJECT");
});

Deno.test("Policy.teaches(): only port 53 of a configured resolver, by UDP through the tap", () => {
  const policy = policyOf(["+a.test"]), ini = new FlowSide(), tgt = new FlowSide();
  const teaches = (
    to: string,
    port: number,
    from: number = Pif.TAP,
    protocol: number = IPPROTO_UDP,
  ) => {
    ini.pif = from;
    tgt.pif = Pif.HOST;
    tgt.setEndpoint(address(to), 0, port);
    return policy.teaches(protocol, ini, tgt);
  };
  assertEquals(teaches(RESOLVER, 53), true);
  assertEquals(teaches("198.51.100.54", 53), false);
  assertEquals(teaches(RESOLVER, 54), false);
  assertEquals(teaches(RESOLVER, 53, Pif.SPLICE), false);
  assertEquals(teaches(RESOLVER, 53, Pif.TAP, IPPROTO_TCP), false);
  assertEquals(policyOf(["+192.0.2.1"]).teaches(IPPROTO_UDP, ini, tgt), false);
});

Deno.test("trustedResolvers() are those handed out and the one that is sent on to", () => {
  const ip4 = fakeFamily4({ dns: [address("192.0.2.53")], dnsHost: address("127.0.0.53") });
  assertEquals(trustedResolvers([ip4, null]).map((a) => formatAddress(a)), [
    "192.0.2.53",
    "127.0.0.53",
  ]);
  const nobody = new Policy([parsePolicyRule("a.test", ALLOW)]);
  assertEquals([nobody.unresolvable, policyOf(["+a.test"]).unresolvable], [true, false]);
});

/** A flow through the tap under a policy: verdict, and where it goes. */
function applied(
  policy: Policy,
  to: string,
  port: number,
  protocol = IPPROTO_TCP,
): [string, string] {
  const ctx = fakeContext(), ini = new FlowSide(), tgt = new FlowSide();
  ini.pif = Pif.TAP;
  ini.setEndpoint(parseAddress(to.includes(":") ? "2001:db8::2" : "192.0.2.2")!, 0, 4000);
  ini.setOur(address(to), 0, port);
  assert(natFromTap(ctx, protocol, ini, tgt));
  const verdict = policy.apply(ctx, protocol, ini, tgt);
  assertEquals(ini.oport, port);
  return [NAMES.get(verdict)!, `${formatAddress(tgt.words, SIDE_EADDR)} ${tgt.eport}`];
}

Deno.test("Policy.apply() decides on what addresses are mapped to", () => {
  const policy = policyOf(["+127.0.0.1:80", "+198.51.100.0/24", "+[::1]:81"]);
  assertEquals(applied(policy, "192.0.2.1", 80), ["ALLOW", "127.0.0.1 80"]);
  assertEquals(applied(policy, "192.0.2.1", 81), ["REJECT", "127.0.0.1 81"]);
  assertEquals(applied(policy, "2001:db8::1", 81), ["ALLOW", "::1 81"]);
  assertEquals(applied(policy, "198.51.100.7", 81), ["ALLOW", "198.51.100.7 81"]);
});

Deno.test("Policy.apply() redirects to an address and a port, within a family", () => {
  const policy = policyOf([
    "+198.51.100.7:80=127.0.0.1:8080",
    "+198.51.100.8=203.0.113.1",
    "+any:90=[2001:db8::9]:91",
  ]);
  assertEquals(applied(policy, "198.51.100.7", 80), ["ALLOW", "127.0.0.1 8080"]);
  assertEquals(applied(policy, "198.51.100.7", 81)[0], "REJECT");
  assertEquals(applied(policy, "198.51.100.8", 81), ["ALLOW", "203.0.113.1 81"]);
  assertEquals(applied(policy, "198.51.100.8", 7, IPPROTO_ICMP), ["ALLOW", "203.0.113.1 7"]);
  assertEquals(applied(policy, "2001:db8:5::1", 90), ["ALLOW", "2001:db8::9 91"]);
  assertEquals(applied(policy, "203.0.113.5", 90)[0], "REJECT");
});

Deno.test("Policy: a decision allocates nothing", () => {
  const policy = policyOf(["-10.0.0.0/8", "+a.test", "-*.b.test:80", "+192.0.2.0/24:80-90"]);
  const words = address("192.0.2.7");
  const run = (n: number) => {
    for (let k = 0; k < n; k++) policy.decide(IPPROTO_TCP, words, 0, k & 0xff, 0);
  };
  run(100_000);
  const before = Deno.memoryUsage().heapUsed;
  run(1_000_000);
  const grown = Deno.memoryUsage().heapUsed - before;
  assert(grown < 1 << 20, `${grown} bytes`);
});
