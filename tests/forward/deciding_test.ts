// SPDX-License-Identifier: GPL-2.0-or-later
/** What a program is asked, how often, and what its answers do. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { FlowSide, Pif, SIDE_EADDR } from "../../lib/flow/side.ts";
import { FlowTable } from "../../lib/flow/table.ts";
import { natFromSplice, natFromTap } from "../../lib/forward/nat.ts";
import {
  admitted,
  AS_RESOLVER,
  BY_PROGRAM,
  type Decider,
  parsePolicyRule,
  Policy,
  Verdict,
} from "../../lib/forward/policy.ts";
import type { FlowAnswer, FlowQuestion } from "../../lib/forward/question.ts";
import { ANSWER_MS, KEPT_MS, MAX_QUESTIONS } from "../../lib/forward/questions.ts";
import { FlowType } from "../../lib/flow/types.ts";
import { formatAddress } from "../../lib/wire/address.ts";
import { IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP } from "../../lib/wire/ipv4.ts";
import { IPPROTO_ICMPV6 } from "../../lib/wire/ipv6.ts";
import { logged } from "../helpers/logged.ts";
import { address, type FakeContext, fakeContext } from "../helpers/fake_context.ts";

const RESOLVER = "198.51.100.53";
const NAMES = Object.fromEntries(Object.entries(Verdict).map(([name, value]) => [value, name]));

/** A policy with a program, and what that was asked. */
class Asked {
  readonly questions: FlowQuestion[] = [];
  readonly ids: number[] = [];
  readonly policy: Policy;
  readonly ctx: FakeContext;
  readonly ini = new FlowSide();
  readonly tgt = new FlowSide();

  constructor(decide: (flow: FlowQuestion, id: number) => unknown, rules: string[] = []) {
    const decider: Decider = {
      decide: (flow, id) => {
        this.questions.push(flow);
        this.ids.push(id);
        return decide(flow, id) as FlowAnswer | null;
      },
    };
    const parsed = rules.map((text) =>
      parsePolicyRule(text.slice(1), text[0] === "+" ? Verdict.ALLOW : Verdict.REJECT)
    );
    this.policy = new Policy(parsed, [address(RESOLVER)], undefined, decider);
    this.ctx = fakeContext({ table: new FlowTable({ capacity: 8 }), policy: this.policy });
  }

  /** Verdict on a flow through the tap. */
  tap(to: string, port: number, protocol = IPPROTO_TCP, sport = 4000): string {
    this.ini.pif = Pif.TAP;
    this.ini.setEndpoint(address(to.includes(":") ? "2001:db8::2" : "192.0.2.2"), 0, sport);
    this.ini.setOur(address(to), 0, port);
    assert(natFromTap(this.ctx, protocol, this.ini, this.tgt));
    return this.#apply(protocol);
  }

  /** Verdict on a connection by port 7 of the namespace for port 8. */
  spliced(): string {
    this.ini.pif = Pif.SPLICE;
    this.ini.setEndpoint(address("127.0.0.1"), 0, 4000);
    this.ini.setOur(address("127.0.0.1"), 0, 7);
    assert(natFromSplice(this.ctx, this.ini, this.tgt, 8));
    return this.#apply(IPPROTO_TCP);
  }

  #apply(protocol: number): string {
    return NAMES[this.policy.apply(this.ctx, protocol, this.ini, this.tgt)]!;
  }

  /** The flow that was allowed begins. @returns its label */
  begin(ini = this.ini): number {
    const { table } = this.ctx, i = table.alloc();
    table.initiate(i, ini);
    table.target(i, this.tgt);
    table.setType(i, FlowType.UDP);
    admitted(this.ctx, i, ini);
    table.activate(i);
    return table.labels[i];
  }

  get target(): string {
    return `${formatAddress(this.tgt.words, SIDE_EADDR)} ${this.tgt.eport}`;
  }
}

Deno.test("a program is asked about what no rule is about, and told everything", () => {
  const asked = new Asked(() => "allow", ["-203.0.113.0/24", "+198.51.100.9"]);
  assertEquals(asked.tap("203.0.113.1", 80), "REJECT");
  assertEquals(asked.tap("198.51.100.9", 80), "ALLOW");
  assertEquals(asked.questions, []);
  assertEquals([asked.tap("198.51.100.7", 80), asked.policy.rule], ["ALLOW", BY_PROGRAM]);
  const question = {
    protocol: "tcp",
    via: "tap",
    source: "192.0.2.2",
    sourcePort: 4000,
    address: "198.51.100.7",
    port: 80,
    namedAddress: "198.51.100.7",
    namedPort: 80,
    names: [],
    resolver: false,
  } as const;
  assertEquals(asked.questions, [question]);
  asked.tap("192.0.2.1", 81, IPPROTO_UDP);
  asked.tap("2001:db8:9::1", 5, IPPROTO_ICMPV6, 5);
  asked.tap("198.51.100.7", 5, IPPROTO_ICMP, 5);
  asked.spliced();
  const host = { namedAddress: "192.0.2.1", address: "127.0.0.1", port: 81, namedPort: 81 };
  const loopback = { source: "127.0.0.1", namedAddress: "127.0.0.1", address: "127.0.0.1" };
  const ping = { protocol: "icmp", port: 0, namedPort: 0, sourcePort: 5 } as const;
  const v6 = { source: "2001:db8::2", address: "2001:db8:9::1", namedAddress: "2001:db8:9::1" };
  assertEquals(asked.questions.slice(1), [
    { ...question, ...host, protocol: "udp" },
    { ...question, ...ping, ...v6 },
    { ...question, ...ping },
    { ...question, ...loopback, via: "namespace", port: 8, namedPort: 7 },
  ]);
});

Deno.test("a program is told which flows lead to a resolver, and the names that it gave", () => {
  const asked = new Asked(() => "drop"), { policy } = asked;
  asked.tap(RESOLVER, 53);
  asked.tap(RESOLVER, 53, IPPROTO_UDP);
  asked.tap(RESOLVER, 54, IPPROTO_UDP);
  asked.tap("198.51.100.54", 53, IPPROTO_UDP);
  asked.tap(RESOLVER, 53, IPPROTO_ICMP);
  assertEquals(asked.questions.map(({ resolver }) => resolver), [true, true, false, false, false]);
  asked.tap(RESOLVER, 53, IPPROTO_UDP);
  assert(policy.teaches(IPPROTO_UDP, asked.ini, asked.tgt));
  assertEquals(policy.unresolvable, false);
});

Deno.test("rules with names let the resolver be asked before the program", () => {
  const asked = new Asked(() => "drop", ["+a.test"]);
  assertEquals([asked.tap(RESOLVER, 53), asked.policy.rule], ["ALLOW", AS_RESOLVER]);
  assertEquals(asked.questions, []);
});

Deno.test("each verdict of a program is taken, and a denial holds for a while", () => {
  for (const verdict of ["reject", "prohibit", "drop"]) {
    const asked = new Asked(() => verdict);
    for (let k = 0; k < 3; k++) {
      assertEquals(asked.tap("198.51.100.7", 80), verdict.toUpperCase());
    }
    assertEquals(asked.questions.length, 1);
    asked.tap("198.51.100.7", 80, IPPROTO_TCP, 4001);
    asked.tap("198.51.100.7", 80, IPPROTO_UDP);
    assertEquals(asked.questions.length, 3);
    asked.ctx.nowMs += KEPT_MS;
    asked.tap("198.51.100.7", 80);
    assertEquals(asked.questions.length, 4);
  }
  const asked = new Asked(() => "allow");
  for (let k = 0; k < 3; k++) {
    assertEquals(asked.tap("198.51.100.7", 80), "ALLOW");
    asked.begin();
  }
  assertEquals(asked.questions.length, 3, "each is a flow of its own");
});

Deno.test("what allows a flow that cannot begin is kept for it, for a while and once", () => {
  const asked = new Asked(({ port }) => ({
    verdict: "allow",
    target: "127.0.0.1",
    label: `${port}`,
  }));
  const { ctx, policy } = asked;
  for (let k = 0; k < 9; k++) {
    assertEquals([asked.tap("198.51.100.7", 80), asked.target], ["ALLOW", "127.0.0.1 80"]);
  }
  assertEquals(asked.questions.length, 1);
  asked.tap("198.51.100.7", 81);
  asked.tap("198.51.100.7", 80, IPPROTO_UDP);
  asked.tap("198.51.100.7", 80, IPPROTO_TCP, 4001);
  assertEquals(asked.questions.length, 4, "nobody else takes it");
  asked.begin(); // the one from port 4001
  asked.tap("198.51.100.7", 80, IPPROTO_TCP, 4001);
  assertEquals(asked.questions.length, 5);
  asked.tap("198.51.100.7", 80);
  assertEquals([asked.questions.length, policy.label], [5, "80"]);
  ctx.nowMs += KEPT_MS;
  asked.tap("198.51.100.7", 80);
  assertEquals(asked.questions.length, 6);
});

Deno.test("a flow that nobody was asked about uses up no answer", () => {
  const asked = new Asked(() => "allow", ["+198.51.100.9"]);
  const fromHost = new FlowSide();
  fromHost.pif = Pif.HOST;
  asked.tap("198.51.100.7", 80);
  asked.begin(fromHost);
  assertEquals([asked.tap("198.51.100.9", 80), asked.begin()], ["ALLOW", 0]); // by a rule
  asked.tap("198.51.100.7", 80);
  assertEquals(asked.questions.length, 1);
});

Deno.test("an answer that came later is kept for a flow that cannot begin, too", () => {
  const asked = new Asked(() => null), { ctx, policy } = asked;
  asked.tap("198.51.100.7", 80);
  policy.answered(asked.ids[0]!, "allow");
  policy.deciding!.questions.nextReady(ctx.nowMs);
  for (let k = 0; k < 3; k++) assertEquals(asked.tap("198.51.100.7", 80), "ALLOW");
  asked.begin();
  assertEquals([asked.tap("198.51.100.7", 80), asked.ids.length], ["HOLD", 2]);
});

Deno.test("a program redirects within a family, one flow at a time", () => {
  const asked = new Asked(({ port }) =>
    port === 80 ? { verdict: "allow", target: "127.0.0.1:8080" } : { verdict: "allow" }
  );
  assertEquals([asked.tap("198.51.100.7", 80), asked.target], ["ALLOW", "127.0.0.1 8080"]);
  assertEquals([asked.tap("198.51.100.7", 81), asked.target], ["ALLOW", "198.51.100.7 81"]);
  assertEquals([asked.tap("198.51.100.7", 80), asked.target], ["ALLOW", "127.0.0.1 8080"]);
  assertEquals([asked.tap("2001:db8:9::1", 80), asked.target], ["REJECT", "2001:db8:9::1 80"]);
  assertEquals(asked.tap("2001:db8:9::1", 80), "REJECT");
  assertEquals(asked.questions.length, 3);
  const host = new Asked(() => ({ verdict: "allow", target: "127.0.0.1:8080" }));
  assertEquals([host.tap("198.51.100.7", 5, IPPROTO_ICMP, 5), host.target], [
    "ALLOW",
    "127.0.0.1 5",
  ]);
  assertEquals([host.spliced(), host.target], ["ALLOW", "127.0.0.1 8080"]);
});

Deno.test("a program sends a flow to another port of the same address", () => {
  const asked = new Asked(() => ({ verdict: "allow", target: ":8080" }));
  assertEquals([asked.tap("198.51.100.7", 80), asked.target], ["ALLOW", "198.51.100.7 8080"]);
  assertEquals([asked.tap("2001:db8:9::1", 80), asked.target], ["ALLOW", "2001:db8:9::1 8080"]);
  const ping = asked.tap("198.51.100.7", 5, IPPROTO_ICMP, 5);
  assertEquals([ping, asked.target], ["ALLOW", "198.51.100.7 5"]);
});

Deno.test("a label is for the flow that it was given to, and no other", () => {
  const asked = new Asked(({ port }) => ({ verdict: "allow", label: port === 80 ? "web" : "" }), [
    "+198.51.100.9",
  ]);
  const { policy, ctx: { table } } = asked;
  asked.tap("198.51.100.7", 80);
  assertEquals([policy.label, asked.begin()], ["web", table.labelId("web")]);
  const fromHost = new FlowSide();
  fromHost.pif = Pif.HOST;
  assertEquals(asked.begin(fromHost), 0);
  asked.tap("198.51.100.7", 81);
  assertEquals(asked.begin(), 0);
  asked.tap("198.51.100.7", 80);
  asked.tap("198.51.100.9", 80);
  assertEquals([policy.label, asked.begin()], ["", 0]);
});

Deno.test("labels of flows that do not begin take no room", () => {
  const verdicts = ["reject", "prohibit", "drop", "allow"];
  const asked = new Asked(({ port }) => ({ verdict: verdicts[port & 3], label: `label ${port}` }));
  const { table } = asked.ctx;
  for (let port = 1; port <= 3000; port++) asked.tap("198.51.100.7", port); // none of them begins
  asked.tap("2001:db8:9::1", 3); // allowed, and begins
  assertEquals([asked.policy.label, asked.begin()], ["label 3", 1]);
  assertEquals(table.labelId("label 7"), 2);
});

Deno.test("flows begin without a label when there are too many, which is said once", () => {
  const asked = new Asked(({ port }) => ({ verdict: "allow", label: `label ${port}` }));
  const { table } = asked.ctx;
  while (table.labelId(`other ${table.labelId("last")} ${Math.random()}`) > 0);
  const said = logged(() => {
    for (const port of [1, 2, 3]) {
      assertEquals(asked.tap("198.51.100.7", port), "ALLOW");
      assertEquals(asked.begin(), 0);
    }
  });
  assertEquals(said, ["Policy: no room for label label 1: only known ones are given"]);
});

Deno.test("a program that throws or talks nonsense has rejected the flow", () => {
  const nonsense = [undefined, "yes", 7, {}, Promise.resolve("allow"), { verdict: "allow", x: 1 }];
  const throws = [() => {
    throw new Error("broken\nhere");
  }, () => {
    throw null;
  }, () => {
    throw { toString: () => 7 + Symbol().toString() };
  }, () => ({
    get verdict() {
      throw new Error("got");
    },
  })];
  for (const decide of [...nonsense.map((answer) => () => answer), ...throws]) {
    const asked = new Asked(decide);
    assertEquals([asked.tap("198.51.100.7", 80), asked.tap("198.51.100.7", 80)], [
      "REJECT",
      "REJECT",
    ]);
    assertEquals(asked.questions.length, 1);
  }
});

Deno.test("a flow is held until it is answered, and takes the answer once", () => {
  const asked = new Asked(() => null), { policy } = asked;
  for (let k = 0; k < 3; k++) assertEquals(asked.tap("198.51.100.7", 80), "HOLD");
  assertEquals(asked.tap("198.51.100.8", 80), "HOLD");
  assertEquals(asked.questions.length, 2);
  const [id, other] = asked.ids as [number, number];
  assertEquals(policy.answered(id, { verdict: "allow", target: "127.0.0.1:9", label: "x" }), true);
  assertEquals(policy.answered(id, "drop"), false);
  assertEquals(asked.tap("198.51.100.8", 80), "HOLD");
  assertEquals([asked.tap("198.51.100.7", 80), asked.target], ["ALLOW", "127.0.0.1 9"]);
  assertEquals(policy.label, "x");
  asked.begin();
  assertEquals([asked.tap("198.51.100.7", 80), policy.label], ["HOLD", ""], "asked again");
  assertEquals([policy.answered(other, "prohibit"), asked.tap("198.51.100.8", 80)], [
    true,
    "PROHIBIT",
  ]);
  assertEquals(asked.questions.length, 3);
  assertEquals(policy.answered(12345, "allow"), false);
  assertEquals(new Policy([]).answered(0, "allow"), false);
});

Deno.test("a wrong answer that comes later is logged with its flow", () => {
  const asked = new Asked(() => null);
  asked.tap("198.51.100.7", 80);
  asked.tap("198.51.100.8", 81);
  const said = logged(() => asked.policy.answered(asked.ids[0]!, "maybe" as FlowAnswer));
  assertEquals(said.length, 1);
  assertMatch(said[0]!, /^Policy: flow to 198\.51\.100\.7 port 80 rejected: .*"maybe"/);
});

Deno.test("a wrong answer that comes later rejects the flow", () => {
  for (const answer of [null, "maybe", { verdict: "allow", target: "2001:db8::1" }]) {
    const asked = new Asked(() => null);
    asked.tap("198.51.100.7", 80);
    assertEquals(asked.policy.answered(asked.ids[0]!, answer as FlowAnswer), true);
    for (let k = 0; k < 2; k++) assertEquals(asked.tap("198.51.100.7", 80), "REJECT");
    assertEquals(asked.questions.length, 1);
  }
});

Deno.test("an answer that a program gives within the question counts", () => {
  let policy: Policy | null = null;
  const asked = new Asked((_flow, id) => {
    assertEquals(policy!.answered(id, "prohibit"), true);
    return null;
  });
  policy = asked.policy;
  assertEquals(asked.tap("198.51.100.7", 80), "PROHIBIT");
  const both = new Asked((_flow, id) => {
    policy!.answered(id, "prohibit");
    return "allow";
  });
  policy = both.policy;
  assertEquals(both.tap("198.51.100.7", 80), "PROHIBIT", "the first one");
});

Deno.test("what is not answered in time is asked again; too many at a time are dropped", () => {
  const asked = new Asked(() => null), { ctx, policy } = asked;
  assertEquals(asked.tap("198.51.100.7", 80), "HOLD");
  ctx.nowMs += ANSWER_MS;
  assertEquals([asked.tap("198.51.100.7", 80), asked.ids.length], ["HOLD", 2]);
  assertEquals(policy.answered(asked.ids[0]!, "allow"), false);
  for (let port = 2; port <= MAX_QUESTIONS; port++) {
    assertEquals(asked.tap("198.51.100.7", 80, IPPROTO_UDP, port), "HOLD");
  }
  assertEquals(asked.tap("198.51.100.7", 80, IPPROTO_UDP, 9999), "DROP");
  assertEquals(asked.ids.length, MAX_QUESTIONS + 1);
  policy.answered(asked.ids[5]!, "reject");
  ctx.nowMs++;
  assertEquals(asked.tap("198.51.100.7", 80, IPPROTO_UDP, 9999), "HOLD");
});
